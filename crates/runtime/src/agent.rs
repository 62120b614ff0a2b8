//! The agent of one stage: keeps what should run running, and tells what does.

use crate::{
    driver::{Launch, Life, RuntimeDriver, Started},
    image::Images,
    plan::{Action, plan},
    probe::probe,
};
use bastide_bus::{Bus, facts};
use bastide_types::{
    Digest, ReplicaId,
    message::{DesiredReplica, ReplicaFact, ReplicaFacts, ReplicaState, StageState},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const FIRST_PROBES_EVERY: Duration = Duration::from_millis(100);
const LATER_PROBES_EVERY: Duration = Duration::from_secs(2);
/// Failed probes in a row after which a replica gets no more requests.
const PROBES_LOST: u32 = 2;
const RESTART_FIRST: Duration = Duration::from_secs(1);
const RESTART_LONGEST: Duration = Duration::from_secs(60);
/// A replica that was well this long starts again quickly when it ends.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// Time between the word that a replica drains and its SIGTERM: gateways hear it first.
const DRAIN_NOTICE: Duration = Duration::from_millis(500);
const HEARTBEAT: Duration = Duration::from_secs(2);
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// What all agents of a node share.
pub(crate) struct Node<D> {
    pub(crate) driver: D,
    pub(crate) images: Images,
    /// Images that any stage of this node needs, by account.
    pub(crate) needed: Mutex<BTreeMap<String, Vec<Digest>>>,
}

/// What is known of the replicas of a stage; every change wakes the tellers.
struct Told {
    facts: watch::Sender<BTreeMap<ReplicaId, ReplicaFact>>,
}

impl Told {
    fn set(&self, id: ReplicaId, state: ReplicaState, addr: Option<SocketAddr>, reason: Option<String>) {
        let fact = ReplicaFact { addr, reason, ..ReplicaFact::new(id, state) };
        self.facts.send_if_modified(|facts| facts.insert(id, fact.clone()) != Some(fact));
    }
    fn forget(&self, id: ReplicaId) {
        self.facts.send_modify(|facts| {
            facts.remove(&id);
        });
    }
}

/// Looks after one stage until `stop`, then stops its replicas.
pub(crate) async fn run<D: RuntimeDriver>(
    node: Arc<Node<D>>,
    bus: Bus,
    account: String,
    mut desired: watch::Receiver<Option<Arc<StageState>>>,
    stop: CancellationToken,
) {
    let told = Arc::new(Told { facts: watch::channel(BTreeMap::new()).0 });
    let keepers = TaskTracker::new();
    let mut kept: BTreeMap<ReplicaId, CancellationToken> = BTreeMap::new();
    let (generation, heard) = watch::channel(0);
    let tellers = tell(bus.clone(), told.facts.subscribe(), heard, stop.clone());
    let work = async {
        loop {
            let state = desired.borrow_and_update().clone();
            // A replica whose keeper has ended is not known any more.
            kept.retain(|id, _| told.facts.borrow().contains_key(id));
            let known: BTreeSet<_> = kept.keys().copied().collect();
            let draining = kept.iter().filter(|(_, drain)| drain.is_cancelled()).map(|(id, _)| *id).collect();
            for action in plan(state.as_deref(), &known, &draining) {
                match (action, &state) {
                    (Action::Start(replica), Some(state)) => {
                        let drain = stop.child_token();
                        kept.insert(replica.id, drain.clone());
                        told.set(replica.id, ReplicaState::Starting, None, None);
                        let keeper = Keeper {
                            node: node.clone(),
                            bus: bus.clone(),
                            told: told.clone(),
                            state: state.clone(),
                            replica: *replica,
                        };
                        keepers.spawn(keeper.keep(drain));
                    }
                    (Action::Drain(id), _) => {
                        if let Some(drain) = kept.get(&id) {
                            drain.cancel();
                        }
                    }
                    (Action::Start(_), None) => {}
                }
            }
            if let Some(state) = &state {
                let images = state.replicas.iter().map(|replica| replica.image).collect();
                node.needed.lock().unwrap_or_else(PoisonError::into_inner).insert(account.clone(), images);
                generation.send_replace(state.generation);
            }
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    };
    tokio::join!(
        async {
            work.await;
            keepers.close();
            keepers.wait().await;
        },
        tellers
    );
}

/// Tells the full list on every change and as a heartbeat: edges and gateways at once, the Platform with
/// an acknowledgement.
async fn tell(
    bus: Bus,
    facts_of: watch::Receiver<BTreeMap<ReplicaId, ReplicaFact>>,
    generation: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let boot = uuid::Uuid::new_v4().as_u64_pair().0;
    let sequence = std::sync::atomic::AtomicU64::new(0);
    let list = |facts: &watch::Receiver<BTreeMap<ReplicaId, ReplicaFact>>| ReplicaFacts {
        boot,
        sequence: sequence.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1,
        generation: *generation.borrow(),
        replicas: facts.borrow().values().cloned().collect(),
    };
    let at_once = async {
        let mut changes = facts_of.clone();
        loop {
            changes.mark_unchanged();
            if let Err(error) = facts::publish(&bus, &list(&changes)).await {
                tracing::debug!(%error, "facts not published");
            }
            pause(&mut changes, HEARTBEAT).await;
        }
    };
    let acknowledged = async {
        let mut changes = facts_of.clone();
        loop {
            changes.mark_unchanged();
            let told = facts::report(&bus, &list(&changes), REPORT_LIMIT).await;
            match told {
                Ok(()) => pause(&mut changes, HEARTBEAT).await,
                Err(error) => {
                    tracing::debug!(%error, "the platform did not hear");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    };
    tokio::select! {
        () = at_once => {}
        () = acknowledged => {}
        () = stop.cancelled() => {}
    }
}

async fn pause(changes: &mut watch::Receiver<BTreeMap<ReplicaId, ReplicaFact>>, longest: Duration) {
    if let Ok(Err(_)) = tokio::time::timeout(longest, changes.changed()).await {
        std::future::pending::<()>().await;
    }
}

/// Looks after one replica.
struct Keeper<D> {
    node: Arc<Node<D>>,
    bus: Bus,
    told: Arc<Told>,
    state: Arc<StageState>,
    replica: DesiredReplica,
}

impl<D: RuntimeDriver> Keeper<D> {
    async fn keep(self, drain: CancellationToken) {
        let mut wait = RESTART_FIRST;
        while !drain.is_cancelled() {
            let begun = Instant::now();
            let why = tokio::select! {
                why = self.live() => why,
                () = drain.cancelled() => break,
            };
            tracing::warn!(replica = %self.replica.id, app = %self.replica.app_name, why, "replica ended");
            self.told.set(self.replica.id, ReplicaState::Failed, None, Some(why));
            self.node.driver.stop(self.replica.id, Duration::ZERO).await;
            if begun.elapsed() > WELL_AFTER {
                wait = RESTART_FIRST;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = drain.cancelled() => break,
            }
            wait = (wait * 2).min(RESTART_LONGEST);
        }
        self.told.set(self.replica.id, ReplicaState::Draining, None, None);
        tokio::time::sleep(DRAIN_NOTICE).await;
        let grace = Duration::from_secs(self.replica.manifest.app.grace_s.into());
        self.node.driver.stop(self.replica.id, grace).await;
        self.told.forget(self.replica.id);
        tracing::info!(replica = %self.replica.id, app = %self.replica.app_name, "replica stopped");
    }

    /// One life of the replica; returns why it ended.
    async fn live(&self) -> String {
        let id = self.replica.id;
        self.told.set(id, ReplicaState::Starting, None, None);
        let root = match self.node.images.root(&self.bus, &self.replica.image).await {
            Ok(root) => root,
            Err(error) => return format!("no image: {}", chain(&error)),
        };
        let launch = Launch {
            replica: self.replica.clone(),
            customer: self.state.customer.clone(),
            stage: self.state.stage.clone(),
            root,
        };
        let started = match self.node.driver.start(launch).await {
            Ok(started) => started,
            Err(error) => return chain(&error),
        };
        let Started { addr, mut life } = started;
        let mut ended = life.clone();
        tokio::select! {
            never = self.watch(addr) => match never {},
            end = ended.wait_for(|life| *life != Life::Running) => drop(end),
        }
        match life.borrow_and_update().clone() {
            Life::Ended(why) => why,
            Life::Running => "its driver ended".into(),
        }
    }

    /// Probes for ever: ready after one good answer, not ready after some bad ones.
    async fn watch(&self, addr: SocketAddr) -> std::convert::Infallible {
        let path = self.replica.manifest.health();
        let (mut ready, mut lost) = (false, 0);
        loop {
            match probe(addr, path).await {
                Ok(()) => {
                    if !ready {
                        tracing::info!(replica = %self.replica.id, app = %self.replica.app_name, zone = %self.replica.zone, "replica ready");
                    }
                    (ready, lost) = (true, 0);
                    self.told.set(self.replica.id, ReplicaState::Ready, Some(addr), None);
                }
                Err(reason) => {
                    lost += 1;
                    if !ready || lost >= PROBES_LOST {
                        ready = false;
                        self.told.set(self.replica.id, ReplicaState::Starting, Some(addr), Some(reason));
                    }
                }
            }
            tokio::time::sleep(if ready { LATER_PROBES_EVERY } else { FIRST_PROBES_EVERY }).await;
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
