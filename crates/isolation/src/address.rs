//! Addresses inside: replicas', and the reserved ones of the links.
//!
//! A stage has a block of 256 addresses in 100.64.0.0/11 (RFC 6598), a replica one of them. No other network
//! ever sees them: a gateway translates the source before anything leaves, and they are blocked as
//! destinations. IPv6 is off in every namespace, so there is nothing to allocate.

use crate::PlanError;
use bastide_types::ReplicaId;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// A router, as its replicas and gateways see it.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// A gateway, as its routers see it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// Where requests come from, as an app sees it. It exists only inside the app's own namespace.
pub const BROKER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 3);

/// For trials of networks (RFC 2544): the canary's address for apps is one of these.
pub const TRIALS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);

const BLOCKS: u32 = 0x6440_0000;
const STAGES_MAX: u16 = 8192;
/// Links to the outside start here: 100.96.0.0/11, two addresses for each zone.
const UPLINKS: u32 = 0x6460_0000;

/// What an app finds under names below `internal`: its own namespace's, each with a listener of the runtime's.
pub fn inside() -> Ipv4Net {
    Ipv4Net::new(bastide_types::network::POSTGRES, 24).expect("24 is a prefix length").trunc()
}

/// The block of a stage. Block 0 is for the probes of the gateways.
pub fn block(stage: u16) -> Ipv4Net {
    let base = Ipv4Addr::from(BLOCKS + (u32::from(stage) << 8));
    Ipv4Net::new(base, 24).expect("24 is a prefix length")
}

/// An address of a block.
pub fn in_block(stage: u16, replica: u8) -> Ipv4Addr {
    Ipv4Addr::from(BLOCKS + (u32::from(stage) << 8) + u32::from(replica))
}

/// Both ends of the link from a gateway to the host, outer end first. `slot` (0 to 8191) is chosen so that it
/// meets no other installation on the host; `zone` counts the zones.
pub fn uplink(slot: u16, zone: u8) -> (Ipv4Addr, Ipv4Addr) {
    let base = UPLINKS + (u32::from(slot % 8192) << 8) + (u32::from(zone) << 1);
    (Ipv4Addr::from(base), Ipv4Addr::from(base + 1))
}

/// The slot of an address of a link to the host, if it is one.
pub fn slot_of(address: Ipv4Addr) -> Option<u16> {
    let [first, second, third, _] = address.octets();
    (first == 100 && (96..128).contains(&second)).then(|| (u16::from(second) - 96) << 8 | u16::from(third))
}

/// Both ends of the link to the canary, outer end first.
pub fn canary_link(slot: u16) -> (Ipv4Addr, Ipv4Addr) {
    uplink(slot, 64)
}

/// Both ends of the link to the machine beside the canary, outer end first.
pub fn bystander_link(slot: u16) -> (Ipv4Addr, Ipv4Addr) {
    uplink(slot, 65)
}

/// Who has which address. It is kept on disk, so that replicas that outlive an agent keep theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    stages: BTreeMap<String, Block>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    index: u16,
    replicas: BTreeMap<ReplicaId, u8>,
}

impl Ledger {
    /// The block number of a stage; a new one when it has none.
    ///
    /// # Errors
    /// [`PlanError::StagesFull`].
    pub fn stage(&mut self, account: &str) -> Result<u16, PlanError> {
        if let Some(block) = self.stages.get(account) {
            return Ok(block.index);
        }
        let taken: Vec<_> = self.stages.values().map(|block| block.index).collect();
        let index = (1..STAGES_MAX).find(|index| !taken.contains(index)).ok_or(PlanError::StagesFull)?;
        self.stages.insert(account.to_owned(), Block { index, replicas: BTreeMap::new() });
        Ok(index)
    }

    /// The address of a replica; a new one when it has none.
    ///
    /// # Errors
    /// [`PlanError::StagesFull`], [`PlanError::ReplicasFull`].
    pub fn replica(&mut self, account: &str, replica: ReplicaId) -> Result<Ipv4Addr, PlanError> {
        let stage = self.stage(account)?;
        let block = self.stages.get_mut(account).expect("it was made just now");
        if let Some(place) = block.replicas.get(&replica) {
            return Ok(in_block(stage, *place));
        }
        let taken: Vec<_> = block.replicas.values().copied().collect();
        let place = (1..255).find(|place| !taken.contains(place)).ok_or(PlanError::ReplicasFull)?;
        block.replicas.insert(replica, place);
        Ok(in_block(stage, place))
    }

    /// Gives back all addresses but those of replicas that `keep` names, and blocks that nobody is in any more.
    pub fn retain(&mut self, keep: impl Fn(ReplicaId) -> bool) {
        for block in self.stages.values_mut() {
            block.replicas.retain(|replica, _| keep(*replica));
        }
        self.stages.retain(|_, block| !block.replicas.is_empty());
    }

    /// Gives an address back; the block with it when it was the last one.
    pub fn release(&mut self, account: &str, replica: ReplicaId) {
        if let Some(block) = self.stages.get_mut(account) {
            block.replicas.remove(&replica);
            if block.replicas.is_empty() {
                self.stages.remove(account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_keeps_its_address_and_no_two_share_one() {
        let mut ledger = Ledger::default();
        let (one, two) = (ReplicaId::generate(), ReplicaId::generate());
        let first = ledger.replica("A", one).unwrap();
        assert_eq!(first, Ipv4Addr::new(100, 64, 1, 1));
        assert_eq!(ledger.replica("A", two).unwrap(), Ipv4Addr::new(100, 64, 1, 2));
        assert_eq!(ledger.replica("B", two).unwrap(), Ipv4Addr::new(100, 64, 2, 1));
        assert_eq!(ledger.replica("A", one).unwrap(), first);
        ledger.release("A", one);
        assert_eq!(ledger.replica("A", ReplicaId::generate()).unwrap(), first);
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
    }

    #[test]
    fn a_full_stage_says_so() {
        let mut ledger = Ledger::default();
        for _ in 0..254 {
            ledger.replica("A", ReplicaId::generate()).unwrap();
        }
        assert_eq!(ledger.replica("A", ReplicaId::generate()), Err(PlanError::ReplicasFull));
    }

    #[test]
    fn the_blocks_end_where_the_links_to_the_host_begin() {
        assert_eq!(block(STAGES_MAX - 1).broadcast(), Ipv4Addr::new(100, 95, 255, 255));
        assert_eq!(uplink(0, 0).0, Ipv4Addr::new(100, 96, 0, 0));
        assert_eq!(uplink(8191, 63).1, Ipv4Addr::new(100, 127, 255, 127));
        for (slot, ends) in
            [(0, uplink(0, 0)), (8191, uplink(8191, 63)), (300, canary_link(300)), (7, bystander_link(7))]
        {
            assert_eq!((slot_of(ends.0), slot_of(ends.1)), (Some(slot), Some(slot)));
        }
        assert_eq!(slot_of(in_block(5, 5)), None);
    }
}
