//! The owner of this node's networks: one task that merges all changes into one plan, has the kernel brought to
//! it once for everybody who waits, and looks after it on a timer.

use super::{
    flows::Owners,
    members::{Member, Members, Rules},
    zones::Zones,
};
use crate::{Error, agent::chain};
use bastide_isolation::{Canary, Plan, Topology, plan};
use bastide_network::{Network, Report, gateway::PERIOD};
use bastide_types::{ReplicaId, ZoneName};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Orders that wait; a start has one.
const QUEUE: usize = 256;
/// How often the kernel is compared with the plan when nothing changes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same after something failed.
const RETRY_EVERY: Duration = Duration::from_secs(1);

enum Order {
    /// The first order: who runs already. Answered with those whose network is gone.
    Adopt(Vec<Member>, oneshot::Sender<Result<BTreeSet<ReplicaId>, Error>>),
    Add(Member, oneshot::Sender<Result<(), Error>>),
    Remove(ReplicaId, oneshot::Sender<()>),
    Enact(String, Rules, oneshot::Sender<Result<(), Error>>),
    Canary(Option<Canary>, oneshot::Sender<Result<(), Error>>),
    Topology(oneshot::Sender<Result<Topology, Error>>),
    Clear(oneshot::Sender<Result<(), Error>>),
}

/// By which zone a replica goes out while another stands in for its own. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Detours(Arc<Mutex<HashMap<ReplicaId, ZoneName>>>);

impl Detours {
    /// The zone that stands in, if one does.
    pub(crate) fn of(&self, replica: ReplicaId) -> Option<ZoneName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&replica).cloned()
    }

    fn set(&self, detours: HashMap<ReplicaId, ZoneName>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = detours;
    }
}

/// The owner's other end.
#[derive(Debug, Clone)]
pub(crate) struct Networks {
    orders: mpsc::Sender<Order>,
}

impl Networks {
    /// Starts the owner, who ends with the last clone of this. Nothing is touched before [`Networks::adopt`].
    /// Whose network is gone while it runs is said to `lost`.
    pub(crate) fn start(
        network: Arc<Network>,
        members: Members,
        zones: Zones,
        owners: Owners,
        detours: Detours,
        lost: mpsc::Sender<ReplicaId>,
    ) -> Self {
        let (orders, taken) = mpsc::channel(QUEUE);
        let owner = Owner { network, members, zones, owners, detours, lost, planned: None, over: false };
        tokio::spawn(owner.run(taken));
        Self { orders }
    }

    /// Takes over who runs already; everything else of an earlier life is removed. The answer: those among them
    /// who have no network any more.
    pub(crate) async fn adopt(&self, members: Vec<Member>) -> Result<BTreeSet<ReplicaId>, Error> {
        self.order(|done| Order::Adopt(members, done)).await?
    }

    /// Makes a network for one more. When this is said to have worked, all rules are in force.
    pub(crate) async fn add(&self, member: Member) -> Result<(), Error> {
        self.order(|done| Order::Add(member, done)).await?
    }

    /// Takes a network away.
    pub(crate) async fn remove(&self, id: ReplicaId) {
        // An owner that is gone has nothing to take away.
        let _ = self.order(|done| Order::Remove(id, done)).await;
    }

    /// What packets of a stage may do from now on. When this is said to have worked, it is in force.
    pub(crate) async fn enact(&self, account: String, rules: Rules) -> Result<(), Error> {
        self.order(|done| Order::Enact(account, rules, done)).await?
    }

    /// A machine outside that answers while isolation is verified, or none any more.
    pub(crate) async fn canary(&self, canary: Option<Canary>) -> Result<(), Error> {
        self.order(|done| Order::Canary(canary, done)).await?
    }

    /// What the kernel was planned from last.
    pub(crate) async fn topology(&self) -> Result<Topology, Error> {
        self.order(Order::Topology).await?
    }

