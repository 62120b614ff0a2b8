//! `bastide down`: asks the supervisor to drain and waits until it is gone.

use crate::{
    files, isolation,
    layout::Layout,
    supervisor::{self, Identity},
};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::{
    fs::File,
    time::{Duration, Instant},
};

/// How long a drain may take before `down` gives up waiting.
const PATIENCE: Duration = Duration::from_mins(1);

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
    clear(layout)?;
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

/// Takes away what a killed installation left: roles, containers, networks, cgroups. After an orderly end there is nothing.
fn clear(layout: &Layout) -> Result<()> {
    if !layout.run().exists() {
        return Ok(());
    }
    let lock = File::options().create(true).truncate(false).write(true).open(layout.lock())?;
    if lock.try_lock().is_err() {
        // Somebody has started it again meanwhile.
        return Ok(());
    }
    supervisor::end_what_is_left(layout)?;
    if !isolation::may_clear(&layout.runtime()) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(bastide_runtime::driver::clear(&layout.runtime()))
        .context("something of the apps cannot be removed")
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
