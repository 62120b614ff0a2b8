//! Namespaces with names, as `ip netns` has them: a file in `/run/netns` that a namespace is mounted on.
//!
//! Threads go into namespaces here, always threads of this crate's own: a thread of a runtime would take others'
//! work along.

use crate::{Error, Result};
use bastide_isolation::Installation;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, statfs},
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const DIR: &str = "/run/netns";
/// The running thread's namespace.
const OWN: &str = "/proc/thread-self/ns/net";
const NSFS: FsType = FsType(0x6e73_6673);

/// The namespace that gateways go out by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideNamespace {
    /// The host's: the one this process runs in.
    Host,
    /// One with a name, made by somebody else.
    Named(String),
}

/// Where the namespace of this name is found.
pub fn path(namespace: &str) -> PathBuf {
    Path::new(DIR).join(namespace)
}

/// Refuses names that lead elsewhere.
pub(crate) fn checked(namespace: &str) -> Result<PathBuf> {
    if namespace.is_empty() || namespace.starts_with('.') || namespace.contains(['/', '\0']) {
        return Err(Error::Name(namespace.to_owned()));
    }
    Ok(path(namespace))
}

/// A thread that goes into namespaces and comes home.
pub(crate) struct Traveller {
    home: File,
}

impl Traveller {
    /// The calling thread, which must not be a runtime's. Its present namespace is its home.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { home: File::open(OWN)? })
    }

    /// Goes into the namespace; dropping the result comes home.
    pub(crate) fn enter(&self, namespace: &File) -> io::Result<Inside<'_>> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(Inside { home: &self.home })
    }

    /// The home namespace.
    pub(crate) fn home(&self) -> io::Result<File> {
        self.home.try_clone()
    }

    /// Makes a namespace and mounts it under this name.
    pub(crate) fn make(&self, name: &str) -> Result<()> {
        let path = checked(name)?;
        let failed = || format!("make the network namespace {name}");
        prepare().map_err(Error::of(failed()))?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(Error::of(failed()))?;
        let made = unshare(CloneFlags::CLONE_NEWNET).and_then(|()| {
            // Home again before anything else, whether it worked or not.
            let _inside = Inside { home: &self.home };
            mount(Some(OWN), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        });
        made.map_err(|error| {
            let _ = fs::remove_file(&path);
            Error::of(failed())(error.into())
        })
    }
}

/// A visit; it ends with this value.
pub(crate) struct Inside<'a> {
    home: &'a File,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // A thread that cannot come home must not go on: it would do the next work in the wrong place.
        setns(self.home, CloneFlags::CLONE_NEWNET).expect("a thread can go back to where it came from");
    }
}

/// Opens a namespace; `None` when there is none of this name.
pub(crate) fn open(name: &str) -> Result<Option<File>> {
    let path = checked(name)?;
    match File::open(&path) {
        Ok(file) if is_namespace(&path) => Ok(Some(file)),
        // A file that nothing is mounted on: what a dead run left.
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::of(format!("open the network namespace {name}"))(source)),
    }
}

fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS)
}

/// Takes the name away. The namespace itself ends when nobody is in it any more.
pub(crate) fn remove(name: &str) -> Result<()> {
    let path = checked(name)?;
    // Whoever mounts twice must be undone twice; it ends with the first failure.
    while umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::of(format!("remove the network namespace {name}"))(error))
        }
        _ => Ok(()),
    }
}

/// Names of this installation's namespaces that are there, whole or broken.
pub(crate) fn all(installation: &Installation) -> Result<Vec<String>> {
    let entries = match fs::read_dir(DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::of("list the network namespaces")(source)),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut ours: Vec<_> = names.filter(|name| installation.owns_namespace(name)).collect();
    ours.sort();
    Ok(ours)
}

/// Sees to it that mounts in the directory are seen in other mount namespaces too, as `ip netns` does.
fn prepare() -> io::Result<()> {
    fs::create_dir_all(DIR)?;
    let share = || mount(None::<&str>, DIR, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    if share().is_ok() {
        return Ok(());
    }
    mount(Some(DIR), DIR, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(share()?)
}
