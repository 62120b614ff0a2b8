//! A published archive: checked while it is unpacked, nothing trusted.

use super::content::digest_of;
use aws_lc_rs::digest::{Context, SHA256};
use bastide_image::elf::{self, Program};
use bastide_types::{
    Code, Digest, Manifest, Problem,
    manifest::Kind,
    tree::{CHANGES, CHANGES_BYTES_MAX, Changes, Tree, TreeFile},
};
use flate2::read::GzDecoder;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

/// Most bytes of all files together.
pub const UNPACKED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most entries.
pub const ENTRIES_MAX: usize = 20_000;
/// Most headers: an entry may have two that name it.
const HEADS_MAX: usize = 3 * ENTRIES_MAX;
const PATH_BYTES_MAX: usize = 255;
const EXTENSION_BYTES_MAX: u64 = 64 * 1024;
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
    /// What was published, by content.
    pub tree: Tree,
}

/// Where what an upload leaves away comes from.
pub trait Earlier {
    /// A tree of an earlier publish.
    ///
    /// # Errors
    /// [`Code::ContentUnknown`] when it is not there (any more).
    fn tree(&self, name: &Digest) -> Result<Tree, Problem>;

    /// Lays a file of a tree at `to`.
    ///
    /// # Errors
    /// [`Code::ContentUnknown`] when it is not there, or damaged.
    fn lay(&self, content: &Digest, to: &Path) -> Result<(), Problem>;
}

/// Nothing was there before.
pub struct Nothing;

impl Earlier for Nothing {
    fn tree(&self, _: &Digest) -> Result<Tree, Problem> {
        Err(Code::ContentUnknown.problem())
    }
    fn lay(&self, _: &Digest, _: &Path) -> Result<(), Problem> {
        Err(Code::ContentUnknown.problem())
    }
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
/// Reads at most [`UNPACKED_BYTES_MAX`] of content and holds no entry in memory.
///
/// # Errors
/// A problem that names the entry or key; whatever was unpacked is the caller's to remove.
pub fn unpack(packed: impl Read, dir: &Path) -> Result<Archive, Problem> {
    unpack_onto(packed, dir, &Nothing)
}

/// The same for an upload that may leave away what an earlier publish brought.
///
/// # Errors
/// As [`unpack`], and [`Code::ContentUnknown`] when the outcome is not what the upload says.
pub fn unpack_onto(packed: impl Read, dir: &Path, earlier: &impl Earlier) -> Result<Archive, Problem> {
    let mut archive = tar::Archive::new(GzDecoder::new(packed));
    let mut names = Names::default();
    let mut entries = BTreeMap::new();
    let mut left = UNPACKED_BYTES_MAX;
    let (mut tree, mut wanted) = (Tree::default(), None);
    // Raw: the tar reader would hold a long name in memory whole, however long it says it is.
    for (heads, entry) in archive.entries().map_err(broken)?.raw(true).enumerate() {
        let mut entry = entry.map_err(broken)?;
        if heads >= HEADS_MAX {
            return Err(Code::UploadTooLarge.because(format!("more than {ENTRIES_MAX} entries")));
        }
        left = left
            .checked_sub(entry.size())
            .ok_or_else(|| Code::UploadTooLarge.because("it unpacks to more than 1 GiB"))?;
        if names.take(&mut entry)? {
            continue;
        }
        let path = safe(&names.path_of(&entry)?)?;
        let kind = entry.header().entry_type();
        if heads == 0 && path == Path::new(CHANGES) {
            let changes = changes(&mut entry)?;
            tree = lay(&changes, dir, earlier, &mut left)?;
            entries = entries_of(&tree);
            wanted = Some(changes.tree);
            continue;
        }
        let found = match kind {
            tar::EntryType::Directory => {
                fs::create_dir_all(dir.join(&path)).map_err(|error| at(&path, &error))?;
                Entry::Directory
            }
            tar::EntryType::Regular => {
                let executable = entry.header().mode().map_err(broken)? & 0o111 != 0;
                let size = entry.size();
                let digest = write(&mut entry, size, &dir.join(&path)).map_err(|error| at(&path, &error))?;
                tree.0.insert(text(&path), Some(TreeFile { digest, size, executable }));
                Entry::File { executable }
            }
            _ => return Err(Code::ArchiveInvalid.because(format!("`{}` is {}", path.display(), word(kind)))),
        };
        // Parents are entries too, whether or not the archive names them: the image is the same.
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            entries.insert(parent.to_owned(), Entry::Directory);
            tree.0.insert(text(parent), None);
        }
        if !path.as_os_str().is_empty() {
            if found == Entry::Directory {
                tree.0.insert(text(&path), None);
            }
            entries.insert(path, found);
        }
        if entries.len() > ENTRIES_MAX {
            return Err(Code::UploadTooLarge.because(format!("more than {ENTRIES_MAX} entries")));
        }
    }
    if wanted.is_some_and(|wanted| digest_of(&tree.text()) != wanted) {
        return Err(Code::ContentUnknown.because("with the changes it is not what the upload says"));
    }
    let manifest = manifest(dir)?;
    let mut archive = Archive { manifest, entries, tree };
    check_program(&mut archive, dir)?;
    Ok(archive)
}

/// What an upload says that it leaves away.
fn changes(entry: &mut impl Read) -> Result<Changes, Problem> {
    let mut text = Vec::new();
    entry.take(CHANGES_BYTES_MAX + 1).read_to_end(&mut text).map_err(broken)?;
    if text.len() as u64 > CHANGES_BYTES_MAX {
        return Err(Code::ArchiveInvalid.because(format!("`{CHANGES}` is longer than 8 MiB")));
    }
    serde_json::from_slice(&text)
        .map_err(|error| Code::ArchiveInvalid.because(format!("`{CHANGES}`: {error}")))
}

