//! Who is on this node's networks: the topology that is planned from, and the addresses behind it on disk.

use super::flows::Owner;
use crate::{Error, files};
use bastide_isolation::{
    Canary, Caps, Direct, Failover, Installation, Ledger, Outside, PlanError, ReplicaNet, StageNet, Topology,
    ZoneNet,
};
use bastide_types::{
    ReplicaId, ZoneName,
    egress::{EgressCaller, EgressPolicy},
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// A replica that needs a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Account of its stage on the bus.
    pub(crate) account: String,
    pub(crate) caller: EgressCaller,
}

impl Member {
    pub(crate) fn id(&self) -> ReplicaId {
        self.caller.replica
    }
}

/// What stays the same as long as the node runs.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) installation: Installation,
    pub(crate) zones: Vec<ZoneNet>,
    pub(crate) outside: Outside,
    pub(crate) blocked: Vec<Ipv4Net>,
    pub(crate) caps: Caps,
}

/// All members. Addresses are written down before anybody uses them.
pub(crate) struct Members {
    ground: Ground,
    dir: PathBuf,
    ledger: Ledger,
    all: BTreeMap<ReplicaId, Member>,
    /// What packets may do, by account. Kept on disk, so that a new life of the role does not open for a moment what
    /// the one before had closed.
    policies: BTreeMap<String, Rules>,
    /// Zones whose gateway is down.
    down: BTreeSet<ZoneName>,
    canary: Option<Canary>,
}

/// What a stage's settings mean for packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rules {
    pub(crate) policy: EgressPolicy,
    /// Whether another zone's gateway takes a zone's traffic while its own is down.
    pub(crate) failover: bool,
}

const LEDGER: &str = "network.json";
const POLICIES: &str = "policies.json";

impl Members {
    /// Nobody yet; who had an address in an earlier life gets it again.
    pub(crate) fn load(ground: Ground, dir: &Path) -> Result<Self, Error> {
        let ledger = files::read(&dir.join(LEDGER))?.unwrap_or_default();
        let policies = files::read(&dir.join(POLICIES))?.unwrap_or_default();
        Ok(Self {
            ground,
            dir: dir.to_owned(),
            ledger,
            all: BTreeMap::new(),
            policies,
            down: BTreeSet::new(),
            canary: None,
        })
    }

