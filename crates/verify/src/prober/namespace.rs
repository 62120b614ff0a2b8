//! Sockets made inside other namespaces. A socket belongs for ever to the namespace in which it was made.

use nix::sched::{CloneFlags, setns};
use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Namespaces that were opened, and the one to return to.
pub struct Namespaces {
    home: File,
    others: HashMap<PathBuf, File>,
}

impl Namespaces {
    /// The namespace of now is the one to return to.
    pub fn open() -> io::Result<Self> {
        Ok(Self { home: File::open("/proc/thread-self/ns/net")?, others: HashMap::new() })
    }

    /// Does `make` inside a namespace. The calling thread must be the only one that runs what needs a namespace:
    /// in the prober it is the only thread at all.
    pub fn inside<T>(
        &mut self,
        namespace: Option<&Path>,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(path) = namespace else { return make() };
        if !self.others.contains_key(path) {
            self.others.insert(path.to_owned(), File::open(path)?);
        }
        setns(&self.others[path], CloneFlags::CLONE_NEWNET)?;
        let made = make();
        // To go on in a foreign namespace would make every result a lie.
        if let Err(error) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            eprintln!("cannot return to the own namespace: {error}");
            std::process::abort();
        }
        made
    }
}
