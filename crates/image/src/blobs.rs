//! Content by digest in a directory: what an image is made of, while it is taken and checked.

use crate::{Error, Result, error::refused};
use aws_lc_rs::digest::{Context, SHA256};
use bastide_types::Digest;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
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
        // One writer per directory: a publish has a directory of its own.
        let beside = self.dir.join("unfinished");
        let mut file = File::create(&beside).map_err(Error::file(&beside))?;
        let mut hash = Context::new(&SHA256);
        let mut piece = vec![0; PIECE_BYTES];
        let mut bytes: u64 = 0;
        loop {
            let read = match content.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(crate::heads::broken(error)),
            };
            bytes += read as u64;
            if bytes > bytes_max {
                let most = bytes_max / (1024 * 1024);
                return Err(Error::TooLarge(format!("a part of the image is larger than {most} MiB")));
            }
            hash.update(&piece[..read]);
            file.write_all(&piece[..read]).map_err(Error::file(&beside))?;
        }
        let digest = finish(hash);
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return refused(format!("the content of {} has another digest", expected.short()));
        }
        let place = self.path(&digest);
        fs::rename(&beside, &place).map_err(Error::file(&place))?;
        Ok((digest, bytes))
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