    /// Whose networks these are.
    pub(crate) fn installation(&self) -> &Installation {
        &self.ground.installation
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Member> {
        self.all.values()
    }

    /// Adds members, or none of them when there is no room or no disk.
    pub(crate) fn add(&mut self, members: &[Member]) -> Result<(), Error> {
        let mut ledger = self.ledger.clone();
        for member in members {
            ledger.replica(&member.account, member.id())?;
        }
        self.keep(ledger)?;
        self.all.extend(members.iter().map(|member| (member.id(), member.clone())));
        Ok(())
    }

    /// Takes one out of the topology. Its address stays taken until [`Members::forget_others`].
    pub(crate) fn remove(&mut self, id: ReplicaId) {
        self.all.remove(&id);
    }

    /// Gives back the addresses of all who are no members: nothing of theirs is in the kernel any more.
    pub(crate) fn forget_others(&mut self) -> Result<(), Error> {
        let mut ledger = self.ledger.clone();
        ledger.retain(|id| self.all.contains_key(&id));
        self.keep(ledger)
    }

    /// Whose each address is.
    pub(crate) fn owners(&self) -> HashMap<Ipv4Addr, Owner> {
        let mut ledger = self.ledger.clone();
        let owned = self.all.values().filter_map(|member| {
            let (account, caller) = (member.account.clone(), member.caller.clone());
            let policy = self.policies.get(&account).map(|rules| rules.policy.clone());
            Some((ledger.replica(&account, caller.replica).ok()?, Owner { account, caller, policy }))
        });
        owned.collect()
    }

    /// Other rules for a stage; whether they differ from those before.
    pub(crate) fn enact(&mut self, account: &str, rules: Rules) -> Result<bool, Error> {
        if self.policies.get(account) == Some(&rules) {
            return Ok(false);
        }
        self.policies.insert(account.to_owned(), rules);
        files::write(&self.dir.join(POLICIES), &self.policies)?;
        Ok(true)
    }

    /// Zones whose gateway is down; whether they are others than before.
    pub(crate) fn down(&mut self, down: BTreeSet<ZoneName>) -> bool {
        let differs = self.down != down;
        self.down = down;
        differs
    }

    /// Which zone stands in for one whose gateway is down.
    fn standby(&self) -> Vec<Failover> {
        let up = self.ground.zones.iter().map(|zone| &zone.zone).find(|zone| !self.down.contains(*zone));
        let Some(to) = up else { return Vec::new() };
        self.down.iter().map(|from| Failover { from: from.clone(), to: to.clone() }).collect()
    }

    /// By which zone a replica goes out, of all for whom it is another than their own.
    pub(crate) fn detours(&self) -> HashMap<ReplicaId, ZoneName> {
        let standby = self.standby();
        let members = self.all.values().filter(|member| self.fails_over(&member.account));
        let detours = members.filter_map(|member| {
            let failover = standby.iter().find(|failover| failover.from == member.caller.zone)?;
            Some((member.id(), failover.to.clone()))
        });
        detours.collect()
    }

    fn fails_over(&self, account: &str) -> bool {
        self.policies.get(account).is_some_and(|rules| rules.failover)
    }

    /// A machine outside that answers while isolation is verified, or none any more.
    pub(crate) fn canary(&mut self, canary: Option<Canary>) {
        self.canary = canary;
    }

    fn keep(&mut self, ledger: Ledger) -> Result<(), Error> {
        if ledger != self.ledger {
            files::write(&self.dir.join(LEDGER), &ledger)?;
            self.ledger = ledger;
        }
        Ok(())
    }

    /// What to plan from.
    pub(crate) fn topology(&self) -> Result<Topology, PlanError> {
        let mut ledger = self.ledger.clone();
        let mut stages: BTreeMap<&str, StageNet> = BTreeMap::new();
        for member in self.all.values() {
            let address = ledger.replica(&member.account, member.id())?;
            let block = ledger.stage(&member.account)?;
            let stage = stages.entry(&member.account).or_insert_with(|| StageNet {
                account: member.account.clone(),
                block,
                replicas: Vec::new(),
                failover: if self.fails_over(&member.account) { self.standby() } else { Vec::new() },
                // Unknown is closed: whoever starts replicas has said before what they may do.
                direct: self
                    .policies
                    .get(&member.account)
                    .map_or_else(closed, |rules| Direct::of(&rules.policy)),
            });
            stage.replicas.push(ReplicaNet { id: member.id(), zone: member.caller.zone.clone(), address });
        }
        let Ground { installation, zones, outside, blocked, caps } = self.ground.clone();
        let stages = stages.into_values().collect();
        Ok(Topology { installation, zones, stages, outside, blocked, caps, canary: self.canary.clone() })
    }
}

fn closed() -> Direct {
    Direct { allowed: Vec::new(), denied: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_isolation::{Uplink, address, plan};
    use bastide_types::{AppName, CustomerName, StageName};

    pub(crate) fn ground() -> Ground {
        let zone = |(ordinal, name): (u8, &str)| {
            let (outer, inner) = address::uplink(3, ordinal);
            ZoneNet { zone: ZoneName::new(name).unwrap(), uplink: Uplink { inner, outer, public: None } }
        };
        Ground {
            installation: Installation::of("/test"),
            zones: [(0, "a"), (1, "b")].map(zone).into(),
            outside: Outside::Host { routes_already: false },
            blocked: Vec::new(),
            caps: Caps::default(),
        }
    }

    fn member(account: &str, zone: &str) -> Member {
        let caller = EgressCaller {
            customer: CustomerName::new("acme").unwrap(),
            stage: StageName::test(),
            app: AppName::new("shop").unwrap(),
            replica: ReplicaId::generate(),
            zone: ZoneName::new(zone).unwrap(),
        };
        Member { account: account.into(), caller }
    }

    #[test]
    fn addresses_outlive_the_agent_and_are_given_back_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (member("A", "a"), member("A", "b"));
        let mut first = Members::load(ground(), dir.path()).unwrap();
        first.add(&[one.clone(), two.clone()]).unwrap();
        let before = first.topology().unwrap();
        plan(&before).unwrap();
        // Another life, which finds only the second one running.
        let mut second = Members::load(ground(), dir.path()).unwrap();
        second.add(&[two.clone()]).unwrap();
        let address = |topology: &Topology, id| {
            let all = topology.stages.iter().flat_map(|stage| &stage.replicas);
            all.clone().find(|replica| replica.id == id).map(|replica| replica.address)
        };
        assert_eq!(address(&second.topology().unwrap(), two.id()), address(&before, two.id()));
        let three = member("A", "a");
        second.add(&[three.clone()]).unwrap();
        assert_ne!(
            address(&second.topology().unwrap(), three.id()),
            address(&before, one.id()),
            "still taken"
        );
        second.remove(three.id());
        second.forget_others().unwrap();
        let four = member("A", "a");
        second.add(&[four.clone()]).unwrap();
        assert_eq!(address(&second.topology().unwrap(), four.id()), address(&before, one.id()));
        assert_eq!(second.all().count(), 2);
    }

    #[test]
    fn nobody_is_added_when_that_cannot_be_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let mut members = Members::load(ground(), &dir.path().join("none")).unwrap();
        assert!(members.add(&[member("A", "a")]).is_err());
        assert_eq!(members.topology().unwrap().stages, []);
    }

