//! Images on this node: fetched by digest over the bus, unpacked once, shared by all replicas.

use crate::{Error, unpack};
use bastide_bus::{Bus, blob};
use bastide_types::Digest;
use oci_spec::image::ImageManifest;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
const FETCH_LIMIT: Duration = Duration::from_secs(300);
const LAYERS_MAX: usize = 64;

/// The images of this node.
pub(crate) struct Images {
    dir: PathBuf,
    bytes_max: u64,
    making: tokio::sync::Mutex<()>,
}

impl Images {
    pub(crate) fn new(dir: PathBuf, bytes_max: u64) -> Result<Self, Error> {
        fs::create_dir_all(&dir).map_err(Error::file(&dir))?;
        Ok(Self { dir, bytes_max, making: tokio::sync::Mutex::default() })
    }

    /// The unpacked image; fetched first when it is not here.
    pub(crate) async fn root(&self, bus: &Bus, image: &Digest) -> Result<PathBuf, Error> {
        let root = self.dir.join(image.hex());
        if root.exists() {
            return Ok(root);
        }
        // One at a time: two replicas of one image start together, and one fetch serves both.
        let _making = self.making.lock().await;
        if root.exists() {
            return Ok(root);
        }
        let manifest = blob::fetch_bytes(bus, image, MANIFEST_BYTES_MAX, FETCH_LIMIT).await?;
        let manifest: ImageManifest = serde_json::from_slice(&manifest)
            .map_err(|error| Error::Image(format!("its manifest: {error}")))?;
        if manifest.layers().len() > LAYERS_MAX {
            return Err(Error::Image(format!("more than {LAYERS_MAX} layers")));
        }
        let work = self.dir.join(format!("{}.new", image.hex()));
        remove(&work)?;
        fs::create_dir_all(&work).map_err(Error::file(&work))?;
        for layer in manifest.layers() {
            let digest: Digest = layer
                .digest()
                .to_string()
                .parse()
                .map_err(|_| Error::Image("a layer has no SHA-256 digest".into()))?;
            let packed = self.dir.join(format!("{}.layer", digest.hex()));
            blob::fetch(bus, &digest, self.bytes_max, &packed, FETCH_LIMIT).await?;
            let (from, to, most) = (packed.clone(), work.clone(), self.bytes_max);
            let unpacked = tokio::task::spawn_blocking(move || {
                let file = fs::File::open(&from).map_err(Error::file(&from))?;
                unpack::unpack(std::io::BufReader::new(file), &to, most)
            });
            let outcome = unpacked.await.map_err(|error| Error::Image(error.to_string()))?;
            let _ = fs::remove_file(&packed);
            outcome?;
        }
        fs::rename(&work, &root).map_err(Error::file(&root))?;
        Ok(root)
    }

    /// Removes images that no replica of this node needs.
    pub(crate) fn keep_only(&self, needed: &[Digest]) {
        let names: Vec<String> = needed.iter().map(Digest::hex).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let finished = !name.contains('.');
            if finished && !names.contains(&name) {
                if let Err(error) = remove(&entry.path()) {
                    tracing::warn!(%error, image = name, "cannot remove an image");
                }
            }
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}
