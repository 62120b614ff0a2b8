//! `bastide upgrade`: a running installation uses the executable that was put in the place of its own.
//!
//! The supervisor stays as it is and renews its processes one after the other. Gateways come first: they refuse claims
//! that they do not know, so that they must know those of the next Platform before it makes any. The edge comes last: the
//! next edge takes over the sockets of the one that serves. It stops at the first that does not get ready; of everything
//! that a request needs there are two, or the former one serves on.

use crate::{layout::Layout, supervisor::Renewal};
use anyhow::{Context, Result, bail};
use bastide_proxy::handover;
use serde::{Deserialize, Serialize};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    net::UnixStream,
    process::Command,
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Longest time to say its version: a program that does not is none of ours.
const VERSION_LIMIT: Duration = Duration::from_mins(1);
/// Longest time for one process to drain and to serve again.
const RENEWAL_LIMIT: Duration = Duration::from_mins(10);
/// Longest silence of the other side where it has nothing to wait for.
const SILENCE: Duration = Duration::from_secs(30);

/// How one process is renewed.
pub struct Switch {
    /// Its name.
    pub process: String,
    /// Where to ask.
    pub renewals: mpsc::Sender<Renewal>,
}

/// What an operator asks of the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Names of processes; none means all.
    only: Vec<String>,
}

/// What the supervisor says to that, one after the other. Each is acknowledged, as sides take turns.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    /// The executable starts; this is its version.
    Version(String),
    /// This process serves with the executable.
    Renewed(String),
    /// All do that were asked for.
    Done,
    /// It went no further.
    Failed(String),
}

/// Asks the supervisor of this installation and tells what it says.
///
/// # Errors
/// When nothing runs there, or the upgrade went no further.
pub async fn ask(layout: &Layout, only: Vec<String>) -> Result<()> {
    let supervisor = handover::connect(&layout.upgrade_door()).await;
    let supervisor = supervisor.with_context(|| format!("nothing runs in {}", layout.root().display()))?;
    if !handover::same_user(&supervisor) {
        bail!("another user listens at {}", layout.upgrade_door().display());
    }
    handover::send(&supervisor, &serde_json::to_vec(&Wish { only })?, &[]).await?;
    loop {
        let (text, _) = handover::receive(&supervisor).await.context("the supervisor is gone")?;
        match serde_json::from_slice(&text).context("the supervisor is of another version")? {
            Word::Version(version) => println!("The executable is {version}."),
            Word::Renewed(process) => println!("{process} uses it."),
            Word::Done => return Ok(()),
            Word::Failed(why) => bail!(why),
        }
        handover::send(&supervisor, b"", &[]).await?;
    }
}

/// Upgrades whenever an operator asks for it, one at a time.
///
/// # Errors
/// When the door cannot be opened.
pub async fn serve(layout: &Layout, executable: &Path, switches: &[Switch]) -> Result<()> {
    let door = layout.upgrade_door();
    let door = handover::listen(&door).with_context(|| format!("cannot listen at {}", door.display()))?;
    loop {
        let operator = match door.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot hear an operator");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        if !handover::same_user(&operator) {
            tracing::warn!("another user asked for an upgrade");
            continue;
        }
        let outcome = upgrade(layout, executable, switches, &operator).await;
        let word = match outcome {
            Ok(()) => Word::Done,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the upgrade went no further");
                Word::Failed(format!("{error:#}"))
            }
        };
        // The last word; whoever asked may not listen any more.
        let _ = handover::send(&operator, &serde_json::to_vec(&word)?, &[]).await;
    }
}

async fn upgrade(
    layout: &Layout,
    executable: &Path,
    switches: &[Switch],
    operator: &UnixStream,
) -> Result<()> {
    let (text, _) = timeout(SILENCE, handover::receive(operator)).await.context("no wish came")??;
    let wish: Wish = serde_json::from_slice(&text).context("the wish cannot be read")?;
    let wanted = chosen(&wish, switches)?;
    let version = version(executable).await;
    tell(operator, &Word::Version(version.context("nothing was changed")?)).await;
    for switch in wanted {
        let name = &switch.process;
        renew(switch).await.with_context(|| {
            let log = layout.log(name);
            format!("{name} does not get ready (see {}); what follows it was left as it was", log.display())
        })?;
        tell(operator, &Word::Renewed(name.clone())).await;
    }
    Ok(())
}

fn chosen<'s>(wish: &Wish, switches: &'s [Switch]) -> Result<Vec<&'s Switch>> {
    let names: Vec<_> = switches.iter().map(|switch| switch.process.as_str()).collect();
    if let Some(unknown) = wish.only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no process `{unknown}`; there are {}", names.join(", "));
    }
    let wanted = |switch: &&Switch| wish.only.is_empty() || wish.only.contains(&switch.process);
    let (gateways, others): (Vec<_>, Vec<_>) =
        switches.iter().filter(wanted).partition(|switch| switch.process.starts_with("gateway"));
    Ok([gateways, others].concat())
}

/// What the executable says of itself. One that cannot even do that replaces nothing.
async fn version(executable: &Path) -> Result<String> {
    let mut command = Command::new(executable);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let failed = || format!("{} does not start", executable.display());
    let output = timeout(VERSION_LIMIT, command.output()).await.with_context(failed)?.with_context(failed)?;
    if !output.status.success() {
        bail!("{}: {}", failed(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn renew(switch: &Switch) -> Result<()> {
    let (answer, outcome) = oneshot::channel();
    let asked = async {
        switch.renewals.send(answer).await.ok().context("it is not looked after")?;
        outcome.await.context("everything is being stopped")?.map_err(anyhow::Error::msg)
    };
    timeout(RENEWAL_LIMIT, asked).await.context("it takes too long")?
}

/// The upgrade goes on when nobody listens.
async fn tell(operator: &UnixStream, word: &Word) {
    let told = async {
        let text = serde_json::to_vec(word).map_err(std::io::Error::other)?;
        handover::send(operator, &text, &[]).await?;
        handover::receive(operator).await.map(drop)
    };
    let _ = timeout(SILENCE, told).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_come_before_the_platform_whose_tokens_they_read() {
        let switch = |name: &str| Switch { process: name.into(), renewals: mpsc::channel(1).0 };
        let all = ["platform-1", "runtime", "gateway-a", "gateway-b", "edge"].map(switch);
        let order = |only: &[&str]| {
            let wish = Wish { only: only.iter().map(ToString::to_string).collect() };
            let chosen = chosen(&wish, &all).map_err(|error| error.to_string())?;
            Ok::<_, String>(chosen.iter().map(|switch| switch.process.as_str()).collect::<Vec<_>>())
        };
        assert_eq!(order(&[]).unwrap(), ["gateway-a", "gateway-b", "platform-1", "runtime", "edge"]);
        assert_eq!(order(&["edge", "gateway-b"]).unwrap(), ["gateway-b", "edge"]);
        assert!(order(&["hedge"]).unwrap_err().contains("no process `hedge`"));
    }
}
