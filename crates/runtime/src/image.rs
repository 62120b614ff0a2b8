//! Images on this node: fetched by digest over the bus, unpacked once, shared by all replicas.

use crate::Error;
use bastide_bus::{Bus, blob};
use bastide_image::{DOCUMENT_BYTES_MAX, Limits, Parsed, Unpacker};
use bastide_types::Digest;
use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

const FETCH_LIMIT: Duration = Duration::from_mins(5);
/// Says that an image may not be on the disk yet, only in memory; holds the boot that it is in the memory of.
const UNSYNCED: &str = "unsynced";

/// The images of this node.
pub(crate) struct Images {
    dir: PathBuf,
    limits: Limits,
    making: Making,
}

/// Who makes what: each stage one image at a time, so that none holds up the others, and each image once.
#[derive(Default)]
struct Making {
    stages: Locks<String>,
    images: Locks<Digest>,
}

type Lock = Arc<tokio::sync::Mutex<()>>;

struct Locks<K>(Mutex<HashMap<K, Lock>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: std::hash::Hash + Eq> Locks<K> {
    fn of(&self, key: K) -> Lock {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are made anew when they are wanted.
        all.retain(|_, lock| Arc::strong_count(lock) > 1);
        all.entry(key).or_default().clone()
    }
}

impl Images {
    pub(crate) fn new(dir: PathBuf, bytes_max: u64) -> Result<Self, Error> {
        fs::create_dir_all(&dir).map_err(Error::file(&dir))?;
        let images =
            Self { dir, limits: Limits { bytes_max, ..Limits::default() }, making: Making::default() };
        images.forget_torn()?;
        Ok(images)
    }

    /// The unpacked image; fetched first when it is not here. `account` is the stage that wants it.
    pub(crate) async fn root(&self, bus: &Bus, account: &str, image: &Digest) -> Result<PathBuf, Error> {
        let root = self.dir.join(image.hex());
        if root.exists() {
            return Ok(root);
        }
        let (stage, one) = (self.making.stages.of(account.to_owned()), self.making.images.of(*image));
        let _stage = stage.lock().await;
        // Two replicas of one image start together, and one fetch serves both.
        let _one = one.lock().await;
        if !root.exists() {
            self.make(bus, image, &root).await?;
        }
        Ok(root)
    }

    async fn make(&self, bus: &Bus, image: &Digest, root: &Path) -> Result<(), Error> {
        let document = blob::fetch_bytes(bus, image, DOCUMENT_BYTES_MAX, FETCH_LIMIT).await?;
        let Parsed::Manifest(manifest) = bastide_image::parse(&document)? else {
            return Err(Error::Image("it is an index".into()));
        };
        let work = self.dir.join(format!("{}.new", image.hex()));
        remove(&work)?;
        fs::create_dir_all(&work).map_err(Error::file(&work))?;
        let mut unpacker = Unpacker::new(&work, self.limits)?;
        for layer in &manifest.layers {
            // Another image may have the same layer and be made at the same time.
            let packed = self.dir.join(format!("{}.{}.layer", image.hex(), layer.digest.hex()));
            blob::fetch(bus, &layer.digest, self.limits.bytes_max, &packed, FETCH_LIMIT).await?;
            let unpacked = tokio::task::spawn_blocking(move || {
                let outcome = File::open(&packed)
                    .map_err(Error::file(&packed))
                    .and_then(|file| Ok(unpacker.layer(file)?));
                let _ = fs::remove_file(&packed);
                outcome.map(|_| unpacker)
            });
            unpacker = unpacked.await.map_err(|error| Error::Image(error.to_string()))??;
        }
        let mark = self.dir.join(format!("{}.{UNSYNCED}", image.hex()));
        fs::write(&mark, boot_id()).map_err(Error::file(&mark))?;
        fs::rename(&work, root).map_err(Error::file(root))?;
        sync_later(root.to_owned(), mark);
        Ok(())
    }

    /// Removes images that a power cut may have torn: those of an earlier boot that were never synced.
    fn forget_torn(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.dir).map_err(Error::file(&self.dir))?.flatten() {
            let mark = entry.path();
            if mark.extension().is_none_or(|extension| extension != UNSYNCED) {
                continue;
            }
            let root = mark.with_extension("");
            if fs::read_to_string(&mark).is_ok_and(|boot| !boot.is_empty() && boot == boot_id()) {
                sync_later(root, mark);
            } else {
                remove(&root)?;
                fs::remove_file(&mark).map_err(Error::file(&mark))?;
            }
        }
        Ok(())
    }

    /// Removes images that no replica of this node needs.
    pub(crate) fn keep_only(&self, needed: &[Digest]) {
        let names: Vec<String> = needed.iter().map(Digest::hex).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let finished = !name.contains('.');
            if finished
                && !names.contains(&name)
                && let Err(error) = remove(&entry.path())
            {
                tracing::warn!(%error, image = name, "cannot remove an image");
            }
        }
    }
}

/// Gets an image onto the disk while its replicas start already.
fn sync_later(root: PathBuf, mark: PathBuf) {
    // Not awaited by anyone: when the process ends before, the mark stays and says so.
    drop(tokio::task::spawn_blocking(move || {
        let synced = File::open(&root).and_then(|dir| rustix::fs::syncfs(dir).map_err(Into::into));
        match synced.and_then(|()| fs::remove_file(&mark)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, root = %root.display(), "an image is not synced to the disk");
            }
        }
    }));
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_image_that_a_power_cut_may_have_torn_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, boot: Option<&str>| {
            fs::create_dir(dir.path().join(name)).unwrap();
            boot.into_iter().for_each(|boot| {
                fs::write(dir.path().join(format!("{name}.{UNSYNCED}")), boot).unwrap();
            });
        };
        make("synced", None);
        make("torn", Some("another boot"));
        make("unknown", Some(""));
        make("fresh", Some(&boot_id()));
        Images::new(dir.path().to_owned(), 1).unwrap();
        let there = |name: &str| dir.path().join(name).exists();
        assert_eq!(["synced", "torn", "unknown", "fresh"].map(there), [true, false, false, true]);
        assert!(!there("torn.unsynced"));
        // The fresh one is synced now, sooner or later.
        while there("fresh.unsynced") {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_stage_makes_one_image_at_a_time_and_none_waits_for_another_stage() {
        let locks: Locks<String> = Locks::default();
        let (one, same, other) = (locks.of("a".into()), locks.of("a".into()), locks.of("b".into()));
        let held = one.lock().await;
        assert!(same.try_lock().is_err());
        assert!(other.try_lock().is_ok());
        drop(held);
        assert!(same.try_lock().is_ok());
    }
}
