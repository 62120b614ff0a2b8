//! The agent of one stage: keeps what should run running, and tells what does.

use crate::{
    driver::{self, Found, Launch, RuntimeDriver, Started},
    image::Images,
    keeper::{Keeper, Replica},
    plan::{Action, plan},
    probe::probe,
    relay::{Limits, Relays},
    restart::Pasts,
    told::Told,
};
use bastide_bus::{Bus, facts};
use bastide_types::{
    CustomerName, Digest, ReplicaId, StageName,
    manifest::probes::Question,
    message::{self, DesiredReplica, ReplicaFact, ReplicaFacts, ReplicaState, StageState, USAGE_WINDOW_S},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest silence of an agent that finds running replicas. Gateways go by what they heard before.
const FIRST_WORD: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(2);
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// What all agents of a node share.
pub(crate) struct Node<D> {
    pub(crate) driver: Arc<D>,
    pub(crate) images: Images,
    /// Images that any stage of this node needs, by account.
    pub(crate) needed: Mutex<BTreeMap<String, Vec<Digest>>>,
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
    pasts: Pasts,
    found: Vec<Found>,
    mut desired: watch::Receiver<Option<Arc<StageState>>>,
    ends: Ends,
) {
    let (told, pasts) = (Arc::new(Told::default()), Arc::new(pasts));
    let relays = Arc::new(Relays::new(node.driver.clone(), Limits::default(), ends.over.clone()));
    let keepers = TaskTracker::new();
    let mut kept: BTreeMap<ReplicaId, CancellationToken> = BTreeMap::new();
    let (generation, heard) = watch::channel(0);
    let keep = |kept: &mut BTreeMap<ReplicaId, CancellationToken>,
                stage: Stage,
                replica: DesiredReplica,
                first| {
        let drain = ends.stop.child_token();
        kept.insert(replica.id, drain.clone());
        told.set(replica.id, ReplicaState::Starting, None, None);
        let keeper = Keeper {
            id: replica.id,
            app: replica.app_name.clone(),
            zone: replica.zone.clone(),
            manifest: replica.manifest.clone(),
            hurry: 1,
            told: told.clone(),
            pasts: pasts.clone(),
            replica: Kept { node: node.clone(), bus: bus.clone(), relays: relays.clone(), stage, replica },
        };
        keepers.spawn(keeper.keep(first, drain, ends.over.clone()));
    };
    let found_ids: Vec<_> = found.iter().map(|found| found.launch.replica.id).collect();
    for Found { launch, started } in found {
        let stage = Stage { account: launch.account, customer: launch.customer, stage: launch.stage };
        keep(&mut kept, stage, launch.replica, Some(started));
    }
    let tellers = async {
        // What gateways know of replicas that ran already holds until each was asked how it is.
        let mut facts = told.subscribe();
        let was_asked = |fact: &ReplicaFact| fact.state != ReplicaState::Starting || fact.reason.is_some();
        let asked = facts.wait_for(|all| found_ids.iter().all(|id| all.get(id).is_none_or(was_asked)));
        drop(tokio::time::timeout(FIRST_WORD, asked).await);
        tell(bus.clone(), told.subscribe(), heard, ends.over.clone()).await;
    };
    let work = async {
        loop {
            let state = desired.borrow_and_update().clone();
            // A replica whose keeper has ended is not known any more.
            kept.retain(|id, _| told.knows(*id));
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
                pasts.retain(|id| kept.contains_key(&id));
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
        measure(&*node.driver, &told, &ends.over),
        relays.follow(told.subscribe()),
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

/// A replica on this node.
struct Kept<D> {
    node: Arc<Node<D>>,
    bus: Bus,
    relays: Arc<Relays<D>>,
    stage: Stage,
    replica: DesiredReplica,
}

impl<D: RuntimeDriver> Replica for Kept<D> {
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
        self.resume().await;
        self.node.driver.start(launch).await.map_err(|error| chain(&error))
    }

    /// Listens inside its network. What cannot be made now is tried again later; the app runs meanwhile.
    async fn resume(&self) {
        match self.relays.open(&self.replica).await {
            Err(error) if error.kind() != std::io::ErrorKind::Unsupported => {
                tracing::warn!(%error, replica = %self.replica.id, "cannot listen inside its network");
            }
            _ => {}
        }
    }

    async fn ask(&self, question: &Question) -> Result<(), String> {
        probe(self.node.driver.connect(self.replica.id), question).await
    }

    async fn stop(&self, grace: Duration) {
        self.node.driver.stop(self.replica.id, grace).await;
        self.relays.close(self.replica.id).await;
    }
}

/// Tells what replicas use, once in each window.
async fn measure<D: RuntimeDriver>(driver: &D, told: &Told, over: &CancellationToken) {
    let mut before = Measured::default();
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(USAGE_WINDOW_S)) => {}
        }
        let ids: Vec<_> = told.subscribe().borrow().keys().copied().collect();
        let used = ids.into_iter().filter_map(|id| Some((id, driver.usage(id)?))).collect();
        told.set_usage(&before.next(used, Instant::now()));
    }
}

/// What replicas had used at the end of the window before.
#[derive(Default)]
struct Measured(BTreeMap<ReplicaId, (Instant, Duration)>);

impl Measured {
    /// The use in the window that ends now. A replica that is new, or was started again, has none yet.
    fn next(
        &mut self,
        used: BTreeMap<ReplicaId, driver::Usage>,
        now: Instant,
    ) -> BTreeMap<ReplicaId, message::Usage> {
        let mut found = BTreeMap::new();
        let before = std::mem::take(&mut self.0);
        for (id, usage) in used {
            self.0.insert(id, (now, usage.cpu));
            let Some((then, cpu)) = before.get(&id).copied() else { continue };
            let (Some(worked), window) = (usage.cpu.checked_sub(cpu), now - then) else { continue };
            if window.is_zero() {
                continue;
            }
            let cpu_millis = worked.as_micros() * 1000 / window.as_micros().max(1);
            let cpu_millis = u32::try_from(cpu_millis).unwrap_or(u32::MAX);
            found.insert(id, message::Usage { cpu_millis, memory_bytes: usage.memory_bytes });
        }
        found
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_the_difference_over_a_window_and_a_new_life_begins_anew() {
        let (mut measured, id, begun) = (Measured::default(), ReplicaId::generate(), Instant::now());
        let mut after = |seconds: u64, cpu_ms: u64| {
            let usage = driver::Usage { cpu: Duration::from_millis(cpu_ms), memory_bytes: 7 };
            let found = measured.next(BTreeMap::from([(id, usage)]), begun + Duration::from_secs(seconds));
            found.get(&id).map(|usage| usage.cpu_millis)
        };
        assert_eq!(after(15, 3000), None);
        assert_eq!(after(30, 6000), Some(200));
        assert_eq!(after(45, 36_000), Some(2000));
        assert_eq!(after(60, 10), None, "it was started again");
        assert_eq!(after(75, 10), Some(0));
    }
}