    fn rules(failover: bool) -> Rules {
        Rules { policy: EgressPolicy::default(), failover }
    }

    #[test]
    fn another_zone_stands_in_only_where_that_is_wanted_and_only_one_that_works() {
        let dir = tempfile::tempdir().unwrap();
        let mut members = Members::load(ground(), dir.path()).unwrap();
        let (wants, other, plain) = (member("A", "a"), member("A", "b"), member("B", "a"));
        members.add(&[wants.clone(), other, plain]).unwrap();
        members.enact("A", rules(true)).unwrap();
        members.enact("B", rules(false)).unwrap();
        let failovers = |members: &Members| {
            let topology = members.topology().unwrap();
            plan(&topology).unwrap();
            topology.stages.iter().map(|stage| stage.failover.len()).collect::<Vec<_>>()
        };
        let (a, b) = (ZoneName::new("a").unwrap(), ZoneName::new("b").unwrap());
        assert_eq!(failovers(&members), [0, 0]);
        assert!(members.down(BTreeSet::from([a.clone()])) && !members.down(BTreeSet::from([a.clone()])));
        assert_eq!(failovers(&members), [1, 0]);
        assert_eq!(members.detours(), HashMap::from([(wants.id(), b.clone())]));
        members.down(BTreeSet::from([a, b]));
        assert_eq!((failovers(&members), members.detours().len()), (vec![0, 0], 0), "nobody can");
    }

    #[test]
    fn what_packets_may_do_outlives_the_agent_and_is_nothing_until_it_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let one = member("A", "a");
        let direct = |members: &Members| members.topology().unwrap().stages[0].direct.clone();
        let mut first = Members::load(ground(), dir.path()).unwrap();
        first.add(std::slice::from_ref(&one)).unwrap();
        assert_eq!(direct(&first), closed());
        assert!(first.enact("A", rules(false)).unwrap());
        assert!(!first.enact("A", rules(false)).unwrap());
        assert_eq!(direct(&first), Direct::default());
        let mut second = Members::load(ground(), dir.path()).unwrap();
        second.add(&[one]).unwrap();
        assert_eq!(direct(&second), Direct::default());
    }
}
