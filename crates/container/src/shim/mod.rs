//! The shim: the small process that every replica has. One thread, no runtime, no locks: the container
//! engine forks.
//!
//! It makes the container, says so to who started it, then waits: for output to keep, for orders on its
//! control socket, and for the end, which it writes down. It never talks to a network.

mod control;
mod engine;
mod root;
mod wait;

use crate::{
    Container, Result,
    capture::Capture,
    cgroup::Cgroups,
    error::Error,
    life::{self, Ended, How, Life},
};
use control::Control;
pub(crate) use control::{Order, SOCKET};
use std::{fs::File, path::Path, process::ExitCode, time::Instant};

/// The shim's `main`; the executable calls it before it makes any thread. Standard input is the first
/// control connection.
pub fn main(config: &Path) -> ExitCode {
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shim: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Path) -> Result<()> {
    let text = std::fs::read(config).map_err(Error::file(config))?;
    let container: Container =
        serde_json::from_slice(&text).map_err(|error| Error::Invalid(error.to_string()))?;
    drop(text);
    container.check()?;
    std::env::set_current_dir(&container.state_dir).map_err(Error::file(&container.state_dir))?;
    // Held as long as the shim lives: whoever can take it knows that there is no shim any more.
    let lock = File::create("lock").map_err(Error::file("lock"))?;
    lock.try_lock().map_err(|_| Error::Invalid("it runs already".into()))?;
    let mut control = Control::open().map_err(Error::file("control.sock"))?;
    let groups = Cgroups::of(&container.id);
    let how = match live(&container, &mut control) {
        Ok(how) => how,
        Err(Error::Start(why)) => How::NotStarted(why),
        Err(error) => How::NotStarted(chain(&error)),
    };
    // Process 1 is gone and with it all the others; this is for a container that was never finished.
    let killed = groups.kill();
    let ended = Ended { how, oom_kills: groups.oom_kills(), memory_bytes: container.limits.memory_bytes };
    let removed = groups.remove();
    let life = Life::Ended(ended);
    life::write(Path::new("."), &life).map_err(Error::file(life::LIFE))?;
    control.tell(&life);
    killed.and(removed)
}

/// From the first mount to the app's end.
fn live(container: &Container, control: &mut Control) -> Result<How> {
    let mut log =
        Capture::open(container.log.clone(), Instant::now()).map_err(Error::file(&container.log.file))?;
    // What a dead shim of the same id left would count against the limits of this one.
    let groups = Cgroups::of(&container.id);
    groups.kill()?;
    groups.remove()?;
    root::prepare(container)?;
    let mut started = engine::start(container)?;
    let life = Life::Running { pid: started.pid.as_raw() };
    life::write(Path::new("."), &life).map_err(Error::file(life::LIFE))?;
    control.tell(&life);
    wait::wait(&mut started, &mut log, control, &groups)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
