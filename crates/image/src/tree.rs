//! A directory tree in which nothing can be made, changed or removed outside its root.
//!
//! Every path is resolved by the kernel with the root as `/` (`openat2` with `RESOLVE_IN_ROOT`): a link
//! leads where it would lead in the container, never out. Whatever is made is made by its plain name in a
//! directory that was reached so; the last part of a path is never followed. Nobody else writes here.

use crate::{
    Error, Result,
    error::{refused, shown},
};
use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::{CString, OsStr},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::Arc,
};

/// Bytes of a path.
const PATH_BYTES_MAX: usize = 1024;
/// Bytes of one name, as file systems have it.
const NAME_BYTES_MAX: usize = 255;
/// Directories within each other, links counted as what they lead to.
const DEPTH_MAX: u16 = 64;
const IN_ROOT: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// A path below the root: plain names, none of them `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inner(Vec<Vec<u8>>);

impl Inner {
    /// Reads a path of an archive. A leading `/` means the root, as in the container.
    pub(crate) fn read(path: &[u8]) -> Result<Self> {
        let mut parts = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return refused(format!("`{}` leads out of the image", shown(path))),
                part if part.contains(&0) => return refused("a name holds NUL"),
                part if part.len() > NAME_BYTES_MAX => {
                    return refused(format!("a name is longer than {NAME_BYTES_MAX} bytes"));
                }
                part => parts.push(part.to_owned()),
            }
        }
        if path.len() > PATH_BYTES_MAX {
            return refused(format!("a path is longer than {PATH_BYTES_MAX} bytes"));
        }
        if parts.len() > usize::from(DEPTH_MAX) {
            return refused(format!("more than {DEPTH_MAX} directories lie within each other"));
        }
        Ok(Self(parts))
    }

    /// Directory and name; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Self, &[u8])> {
        let (name, dir) = self.0.split_last()?;
        Some((Self(dir.to_vec()), name))
    }

    /// A name in this directory.
    pub(crate) fn with(mut self, name: &[u8]) -> Self {
        self.0.push(name.to_owned());
        self
    }

    /// Whether it lies below this directory of the root.
    pub(crate) fn lies_in(&self, dir: &[u8]) -> bool {
        self.0.len() > 1 && self.0[0] == dir
    }

    fn first(&self, count: usize) -> Vec<u8> {
        if count == 0 { b".".to_vec() } else { self.0[..count].join(&b'/') }
    }

    fn shown(&self) -> String {
        shown(&self.first(self.0.len()))
    }
}

/// A node that was made here.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Layer that made it, or wrote into it, last.
    layer: u32,
    /// Directories above it.
    depth: u16,
    /// Layer that hid all that lay in it before.
    hidden: Option<u32>,
}

/// A directory of the tree.
#[derive(Debug, Clone)]
struct Place {
    fd: Arc<OwnedFd>,
    inode: u64,
}

/// The tree.
#[derive(Debug)]
pub struct Tree {
    root: Place,
    /// Everything that is there, by inode: there is nothing but what was made here.
    nodes: HashMap<u64, Node>,
    /// Counts up from layer to layer.
    pub(crate) layer: u32,
    /// Directories that may still be made because an entry lies in them.
    implied_left: usize,
    /// The directory that was used last: archives name one file after the other.
    last: Option<(Inner, Place)>,
}

