//! Keeps an app's output within bounds: bytes a second, bytes a file, number of files.
//!
//! Over the rate nothing is read, so the pipe fills and the app waits in `write`. Dropping instead would
//! cost a processor that no limit of the app counts.

use crate::Log;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Seconds' worth of output that may come at once.
const BURST_S: u64 = 10;
const PIECE_BYTES: usize = 16 * 1024;

/// The log of one container.
pub(crate) struct Capture {
    log: Log,
    file: File,
    written: u64,
    /// Bytes that may be read now.
    budget: u64,
    refilled: Instant,
    /// Bytes that could not be written, for example because the disk was full.
    lost: u64,
    piece: Box<[u8]>,
}

/// What a read of a pipe found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// Something was there.
    Some,
    /// Nothing now.
    Nothing,
    /// Nobody writes any more.
    Closed,
}

impl Capture {
    pub(crate) fn open(log: Log, now: Instant) -> io::Result<Self> {
        let file = open(&log.file)?;
        let written = file.metadata()?.len();
        let budget = log.bytes_per_second.saturating_mul(BURST_S);
        Ok(Self { log, file, written, budget, refilled: now, lost: 0, piece: vec![0; PIECE_BYTES].into() })
    }

    /// How long to wait until something may be read again; `None`: now.
    pub(crate) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let rate = self.log.bytes_per_second.max(1);
        let since = now.saturating_duration_since(self.refilled);
        let more = u64::try_from(since.as_micros()).unwrap_or(u64::MAX).saturating_mul(rate) / 1_000_000;
        // Only whole pieces count as a refill, so that no fraction is lost by asking often.
        if more > 0 {
            self.budget = self.budget.saturating_add(more).min(rate.saturating_mul(BURST_S));
            self.refilled = now;
        }
        let enough = (PIECE_BYTES as u64).min(rate);
        (self.budget < enough)
            .then(|| Duration::from_micros((enough - self.budget) * 1_000_000 / rate + 1000))
    }

    /// Moves one piece from a pipe that does not block into the log.
    pub(crate) fn take(&mut self, pipe: &mut impl Read) -> Took {
        let most = usize::try_from(self.budget).unwrap_or(PIECE_BYTES).clamp(1, PIECE_BYTES);
        match pipe.read(&mut self.piece[..most]) {
            Ok(0) => Took::Closed,
            Ok(length) => {
                self.budget = self.budget.saturating_sub(length as u64);
                if self.write(length).is_err() {
                    self.lost += length as u64;
                }
                Took::Some
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Took::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Took::Some,
            Err(_) => Took::Closed,
        }
    }

    fn write(&mut self, length: usize) -> io::Result<()> {
        if self.written + length as u64 > self.log.file_bytes_max {
            self.rotate()?;
        }
        if self.lost > 0 {
            writeln!(self.file, "[{} bytes of output could not be kept]", self.lost)?;
            self.lost = 0;
        }
        self.file.write_all(&self.piece[..length])?;
        self.written += length as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |age: u32| -> PathBuf {
            let mut name = self.log.file.clone().into_os_string();
            if age > 0 {
                name.push(format!(".{age}"));
            }
            name.into()
        };
        for age in (1..self.log.files_max).rev() {
            match fs::rename(name(age - 1), name(age)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.log.files_max <= 1 {
            fs::remove_file(&self.log.file)?;
        }
        self.file = open(&self.log.file)?;
        self.written = 0;
        Ok(())
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &tempfile::TempDir) -> Log {
        Log {
            file_bytes_max: 100,
            files_max: 3,
            bytes_per_second: 1000,
            ..Log::new(dir.path().join("app.log"))
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let mut capture = Capture::open(log(&dir), now).unwrap();
        for number in 0..100 {
            let line = format!("line {number:03} of forty bytes, more or less.\n");
            assert_eq!(capture.take(&mut line.as_bytes()), Took::Some);
        }
        let kept = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(kept("app.log").contains("line 099"));
        assert!(!kept("app.log.2").contains("line 099"));
        let all = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.metadata().unwrap().len());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert!(all.sum::<u64>() <= 300);
    }

    #[test]
    fn over_the_rate_it_waits_and_then_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut now = Instant::now();
        let mut capture = Capture::open(log(&dir), now).unwrap();
        let mut flood = io::repeat(b'x');
        let mut taken = 0;
        while capture.pause(now).is_none() {
            capture.take(&mut flood);
            taken += 1;
            assert!(taken < 1000);
        }
        let pause = capture.pause(now).unwrap();
        assert!(pause > Duration::ZERO && pause <= Duration::from_secs(2), "{pause:?}");
        now += pause;
        assert_eq!(capture.pause(now), None);
    }

    #[test]
    fn one_file_is_enough_when_the_operator_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut capture = Capture::open(Log { files_max: 1, ..log(&dir) }, Instant::now()).unwrap();
        for _ in 0..10 {
            capture.take(&mut [b'x'; 60].as_slice());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
