//! Images as an OCI image layout: content by digest, the same input gives the same digest.

use super::archive::{Archive, Entry};
use aws_lc_rs::digest::{Context, SHA256};
use bastide_types::{Digest, manifest::Kind};
use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// A blob that no revision names is kept so long.
const UNNAMED_KEPT: Duration = Duration::from_hours(24);

/// The layout's directory.
pub struct Images {
    dir: PathBuf,
}

/// A built image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of its manifest.
    pub digest: Digest,
    /// All its blobs, the manifest among them.
    pub blobs: Vec<Digest>,
}

impl Images {
    /// Opens the layout, or begins one.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        let marker = dir.join("oci-layout");
        if !marker.exists() {
            put(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Builds the image of an unpacked archive.
    pub fn build(&self, archive: &Archive, root: &Path) -> io::Result<Image> {
        let (layer, layer_bytes, diff) = self.layer(archive, root)?;
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let command = match archive.manifest.app.kind {
            Kind::Binary => archive.manifest.app.command.clone(),
            Kind::Static | Kind::Image => Vec::new(),
        };
        let config = json!({
            "architecture": arch,
            "os": "linux",
            "config": { "Cmd": command, "WorkingDir": "/", "User": "65532" },
            "rootfs": { "type": "layers", "diff_ids": [diff.to_string()] },
            "history": [{ "created_by": "bastide publish" }],
        });
        let (config, config_bytes) = self.put_json(&config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string(), "size": config_bytes },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer.to_string(), "size": layer_bytes }],
        });
        let (digest, _) = self.put_json(&manifest)?;
        Ok(Image { digest, blobs: vec![digest, config, layer] })
    }

    /// The one layer: entries in order, no times, no owners.
    fn layer(&self, archive: &Archive, root: &Path) -> io::Result<(Digest, u64, Digest)> {
        let beside = Unfinished(self.dir.join(format!("layer-{}.new", uuid::Uuid::new_v4())));
        let packed = Hashing::new(fs::File::create_new(&beside.0)?);
        let gz = GzBuilder::new().write(packed, Compression::default());
        let mut tar = tar::Builder::new(Hashing::new(gz));
        for (path, entry) in &archive.entries {
            append(&mut tar, root, path, *entry)?;
        }
        let unpacked = tar.into_inner()?;
        let diff = unpacked.digest();
        let packed = unpacked.inner.finish()?;
        let (digest, length) = (packed.digest(), packed.written);
        packed.inner.sync_all()?;
        place(&beside, &self.path(&digest))?;
        Ok((digest, length, diff))
    }

    fn put_json(&self, value: &serde_json::Value) -> io::Result<(Digest, u64)> {
        let bytes = value.to_string().into_bytes();
        let mut hashing = Hashing::new(io::sink());
        hashing.write_all(&bytes)?;
        let digest = hashing.digest();
        put(&self.path(&digest), &bytes)?;
        Ok((digest, bytes.len() as u64))
    }

    /// Moves a blob of this digest into the layout, to stay there over a power cut.
    pub(crate) fn keep(&self, from: &Path, digest: &Digest) -> io::Result<()> {
        let to = self.path(digest);
        // The same layer comes twice in some images, and in many images. It is as young as its newest image.
        if let Ok(known) = fs::File::open(&to) {
            return known.set_modified(SystemTime::now());
        }
        let beside = Unfinished(self.dir.join(format!("blob-{}.new", uuid::Uuid::new_v4())));
        // Another file system is fine too.
        if fs::rename(from, &beside.0).is_err() {
            fs::copy(from, &beside.0)?;
        }
        fs::File::open(&beside.0)?.sync_all()?;
        place(&beside, &to)
    }

    /// Removes blobs that are not `named` and were not touched for a day: an image may be on its way; how many.
    pub fn sweep(&self, named: &BTreeSet<Digest>, now: SystemTime) -> io::Result<usize> {
        let named: BTreeSet<_> = named.iter().map(Digest::hex).collect();
        let mut gone = 0;
        for entry in fs::read_dir(self.dir.join("blobs/sha256"))? {
            let entry = entry?;
            let is_named = entry.file_name().to_str().is_some_and(|name| named.contains(name));
            let touched = entry.metadata().and_then(|about| about.modified());
            let is_old = touched.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > UNNAMED_KEPT));
            // Another replica may have been quicker.
            if !is_named && is_old && fs::remove_file(entry.path()).is_ok() {
                gone += 1;
            }
        }
        Ok(gone)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// At most `max` bytes of a blob from `offset`, and its length.
    pub async fn read(&self, digest: &Digest, offset: u64, max: usize) -> Option<(Bytes, u64)> {
        let path = self.path(digest);
        let read = move || -> io::Result<(Bytes, u64)> {
            let mut file = fs::File::open(path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(max as u64).read_to_end(&mut bytes)?;
            Ok((bytes.into(), length))
        };
        tokio::task::spawn_blocking(read).await.ok()?.ok()
    }

    /// Lists all images in `index.json`, for other OCI tools.
    pub fn write_index(&self, images: &[(Digest, String)]) -> io::Result<()> {
        let manifests: Vec<_> = images
            .iter()
            .filter_map(|(digest, name)| {
                let document = fs::read(self.path(digest)).ok()?;
                let size = document.len();
                Some(json!({
                    "mediaType": media_type(&document),
                    "digest": digest.to_string(),
                    "size": size,
                    "annotations": { "org.opencontainers.image.ref.name": name },
                }))
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests });
        put(&self.dir.join("index.json"), index.to_string().as_bytes())
    }
}

/// What a manifest says that it is; images that were built elsewhere may be of Docker's kind.
fn media_type(manifest: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said {
        media_type: Option<String>,
    }
    let said = serde_json::from_slice::<Said>(manifest).ok().and_then(|said| said.media_type);
    said.unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned())
}

fn append<W: Write>(tar: &mut tar::Builder<W>, root: &Path, path: &Path, entry: Entry) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    match entry {
        Entry::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, path, io::empty())
        }
        Entry::File { executable } => {
            let file = fs::File::open(root.join(path))?;
            header.set_size(file.metadata()?.len());
            header.set_mode(if executable { 0o755 } else { 0o644 });
            tar.append_data(&mut header, path, file)
        }
    }
}

/// A file beside its final place; removed when it never gets there.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Moves a finished file to its place, to stay there over a power cut: SQL may name it right after.
fn place(file: &Unfinished, path: &Path) -> io::Result<()> {
    fs::rename(&file.0, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes a file whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = Unfinished(path.with_extension(format!("{}.new", uuid::Uuid::new_v4())));
    let mut file = fs::File::create_new(&beside.0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    place(&beside, path)
}

/// Passes bytes on and hashes them.
struct Hashing<W> {
    inner: W,
    hash: Context,
    written: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Context::new(&SHA256), written: 0 }
    }
    fn digest(&self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.hash.clone().finish().as_ref());
        Digest::from_sha256(bytes)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
