//! How a container is, and how it ended. The end is kept on disk, so that an agent that was away learns it.

use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    io::{self, Write},
    path::Path,
};

/// Name of the file in the state directory.
pub(crate) const LIFE: &str = "life.json";

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// Its app runs.
    Running {
        /// Process id of the app on the host.
        pid: i32,
    },
    /// It ended.
    Ended(Ended),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// In which way.
    pub how: How,
    /// Processes that the kernel killed because the memory limit was reached.
    pub oom_kills: u64,
    /// The memory limit, for people.
    pub memory_bytes: u64,
}

/// The way in which it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It never ran; why.
    NotStarted(String),
    /// Its shim was killed, and it with it.
    Lost,
}

impl Ended {
    /// Whether the app was killed for want of memory.
    pub fn out_of_memory(&self) -> bool {
        self.oom_kills > 0 && !matches!(self.how, How::Code(0))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Code(code) => write!(f, "it ended with exit code {code}")?,
            How::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(signal) => write!(f, "it was ended by {signal}")?,
                Err(_) => write!(f, "it was ended by signal {signal}")?,
            },
            How::NotStarted(why) => write!(f, "it did not start: {why}")?,
            How::Lost => write!(f, "its shim was killed, and the app with it")?,
        }
        if self.out_of_memory() {
            write!(f, " (out of memory: its limit is {} MiB)", self.memory_bytes / (1024 * 1024))?;
        }
        Ok(())
    }
}

/// What was written last in a state directory, if anything was.
pub(crate) fn read(state_dir: &Path) -> Option<Life> {
    fs::read(state_dir.join(LIFE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

/// Writes it whole or not at all.
pub(crate) fn write(state_dir: &Path, life: &Life) -> io::Result<()> {
    let beside = state_dir.join("life.new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec(life)?)?;
    fs::rename(&beside, state_dir.join(LIFE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_says_why_in_words() {
        let ended = |how, oom_kills| Ended { how, oom_kills, memory_bytes: 64 * 1024 * 1024 }.to_string();
        assert_eq!(ended(How::Code(3), 0), "it ended with exit code 3");
        assert_eq!(ended(How::Signal(9), 1), "it was ended by SIGKILL (out of memory: its limit is 64 MiB)");
        assert_eq!(ended(How::Code(0), 1), "it ended with exit code 0");
        assert_eq!(ended(How::NotStarted("no such file".into()), 0), "it did not start: no such file");
    }

    #[test]
    fn an_end_outlives_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let life = Life::Ended(Ended { how: How::Code(7), oom_kills: 0, memory_bytes: 1 });
        write(dir.path(), &life).unwrap();
        assert_eq!(read(dir.path()), Some(life));
    }
}