impl Tree {
    /// A tree in a new and empty directory.
    ///
    /// # Errors
    /// [`Error::File`], also when it is not empty or the kernel is older than 5.6.
    pub(crate) fn new(root: &Path, implied_max: usize) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(root, flags, Mode::empty()).map_err(|errno| Error::file(root)(errno.into()))?;
        let inode = fs::fstat(&fd).map_err(|errno| Error::file(root)(errno.into()))?.st_ino;
        let tree = Self {
            root: Place { fd: Arc::new(fd), inode },
            nodes: HashMap::from([(inode, Node { layer: 0, depth: 0, hidden: None })]),
            layer: 0,
            implied_left: implied_max,
            last: None,
        };
        let probe = fs::openat2(&tree.root.fd, ".", flags, Mode::empty(), IN_ROOT);
        probe.map_err(|errno| Error::file(root)(errno.into()))?;
        let inside = open_directory(&tree.root.fd, b".").and_then(list);
        let inside = inside.map_err(|errno| Error::file(root)(errno.into()))?;
        if !inside.is_empty() {
            return Err(Error::file(root)(io::ErrorKind::DirectoryNotEmpty.into()));
        }
        Ok(tree)
    }

    /// Makes a directory, or keeps the one that is there.
    pub(crate) fn directory(&mut self, path: &Inner) -> Result<()> {
        let Some((dir, name)) = path.split() else { return Ok(()) };
        let place = self.make_place(&dir)?;
        match self.mkdir(&place, name) {
            Err(Errno::EXIST) => {
                let stat = stat(&place, name).map_err(at(path))?;
                if is_directory(&stat) {
                    self.touch(stat.st_ino);
                } else {
                    self.remove(&place, name).map_err(at(path))?;
                    self.mkdir(&place, name).map_err(at(path))?;
                }
                Ok(())
            }
            other => other.map_err(at(path)),
        }
    }

    /// Writes a file of exactly `size` bytes; what was there is gone.
    pub(crate) fn file(
        &mut self,
        path: &Inner,
        executable: bool,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<()> {
        let (place, name) = self.cleared(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&place.fd, OsStr::from_bytes(name), flags, Mode::from_raw_mode(0o600))
            .map_err(at(path))?;
        let mut file = File::from(fd);
        let mut written = 0;
        let mut piece = [0; 64 * 1024];
        while written < size {
            let most = piece.len().min(usize::try_from(size - written).unwrap_or(usize::MAX));
            let read = content.read(&mut piece[..most]).map_err(crate::heads::broken)?;
            if read == 0 {
                return refused(format!("`{}` is cut short", path.shown()));
            }
            io::Write::write_all(&mut file, &piece[..read]).map_err(Error::file(path.shown()))?;
            written += read as u64;
        }
        // Nothing is writable, and no setuid, setgid or sticky bit is left; the umask does not matter.
        let mode = Mode::from_raw_mode(if executable { 0o555 } else { 0o444 });
        fs::fchmod(&file, mode).map_err(at(path))?;
        let inode = fs::fstat(&file).map_err(at(path))?.st_ino;
        self.made(inode, &place);
        Ok(())
    }

    /// Makes a symbolic link. Where it leads is nobody's business here: nobody follows it outside the container.
    pub(crate) fn symlink(&mut self, path: &Inner, target: &[u8]) -> Result<()> {
        if target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains(&0) {
            return refused(format!("`{}` is a link to nothing that could be", path.shown()));
        }
        let (place, name) = self.cleared(path)?;
        fs::symlinkat(OsStr::from_bytes(target), &place.fd, OsStr::from_bytes(name)).map_err(at(path))?;
        let inode = stat(&place, name).map_err(at(path))?.st_ino;
        self.made(inode, &place);
        Ok(())
    }

    /// Gives a file of the tree a second name. A link stays a link: it is not followed.
    pub(crate) fn hard_link(&mut self, path: &Inner, target: &Inner) -> Result<()> {
        let missing = || {
            Error::Refused(format!(
                "`{}` is a link to `{}`, which is not there",
                path.shown(),
                target.shown()
            ))
        };
        let (dir, old) = target.split().ok_or_else(missing)?;
        let from = self.place(&dir)?.ok_or_else(missing)?;
        let found = stat(&from, old).map_err(|_| missing())?;
        if !matches!(FileType::from_raw_mode(found.st_mode), FileType::RegularFile | FileType::Symlink) {
            return refused(format!("`{}` is a second name of something that is not a file", path.shown()));
        }
        let (dir, name) = path.split().ok_or_else(missing)?;
        // The same name twice would remove the file before it is linked.
        let there = self.make_place(&dir)?;
        if stat(&there, name).is_ok_and(|now| now.st_ino == found.st_ino) {
            self.touch(found.st_ino);
            return Ok(());
        }
        let (place, name) = self.cleared(path)?;
        let (old, name) = (OsStr::from_bytes(old), OsStr::from_bytes(name));
        fs::linkat(&from.fd, old, &place.fd, name, AtFlags::empty()).map_err(|errno| match errno {
            Errno::NOENT => missing(),
            errno => at(path)(errno),
        })?;
        self.made(found.st_ino, &place);
        Ok(())
    }

    /// Takes away what earlier layers put there under this name.
    pub(crate) fn hide(&mut self, path: &Inner) -> Result<()> {
        let Some((dir, name)) = path.split() else { return refused("the root cannot be hidden") };
        let Some(place) = self.place(&dir)? else { return Ok(()) };
        self.last = None;
        self.take_earlier(&place.fd, name).map(drop).map_err(at(path))
    }

    /// Takes away all that earlier layers put into this directory.
    pub(crate) fn hide_all(&mut self, path: &Inner) -> Result<()> {
        let Some(place) = self.place(path)? else { return Ok(()) };
        self.last = None;
        self.take_all_earlier(&place).map_err(at(path))
    }

    /// Opens a file, links followed within the tree; `None` when there is no such file.
    ///
    /// # Errors
    /// [`Error::File`] when the host fails.
    pub fn open(&self, path: &Path) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let found = resolve(&self.root.fd, path.as_os_str().as_bytes(), flags);
        let fd = match found {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL) => {
                return Ok(None);
            }
            Err(errno) => return Err(Error::file(path)(errno.into())),
        };
        let stat = fs::fstat(&fd).map_err(|errno| Error::file(path)(errno.into()))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(is_file.then(|| File::from(fd)))
    }

    /// A place for a new thing: its directory, made where it is missing, with nothing under its name.
    fn cleared<'p>(&mut self, path: &'p Inner) -> Result<(Place, &'p [u8])> {
        let Some(name) = path.0.last() else { return refused("the root of an image is a directory") };
        let place = self.make_place(&Inner(path.0[..path.0.len() - 1].to_vec()))?;
        if stat(&place, name).is_ok() {
            self.remove(&place, name).map_err(at(path))?;
        }
        Ok((place, name))
    }

    /// The directory of this path, if it is there.
    fn place(&self, path: &Inner) -> Result<Option<Place>> {
        if let Some((_, place)) = self.last.as_ref().filter(|(last, _)| last == path) {
            return Ok(Some(place.clone()));
        }
        match self.resolve(path, path.0.len()) {
            Ok(place) => Ok(Some(place)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(at(path)(errno)),
        }
    }

    /// The directory of this path, made where it is missing; all of it belongs to this layer now.
    fn make_place(&mut self, path: &Inner) -> Result<Place> {
        if let Some((_, place)) = self.last.as_ref().filter(|(last, _)| last == path) {
            return Ok(place.clone());
        }
        let mut place = self.root.clone();
        for (count, name) in path.0.iter().enumerate() {
            let found = match self.resolve(path, count + 1) {
                Err(Errno::NOENT) => {
                    self.implied_left = self
                        .implied_left
                        .checked_sub(1)
                        .ok_or_else(|| Error::TooLarge("it holds too many directories".into()))?;
                    self.mkdir(&place, name).map_err(|errno| match errno {
                        // It is there and leads nowhere.
                        Errno::EXIST => at(path)(Errno::NOENT),
                        errno => at(path)(errno),
                    })?;
                    self.resolve(path, count + 1)
                }
                other => other,
            };
            place = found.map_err(at(path))?;
            self.touch(place.inode);
        }
        self.last = Some((path.clone(), place.clone()));
        Ok(place)
    }

    fn resolve(&self, path: &Inner, count: usize) -> std::result::Result<Place, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = resolve(&self.root.fd, &path.first(count), flags)?;
        let inode = fs::fstat(&fd)?.st_ino;
        // Whatever is there was made here; something else would mean that somebody else writes here.
        if !self.nodes.contains_key(&inode) {
            return Err(Errno::XDEV);
        }
        Ok(Place { fd: Arc::new(fd), inode })
    }

    fn mkdir(&mut self, place: &Place, name: &[u8]) -> std::result::Result<(), Errno> {
        let depth = self.nodes.get(&place.inode).map_or(0, |node| node.depth);
        if depth >= DEPTH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mode = Mode::from_raw_mode(0o755);
        fs::mkdirat(&place.fd, OsStr::from_bytes(name), mode)?;
        // Whatever the umask is. It was made just now, so it is no link.
        fs::chmodat(&place.fd, OsStr::from_bytes(name), mode, AtFlags::empty())?;
        let inode = stat(place, name)?.st_ino;
        self.made(inode, place);
        Ok(())
    }

    fn made(&mut self, inode: u64, place: &Place) {
        let depth = self.nodes.get(&place.inode).map_or(0, |node| node.depth) + 1;
        self.nodes.insert(inode, Node { layer: self.layer, depth, hidden: None });
    }

    fn touch(&mut self, inode: u64) {
        if let Some(node) = self.nodes.get_mut(&inode) {
            node.layer = self.layer;
        }
    }

    /// Removes whatever has this name.
    fn remove(&mut self, place: &Place, name: &[u8]) -> std::result::Result<(), Errno> {
        // The directory used last may be gone with it.
        self.last = None;
        self.take(&place.fd, name)
    }

    fn take(&mut self, dir: &OwnedFd, name: &[u8]) -> std::result::Result<(), Errno> {
        let (stat, text) = (stat_at(dir, name)?, OsStr::from_bytes(name));
        if !is_directory(&stat) {
            return fs::unlinkat(dir, text, AtFlags::empty());
        }
        let inside = open_directory(dir, name)?;
        for name in list(&inside)? {
            self.take(&inside, name.as_bytes())?;
        }
        self.nodes.remove(&stat.st_ino);
        fs::unlinkat(dir, text, AtFlags::REMOVEDIR)
    }

    /// Removes what earlier layers made under this name; true when nothing is left there.
    fn take_earlier(&mut self, dir: &OwnedFd, name: &[u8]) -> std::result::Result<bool, Errno> {
        let stat = match stat_at(dir, name) {
            Err(Errno::NOENT) => return Ok(true),
            other => other?,
        };
        let own = self.nodes.get(&stat.st_ino).is_some_and(|node| node.layer == self.layer);
        match (own, is_directory(&stat)) {
            (false, _) => self.take(dir, name).map(|()| true),
            (true, false) => Ok(false),
            (true, true) => {
                let fd = Arc::new(open_directory(dir, name)?);
                self.take_all_earlier(&Place { fd, inode: stat.st_ino }).map(|()| false)
            }
        }
    }

    /// At most once per directory and layer: nothing of earlier layers can come after.
    fn take_all_earlier(&mut self, place: &Place) -> std::result::Result<(), Errno> {
        if let Some(node) = self.nodes.get_mut(&place.inode) {
            if node.hidden == Some(self.layer) {
                return Ok(());
            }
            node.hidden = Some(self.layer);
        }
        let inside = open_directory(&place.fd, b".")?;
        for name in list(&inside)? {
            self.take_earlier(&inside, name.as_bytes())?;
        }
        Ok(())
    }
}

