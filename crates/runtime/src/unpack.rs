//! Unpacking a layer: plain files and directories below one root, nothing else, within limits.
//!
//! The Build Service made the layer and checked it already; an agent trusts its digest and nothing more.

use crate::Error;
use flate2::read::GzDecoder;
use std::{
    fs,
    io::Read,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

/// Most entries of one layer.
const ENTRIES_MAX: usize = 40_000;

/// Unpacks a gzipped tar into `root`, which must be a new and empty directory.
///
/// # Errors
/// [`Error::Image`] names the entry that is not acceptable.
pub fn unpack(layer: impl Read, root: &Path, bytes_max: u64) -> Result<(), Error> {
    let mut archive = tar::Archive::new(GzDecoder::new(layer));
    let broken = |error: std::io::Error| Error::Image(format!("not a layer: {error}"));
    let mut left = bytes_max;
    for (count, entry) in archive.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if count >= ENTRIES_MAX {
            return Err(Error::Image(format!("more than {ENTRIES_MAX} entries")));
        }
        let path = safe(&entry.path().map_err(broken)?)?;
        let target = root.join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => directory(&target)?,
            tar::EntryType::Regular => {
                if let Some(parent) = target.parent() {
                    directory(parent)?;
                }
                let executable = entry.header().mode().map_err(broken)? & 0o111 != 0;
                let size = entry.size();
                left = left.checked_sub(size).ok_or_else(|| Error::Image("it unpacks to too much".into()))?;
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(if executable { 0o555 } else { 0o444 })
                    .open(&target)
                    .map_err(Error::file(&target))?;
                let copied =
                    std::io::copy(&mut (&mut entry).take(size), &mut file).map_err(Error::file(&target))?;
                if copied != size {
                    return Err(Error::Image(format!("{} is cut short", path.display())));
                }
            }
            other => return Err(Error::Image(format!("{} is {other:?}, not a plain file", path.display()))),
        }
    }
    Ok(())
}

fn directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(Error::file(path))
}

/// The path of an entry when it stays below the root.
fn safe(path: &Path) -> Result<PathBuf, Error> {
    let mut safe = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => safe.push(name),
            Component::CurDir => {}
            _ => return Err(Error::Image(format!("{} leads out of the image", path.display()))),
        }
    }
    if safe.as_os_str().len() > 1024 {
        return Err(Error::Image("a path is too long".into()));
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A layer of one entry, written by hand so that paths may be evil.
    fn layer(path: &str, kind: tar::EntryType, link: Option<&str>) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(if kind == tar::EntryType::Regular { 2 } else { 0 });
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        if kind == tar::EntryType::Regular {
            tar.extend_from_slice(b"hi");
            tar.resize(1024, 0);
        }
        tar.resize(tar.len() + 1024, 0);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar).unwrap();
        gz.finish().unwrap()
    }

    fn check(layer: &[u8]) -> Result<tempfile::TempDir, Error> {
        let dir = tempfile::tempdir().unwrap();
        unpack(layer, dir.path(), 1000).map(|()| dir)
    }

    #[test]
    fn plain_files_lose_their_setuid_bit() {
        use std::os::unix::fs::PermissionsExt;
        let dir = check(&layer("bin/app", tar::EntryType::Regular, None)).unwrap();
        let mode = fs::metadata(dir.path().join("bin/app")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o555);
    }

    #[test]
    fn whatever_could_leave_the_image_is_refused() {
        for path in ["../evil", "/etc/evil", "a/../../evil"] {
            assert!(check(&layer(path, tar::EntryType::Regular, None)).is_err(), "{path}");
        }
        for kind in [
            tar::EntryType::Symlink,
            tar::EntryType::Link,
            tar::EntryType::Char,
            tar::EntryType::Block,
            tar::EntryType::Fifo,
        ] {
            assert!(check(&layer("x", kind, Some("/etc/passwd"))).is_err(), "{kind:?}");
        }
        assert!(
            unpack(&layer("x", tar::EntryType::Regular, None)[..], tempfile::tempdir().unwrap().path(), 1)
                .is_err()
        );
        assert!(check(b"junk").is_err());
    }
}
