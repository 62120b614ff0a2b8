//! A published archive: checked while it is unpacked, nothing trusted.

use bastide_types::{Code, Manifest, Problem, manifest::Kind};
use flate2::read::GzDecoder;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};

/// Most bytes of all files together.
pub const UNPACKED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most entries.
pub const ENTRIES_MAX: usize = 20_000;
const PATH_BYTES_MAX: usize = 255;
const MANIFEST_BYTES_MAX: u64 = 256 * 1024;
/// Name of the manifest.
pub const MANIFEST: &str = "bastide.toml";

/// What an archive holds.
#[derive(Debug)]
pub struct Archive {
    /// Its manifest, checked.
    pub manifest: Manifest,
    /// Its entries in order of their paths.
    pub entries: BTreeMap<PathBuf, Entry>,
}

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Whether it may be executed.
        executable: bool,
    },
}

/// Unpacks an archive into `dir`, which must be new and empty.
///
/// # Errors
/// A problem that names the entry or key; whatever was unpacked is the caller's to remove.
pub fn unpack(packed: impl Read, dir: &Path) -> Result<Archive, Problem> {
    let mut archive = tar::Archive::new(GzDecoder::new(packed));
    let broken = |error: io::Error| Code::ArchiveInvalid.because(format!("not a gzipped tar: {error}"));
    let mut entries = BTreeMap::new();
    let mut left = UNPACKED_BYTES_MAX;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = safe(&entry.path().map_err(broken)?)?;
        if path.as_os_str().is_empty() {
            continue;
        }
        if entries.len() >= ENTRIES_MAX {
            return Err(Code::UploadTooLarge.because(format!("more than {ENTRIES_MAX} entries")));
        }
        let kind = entry.header().entry_type();
        let found = match kind {
            tar::EntryType::Directory => {
                fs::create_dir_all(dir.join(&path)).map_err(|error| at(&path, &error))?;
                Entry::Directory
            }
            tar::EntryType::Regular => {
                let size = entry.size();
                left = left
                    .checked_sub(size)
                    .ok_or_else(|| Code::UploadTooLarge.because("it unpacks to more than 1 GiB"))?;
                let executable = entry.header().mode().map_err(broken)? & 0o111 != 0;
                write(&mut entry, size, &dir.join(&path)).map_err(|error| at(&path, &error))?;
                Entry::File { executable }
            }
            _ => return Err(Code::ArchiveInvalid.because(format!("`{}` is {}", path.display(), word(kind)))),
        };
        if entries.insert(path.clone(), found).is_some() && found != Entry::Directory {
            return Err(Code::ArchiveInvalid.because(format!("`{}` is there twice", path.display())));
        }
    }
    let manifest = manifest(dir)?;
    let mut archive = Archive { manifest, entries };
    check_program(&mut archive, dir)?;
    Ok(archive)
}

fn word(kind: tar::EntryType) -> &'static str {
    match kind {
        tar::EntryType::Symlink | tar::EntryType::Link => {
            "a link; an app holds plain files and directories only"
        }
        tar::EntryType::Char | tar::EntryType::Block => "a device",
        tar::EntryType::Fifo => "a pipe",
        _ => "neither a file nor a directory",
    }
}

fn at(path: &Path, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Code::ArchiveInvalid.because(format!("`{}` is there twice", path.display()))
        }
        io::ErrorKind::UnexpectedEof => {
            Code::ArchiveInvalid.because(format!("`{}` is cut short", path.display()))
        }
        _ => {
            tracing::error!(%error, path = %path.display(), "cannot unpack an upload");
            Code::Internal.problem()
        }
    }
}

fn write(entry: &mut impl Read, size: u64, target: &Path) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    if io::copy(&mut entry.take(size), &mut file)? != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// A path that stays below the root.
fn safe(path: &Path) -> Result<PathBuf, Problem> {
    let mut safe = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) if name.to_str().is_some() => safe.push(name),
            Component::CurDir => {}
            _ => {
                return Err(
                    Code::ArchiveInvalid.because(format!("`{}` leads out of the archive", path.display()))
                );
            }
        }
    }
    if safe.as_os_str().len() > PATH_BYTES_MAX {
        return Err(Code::ArchiveInvalid.because(format!("a path is longer than {PATH_BYTES_MAX} bytes")));
    }
    Ok(safe)
}

fn manifest(dir: &Path) -> Result<Manifest, Problem> {
    let mut text = String::new();
    let file = fs::File::open(dir.join(MANIFEST))
        .map_err(|_| Code::ManifestInvalid.because("there is no bastide.toml at the root"))?;
    file.take(MANIFEST_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|_| Code::ManifestInvalid.because("bastide.toml is not UTF-8 text"))?;
    read_manifest(&text)
}

/// Reads and checks a manifest.
pub fn read_manifest(text: &str) -> Result<Manifest, Problem> {
    let manifest: Manifest = toml::from_str(text)
        .map_err(|error| Code::ManifestInvalid.because(error.to_string().trim().to_owned()))?;
    manifest.check().map_err(|error| Code::ManifestInvalid.because(error.to_string()))?;
    Ok(manifest)
}

/// The program of a binary app must be there, and be one for this machine.
fn check_program(archive: &mut Archive, dir: &Path) -> Result<(), Problem> {
    if archive.manifest.app.kind != Kind::Binary {
        return Ok(());
    }
    let program = archive.manifest.app.command.first().cloned().unwrap_or_default();
    let path = safe(Path::new(&program))?;
    let Some(Entry::File { executable }) = archive.entries.get_mut(&path) else {
        return Err(Code::BinaryNotStatic
            .because(format!("app.command names `{program}`, which is not in the archive")));
    };
    *executable = true;
    let mut head = [0; 20];
    let read = fs::File::open(dir.join(&path)).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    // ELF: magic, 64 bit, little endian; the machine stands at byte 18.
    let machine = u16::from_le_bytes([head[18], head[19]]);
    let ours = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    if read < 20 || !head.starts_with(b"\x7fELF\x02\x01") || machine != ours {
        let detail = format!("`{program}` is not a 64-bit ELF program for {}", std::env::consts::ARCH);
        return Err(Code::BinaryNotStatic.because(detail));
    }
    Ok(())
}
