//! `bastide down`: asks the supervisor to drain and waits until it is gone.

use crate::{files, layout::Layout, supervisor::Identity};
use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// How long a drain may take before `down` gives up waiting.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stops what runs in this data directory; with `purge` the data goes too.
pub fn run(layout: &Layout, purge: bool, yes: bool) -> Result<()> {
    match files::read_json::<Identity>(&layout.supervisor())?.filter(Identity::is_alive) {
        Some(supervisor) => {
            supervisor.signal(Signal::SIGTERM)?;
            wait(&supervisor)?;
            println!("Bastide is down.");
        }
        None => println!("Nothing runs in {}.", layout.root().display()),
    }
    if purge {
        // Only what `up` made is removed: a mistyped --data must not cost somebody else's files.
        if !layout.ports().exists() {
            bail!("{} holds no Bastide data; nothing was removed", layout.root().display());
        }
        if !yes {
            bail!("--purge removes everything in {}; say --yes too", layout.root().display());
        }
        std::fs::remove_dir_all(layout.root())?;
        println!("Removed {}.", layout.root().display());
    }
    Ok(())
}

fn wait(supervisor: &Identity) -> Result<()> {
    let begun = Instant::now();
    while supervisor.is_alive() {
        if begun.elapsed() > PATIENCE {
            bail!("process {} still drains after {} s", supervisor.pid, PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
