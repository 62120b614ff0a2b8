//! The agent of one stage: keeps what should run running, and tells what does.

use crate::{
    driver::{Found, Launch, Life, RuntimeDriver, Started},
    image::Images,
    plan::{Action, plan},
    probe::probe,
    relay::{Limits, Relays},
};
use bastide_bus::{Bus, facts};
use bastide_types::{
    CustomerName, Digest, ReplicaId, StageName,
    message::{DesiredReplica, Reach, ReplicaFact, ReplicaFacts, ReplicaState, StageState},
};
use std::{
    collections::{BTreeMap, BTreeSet},
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
/// Longest silence of an agent that finds running replicas.
const FIRST_WORD: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_secs(2);
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// What all agents of a node share.
pub(crate) struct Node<D> {
    pub(crate) driver: Arc<D>,
    pub(crate) images: Images,
    /// Images that any stage of this node needs, by account.
    pub(crate) needed: Mutex<BTreeMap<String, Vec<Digest>>>,
}

/// What is known of the replicas of a stage; every change wakes the tellers.
struct Told {
    facts: watch::Sender<BTreeMap<ReplicaId, ReplicaFact>>,
}

impl Told {
    fn set(&self, id: ReplicaId, state: ReplicaState, reach: Option<Reach>, reason: Option<String>) {
        let fact = ReplicaFact { reach, reason, ..ReplicaFact::new(id, state) };
        self.facts.send_if_modified(|facts| facts.insert(id, fact.clone()) != Some(fact));
    }
    fn forget(&self, id: ReplicaId) {
        self.facts.send_modify(|facts| {
            facts.remove(&id);
        });
    }
}

/// How the agents of a node end.
#[derive(Clone, Default)]
pub(crate) struct Ends {
    /// All replicas are stopped. Comes before `over`.
    pub(crate) stop: CancellationToken,
    /// The agents end. Without `stop`, replicas go on running for the next life of the role.
    pub(crate) over: CancellationToken,
}

/// Looks after one stage until its end. `found` are its replicas that run already.
pub(crate) async fn run<D: RuntimeDriver>(
    node: Arc<Node<D>>,
    bus: Bus,
    account: String,
    found: Vec<Found>,
    mut desired: watch::Receiver<Option<Arc<StageState>>>,
    ends: Ends,
) {
    let told = Arc::new(Told { facts: watch::channel(BTreeMap::new()).0 });
    let relays = Arc::new(Relays::new(node.driver.clone(), Limits::default(), ends.over.clone()));
    let keepers = TaskTracker::new();
    let mut kept: BTreeMap<ReplicaId, CancellationToken> = BTreeMap::new();
    let (generation, heard) = watch::channel(0);
    let keep =
        |kept: &mut BTreeMap<ReplicaId, CancellationToken>, stage: Stage, replica: DesiredReplica, first| {
            let drain = ends.stop.child_token();
            kept.insert(replica.id, drain.clone());
            told.set(replica.id, ReplicaState::Starting, None, None);
            let (node, bus, told, over) = (node.clone(), bus.clone(), told.clone(), ends.over.clone());
            let relays = relays.clone();
            keepers.spawn(Keeper { node, bus, told, relays, stage, replica }.keep(first, drain, over));
        };
    for Found { launch, started } in found {
        let stage = Stage { account: launch.account, customer: launch.customer, stage: launch.stage };
        keep(&mut kept, stage, launch.replica, Some(started));
    }
    let tellers = async {
        // What gateways know of replicas that ran already holds until each was asked how it is.
        let mut facts = told.facts.subscribe();
        let asked = facts.wait_for(|all| all.values().all(|fact| fact.state != ReplicaState::Starting));
        drop(tokio::time::timeout(FIRST_WORD, asked).await);
        tell(bus.clone(), told.facts.subscribe(), heard, ends.over.clone()).await;
    };
    let work = async {
        loop {
            let state = desired.borrow_and_update().clone();
            // A replica whose keeper has ended is not known any more.
            kept.retain(|id, _| told.facts.borrow().contains_key(id));
            if let Some(state) = &state {
                node.driver.enact(state).await;
                relays.enact(state.clone()).await;
            }
            let known: BTreeSet<_> = kept.keys().copied().collect();
            let draining = kept.iter().filter(|(_, drain)| drain.is_cancelled()).map(|(id, _)| *id).collect();
            for action in plan(state.as_deref(), &known, &draining) {
                match (action, &state) {
                    (Action::Start(replica), Some(state)) => {
                        let (account, customer) = (account.clone(), state.customer.clone());
                        let stage = Stage { account, customer, stage: state.stage.clone() };
                        keep(&mut kept, stage, *replica, None);
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
                () = ends.over.cancelled() => return,
            }
        }
    };
    tokio::join!(
        async {
            work.await;
            keepers.close();
            keepers.wait().await;
        },
        tellers,
        relays.follow(told.facts.subscribe()),
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

/// Whose replica it is.
struct Stage {
    account: String,
    customer: CustomerName,
    stage: StageName,
}

/// Looks after one replica.
struct Keeper<D> {
    node: Arc<Node<D>>,
    bus: Bus,
    told: Arc<Told>,
    relays: Arc<Relays<D>>,
    stage: Stage,
    replica: DesiredReplica,
}

impl<D: RuntimeDriver> Keeper<D> {
    /// Keeps it running until `drain`, then stops it; after `over` alone it is left as it is. `first` is a life
    /// that began already.
    async fn keep(self, mut first: Option<Started>, drain: CancellationToken, over: CancellationToken) {
        let mut wait = RESTART_FIRST;
        while !drain.is_cancelled() {
            let begun = Instant::now();
            let why = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                () = over.cancelled() => return,
                why = self.live(first.take()) => why,
            };
            tracing::warn!(replica = %self.replica.id, app = %self.replica.app_name, why, "replica ended");
            self.told.set(self.replica.id, ReplicaState::Failed, None, Some(why));
            self.node.driver.stop(self.replica.id, Duration::ZERO).await;
            self.relays.close(self.replica.id).await;
            if begun.elapsed() > WELL_AFTER {
                wait = RESTART_FIRST;
            }
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                () = over.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RESTART_LONGEST);
        }
        self.told.set(self.replica.id, ReplicaState::Draining, None, None);
        tokio::time::sleep(DRAIN_NOTICE).await;
        let grace = Duration::from_secs(self.replica.manifest.app.grace_s.into());
        self.node.driver.stop(self.replica.id, grace).await;
        self.relays.close(self.replica.id).await;
        self.told.forget(self.replica.id);
        tracing::info!(replica = %self.replica.id, app = %self.replica.app_name, "replica stopped");
    }

    /// One life of the replica; returns why it ended.
    async fn live(&self, begun: Option<Started>) -> String {
        let id = self.replica.id;
        self.told.set(id, ReplicaState::Starting, None, None);
        let begun = match begun {
            Some(begun) => {
                self.listen_inside().await;
                Ok(begun)
            }
            None => self.start().await,
        };
        let Started { reach, mut life } = match begun {
            Ok(started) => started,
            Err(why) => return why,
        };
        let mut ended = life.clone();
        tokio::select! {
            never = self.watch(reach) => match never {},
            end = ended.wait_for(|life| *life != Life::Running) => drop(end),
        }
        match life.borrow_and_update().clone() {
            Life::Ended(why) => why,
            Life::Running => "its driver ended".into(),
        }
    }

    async fn start(&self) -> Result<Started, String> {
        let root = self.node.images.root(&self.bus, &self.stage.account, &self.replica.image).await;
        let launch = Launch {
            account: self.stage.account.clone(),
            customer: self.stage.customer.clone(),
            stage: self.stage.stage.clone(),
            replica: self.replica.clone(),
            root: root.map_err(|error| format!("no image: {}", chain(&error)))?,
        };
        self.node.driver.prepare(&launch).await.map_err(|error| chain(&error))?;
        self.listen_inside().await;
        self.node.driver.start(launch).await.map_err(|error| chain(&error))
    }

    /// What cannot be made now is tried again later; the app runs meanwhile.
    async fn listen_inside(&self) {
        match self.relays.open(&self.replica).await {
            Err(error) if error.kind() != std::io::ErrorKind::Unsupported => {
                tracing::warn!(%error, replica = %self.replica.id, "cannot listen inside its network");
            }
            _ => {}
        }
    }

    /// Probes for ever: ready after one good answer, not ready after some bad ones.
    async fn watch(&self, reach: Reach) -> std::convert::Infallible {
        let path = self.replica.manifest.health();
        let (mut ready, mut lost) = (false, 0);
        loop {
            match probe(&*self.node.driver, self.replica.id, path).await {
                Ok(()) => {
                    if !ready {
                        tracing::info!(replica = %self.replica.id, app = %self.replica.app_name, zone = %self.replica.zone, "replica ready");
                    }
                    (ready, lost) = (true, 0);
                    self.told.set(self.replica.id, ReplicaState::Ready, Some(reach), None);
                }
                Err(reason) => {
                    lost += 1;
                    if !ready || lost >= PROBES_LOST {
                        ready = false;
                        self.told.set(self.replica.id, ReplicaState::Starting, Some(reach), Some(reason));
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
