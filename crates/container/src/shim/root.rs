//! The root file system and the namespaces that belong to the shim: mount and network.
//!
//! Everything is mounted in a mount namespace of the shim's own, so the kernel takes it away with the
//! shim. The image is the lower layer of a read-only overlay; above it lies a thin layer with our own
//! `/etc` files and the places to mount on. Real directories there hide whatever an image has in the same
//! place, so no link of an image leads a mount astray.

use crate::{
    Container, Result,
    container::{Mount, inner},
    error::Error,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::Path,
};

/// Where the shim works, in its own mount namespace. Everyone may walk through it: with users of its own,
/// the container's first process is nobody here. Nobody keeps data below `/sys/firmware`, so nothing that
/// the shim needs is hidden by it.
const WORK: &str = "/sys/firmware";
pub(crate) const ROOT: &str = "/sys/firmware/root";
pub(crate) const BUNDLE: &str = "/sys/firmware/bundle";
pub(crate) const ENGINE: &str = "/sys/firmware/engine";
const BASE: &str = "/sys/firmware/base";

/// Enters the network namespace, makes a mount namespace and the root file system in it.
pub(crate) fn prepare(container: &Container) -> Result<()> {
    network(container)?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(at("mount namespace"))?;
    // Before anything is mounted, but in the new namespace: the overlay takes no layer from another.
    let image = File::open(&container.root).map_err(Error::file(&container.root))?;
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).map_err(at("/"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bastide"), WORK, Some("tmpfs"), flags, Some("mode=711,size=1m")).map_err(at(WORK))?;
    for dir in [ROOT, BUNDLE, ENGINE, BASE] {
        directory(Path::new(dir))?;
    }
    base(container)?;
    // By descriptor: a path would have to be escaped.
    let layers = format!("lowerdir={BASE}:/proc/self/fd/{}", image.as_raw_fd());
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("overlay"), ROOT, Some("overlay"), flags, Some(layers.as_str())).map_err(at("overlay"))?;
    container.mounts.iter().try_for_each(bind)
}

fn network(container: &Container) -> Result<()> {
    match &container.netns {
        Some(path) => {
            let file = File::open(path).map_err(Error::file(path))?;
            setns(file, CloneFlags::CLONE_NEWNET).map_err(at(path))
        }
        None => unshare(CloneFlags::CLONE_NEWNET).map_err(at("network namespace")),
    }
}

/// The thin layer.
fn base(container: &Container) -> Result<()> {
    let base = Path::new(BASE);
    for dir in ["dev", "etc", "proc", "tmp"] {
        directory(&base.join(dir))?;
    }
    // Some engines give what they mount here the rights of the place.
    let everybodys = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(base.join("tmp"), everybodys).map_err(Error::file(base))?;
    let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    hosts.push_str(&format!("127.0.0.1 {}\n", container.hostname));
    for (addr, name) in &container.hosts {
        hosts.push_str(&format!("{addr} {name}\n"));
    }
    let mut resolv = String::new();
    for server in &container.nameservers {
        resolv.push_str(&format!("nameserver {server}\n"));
    }
    let user = crate::container::USER;
    let users = format!("root:x:0:0:root:/:/sbin/nologin\napp:x:{user}:{user}:app:/tmp:/sbin/nologin\n");
    let groups = format!("root:x:0:\napp:x:{user}:\n");
    let hostname = format!("{}\n", container.hostname);
    let files = [
        ("hosts", hosts),
        ("resolv.conf", resolv),
        ("hostname", hostname),
        ("passwd", users),
        ("group", groups),
    ];
    for (name, text) in files {
        file(&base.join("etc").join(name), &text)?;
    }
    for mount in &container.mounts {
        let Some(place) = inner(&mount.target).map(|below| base.join(below)) else { continue };
        let source = fs::metadata(&mount.source).map_err(Error::file(&mount.source))?;
        if source.is_dir() {
            directory(&place)?;
        } else {
            if let Some(parent) = place.parent() {
                directory(parent)?;
            }
            file(&place, "")?;
        }
    }
    Ok(())
}

fn bind(wanted: &Mount) -> Result<()> {
    let Some(place) = inner(&wanted.target).map(|below| Path::new(ROOT).join(below)) else { return Ok(()) };
    let none = None::<&str>;
    mount(Some(&wanted.source), &place, none, MsFlags::MS_BIND, none).map_err(at(&wanted.source))?;
    // The first call ignores the flags of a bind mount.
    let flags =
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(none, &place, none, flags, none).map_err(at(&wanted.source))
}

fn directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(Error::file(path))
}

/// A file that everybody may read, whatever the umask.
pub(crate) fn file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)))
        .map_err(Error::file(path))
}

pub(crate) fn at(path: impl AsRef<Path>) -> impl FnOnce(nix::Error) -> Error {
    let path = path.as_ref().to_owned();
    move |errno| Error::File { path, source: io::Error::from(errno) }
}