fn resolve(root: &OwnedFd, path: &[u8], flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    for _ in 0..16 {
        match fs::openat2(root, OsStr::from_bytes(path), flags, Mode::empty(), IN_ROOT) {
            // Something was renamed elsewhere on the host meanwhile; the kernel says to ask again.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn open_directory(dir: &OwnedFd, name: &[u8]) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, OsStr::from_bytes(name), flags, Mode::empty())
}

fn list(dir: impl AsFd) -> std::result::Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn stat(place: &Place, name: &[u8]) -> std::result::Result<fs::Stat, Errno> {
    stat_at(&place.fd, name)
}

fn stat_at(dir: &OwnedFd, name: &[u8]) -> std::result::Result<fs::Stat, Errno> {
    fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
}

fn is_directory(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// What an error of the kernel means for an entry: some are the image's fault, the rest is the host's.
fn at(path: &Inner) -> impl FnOnce(Errno) -> Error + '_ {
    move |errno| {
        let why = match errno {
            Errno::NOTDIR | Errno::EXIST => "something on the way is not a directory",
            Errno::LOOP => "the links on the way go in a circle",
            Errno::NOENT => "a link on the way leads nowhere",
            Errno::NAMETOOLONG => "too many directories lie within each other",
            Errno::MLINK => "a file has too many names",
            Errno::XDEV => "the way leads out of the image",
            errno => return Error::file(path.shown())(errno.into()),
        };
        Error::Refused(format!("`{}`: {why}", path.shown()))
    }
}
