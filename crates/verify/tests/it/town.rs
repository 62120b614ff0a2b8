//! A town of two customers with two stages each over two zones, on a host of its own, with a machine outside.

use bastide_isolation::{
    Canary, CanaryPorts, Caps, Direct, Installation, Ledger, Outside, Plan, ReplicaNet, StageNet, Topology,
    Uplink, ZoneNet, address,
    checks::{App, Facts},
    plan,
    rules::Ruleset,
    transaction,
};
use bastide_network::{Network, OutsideNamespace};
use bastide_types::{ReplicaId, ZoneName};
use bastide_verify::{Limits, Subject};
use std::{
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

pub const SLOT: u16 = 7;
/// Addresses of the host: its own, and one for each zone.
pub const HOST: Ipv4Addr = Ipv4Addr::new(11, 9, 9, 9);
pub const PUBLIC: [Ipv4Addr; 2] = [Ipv4Addr::new(11, 9, 9, 11), Ipv4Addr::new(11, 9, 9, 12)];

pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}");
}

pub struct Town {
    pub topology: Topology,
    pub plan: Plan,
    pub facts: Facts,
    pub outside: String,
    network: Network,
}

pub fn zone(ordinal: usize) -> ZoneName {
    ZoneName::new(["a", "b"][ordinal]).unwrap()
}

impl Town {
    pub async fn new(test: &str) -> Option<Self> {
        if !nix::unistd::getuid().is_root() {
            skipped(test);
            return None;
        }
        let installation = Installation::of(&format!("/test/{}/{test}", std::process::id()));
        let mut ledger = Ledger::default();
        let mut facts =
            Facts { host: [HOST].into_iter().chain(PUBLIC).map(Into::into).collect(), ..Facts::default() };
        let mut stages = Vec::new();
        for (number, (customer, stage)) in
            [("acme", "test"), ("acme", "production"), ("beta", "test"), ("beta", "production")]
                .iter()
                .enumerate()
        {
            let account = format!("ACCOUNT{number}");
            let mut replicas = Vec::new();
            for ordinal in 0..2 {
                let id = ReplicaId::generate();
                let address = ledger.replica(&account, id).unwrap();
                replicas.push(ReplicaNet { id, zone: zone(ordinal), address });
                let app = App {
                    customer: customer.parse().unwrap(),
                    stage: stage.parse().unwrap(),
                    app: "web".parse().unwrap(),
                    serves: None,
                    may_use: Vec::new(),
                    may_not_use: Vec::new(),
                };
                facts.apps.insert(id, app);
            }
            let block = ledger.stage(&account).unwrap();
            // One stage may send packets nowhere, and calls everything by name.
            let allowed = if number == 1 { Vec::new() } else { Direct::default().allowed };
            let direct = Direct { allowed, denied: Vec::new() };
            stages.push(StageNet { account, block, replicas, failover: Vec::new(), direct });
        }
        facts.flood = true;
        facts.v6 = true;
        let zones = (0..2).map(|ordinal| {
            let (outer, inner) = address::uplink(SLOT, ordinal as u8);
            ZoneNet { zone: zone(ordinal), uplink: Uplink { inner, outer, public: Some(PUBLIC[ordinal]) } }
        });
        let closed = [
            [0, 9, 9, 9],
            [10, 9, 9, 9],
            [100, 95, 255, 9],
            [169, 254, 169, 254],
            [172, 20, 9, 9],
            [192, 0, 0, 9],
            [192, 0, 2, 9],
            [192, 88, 99, 9],
            [192, 168, 9, 9],
            [198, 18, 9, 9],
            [198, 51, 100, 9],
            [203, 0, 113, 9],
            [240, 9, 9, 9],
            [11, 2, 0, 9],
        ];
        let canary = Canary {
            outer: address::canary_link(SLOT).0,
            open: Ipv4Addr::new(198, 18, 3, 4),
            ports: CanaryPorts { allowed: 4001, denied: 4002, unnamed: 4003 },
            closed: closed.map(Ipv4Addr::from).into(),
            bystander: Some(address::bystander_link(SLOT)),
        };
        let topology = Topology {
            installation,
            zones: zones.collect(),
            stages,
            outside: Outside::Host { routes_already: false },
            blocked: vec!["11.2.0.0/16".parse().unwrap()],
            caps: Caps { tcp: 200, udp: 200 },
            canary: Some(canary),
        };
        let plan = plan(&topology).unwrap();
        let outside = format!("{}host", topology.installation.prefix());
        ip(&format!("netns add {outside}"));
        ip(&format!("-n {outside} link set lo up"));
        for host in [HOST, PUBLIC[0], PUBLIC[1]] {
            ip(&format!("-n {outside} addr add {host}/32 dev lo"));
        }
        let by = OutsideNamespace::Named(outside.clone());
        let network = Network::open(topology.installation.clone(), by).await.unwrap();
        let town = Self { topology, plan, facts, outside, network };
        let report = town.network.reconcile(&town.plan).await.unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        // Of a protocol without ports, a gateway translates one flow at a time to one destination. What an
        // earlier mutant let through must not stand in the way of a later one's.
        for namespace in
            town.plan.namespaces.iter().filter(|(_, one)| one.rules.is_some()).map(|(name, _)| name)
        {
            town.set(namespace, "netfilter/nf_conntrack_generic_timeout", 1);
        }
        Some(town)
    }

    /// The canary's address for apps.
    pub fn open(&self) -> Ipv4Addr {
        self.topology.canary.as_ref().unwrap().open
    }

    /// A namespace as `ip netns` calls it.
    pub fn real<'a>(&'a self, namespace: &'a str) -> &'a str {
        if namespace == Plan::OUTSIDE { &self.outside } else { namespace }
    }

    /// Loads rules, whatever the plan says.
    pub fn load(&self, namespace: &str, rules: &Ruleset) {
        let mut nft = Command::new("ip")
            .args(["netns", "exec", self.real(namespace), "nft", "-j", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin.take().unwrap().write_all(transaction(rules).to_string().as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{rules:?}");
    }

    /// `ip` inside a namespace.
    pub fn ip(&self, namespace: &str, words: &str) {
        ip(&format!("-n {} {words}", self.real(namespace)));
    }

    /// The hardware address of a link.
    pub fn hardware(&self, namespace: &str, link: &str) -> String {
        let shown = ip(&format!("-n {} -o link show dev {link}", self.real(namespace)));
        shown.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    }

    /// A setting below `/proc/sys/net` of a namespace.
    pub fn set(&self, namespace: &str, name: &str, value: u8) {
        let script = format!("echo {value} > /proc/sys/net/{name}");
        let real = self.real(namespace);
        assert!(
            Command::new("ip").args(["netns", "exec", real, "sh", "-c", &script]).status().unwrap().success()
        );
    }

    pub fn outside_path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.outside)
    }

    pub fn limits() -> Limits {
        Limits {
            closed: Duration::from_millis(800),
            open: Duration::from_secs(5),
            settle: Duration::from_millis(200),
        }
    }

    pub fn subject<'a>(&'a self, outside: &'a Path) -> Subject<'a> {
        Subject { topology: &self.topology, facts: &self.facts, outside: Some(outside) }
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        // On a thread of its own: the test's runtime may be on its way down.
        let cleared = std::thread::scope(|scope| {
            let clear = || {
                tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(self.network.clear())
            };
            scope.spawn(clear).join()
        });
        ip(&format!("netns del {}", self.outside));
        if !std::thread::panicking() {
            cleared.unwrap().unwrap();
        }
    }
}

fn ip(words: &str) -> String {
    let done = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() || std::thread::panicking(), "ip {words}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}
