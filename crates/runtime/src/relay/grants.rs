//! Calls from one app to another: accept inside the caller's network, connect to a replica of the called app,
//! carry bytes.

use super::{Inside, Limits, Place, pace::Pace, turns::Turns};
use bastide_proxy::relay::{Counted, relay};
use bastide_types::{AppName, ReplicaId, ZoneName, message::StageState};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Pause after a connection that was one too many, so that a flood of them costs others nothing.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);

/// Who can be called in a stage: replicas of the revisions that serve, as far as they are ready.
#[derive(Debug, Default)]
pub(crate) struct Callees {
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    serving: BTreeMap<AppName, Vec<Place>>,
    ready: BTreeSet<ReplicaId>,
    turns: Turns,
}

impl Callees {
    pub(crate) fn deploy(&self, state: &StageState) {
        let mut serving: BTreeMap<AppName, Vec<Place>> = BTreeMap::new();
        for replica in state.replicas.iter().filter(|replica| replica.serving && !replica.draining) {
            let place = (replica.zone.clone(), replica.id);
            serving.entry(replica.app_name.clone()).or_default().push(place);
        }
        self.all.lock().unwrap_or_else(PoisonError::into_inner).serving = serving;
    }

    pub(crate) fn ready(&self, ready: BTreeSet<ReplicaId>) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).ready = ready;
    }

    /// Whom to call, in this order.
    fn order(&self, app: &AppName, zone: &ZoneName) -> Vec<ReplicaId> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let All { serving, ready, turns } = &mut *all;
        let there: Vec<Place> = serving
            .get(app)
            .into_iter()
            .flatten()
            .filter(|(_, replica)| ready.contains(replica))
            .cloned()
            .collect();
        turns.order(app, zone, &there)
    }
}

/// The way from a caller to an app.
pub(crate) struct Way<I> {
    pub(crate) inside: Arc<I>,
    pub(crate) callees: Arc<Callees>,
    pub(crate) app: AppName,
    /// The caller's.
    pub(crate) zone: ZoneName,
    pub(crate) limits: Limits,
}

/// Serves a listener until `stop`, then cuts what came through it. Connections are tasks of `tasks`.
pub(crate) async fn serve<I: Inside>(
    listener: TcpListener,
    way: Arc<Way<I>>,
    places: Arc<Semaphore>,
    pace: Arc<Pace>,
    (tasks, stop): (TaskTracker, CancellationToken),
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let client = match accepted {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, app = %way.app, "cannot accept a call");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        sleep(pace.take(Instant::now())).await;
        let Ok(place) = places.clone().try_acquire_owned() else {
            reset(client);
            sleep(FLOOD_PAUSE).await;
            continue;
        };
        let (way, stop) = (way.clone(), stop.clone());
        tasks.spawn(async move {
            let _place = place;
            tokio::select! {
                () = way.call(client) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

impl<I: Inside> Way<I> {
    async fn call(&self, client: TcpStream) {
        let Some(far) = self.reach().await else { return reset(client) };
        for stream in [&client, &far] {
            // Small pieces are not held back. Worth nothing more than speed.
            let _ = stream.set_nodelay(true);
        }
        let end = relay(client, far, &Counted::default(), self.limits.idle).await;
        if let Err(error) = end {
            tracing::debug!(%error, app = %self.app, "a call between apps was cut");
        }
    }

    /// A connection to the first that takes one.
    async fn reach(&self) -> Option<TcpStream> {
        for replica in self.callees.order(&self.app, &self.zone) {
            match timeout(self.limits.connect, self.inside.connect(replica)).await {
                Ok(Ok(far)) => return Some(far),
                Ok(Err(error)) => tracing::debug!(%error, %replica, app = %self.app, "passed over"),
                Err(_) => tracing::debug!(%replica, app = %self.app, "passed over: no answer"),
            }
        }
        None
    }
}

/// Ends a connection so that the other side sees at once that it failed.
fn reset(client: TcpStream) {
    // Without it the end looks like an empty answer; no more than that.
    let _ = client.set_zero_linger();
}
