//! OCI images: taken from an image layout, an OCI archive or a `docker save` archive, checked, and unpacked
//! so that nothing can leave the root.
//!
//! Everything here reads foreign bytes. The Build Service takes and checks an image before it becomes a
//! revision; the runtime unpacks the same blobs with the same code and trusts nothing but their digests.
//! What is deliberately not here: registries (the Build Service pulls), and running anything.

mod blobs;
mod check;
mod compression;
mod document;
pub mod elf;
mod error;
mod heads;
mod inside;
mod layer;
mod source;
mod tree;

pub use blobs::{Blobs, Writer};
pub use check::{Checked, check};
pub use document::{Config, Descriptor, Execution, Index, Manifest, Parsed, architecture, choose, parse};
pub use error::Error;
pub use inside::open_file;
pub use layer::Unpacker;
pub use source::collect;
pub use tree::Tree;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// How large an image may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files of all layers, also of those that a later layer hides. Default 1 GiB.
    pub bytes_max: u64,
    /// Entries of all layers. Default 200 000.
    pub entries_max: usize,
    /// Layers. Default 128.
    pub layers_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 1024 * 1024 * 1024, entries_max: 200_000, layers_max: 128 }
    }
}

/// Most bytes of a manifest, an index or a configuration.
pub const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024;
