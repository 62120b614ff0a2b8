//! Files of an unpacked root, found as a process finds them that has it as its `/`.

use rustix::{
    fs::{self, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{fs::File, io, path::Path};

/// Opens a regular file for reading. Links lead where they would lead inside: an absolute one begins at `root`, and no
/// `..` goes above it (`openat2` with `RESOLVE_IN_ROOT`).
/// # Errors
/// What the system says; [`io::ErrorKind::InvalidInput`] for what is no regular file.
pub fn open_file(root: &Path, path: &str) -> io::Result<File> {
    let directory = fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // A pipe would keep whoever opens it waiting for the other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let file = loop {
        match fs::openat2(&directory, path, flags, Mode::empty(), inside) {
            // Something was renamed elsewhere on the host meanwhile; the kernel says to ask again.
            Err(Errno::AGAIN) => {}
            other => break File::from(other?),
        }
    };
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, os::unix::fs::symlink};

    /// What is read at `path` in a root whose neighbour holds a secret.
    fn check(path: &str, expected: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        std::fs::write(root.join("usr/lib/ld.so"), "loader").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("usr/lib", root.join("lib64")).unwrap();
        symlink("/usr/lib/ld.so", root.join("absolute")).unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink(dir.path().join("secret"), root.join("out")).unwrap();
        symlink("round", root.join("round")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RUSR).unwrap();
        let found = open_file(&root, path).and_then(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(found.ok().as_deref(), expected, "{path}");
    }

    #[test]
    fn links_lead_where_they_lead_inside() {
        check("/usr/lib/ld.so", Some("loader"));
        check("usr/lib/ld.so", Some("loader"));
        check("/lib64/ld.so", Some("loader"));
        check("/absolute", Some("loader"));
        check("/../usr/lib/ld.so", Some("loader"));
    }

    #[test]
    fn nothing_outside_is_opened_and_nothing_but_a_regular_file() {
        for path in ["/up", "/out", "/../secret", "../secret", "/round", "/missing", "/usr/lib", "/pipe", ""]
        {
            check(path, None);
        }
    }
}
