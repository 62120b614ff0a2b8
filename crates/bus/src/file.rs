//! State files: written aside, flushed, then renamed, so that a crash leaves the old one or the new.

use crate::BusError;
use std::path::Path;

/// Reads a file of at most `bytes_max`; `None` when there is none.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, BusError> {
    use std::io::Read;
    let fault = |source| BusError::File { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() as u64 > bytes_max {
        return Err(BusError::TooLarge { bytes: bytes.len() as u64, bytes_max });
    }
    Ok(Some(bytes))
}

/// Writes a file of mode 0600 whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), BusError> {
    bastide_tls::file::write_private(path, content).map_err(|error| match error {
        bastide_tls::TlsError::File { path, source } => BusError::File { path, source },
        other => BusError::Config(other.to_string()),
    })
}

/// Reads and parses a JSON file that must exist.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, BusError> {
    const BYTES_MAX: u64 = 1024 * 1024;
    let missing = || BusError::Config(format!("{} does not exist", path.display()));
    let bytes = read(path, BYTES_MAX)?.ok_or_else(missing)?;
    // The parser's message may quote the content, and this file holds seeds: only the place is told.
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        BusError::Config(format!("{} is malformed at line {line}, column {column}", path.display()))
    })
}
