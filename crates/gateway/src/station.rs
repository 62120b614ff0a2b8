//! Starting a gateway and keeping its view fresh.

use crate::{Config, Error, journey::Gateway, platform_lb::PlatformBalancer, session::Sessions, view::View};
use bastide_balancer::Rotation;
use bastide_bus::{Bus, VerifyKey};
use bastide_identity::{SigningKey, TokenCache, seal::SealKey};
use bastide_proxy::{Limits, Listener, Pool, PoolLimits, accept_tls, serve};
use bastide_types::Role;
use std::{fs, path::Path, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Runs a gateway until `stop`, then drains. `ready` is called once, when it serves with a Snapshot.
pub async fn run(
    config: Config,
    ready: Box<dyn FnOnce() + Send>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let verify_key = VerifyKey::from_base64url(read_text(&config.snapshot_key_file)?.trim())?;
    let assertion_key = SigningKey::from_pkcs8(&read(&config.assertion_key_file)?)
        .map_err(|error| unusable(&config.assertion_key_file, error))?;
    let seal = SealKey::new(&read(&config.cookie_key_file)?)
        .map_err(|error| unusable(&config.cookie_key_file, error))?;
    let tls = config.node.server_config(&[Role::Edge], &[b"h2"])?;
    let bus = Bus::connect(&config.bus).await?;
    let view = follow(&bus, &config.state_dir, verify_key, &stop);
    let gateway = Arc::new(Gateway {
        zone: config.zone,
        view: view.clone(),
        pool: Pool::new(PoolLimits::default()),
        platform: PlatformBalancer::new(&config.node, &config.platform)?,
        turns: Rotation::new(),
        tokens: TokenCache::new(config.tokens_max),
        sessions: Sessions::new(seal),
        assertion_key,
        deadline: Duration::from_millis(config.deadline_ms),
        platform_deadline: Duration::from_millis(config.platform_deadline_ms),
    });
    let tcp = bastide_proxy::reuse_port_listener(config.listen).map_err(Error::Listen)?;
    let listener = Listener {
        tcp,
        tls: Some(accept_tls(tls)),
        limits: Limits { streams_max: 1000, ..Limits::default() },
    };
    let announce = announce(view, ready, stop.clone());
    let (served, ()) = tokio::join!(serve(listener, gateway, stop), announce);
    bus.close().await;
    served.map_err(Error::Listen)
}

/// The newest Snapshot joined with the newest facts, made anew whenever either changes.
fn follow(
    bus: &Bus,
    dir: &Path,
    key: VerifyKey,
    stop: &CancellationToken,
) -> watch::Receiver<Option<Arc<View>>> {
    let mut snapshots = bastide_bus::snapshot::follow(bus, dir, key, |_| Ok(()), stop.clone());
    let mut facts = bastide_bus::facts::follow(bus, dir, stop.clone());
    let join = |snapshots: &watch::Receiver<Option<Arc<bastide_types::Snapshot>>>,
                facts: &watch::Receiver<Arc<bastide_bus::facts::Facts>>| {
        let snapshot = snapshots.borrow().clone()?;
        Some(Arc::new(View::new(snapshot, &facts.borrow())))
    };
    let (sender, receiver) = watch::channel(join(&snapshots, &facts));
    // Its owner is the follower: it ends when both sources have ended.
    tokio::spawn(async move {
        loop {
            let changed = tokio::select! {
                changed = snapshots.changed() => changed,
                changed = facts.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            snapshots.mark_unchanged();
            facts.mark_unchanged();
            sender.send_replace(join(&snapshots, &facts));
        }
    });
    receiver
}

async fn announce(
    mut view: watch::Receiver<Option<Arc<View>>>,
    ready: Box<dyn FnOnce() + Send>,
    stop: CancellationToken,
) {
    tokio::select! {
        there = view.wait_for(Option::is_some) => {
            if there.is_ok() {
                ready();
            }
        }
        () = stop.cancelled() => {}
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| unusable(path, error))
}

fn read_text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::File { path: path.to_owned(), source: Box::new(source) }
}