/// Lays what is left of the earlier tree into `dir`.
fn lay(changes: &Changes, dir: &Path, earlier: &impl Earlier, left: &mut u64) -> Result<Tree, Problem> {
    let mut tree = earlier.tree(&changes.base)?;
    tree.0.retain(|path, _| !changes.without.contains(path));
    for (path, file) in &tree.0 {
        // It was safe when it came; whoever changed it on the disk since then gets no further.
        let to = dir.join(safe(Path::new(path))?);
        match file {
            None => fs::create_dir_all(&to).map_err(|error| at(Path::new(path), &error))?,
            Some(file) => {
                let more = left.checked_sub(file.size);
                *left = more.ok_or_else(|| Code::UploadTooLarge.because("it unpacks to more than 1 GiB"))?;
                if let Some(parent) = to.parent() {
                    fs::create_dir_all(parent).map_err(|error| at(Path::new(path), &error))?;
                }
                earlier.lay(&file.digest, &to)?;
            }
        }
    }
    Ok(tree)
}

fn entries_of(tree: &Tree) -> BTreeMap<PathBuf, Entry> {
    let entry = |file: &Option<TreeFile>| match file {
        Some(file) => Entry::File { executable: file.executable },
        None => Entry::Directory,
    };
    tree.0.iter().map(|(path, file)| (PathBuf::from(path), entry(file))).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn broken(error: io::Error) -> Problem {
    Code::ArchiveInvalid.because(format!("not a gzipped tar: {error}"))
}

/// Names too long for a header come in an entry of their own, before the one they name.
#[derive(Default)]
struct Names {
    next: Option<PathBuf>,
}

impl Names {
    /// Takes an entry that only says something about the next one; false when it is none of these.
    fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<bool, Problem> {
        match entry.header().entry_type() {
            tar::EntryType::GNULongName => {
                let name = extension(entry)?;
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                self.next = Some(PathBuf::from(OsStr::from_bytes(&name[..end])));
            }
            tar::EntryType::XHeader => {
                let records = extension(entry)?;
                for record in tar::PaxExtensions::new(&records) {
                    let record = record.map_err(broken)?;
                    match record.key_bytes() {
                        b"path" => self.next = Some(PathBuf::from(OsStr::from_bytes(record.value_bytes()))),
                        // Another length than the header's would shift all that follows.
                        b"size" => return Err(Code::ArchiveInvalid.because("an entry has two lengths")),
                        _ => {}
                    }
                }
            }
            // What holds for all entries (a commit, a comment) means nothing to an app.
            tar::EntryType::XGlobalHeader => drop(extension(entry)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn path_of<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> Result<PathBuf, Problem> {
        match self.next.take() {
            Some(path) => Ok(path),
            None => Ok(entry.path().map_err(broken)?.into_owned()),
        }
    }
}

/// Content of an entry that is about another one.
fn extension<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, Problem> {
    if entry.size() > EXTENSION_BYTES_MAX {
        return Err(Code::ArchiveInvalid.because(format!("a path is longer than {PATH_BYTES_MAX} bytes")));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(broken)?;
    Ok(content)
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

/// Writes a file; the digest of its content.
fn write(entry: &mut impl Read, size: u64, target: &Path) -> io::Result<Digest> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    let (mut hash, mut part, mut written) = (Context::new(&SHA256), vec![0; 64 * 1024], 0);
    let mut content = entry.take(size);
    loop {
        let read = content.read(&mut part)?;
        if read == 0 {
            break;
        }
        file.write_all(&part[..read])?;
        hash.update(&part[..read]);
        written += read as u64;
    }
    if written != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Ok(Digest::from_sha256(digest))
}

/// A path that stays below the root.
fn safe(path: &Path) -> Result<PathBuf, Problem> {
    let mut safe = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => match name.to_str() {
                Some(text) if !text.chars().any(char::is_control) => safe.push(name),
                _ => {
                    let what = format!("`{}` is not a plain UTF-8 name", path.display());
                    return Err(Code::ArchiveInvalid.because(what.escape_debug().to_string()));
                }
            },
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
    file.take(MANIFEST_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|_| Code::ManifestInvalid.because("bastide.toml is not UTF-8 text"))?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(Code::ManifestInvalid.because("bastide.toml is longer than 256 KiB"));
    }
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
    match archive.manifest.app.kind {
        // What an image runs is known when the image is.
        Kind::Static | Kind::Image => return Ok(()),
        Kind::Binary => {}
    }
    let program = archive.manifest.app.command.first().cloned().unwrap_or_default();
    let path = safe(Path::new(&program))?;
    let Some(Entry::File { executable }) = archive.entries.get_mut(&path) else {
        return Err(Code::BinaryNotStatic
            .because(format!("app.command names `{program}`, which is not in the archive")));
    };
    *executable = true;
    let mut head = Vec::new();
    let read = fs::File::open(dir.join(&path))
        .and_then(|file| file.take(elf::HEAD_BYTES as u64).read_to_end(&mut head));
    read.map_err(|error| at(&path, &error))?;
    let found = elf::inspect(&head);
    // Who brings a loader brings its libraries too.
    if let Program::Dynamic { loader } = &found {
        let brought = safe(Path::new(loader.trim_start_matches('/')))?;
        if let Some(Entry::File { executable }) = archive.entries.get_mut(&brought) {
            *executable = true;
            return Ok(());
        }
    }
    match found.refusal(&program) {
        Some(why) => Err(Code::BinaryNotStatic.because(why)),
        None => Ok(()),
    }
}
