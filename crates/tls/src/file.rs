//! Files that hold certificates and keys: written whole or not at all.

use crate::TlsError;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest PEM file that is read, in bytes.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Reads a PEM file of at most 1 MiB.
pub fn read(path: &Path) -> Result<String, TlsError> {
    let fault = |source| TlsError::File { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(fault)?.len();
    if bytes > PEM_BYTES_MAX {
        return Err(fault(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 1 MiB")));
    }
    std::fs::read_to_string(path).map_err(fault)
}

/// Writes a file that only its owner may read (mode 0600): aside, flushed to disk, then renamed, so
/// that a reader and a crash see either the old content or the new.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), TlsError> {
    let aside = aside(path);
    let written = write_and_rename(&aside, path, content);
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written.map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn write_and_rename(aside: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    // A leftover of a crash, or a link that somebody put there, is removed, never written through.
    match std::fs::remove_file(aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(aside, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(dir)?.sync_all()
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}
