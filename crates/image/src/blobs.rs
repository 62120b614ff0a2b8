//! Content by digest in a directory: what an image is made of, while it is taken and checked.

use crate::{Error, Result, error::refused};
use aws_lc_rs::digest::{Context, SHA256};
use bastide_types::Digest;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

const PIECE_BYTES: usize = 128 * 1024;

/// A directory of blobs, each under the 64 digits of its digest.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// Blobs in this directory, which is made when it is missing.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(Error::file(&dir))?;
        Ok(Self { dir })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a blob lies, or would.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Whether a blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Keeps content, and gives its digest and length.
    ///
    /// # Errors
    /// [`Error::Refused`] when its digest is not the expected one, [`Error::TooLarge`], [`Error::File`].
    pub fn put(
        &self,
        content: &mut dyn Read,
        expected: Option<&Digest>,
        bytes_max: u64,
    ) -> Result<(Digest, u64)> {
        let mut writer = self.begin(bytes_max)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match content.read(&mut piece) {
                Ok(0) => return writer.finish(expected),
                Ok(read) => writer.write(&piece[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(crate::heads::broken(error)),
            }
        }
    }

    /// Begins a blob that comes in pieces.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn begin(&self, bytes_max: u64) -> Result<Writer> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let beside = self.dir.join(format!("unfinished-{}-{count}", std::process::id()));
        let file = File::create_new(&beside).map_err(Error::file(&beside))?;
        let hash = Context::new(&SHA256);
        Ok(Writer { dir: self.dir.clone(), beside, file, hash, bytes: 0, bytes_max })
    }

    /// Opens a blob, and gives its length.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not there.
    pub fn open(&self, digest: &Digest) -> Result<(File, u64)> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return refused(format!("the content of {} is missing", digest.short()));
            }
            other => other.map_err(Error::file(&path))?,
        };
        let bytes = file.metadata().map_err(Error::file(&path))?.len();
        Ok((file, bytes))
    }

    /// A small blob whole.
    ///
    /// # Errors
    /// As [`Blobs::open`]; [`Error::TooLarge`].
    pub fn bytes(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>> {
        let (file, bytes) = self.open(digest)?;
        if bytes > bytes_max {
            return Err(Error::TooLarge(format!("{} is larger than {bytes_max} bytes", digest.short())));
        }
        let mut content = Vec::new();
        file.take(bytes_max).read_to_end(&mut content).map_err(Error::file(self.path(digest)))?;
        Ok(content)
    }
}

/// A blob that is being written; it is gone when it is never finished.
pub struct Writer {
    dir: PathBuf,
    beside: PathBuf,
    file: File,
    hash: Context,
    bytes: u64,
    bytes_max: u64,
}

impl Writer {
    /// Adds a piece.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::File`].
    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.bytes_max {
            let most = self.bytes_max / (1024 * 1024);
            return Err(Error::TooLarge(format!("the image is larger than {most} MiB")));
        }
        self.hash.update(piece);
        self.file.write_all(piece).map_err(Error::file(&self.beside))
    }

    /// Puts the blob under its digest, and gives that and its length.
    ///
    /// # Errors
    /// [`Error::Refused`] when the digest is not the expected one, [`Error::File`].
    pub fn finish(self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let digest = finish(self.hash.clone());
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return refused(format!("the content of {} has another digest", expected.short()));
        }
        let place = self.dir.join(digest.hex());
        fs::rename(&self.beside, &place).map_err(Error::file(&place))?;
        Ok((digest, self.bytes))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Gone already when it was finished.
        let _ = fs::remove_file(&self.beside);
    }
}

pub(crate) fn finish(hash: Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Digest::from_sha256(bytes)
}

pub(crate) fn digest_of(content: &[u8]) -> Digest {
    let mut hash = Context::new(&SHA256);
    hash.update(content);
    finish(hash)
}
