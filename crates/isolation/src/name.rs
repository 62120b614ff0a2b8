//! Kernel names, made from ids: customers' names never reach the kernel.
//!
//! A kernel name holds 15 bytes. Ours are `b`, five letters for the installation, one letter for the kind and
//! eight letters for the id. Links inside our own namespaces need no installation: kind and id will do.

use bastide_types::{ReplicaId, ZoneName};

/// Longest name of a link, in bytes (`IFNAMSIZ` less its NUL).
pub const BYTES_MAX: usize = 15;

/// Group of all gateways' links of all installations, so that the host's rules can tell them from everybody
/// else's.
pub const LINK_GROUP: u32 = 0xBA57;

const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Which installation of this machine something belongs to, so that two never meet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Installation(String);

impl Installation {
    /// The installation that keeps its things at `seed` (an absolute path). The same seed gives the same name,
    /// so what a dead run left behind is found again.
    pub fn of(seed: &str) -> Self {
        Self(letters(seed.as_bytes(), 5))
    }

    /// How every name of this installation in a shared place begins.
    pub fn prefix(&self) -> String {
        format!("b{}", self.0)
    }

    /// Namespace of a customer's stage, by its account on the bus.
    pub fn router(&self, account: &str) -> String {
        self.name('s', account.as_bytes())
    }

    /// Namespace of a replica.
    pub fn replica(&self, replica: ReplicaId) -> String {
        self.name('r', replica.0.as_bytes())
    }

    /// Namespace of a zone's NAT gateway.
    pub fn gateway(&self, zone: &ZoneName) -> String {
        self.name('z', zone.as_str().as_bytes())
    }

    /// Namespace behind a zone's gateway in which no app runs: the gateway is probed from there, and the egress
    /// proxy dials from there.
    pub fn probe(&self, zone: &ZoneName) -> String {
        self.name('p', zone.as_str().as_bytes())
    }

    /// The gateway's link in the namespace it goes out by.
    pub fn uplink(&self, zone: &ZoneName) -> String {
        self.name('u', zone.as_str().as_bytes())
    }

    /// Namespace of the machine outside that answers while isolation is verified; also the link to it there.
    pub fn canary(&self) -> String {
        self.name('c', b"canary")
    }

    /// Namespace of a machine beside it, for which the host does not route; also the link to it there.
    pub fn bystander(&self) -> String {
        self.name('c', b"bystander")
    }

    /// Number of the routing table by which gateways' packets find it.
    pub fn canary_table(&self) -> u32 {
        0x4000_0000 | (hash(self.0.as_bytes()) as u32 >> 8)
    }

    /// Table in the namespace that the gateways go out by; it is shared with others.
    pub fn table(&self) -> String {
        format!("bastide_{}", self.0)
    }

    /// Whether this is the name of a namespace of this installation, planned or left over.
    pub fn owns_namespace(&self, name: &str) -> bool {
        self.owns(name, "srzpc")
    }

    /// Whether this is the name of a link of this installation in the namespace that the gateways go out by.
    pub fn owns_link(&self, name: &str) -> bool {
        self.owns(name, "uc")
    }

    fn owns(&self, name: &str, kinds: &str) -> bool {
        let Some(rest) = name.strip_prefix(&self.prefix()) else { return false };
        let mut letters = rest.bytes();
        letters.next().is_some_and(|kind| kinds.contains(kind as char))
            && letters.len() == 8
            && letters.all(|letter| LETTERS.contains(&letter))
    }

    fn name(&self, kind: char, id: &[u8]) -> String {
        format!("b{}{kind}{}", self.0, letters(id, 8))
    }
}

/// A router's link to a replica.
pub fn replica_link(replica: ReplicaId) -> String {
    format!("r{}", letters(replica.0.as_bytes(), 8))
}

/// A router's link to a zone's gateway.
pub fn zone_link(zone: &ZoneName) -> String {
    format!("z{}", letters(zone.as_str().as_bytes(), 8))
}

/// A gateway's link to a stage's router.
pub fn stage_link(account: &str) -> String {
    format!("s{}", letters(account.as_bytes(), 8))
}

/// Whether this is a gateway's link in the namespace it goes out by, of whichever installation.
pub fn is_uplink(link: &str) -> bool {
    link.len() == BYTES_MAX && link.starts_with('b') && link.as_bytes()[6] == b'u'
}

/// The first `count` letters of a hash (FNV-1a with a finishing mix, 64 bits). Nobody outside chooses ids, and
/// the planner refuses two of one name.
fn letters(id: &[u8], count: usize) -> String {
    let hash = hash(id);
    (0..count).map(|place| LETTERS[(hash >> (5 * place)) as usize % 32] as char).collect()
}

fn hash(id: &[u8]) -> u64 {
    let mut hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_the_kernel_and_names_its_installation() {
        let here = Installation::of("/var/lib/bastide");
        let zone = ZoneName::new("a").unwrap();
        let id = ReplicaId::generate();
        for name in [
            here.router("AABC"),
            here.replica(id),
            here.gateway(&zone),
            here.probe(&zone),
            here.uplink(&zone),
            here.canary(),
            here.bystander(),
        ] {
            assert_eq!(name.len(), BYTES_MAX);
            assert!(name.starts_with(&here.prefix()), "{name}");
        }
        assert_ne!(here.prefix(), Installation::of("/var/lib/bastide2").prefix());
        assert!(here.owns_namespace(&here.replica(id)) && here.owns_link(&here.uplink(&zone)));
        assert!(!here.owns_namespace(&here.uplink(&zone)) && !here.owns_namespace(&here.replica(id)[..14]));
        assert!(!here.owns_namespace(&Installation::of("/elsewhere").replica(id)));
        assert_eq!(here.replica(id), here.replica(id));
        assert_ne!(here.replica(id), here.replica(ReplicaId::generate()));
    }
}
