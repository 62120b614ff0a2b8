//! Layers, one over the other, in one tree: files, directories, links within it, and what later layers
//! take away. Devices, sockets and special rights are not.

use crate::{
    Error, Limits, Result, blobs, compression,
    error::{refused, shown},
    heads::{self, Bounded, Head},
    tree::{Inner, Tree},
};
use aws_lc_rs::digest::{Context, SHA256};
use bastide_types::Digest;
use std::{
    io::{self, Read},
    path::Path,
};
use tar::EntryType;

/// Headers and names, beside the content that the limit is about.
const HEADS_BYTES_MAX: u64 = 512 * 1024 * 1024;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks the layers of one image, lowest first.
///
/// Files become readable by everybody and writable by nobody; owners, times, attributes and the setuid,
/// setgid and sticky bits are dropped.
#[derive(Debug)]
pub struct Unpacker {
    tree: Tree,
    limits: Limits,
    bytes_left: u64,
    entries_left: usize,
}

impl Unpacker {
    /// Unpacks into `root`, which must be a new and empty directory. After an error it may hold anything.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn new(root: &Path, limits: Limits) -> Result<Self> {
        Ok(Self {
            tree: Tree::new(root, limits.entries_max)?,
            limits,
            bytes_left: limits.bytes_max,
            entries_left: limits.entries_max,
        })
    }

    /// Unpacks the next layer (plain, gzip or zstd), and gives the digest of its content (`diff_id`).
    ///
    /// # Errors
    /// [`Error::Refused`] and [`Error::TooLarge`] name the entry; [`Error::File`] when the host fails.
    pub fn layer(&mut self, packed: impl Read) -> Result<Digest> {
        self.tree.layer += 1;
        if self.tree.layer as usize > self.limits.layers_max {
            return Err(Error::TooLarge(format!("it has more than {} layers", self.limits.layers_max)));
        }
        let content = compression::unpacked(packed).map_err(heads::broken)?;
        let bounded = Bounded { inner: content, left: self.bytes_left.saturating_add(HEADS_BYTES_MAX) };
        let mut hashing = Hashing { inner: bounded, hash: Context::new(&SHA256) };
        // A name and attributes of its own may come before each entry.
        let heads_max = self.entries_left.saturating_mul(3).saturating_add(3);
        heads::each(&mut hashing, heads_max, |head, content| self.entry(&head, content))?;
        // What lies behind the last entry belongs to the digest too.
        io::copy(&mut hashing, &mut io::sink()).map_err(heads::broken)?;
        Ok(blobs::finish(hashing.hash))
    }

    /// The tree as it is now.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    fn entry(&mut self, head: &Head, content: &mut dyn Read) -> Result<()> {
        let most = self.limits.entries_max;
        self.entries_left = self
            .entries_left
            .checked_sub(1)
            .ok_or_else(|| Error::TooLarge(format!("it holds more than {most} entries")))?;
        let path = Inner::read(&head.path)?;
        let name = path.split().map(|(_, name)| name.to_owned()).unwrap_or_default();
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&path, &name);
        }
        match head.kind {
            EntryType::Directory => self.tree.directory(&path),
            EntryType::Regular => {
                let most = self.limits.bytes_max / (1024 * 1024);
                self.bytes_left = self
                    .bytes_left
                    .checked_sub(head.size)
                    .ok_or_else(|| Error::TooLarge(format!("it unpacks to more than {most} MiB")))?;
                self.tree.file(&path, head.mode & 0o111 != 0, head.size, content)
            }
            EntryType::Symlink => self.tree.symlink(&path, &head.link),
            EntryType::Link => self.tree.hard_link(&path, &Inner::read(&head.link)?),
            // Every container gets a /dev of its own, so what an image has there is never seen.
            EntryType::Char | EntryType::Block | EntryType::Fifo if path.lies_in(b"dev") => Ok(()),
            kind => refused(format!("`{}` is {}", shown(&head.path), word(kind))),
        }
    }

    /// OCI image specification, "Whiteouts": a marker beside the thing that it takes away.
    fn whiteout(&mut self, path: &Inner, name: &[u8]) -> Result<()> {
        let Some((dir, _)) = path.split() else { return Ok(()) };
        if name == OPAQUE {
            return self.tree.hide_all(&dir);
        }
        // Further marks of AUFS say nothing to us.
        if name.starts_with(b".wh..wh.") {
            return Ok(());
        }
        match &name[WHITEOUT.len()..] {
            b"" | b"." | b".." => refused(format!("`{}` takes away no name", shown(name))),
            hidden => self.tree.hide(&dir.with(hidden)),
        }
    }
}

fn word(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Char | EntryType::Block => "a device; an image holds files, directories and links only",
        EntryType::Fifo => "a pipe; an image holds files, directories and links only",
        EntryType::GNUSparse => "a sparse file; an image holds plain ones only",
        _ => "neither a file nor a directory nor a link",
    }
}

struct Hashing<R> {
    inner: R,
    hash: Context,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
