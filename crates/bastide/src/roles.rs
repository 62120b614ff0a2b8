//! `bastide run-role <role> --config <file>`: one process of an installation.

use crate::files;
use anyhow::{Context, Result};
use bastide_runtime::privileges::{self, Capabilities};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// A role as the supervisor starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RoleName {
    /// The CDN.
    Edge,
    /// Identity check and balancing of one zone.
    Gateway,
    /// The Platform's services.
    Platform,
    /// The stage agents of this machine.
    Runtime,
    /// The way out of apps, by name.
    Egress,
}

/// Runs a role until it is told to stop.
pub fn run(role: RoleName, config: &Path, ready: Option<PathBuf>, supervised: bool) -> Result<()> {
    privileges::spare_when_memory_runs_out();
    // Before there is a second thread: each has its own.
    if role != RoleName::Runtime {
        privileges::give_up(needed(role, config)?).context("cannot give up what root may do")?;
    }
    if supervised {
        // The roles end when their supervisor does, however it ends.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
    }
    let mark = mark(ready);
    let stop = CancellationToken::new();
    match role {
        RoleName::Edge => {
            let config = read(config)?;
            let _signals = signals_in_background(stop.clone())?;
            bastide_edge::run(config, mark, stop).context("edge")
        }
        RoleName::Gateway => {
            let config = read(config)?;
            block_on(stop.clone(), bastide_gateway::run(config, mark, stop))?.context("gateway")
        }
        RoleName::Platform => {
            let config = read(config)?;
            block_on(stop.clone(), bastide_platform::run(config, bastide_portal::router, mark, stop))?
                .context("platform")
        }
        RoleName::Runtime => {
            let config = read(config)?;
            block_on(stop.clone(), bastide_runtime::run(config, mark, stop))?.context("runtime")
        }
        RoleName::Egress => {
            let config = read(config)?;
            block_on(stop.clone(), bastide_egress::run(config, mark, stop))?.context("egress")
        }
    }
}

/// What a role needs of what root may do. Only the edge, and only for ports that are root's.
fn needed(role: RoleName, config: &Path) -> Result<Capabilities> {
    if role == RoleName::Edge {
        let config: bastide_edge::Config = read(config)?;
        if config.https.port() < 1024 || config.http.port() < 1024 {
            return Ok(Capabilities::NET_BIND_SERVICE);
        }
    }
    Ok(Capabilities::empty())
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    files::read_json(path)?.with_context(|| format!("{} is missing", path.display()))
}

fn mark(path: Option<PathBuf>) -> Box<dyn FnOnce() + Send> {
    Box::new(move || {
        tracing::info!("ready");
        if let Some(path) = path
            && let Err(error) = files::write_private(&path, std::process::id().to_string().as_bytes())
        {
            tracing::error!(error = format!("{error:#}"), "cannot write the ready mark");
        }
    })
}

fn block_on<T>(stop: CancellationToken, work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let signals = tokio::spawn(cancel_on_signal(stop));
        let outcome = work.await;
        signals.abort();
        outcome
    });
    // A blocking call that hangs must not keep a role from ending.
    runtime.shutdown_timeout(BLOCKING_LIMIT);
    Ok(outcome)
}

/// How long blocking calls may still take when the work of a role is over.
const BLOCKING_LIMIT: Duration = Duration::from_secs(5);

/// For a role that starts its own threads: a thread that waits for signals.
fn signals_in_background(stop: CancellationToken) -> Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on(cancel_on_signal(stop)))?)
}

/// Cancels `stop` at SIGTERM or SIGINT; also returns when somebody else did.
pub async fn cancel_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.cancelled() => {}
    }
    stop.cancel();
}
