//! The operator's list of breached passwords: a file that may be larger than memory and is replaced while we run.

use bastide_identity::breached::{Kind, List, ListFault};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BreachedFault {
    /// It cannot be opened.
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is no list that can be searched.
    #[error("{0}")]
    List(String),
}

/// The file, and the last good one that lay there.
pub struct Breached {
    path: PathBuf,
    held: Mutex<Held>,
}

struct Held {
    good: Arc<Opened>,
    /// The last file that was looked at, good or bad.
    seen: Stamp,
}

struct Opened {
    file: File,
    bytes: u64,
    kind: Kind,
}

/// What tells two files at one path apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Breached {
    /// Opens the file and checks that it can be searched.
    ///
    /// # Errors
    /// [`BreachedFault`].
    pub fn open(path: &Path) -> Result<Self, BreachedFault> {
        let (good, seen) = open(path)?;
        Ok(Self { path: path.to_owned(), held: Mutex::new(Held { good: Arc::new(good), seen }) })
    }

    /// Whether a password is in the list. Blocks for some dozen reads. A new file is taken up; one that is bad is
    /// reported once, and the last good one counts on.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn contains(&self, password: &str) -> Result<bool, BreachedFault> {
        let list = self.newest();
        let mut list =
            List::new(|at, buffer: &mut [u8]| list.file.read_at(buffer, at), list.bytes, list.kind);
        list.contains(password).map_err(fault)
    }

    fn newest(&self) -> Arc<Opened> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = std::fs::metadata(&self.path).map(|meta| Stamp::of(&meta));
        match now {
            Ok(now) if now == held.seen => {}
            Ok(now) => match open(&self.path) {
                Ok((good, seen)) => *held = Held { good: Arc::new(good), seen },
                Err(error) => {
                    held.seen = now;
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(path = %self.path.display(), error, "the list of breached passwords is bad; the last good one counts on");
                }
            },
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the list of breached passwords is gone; the last good one counts on");
            }
        }
        held.good.clone()
    }
}

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Self {
        let changed = (meta.mtime(), meta.mtime_nsec());
        Self { device: meta.dev(), inode: meta.ino(), bytes: meta.len(), changed }
    }
}

fn open(path: &Path) -> Result<(Opened, Stamp), BreachedFault> {
    let file = File::open(path).map_err(BreachedFault::Open)?;
    let meta = file.metadata().map_err(BreachedFault::Open)?;
    if !meta.is_file() {
        return Err(BreachedFault::List("it is no file".into()));
    }
    let bytes = meta.len();
    let kind = List::check(|at, buffer: &mut [u8]| file.read_at(buffer, at), bytes).map_err(fault)?;
    Ok((Opened { file, bytes, kind }, Stamp::of(&meta)))
}

fn fault(fault: ListFault<io::Error>) -> BreachedFault {
    match fault {
        ListFault::Read(error) => BreachedFault::Read(error),
        other => BreachedFault::List(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_new_file_counts_at_once_and_a_bad_one_leaves_the_last_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let put = |text: &str| {
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), &path).unwrap();
        };
        put("Password1234\nSummer2026!!\n");
        let list = Breached::open(&path).unwrap();
        let check = |expected: [bool; 2]| {
            assert_eq!(["Summer2026!!", "Winter2026!!"].map(|one| list.contains(one).unwrap()), expected);
        };
        check([true, false]);
        put("Winter2026!!\n");
        check([false, true]);
        put("b\na\n");
        check([false, true]);
        fs::remove_file(&path).unwrap();
        check([false, true]);
        put("Summer2026!!\n");
        check([true, false]);
    }

    #[test]
    fn a_file_that_cannot_be_searched_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let check = |expected: &str| {
            let error = Breached::open(&path).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("it cannot be opened");
        fs::write(&path, "").unwrap();
        check("it is empty");
        fs::write(&path, "b\na\n").unwrap();
        check("`LC_ALL=C sort`");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        check("it is no file");
    }
}
