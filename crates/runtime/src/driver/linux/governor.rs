//! Keeps customers that fill the node to half of its cores, so that the others find a free one at once.
//!
//! Weights and quotas divide processor time fairly in the long run. Whoever wants a moment of it, as an app that
//! answers a request does, may still wait long for its turn while another app keeps every core busy. So a customer
//! whose apps together take much of the node is kept to half of its cores until they have been calm for a while. The
//! kernel lets everybody else run on the other half. A node with one core has no half to give.

use super::Inner;
use crate::agent::chain;
use bastide_container::{Cores, cgroup::Cgroups};
use bastide_types::{CustomerName, ReplicaId};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

/// How often we look.
const EVERY: Duration = Duration::from_millis(100);
/// Parts of the node's processor time: from the one on a customer is kept, below the other it is calm.
const FULL: f64 = 0.4;
const CALM: f64 = 0.1;
/// How long it must be calm to be free again.
const CALM_FOR: Duration = Duration::from_secs(3);

/// Replicas that run, with their customers.
type Apps = [(CustomerName, ReplicaId)];

/// Begins to look, in a thread of its own, until the driver is gone.
pub(super) fn begin(inner: &Arc<Inner>) -> std::io::Result<()> {
    let Some(all) = Cores::of_host() else { return Ok(()) };
    let Some(half) = all.half() else { return Ok(()) };
    let inner = Arc::downgrade(inner);
    thread::Builder::new().name("governor".into()).spawn(move || govern(&inner, &all, &half)).map(drop)
}

fn govern(inner: &Weak<Inner>, all: &Cores, half: &Cores) {
    let (mut governor, mut places) = (Governor::new(all.count()), Places::default());
    while let Some(driver) = inner.upgrade() {
        let apps = driver.apps();
        drop(driver);
        governor.look(Instant::now(), &apps, &Kernel);
        places.set(&apps, &governor, |id, kept| {
            let changed = Cgroups::of(&id.to_string()).use_only(if kept { half } else { all });
            if let Err(error) = changed {
                tracing::warn!(replica = %id, error = chain(&error), "keeps the cores that it has");
            }
        });
        thread::sleep(EVERY);
    }
}

/// Processor time used so far.
trait Meter {
    /// By all containers of this host.
    fn together(&self) -> Option<Duration>;
    /// By one replica.
    fn of(&self, replica: ReplicaId) -> Option<Duration>;
}

struct Kernel;

impl Meter for Kernel {
    fn together(&self) -> Option<Duration> {
        Cgroups::common().cpu_us().map(Duration::from_micros)
    }

    fn of(&self, replica: ReplicaId) -> Option<Duration> {
        Cgroups::of(&replica.to_string()).cpu_us().map(Duration::from_micros)
    }
}

/// Decides who is kept.
struct Governor {
    cores: f64,
    /// When we looked last, and what all had used then.
    looked: Option<(Instant, Duration)>,
    /// What each replica had used then, if the node was busy.
    used: HashMap<ReplicaId, Duration>,
    /// Who is kept, and when each was last seen busy.
    busy: HashMap<CustomerName, Instant>,
}

impl Governor {
    fn new(cores: usize) -> Self {
        Self {
            cores: f64::from(u32::try_from(cores).unwrap_or(u32::MAX)),
            looked: None,
            used: HashMap::new(),
            busy: HashMap::new(),
        }
    }

    fn keeps(&self, customer: &CustomerName) -> bool {
        self.busy.contains_key(customer)
    }

    /// Judges the time since the last look. While the node is calm this is one figure.
    fn look(&mut self, now: Instant, apps: &Apps, meter: &impl Meter) {
        let Some(together) = meter.together() else { return };
        let Some((since, before)) = self.looked.replace((now, together)) else { return };
        let node = now.saturating_duration_since(since).as_secs_f64() * self.cores;
        if self.busy.is_empty() && together.saturating_sub(before).as_secs_f64() < FULL * node {
            self.used.clear();
            return;
        }
        let used = apps.iter().filter_map(|(_, id)| Some((*id, meter.of(*id)?))).collect();
        let before = std::mem::replace(&mut self.used, used);
        for (customer, used) in self.by_customer(apps, &before) {
            self.judge(customer, used.as_secs_f64() / node, now);
        }
        self.free(now);
    }

    /// What each customer used since. A replica that was not there before counts from the next look on.
    fn by_customer(
        &self,
        apps: &Apps,
        before: &HashMap<ReplicaId, Duration>,
    ) -> HashMap<CustomerName, Duration> {
        let mut sums = HashMap::<_, Duration>::new();
        for (customer, id) in apps {
            if let (Some(now), Some(before)) = (self.used.get(id), before.get(id)) {
                *sums.entry(customer.clone()).or_default() += now.saturating_sub(*before);
            }
        }
        sums
    }

