//! Snapshots for the data plane: pulled by digest, checked, swapped whole, kept on disk.

use crate::follow::{self, Source};
use crate::request::decode;
use crate::{Bus, BusError, VerifyKey, blob};
use aws_lc_rs::digest::{SHA256, digest};
use bastide_types::message::{Signed, SnapshotHead, SnapshotQuery};
use bastide_types::{Digest, Snapshot, snapshot::BYTES_MAX};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(5);

/// Follows the Snapshot: reads the last good one from `dir` (blocking) before it returns, then pulls
/// newer ones, on a hint and on a timer, until `stop`, until the bus closes, or until no receiver is left.
///
/// `check` is the shadow load: whatever the reader must be able to do with a Snapshot. One that fails,
/// or has a wrong signature, or is not newer, is refused whole and the old one stays.
pub fn follow(
    bus: &Bus,
    dir: &Path,
    key: VerifyKey,
    check: impl Fn(&Snapshot) -> Result<(), String> + Send + Sync + 'static,
    stop: CancellationToken,
) -> watch::Receiver<Option<Arc<Snapshot>>> {
    let source = Snapshots { key, check: Box::new(check), refused: Mutex::new(None) };
    let inner = follow::follow(bus, dir, source, stop);
    forward(bus, inner)
}

/// The last good Snapshot that a follower left in `dir`, if its signature is right (blocking).
pub fn last_good(dir: &Path, key: VerifyKey) -> Option<Arc<Snapshot>> {
    let source = Snapshots { key, check: Box::new(|_| Ok(())), refused: Mutex::new(None) };
    follow::kept(&source, &dir.join(Snapshots::FILE)).map(|held| held.snapshot)
}

/// Bytes and head of a Snapshot as it travels: put the bytes where [`crate::PlatformHandler::blob`]
/// finds them under `digest`.
pub fn serialize(snapshot: &Snapshot, signed: &Signed) -> Result<(SnapshotHead, Vec<u8>), BusError> {
    let bytes = serde_json::to_vec(signed).map_err(|error| BusError::Malformed(error.to_string()))?;
    let length = bytes.len() as u64;
    if length > BYTES_MAX as u64 {
        return Err(BusError::TooLarge { bytes: length, bytes_max: BYTES_MAX as u64 });
    }
    let digest = digest_of(&bytes);
    Ok((SnapshotHead { epoch: snapshot.epoch, revision: snapshot.revision, digest, bytes: length }, bytes))
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut sha = [0; 32];
    sha.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Digest::from_sha256(sha)
}

type Check = Box<dyn Fn(&Snapshot) -> Result<(), String> + Send + Sync>;

struct Snapshots {
    key: VerifyKey,
    check: Check,
    /// Digest of what was refused last: it is not fetched again and again.
    refused: Mutex<Option<Digest>>,
}

/// A Snapshot and the digest of the bytes that it came in.
struct Held {
    snapshot: Arc<Snapshot>,
    digest: Digest,
}

impl Snapshots {
    fn refused(&self) -> std::sync::MutexGuard<'_, Option<Digest>> {
        self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read(&self, bytes: &[u8], have: Option<&Held>) -> Result<Snapshot, String> {
        let signed: Signed = decode(bytes).map_err(|error| error.to_string())?;
        let snapshot: Snapshot = self.key.verify(&signed).map_err(|error| error.to_string())?;
        if let Some(have) = have.filter(|have| !snapshot.is_newer_than(&have.snapshot)) {
            let (epoch, revision) = (have.snapshot.epoch, have.snapshot.revision);
            return Err(format!(
                "{}/{} is not newer than {epoch}/{revision}",
                snapshot.epoch, snapshot.revision
            ));
        }
        (self.check)(&snapshot)?;
        Ok(snapshot)
    }
}

impl Source for Snapshots {
    type State = Held;
    const FILE: &'static str = "snapshot.json";
    const BYTES_MAX: u64 = BYTES_MAX as u64;
    const HINT: &'static str = "hint.snapshot";

    async fn pull(&self, bus: &Bus, have: Option<Arc<Held>>) -> Result<Option<Vec<u8>>, BusError> {
        let at = have.as_ref().map(|have| (have.snapshot.epoch, have.snapshot.revision));
        let head: SnapshotHead =
            bus.request("platform.snapshot.head", &SnapshotQuery { have: at }, LIMIT).await?;
        let known = have.is_some_and(|have| have.digest == head.digest);
        // A replica of the platform that is behind tells an older head: no reason to fetch it.
        let older = at.is_some_and(|at| (head.epoch, head.revision) <= at);
        if known || older || *self.refused() == Some(head.digest) {
            return Ok(None);
        }
        if head.bytes > Self::BYTES_MAX {
            return Err(BusError::TooLarge { bytes: head.bytes, bytes_max: Self::BYTES_MAX });
        }
        blob::fetch_bytes(bus, &head.digest, Self::BYTES_MAX, LIMIT).await.map(Some)
    }

    fn admit(&self, bytes: &[u8], have: Option<&Held>) -> Result<Held, String> {
        let digest = digest_of(bytes);
        match self.read(bytes, have) {
            Ok(snapshot) => Ok(Held { snapshot: Arc::new(snapshot), digest }),
            Err(why) => {
                *self.refused() = Some(digest);
                Err(why)
            }
        }
    }
}

/// Shows readers the Snapshot alone, without the bookkeeping of the follower.
fn forward(
    bus: &Bus,
    mut inner: watch::Receiver<Option<Arc<Held>>>,
) -> watch::Receiver<Option<Arc<Snapshot>>> {
    let shown = |held: &Option<Arc<Held>>| held.as_ref().map(|held| held.snapshot.clone());
    let (sender, receiver) = watch::channel(shown(&inner.borrow_and_update()));
    bus.spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                changed = inner.changed() => match changed {
                    Ok(()) => { sender.send_replace(shown(&inner.borrow_and_update())); }
                    // The follower ended; readers keep what they have.
                    Err(_) => return,
                }
            }
        }
    });
    receiver
}
