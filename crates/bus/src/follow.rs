//! How state reaches those who need it: the last good one from disk at once, newer ones by pulling, on
//! a hint and on a timer, so that a lost hint only costs time. What does not pass every check is
//! refused whole and the old one stays. Silence changes nothing.

use crate::{Bus, BusError, connection::random_fraction, file};
use futures_util::StreamExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time between pulls while there is nothing yet, or the last pull failed.
const SOON: Duration = Duration::from_secs(2);
/// Time between pulls otherwise.
const LATER: Duration = Duration::from_secs(10);

/// Hints that are taken together.
const HINTS: usize = 256;

/// A kind of state that is followed.
pub(crate) trait Source: Send + Sync + 'static {
    /// The state, checked.
    type State: Send + Sync + 'static;
    /// Name of the file that keeps it.
    const FILE: &'static str;
    /// Largest serialized state.
    const BYTES_MAX: u64;
    /// Subject of the hint.
    const HINT: &'static str;

    /// Asks for what is newer than `have`: its bytes, or `None`.
    fn pull(
        &self,
        bus: &Bus,
        have: Option<Arc<Self::State>>,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, BusError>> + Send;

    /// Reads and checks the bytes: signature, owner, newer than `have`, fit for use.
    fn admit(&self, bytes: &[u8], have: Option<&Self::State>) -> Result<Self::State, String>;

    /// Whether all of what was said was taken.
    fn is_whole(_: &Self::State) -> bool {
        true
    }
}

/// Reads the last good state from `dir`, then keeps following until `stop`, until the bus is closed, or
/// until no receiver is left. Reading blocks: call it at start.
pub(crate) fn follow<S: Source>(
    bus: &Bus,
    dir: &Path,
    source: S,
    stop: CancellationToken,
) -> watch::Receiver<Option<Arc<S::State>>> {
    let path = dir.join(S::FILE);
    let kept = kept(&source, &path);
    let (sender, receiver) = watch::channel(kept.map(Arc::new));
    let follower = Follower { bus: bus.clone(), path, source: Arc::new(source), sender };
    bus.spawn(follower.run(stop));
    receiver
}

/// The last good state on disk, or the one before it when a crash or a fault left a bad file. Parts of it that were not
/// taken are those of the last one that was taken whole.
pub(crate) fn kept<S: Source>(source: &S, path: &Path) -> Option<S::State> {
    let whole = usable(source, &whole(path), None);
    let found =
        [path.to_owned(), previous(path)].iter().find_map(|path| usable(source, path, whole.as_ref()));
    found.or(whole)
}

fn usable<S: Source>(source: &S, path: &Path, have: Option<&S::State>) -> Option<S::State> {
    let admitted = match file::read(path, S::BYTES_MAX) {
        Ok(bytes) => source.admit(&bytes?, have),
        Err(error) => Err(error.to_string()),
    };
    admitted.map_err(|why| tracing::error!(path = %path.display(), why, "a state on disk is not usable")).ok()
}

fn previous(path: &Path) -> PathBuf {
    path.with_extension("previous")
}

/// The last one that was taken whole, if the newest was not.
fn whole(path: &Path) -> PathBuf {
    path.with_extension("whole")
}

struct Follower<S: Source> {
    bus: Bus,
    path: PathBuf,
    source: Arc<S>,
    sender: watch::Sender<Option<Arc<S::State>>>,
}

impl<S: Source> Follower<S> {
    async fn run(self, stop: CancellationToken) {
        let mut connection = self.bus.connection_changes();
        let Ok(hints) = self.bus.client.subscribe(S::HINT).await else { return };
        // Many hints at once mean one pull.
        let mut hints = hints.ready_chunks(HINTS);
        let closing = self.bus.closing().clone();
        loop {
            let step = async {
                let pause = if self.step().await { LATER } else { SOON };
                // Spread, so that a thousand followers do not ask in the same moment.
                let timer = tokio::time::sleep(pause.mul_f64(0.8 + 0.4 * random_fraction()));
                tokio::select! {
                    () = timer => true,
                    _ = connection.changed() => true,
                    hint = hints.next() => hint.is_some(),
                }
            };
            let goes_on = tokio::select! {
                () = stop.cancelled() => false,
                () = closing.cancelled() => false,
                () = self.sender.closed() => false,
                goes_on = step => goes_on,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// One pull. Returns whether what we have is known to be the newest.
    async fn step(&self) -> bool {
        if !self.bus.is_connected() {
            return false;
        }
        let have = self.sender.borrow().clone();
        match self.source.pull(&self.bus, have.clone()).await {
            Ok(None) => have.is_some(),
            Ok(Some(bytes)) => self.take(bytes, have).await,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    file = S::FILE,
                    "nothing was pulled"
                );
                false
            }
        }
    }

    /// Checks, writes, then swaps: what is in force is always on disk.
    async fn take(&self, bytes: Vec<u8>, have: Option<Arc<S::State>>) -> bool {
        let (source, path) = (self.source.clone(), self.path.clone());
        // Parsing and flushing megabytes must not hold up the other tasks of this thread.
        let taken = tokio::task::spawn_blocking(move || {
            let have = have.as_deref();
            let state = source.admit(&bytes, have)?;
            let whole = (have.is_some_and(S::is_whole), S::is_whole(&state));
            keep(&path, &bytes, whole).map_err(|error| format!("it cannot be kept: {error}"))?;
            Ok::<_, String>(state)
        });
        match taken.await {
            Ok(Ok(state)) => {
                self.sender.send_replace(Some(Arc::new(state)));
                true
            }
            Ok(Err(why)) => {
                tracing::error!(file = S::FILE, why, "a new state was refused; the old one stays in force");
                true // asking again soon would bring the same
            }
            Err(error) => {
                tracing::error!(%error, file = S::FILE, "checking a new state failed; the old one stays in force");
                true
            }
        }
    }
}

/// Puts the bytes in place of the last good state, which becomes the previous one. `whole`: whether all of that one was
/// taken, and all of this one.
fn keep(path: &Path, bytes: &[u8], whole: (bool, bool)) -> Result<(), BusError> {
    link(path, &previous(path));
    if let (true, false) = whole {
        link(path, &self::whole(path));
    }
    file::write(path, bytes)?;
    if whole.1 {
        let _ = std::fs::remove_file(self::whole(path));
    }
    Ok(())
}

/// Keeps the file under another name, too; it stays in its place all the time.
fn link(path: &Path, other: &Path) {
    let _ = std::fs::remove_file(other);
    match std::fs::hard_link(path, other) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "the previous state is not kept");
        }
        _ => {}
    }
}