    /// Takes everything away, for good: the owner ends.
    pub(crate) async fn clear(&self) -> Result<(), Error> {
        self.order(Order::Clear).await?
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Error> {
        let (done, wait) = oneshot::channel();
        let gone = || Error::Network("the owner of the networks is gone".into());
        self.orders.send(order(done)).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())
    }
}

struct Owner {
    network: Arc<Network>,
    members: Members,
    zones: Zones,
    /// Told whose each address is.
    owners: Owners,
    detours: Detours,
    /// What the kernel was last brought to.
    planned: Option<(Topology, Plan)>,
    lost: mpsc::Sender<ReplicaId>,
    /// Everything was taken away, for good.
    over: bool,
}

/// What one pass is for, besides looking.
#[derive(Default)]
struct Pass {
    added: Vec<(ReplicaId, oneshot::Sender<Result<(), Error>>)>,
    removed: Vec<oneshot::Sender<()>>,
    /// Told when everything is as planned.
    enacted: Vec<oneshot::Sender<Result<(), Error>>>,
    changed: bool,
}

impl Owner {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let Some(mut first) = orders.recv().await else { return };
        let mut next = Instant::now() + LOOK_EVERY;
        let mut tend = Instant::now();
        loop {
            let mut pass = Pass::default();
            let mut order = Some(first);
            while let Some(taken) = order {
                self.take(taken, &mut pass).await;
                order = orders.try_recv().ok();
            }
            if self.over {
                return;
            }
            if pass.changed {
                next = Instant::now() + if self.pass(pass).await { LOOK_EVERY } else { RETRY_EVERY };
            }
            first = loop {
                match tokio::time::timeout_at(next.min(tend), orders.recv()).await {
                    Ok(Some(order)) => break order,
                    Ok(None) => return,
                    Err(_) if Instant::now() >= next => {
                        let well = self.pass(Pass::default()).await;
                        next = Instant::now() + if well { LOOK_EVERY } else { RETRY_EVERY };
                    }
                    Err(_) => {
                        let down = match &self.planned {
                            Some((topology, plan)) => self.zones.tend(topology, plan).await,
                            None => BTreeSet::new(),
                        };
                        if self.members.down(down) {
                            next = Instant::now();
                        }
                        tend = Instant::now() + PERIOD;
                    }
                }
            };
        }
    }

    async fn take(&mut self, order: Order, pass: &mut Pass) {
        match order {
            Order::Adopt(members, done) => drop(done.send(self.adopt(&members).await)),
            Order::Add(member, done) => match self.members.add(std::slice::from_ref(&member)) {
                Ok(()) => {
                    pass.added.push((member.id(), done));
                    pass.changed = true;
                }
                Err(error) => drop(done.send(Err(error))),
            },
            Order::Remove(id, done) => {
                self.members.remove(id);
                pass.removed.push(done);
                pass.changed = true;
            }
            Order::Enact(account, rules, done) => match self.members.enact(&account, rules) {
                Ok(true) => {
                    pass.enacted.push(done);
                    pass.changed = true;
                }
                Ok(false) => drop(done.send(Ok(()))),
                Err(error) => drop(done.send(Err(error))),
            },
            Order::Canary(canary, done) => {
                self.members.canary(canary);
                pass.enacted.push(done);
                pass.changed = true;
            }
            Order::Topology(done) => drop(done.send(self.members.topology().map_err(Error::from))),
            Order::Clear(done) => {
                let ids: Vec<_> = self.members.all().map(super::members::Member::id).collect();
                ids.into_iter().for_each(|id| self.members.remove(id));
                let cleared = self.network.clear().await.map_err(Error::from);
                self.over = true;
                drop(done.send(cleared.and(self.members.forget_others())));
            }
        }
    }

    async fn adopt(&mut self, members: &[Member]) -> Result<BTreeSet<ReplicaId>, Error> {
        self.members.add(members)?;
        let topology = self.members.topology()?;
        let planned = plan(&topology)?;
        self.owners.set(self.members.owners());
        let report = self.network.reconcile(&planned).await?;
        let lost = self.without_network(&report, &BTreeSet::new());
        for id in &lost {
            self.members.remove(*id);
        }
        log(&report);
        self.members.forget_others()?;
        self.zones.attend(&topology).await;
        self.planned = Some((topology, planned));
        Ok(lost)
    }

    /// Brings the kernel to the plan; false when something is not as planned.
    async fn pass(&mut self, mut pass: Pass) -> bool {
        let (topology, planned) = loop {
            match self.members.topology().and_then(|topology| Ok((plan(&topology)?, topology))) {
                Ok((planned, topology)) => break (topology, planned),
                // The newest may be what cannot be planned for (two ids of one kernel name); the others go on.
                Err(error) => match pass.added.pop() {
                    Some((id, done)) => {
                        self.members.remove(id);
                        drop(done.send(Err(error.into())));
                    }
                    None => {
                        tracing::error!(%error, "the networks cannot be planned");
                        return false;
                    }
                },
            }
        };
        if pass.changed {
            self.owners.set(self.members.owners());
        }
        let well = match self.network.reconcile(&planned).await {
            Ok(report) => self.settle(&report, pass.added).await,
            Err(error) => {
                let why = chain(&error);
                tracing::error!(error = why, "the networks are not as planned");
                for (id, done) in pass.added {
                    self.members.remove(id);
                    drop(done.send(Err(Error::Network(why.clone()))));
                }
                false
            }
        };
        // Only now, for the way must be there first.
        self.detours.set(self.members.detours());
        self.zones.attend(&topology).await;
        self.planned = Some((topology, planned));
        if well && let Err(error) = self.members.forget_others() {
            tracing::warn!(error = chain(&error), "addresses are not given back");
        }
        for done in pass.enacted {
            let failed = || Error::Network("not everything is as planned; it is tried again".into());
            drop(done.send(if well { Ok(()) } else { Err(failed()) }));
        }
        for done in pass.removed {
            // Who asked may not wait any more.
            let _ = done.send(());
        }
        well
    }

    /// Tells everybody how it came out.
    async fn settle(
        &mut self,
        report: &Report,
        added: Vec<(ReplicaId, oneshot::Sender<Result<(), Error>>)>,
    ) -> bool {
        log(report);
        let new: BTreeSet<_> = added.iter().map(|(id, _)| *id).collect();
        for (id, done) in added {
            let namespace = self.members.installation().replica(id);
            let outcome = match report.failed.get(&namespace) {
                None => Ok(()),
                Some(error) => {
                    self.members.remove(id);
                    Err(Error::Network(chain(error)))
                }
            };
            drop(done.send(outcome));
        }
        for id in self.without_network(report, &new) {
            tracing::warn!(replica = %id, "its network was gone");
            // The next look finds a namespace that is whole, so it has to be said now. Who hears it orders nothing
            // here, so this does not wait for itself.
            if self.lost.send(id).await.is_err() {
                tracing::error!(replica = %id, "runs without a network");
            }
        }
        report.failed.is_empty()
    }

    /// Members, not of `new`, whose processes are in a namespace that is not theirs any more.
    fn without_network(&self, report: &Report, new: &BTreeSet<ReplicaId>) -> BTreeSet<ReplicaId> {
        let gone = |id: &ReplicaId| {
            let namespace = self.members.installation().replica(*id);
            report.made.contains(&namespace) || report.failed.contains_key(&namespace)
        };
        self.members
            .all()
            .map(super::members::Member::id)
            .filter(|id| !new.contains(id) && gone(id))
            .collect()
    }
}

fn log(report: &Report) {
    if report.repair && !report.changed.is_empty() {
        tracing::warn!(changed = ?report.changed, "networks that differed from the plan were repaired");
    }
    for (namespace, error) in &report.failed {
        let shown = if namespace == Plan::OUTSIDE { "the namespace to go out by" } else { namespace };
        tracing::error!(namespace = shown, error = chain(error), "a network is not as planned");
    }
    tracing::debug!(made = ?report.made, removed = ?report.removed, "networks");
}
