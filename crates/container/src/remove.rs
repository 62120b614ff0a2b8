//! Removing what is left of a container, however it came to its end.

use crate::{
    Error, Result,
    cgroup::Cgroups,
    handle::{lost, read_config},
};
use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, Instant},
};

/// Longest wait for a shim to see that its container was killed.
const SHIM_LIMIT: Duration = Duration::from_secs(15);

/// Kills what runs of the container in `state_dir`, removes its cgroups, then the directory.
///
/// Its mounts go with its shim: they are in no other mount namespace. Idempotent.
///
/// # Errors
/// [`Error::Undead`] when something cannot be killed; the directory stays then.
pub async fn remove(state_dir: &Path) -> Result<()> {
    let dir = state_dir.to_owned();
    tokio::task::spawn_blocking(move || remove_now(&dir))
        .await
        .map_err(|error| Error::Shim(io::Error::other(error)))?
}

fn remove_now(dir: &Path) -> Result<()> {
    if let Some(container) = read_config(dir)? {
        let groups = Cgroups::of(&container.id);
        let begun = Instant::now();
        let lock = File::open(dir.join("lock"));
        loop {
            groups.kill()?;
            match &lock {
                // The shim holds it while it lives.
                Ok(lock) if lock.try_lock().is_err() => {}
                _ => break,
            }
            if begun.elapsed() > SHIM_LIMIT {
                return Err(Error::Undead(format!("the shim of {}", container.id)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        lost(&container)?;
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(dir)(error)),
        _ => Ok(()),
    }
}