    fn judge(&mut self, customer: CustomerName, part: f64, now: Instant) {
        if part < if self.keeps(&customer) { CALM } else { FULL } {
            return;
        }
        if !self.keeps(&customer) {
            tracing::info!(%customer, "fills the node: its apps are kept to half of the cores");
        }
        self.busy.insert(customer, now);
    }

    fn free(&mut self, now: Instant) {
        self.busy.retain(|customer, last| {
            let stays = now.saturating_duration_since(*last) < CALM_FOR;
            if !stays {
                tracing::info!(%customer, "is calm again: its apps have all cores");
            }
            stays
        });
    }
}

/// Which replicas are kept, as far as we have told the kernel.
#[derive(Default)]
struct Places(HashMap<ReplicaId, bool>);

impl Places {
    /// Tells what differs from before. Of a replica not seen before everything is told, for an earlier life of this
    /// role may have left it kept.
    fn set(&mut self, apps: &Apps, governor: &Governor, mut tell: impl FnMut(ReplicaId, bool)) {
        let ids: HashSet<_> = apps.iter().map(|(_, id)| *id).collect();
        self.0.retain(|id, _| ids.contains(id));
        for (customer, id) in apps {
            let kept = governor.keeps(customer);
            if self.0.insert(*id, kept) != Some(kept) {
                tell(*id, kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A node of two cores with two replicas of `noisy` and one of `quiet`.
    struct Node {
        apps: Vec<(CustomerName, ReplicaId)>,
        used: RefCell<HashMap<ReplicaId, Duration>>,
        now: Instant,
        governor: Governor,
        places: Places,
    }

    struct Figures<'a>(&'a RefCell<HashMap<ReplicaId, Duration>>);

    impl Meter for Figures<'_> {
        fn together(&self) -> Option<Duration> {
            Some(self.0.borrow().values().sum())
        }

        fn of(&self, replica: ReplicaId) -> Option<Duration> {
            self.0.borrow().get(&replica).copied()
        }
    }

    fn customer(name: &str) -> CustomerName {
        name.parse().unwrap()
    }

    impl Node {
        fn new() -> Self {
            let apps: Vec<_> =
                ["noisy", "noisy", "quiet"].map(|name| (customer(name), ReplicaId::generate())).into();
            let used = apps.iter().map(|(_, id)| (*id, Duration::ZERO)).collect();
            let (governor, places) = (Governor::new(2), Places::default());
            Self { apps, used: RefCell::new(used), now: Instant::now(), governor, places }
        }

        /// Looks each tenth of a second while each replica uses so many thousandths of a core; says what was told.
        fn run(&mut self, looks: u32, millis: [u64; 3]) -> Vec<(usize, bool)> {
            let mut told = Vec::new();
            for _ in 0..looks {
                self.now += EVERY;
                for ((_, id), millis) in self.apps.iter().zip(millis) {
                    *self.used.borrow_mut().get_mut(id).unwrap() += EVERY.mul_f64(millis as f64 / 1000.0);
                }
                self.governor.look(self.now, &self.apps, &Figures(&self.used));
                self.places.set(&self.apps, &self.governor, |id, kept| {
                    told.push((self.apps.iter().position(|app| app.1 == id).unwrap(), kept));
                });
            }
            told
        }
    }

    #[test]
    fn who_fills_the_node_is_kept_until_calm_and_nobody_else() {
        let mut node = Node::new();
        assert_eq!(node.run(3, [100, 0, 100]), [(0, false), (1, false), (2, false)], "all are told once");
        assert_eq!(node.run(1, [500, 450, 100]), [], "the first look at each replica");
        assert_eq!(node.run(1, [500, 450, 100]), [(0, true), (1, true)]);
        assert_eq!(node.run(50, [300, 300, 100]), [], "kept while it is busy");
        assert_eq!(node.run(29, [0, 0, 0]), []);
        assert_eq!(node.run(2, [0, 0, 0]), [(0, false), (1, false)]);
        assert_eq!(node.run(20, [300, 300, 300]), [], "less than enough");
    }

    #[test]
    fn a_new_replica_of_a_kept_customer_is_kept_from_the_start() {
        let mut node = Node::new();
        node.run(3, [1000, 900, 0]);
        let id = ReplicaId::generate();
        node.apps.push((customer("noisy"), id));
        node.used.borrow_mut().insert(id, Duration::ZERO);
        assert_eq!(node.run(1, [1000, 0, 0]), [(3, true)]);
        node.apps.remove(3);
        node.run(1, [1000, 0, 0]);
        assert_eq!(node.places.0.len(), 3, "who is gone is forgotten");
    }

    #[test]
    fn a_node_without_figures_keeps_nobody() {
        struct Nothing;
        impl Meter for Nothing {
            fn together(&self) -> Option<Duration> {
                None
            }
            fn of(&self, _: ReplicaId) -> Option<Duration> {
                None
            }
        }
        let (mut governor, apps) = (Governor::new(2), Node::new().apps);
        let now = Instant::now();
        governor.look(now, &apps, &Nothing);
        governor.look(now, &apps, &Nothing);
        assert!(governor.busy.is_empty());
    }
}
