//! Snapshots for the data plane: pulled by digest, checked, built beside the one in force, swapped whole, kept on disk.

use crate::follow::{self, Source};
use crate::request::decode;
use crate::{Bus, BusError, VerifyKey, blob};
use aws_lc_rs::digest::{SHA256, digest};
use bastide_types::message::{Signed, SnapshotHead, SnapshotQuery, TROUBLE_CHARS_MAX, TROUBLES_MAX};
use bastide_types::snapshot::{BYTES_MAX, Quarantined};
use bastide_types::{CustomerName, Digest, Snapshot};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(5);

/// Why a Snapshot that could be read is not fit for a station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// All of it.
    Whole(String),
    /// What these customers have in it: theirs stays as it was, and the rest is built again.
    Customers(BTreeMap<CustomerName, String>),
}

/// Follows the Snapshot: builds the last good one from `dir` (blocking) before it returns, then pulls
/// newer ones, on a hint and on a timer, until `stop`, until the bus closes, or until no receiver is left.
///
/// `build` is the shadow load: it makes what the station serves from, beside what is in force (its second argument), and
/// asks it golden requests. What it returns is what receivers get, so nothing is made twice. A Snapshot that is unfit,
/// has a wrong signature, or is not newer, is refused whole and the old one stays. Objects that make no sense are
/// left as they were, one by one. The Platform hears of either.
pub fn follow<T: Clone + Send + Sync + 'static>(
    bus: &Bus,
    dir: &Path,
    key: VerifyKey,
    build: impl Fn(&Arc<Snapshot>, Option<&T>) -> Result<T, Unfit> + Send + Sync + 'static,
    stop: CancellationToken,
) -> watch::Receiver<Option<T>> {
    let source = Snapshots { key, build: Box::new(build), refused: Mutex::default() };
    let inner = follow::follow(bus, dir, source, stop);
    forward(bus, inner)
}

/// For [`follow`]: takes every Snapshot as it is.
///
/// # Errors
/// None.
pub fn as_it_is(snapshot: &Arc<Snapshot>, _: Option<&Arc<Snapshot>>) -> Result<Arc<Snapshot>, Unfit> {
    Ok(snapshot.clone())
}

/// The last good Snapshot that a follower left in `dir`, if its signature is right (blocking).
pub fn last_good(dir: &Path, key: VerifyKey) -> Option<Arc<Snapshot>> {
    let source = Snapshots { key, build: Box::new(as_it_is), refused: Mutex::default() };
    follow::kept(&source, &dir.join(FILE)).map(|held| held.built)
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

const FILE: &str = "snapshot.json";

type Build<T> = Box<dyn Fn(&Arc<Snapshot>, Option<&T>) -> Result<T, Unfit> + Send + Sync>;

struct Snapshots<T> {
    key: VerifyKey,
    build: Build<T>,
    /// What was refused last, and why: it is not fetched again and again.
    refused: Mutex<Option<(Digest, String)>>,
}

/// A Snapshot in force.
struct Held<T> {
    /// As it is obeyed.
    snapshot: Arc<Snapshot>,
    /// What the station made of it.
    built: T,
    /// Digest of the bytes that it came in.
    digest: Digest,
    /// What was not taken from those.
    quarantined: Vec<Quarantined>,
}

impl<T> Snapshots<T> {
    fn refused(&self) -> std::sync::MutexGuard<'_, Option<(Digest, String)>> {
        self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read(&self, bytes: &[u8], have: Option<&Held<T>>) -> Result<Held<T>, String> {
        let signed: Signed = decode(bytes).map_err(|error| error.to_string())?;
        let text = self.key.verified(&signed).map_err(|error| error.to_string())?;
        let last = have.map(|have| &*have.snapshot);
        let (mut snapshot, mut quarantined) = Snapshot::read(text, last).map_err(|error| chain(&error))?;
        if let Some(last) = last.filter(|last| !snapshot.is_newer_than(last)) {
            return Err(format!(
                "{}/{} is not newer than {}/{}",
                snapshot.epoch, snapshot.revision, last.epoch, last.revision
            ));
        }
        quarantined.extend(snapshot.settle(last));
        snapshot.check_cost()?;
        let (snapshot, built) = self.settled(Arc::new(snapshot), &mut quarantined, have)?;
        tell(&quarantined, have.map_or(&[], |have| &have.quarantined));
        Ok(Held { snapshot, built, digest: digest_of(bytes), quarantined })
    }

    /// What the station makes of it, if need be with customers as they were.
    fn settled(
        &self,
        snapshot: Arc<Snapshot>,
        quarantined: &mut Vec<Quarantined>,
        have: Option<&Held<T>>,
    ) -> Result<(Arc<Snapshot>, T), String> {
        let unfit = match self.built(&snapshot, have) {
            Ok(built) => return Ok((snapshot, built)),
            Err(Unfit::Whole(why)) => return Err(why),
            Err(Unfit::Customers(unfit)) => unfit,
        };
        let last = have.map(|have| &*have.snapshot);
        let mut without = (*snapshot).clone();
        for (name, why) in unfit {
            without.put_back(&name, last);
            quarantined.push(Quarantined { what: format!("customer {name}"), why });
        }
        quarantined.extend(without.settle(last));
        let without = Arc::new(without);
        match self.built(&without, have) {
            Ok(built) => Ok((without, built)),
            Err(Unfit::Whole(why)) => Err(why),
            Err(Unfit::Customers(still)) => {
                let why: Vec<_> =
                    still.into_iter().map(|(name, why)| format!("customer {name}: {why}")).collect();
                Err(why.join("; "))
            }
        }
    }

    /// A fault in the station's own code is a reason against this Snapshot, and no more.
    fn built(&self, snapshot: &Arc<Snapshot>, have: Option<&Held<T>>) -> Result<T, Unfit> {
        let build = AssertUnwindSafe(|| (self.build)(snapshot, have.map(|have| &have.built)));
        catch_unwind(build)
            .unwrap_or_else(|_| Err(Unfit::Whole("building from it failed by a fault of ours".into())))
    }

    /// What the Platform should hear of.
    fn troubles(&self, have: Option<&Held<T>>) -> Vec<String> {
        let refused = self.refused().as_ref().map(|(_, why)| format!("refused: {why}"));
        let quarantined = have.into_iter().flat_map(|have| &have.quarantined).map(ToString::to_string);
        let cut = |text: String| text.chars().take(TROUBLE_CHARS_MAX).collect();
        refused.into_iter().chain(quarantined).take(TROUBLES_MAX).map(cut).collect()
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// Says what is new in quarantine.
fn tell(quarantined: &[Quarantined], before: &[Quarantined]) {
    for object in quarantined.iter().filter(|object| !before.contains(object)) {
        tracing::error!(
            object = object.what,
            why = object.why,
            "an object of the Snapshot is in quarantine; what was good last stays in its place"
        );
    }
}

impl<T: Send + Sync + 'static> Source for Snapshots<T> {
    type State = Held<T>;
    const FILE: &'static str = FILE;
    const BYTES_MAX: u64 = BYTES_MAX as u64;
    const HINT: &'static str = "hint.snapshot";

    async fn pull(&self, bus: &Bus, have: Option<Arc<Held<T>>>) -> Result<Option<Vec<u8>>, BusError> {
        let at = have.as_ref().map(|have| (have.snapshot.epoch, have.snapshot.revision));
        let troubles = self.troubles(have.as_deref());
        let query =
            SnapshotQuery { have: at, by: bus.user_name().to_owned(), troubles, ..SnapshotQuery::default() };
        let head: SnapshotHead = bus.request("platform.snapshot.head", &query, LIMIT).await?;
        let known = have.is_some_and(|have| have.digest == head.digest);
        // A replica of the platform that is behind tells an older head: no reason to fetch it.
        let older = at.is_some_and(|at| (head.epoch, head.revision) <= at);
        let refused = self.refused().as_ref().is_some_and(|(digest, _)| *digest == head.digest);
        if known || older || refused {
            return Ok(None);
        }
        if head.bytes > Self::BYTES_MAX {
            return Err(BusError::TooLarge { bytes: head.bytes, bytes_max: Self::BYTES_MAX });
        }
        blob::fetch_bytes(bus, &head.digest, Self::BYTES_MAX, LIMIT).await.map(Some)
    }

    fn admit(&self, bytes: &[u8], have: Option<&Held<T>>) -> Result<Held<T>, String> {
        match self.read(bytes, have) {
            Ok(held) => {
                *self.refused() = None;
                Ok(held)
            }
            Err(why) => {
                *self.refused() = Some((digest_of(bytes), why.clone()));
                Err(why)
            }
        }
    }

    fn is_whole(state: &Held<T>) -> bool {
        state.quarantined.is_empty()
    }
}

/// Shows readers what they made alone, without the bookkeeping of the follower.
fn forward<T: Clone + Send + Sync + 'static>(
    bus: &Bus,
    mut inner: watch::Receiver<Option<Arc<Held<T>>>>,
) -> watch::Receiver<Option<T>> {
    let shown = |held: &Option<Arc<Held<T>>>| held.as_ref().map(|held| held.built.clone());
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
