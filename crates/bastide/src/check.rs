//! `bastide check`: pre-flight checks in groups, each with an id and a hint.

use crate::{forwarding, isolation};
use bastide_bus::broker::{Search, Version};
use bastide_container::Finding;
use bastide_edge::rules::{Origin, Places};
use bastide_runtime::config::Zone;
use bastide_types::node::Isolation;
use std::{
    fmt::Write as _,
    net::{Ipv4Addr, TcpListener, ToSocketAddrs},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What the checks look at.
pub struct Subject {
    /// Data directory.
    pub data: PathBuf,
    /// HTTPS and HTTP port of the edge.
    pub ports: [u16; 2],
    /// Where WAF rules are looked for.
    pub rules: Places,
    /// Where the broker is looked for, if it is to be run here.
    pub broker: Option<Search>,
    /// What was found about isolation.
    pub isolation: Vec<Finding>,
    /// Whether apps may run without.
    pub allow_no_isolation: bool,
    /// Zones with their public addresses; what is wrong with them otherwise.
    pub zones: Result<Vec<Zone>, String>,
    /// File with the address of a PostgreSQL database for the control plane, if it is on a server.
    pub database: Option<PathBuf>,
    /// File with the address of a PostgreSQL server, if there is one.
    pub postgres: Option<PathBuf>,
    /// True when this installation already runs here: its own ports are not a fault.
    pub running: bool,
}

/// How a check came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All is well; what was found.
    Good(String),
    /// It works, but worse.
    Worse(String),
    /// It will not work.
    Bad(String),
}

/// One check.
#[derive(Debug, Clone)]
pub struct Check {
    /// Group, as a heading.
    pub group: &'static str,
    /// Stable id.
    pub id: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What to do when it is not good.
    pub hint: &'static str,
}

/// Runs all checks.
pub fn run(subject: &Subject) -> Vec<Check> {
    let mut checks = vec![
        check("Machine", "machine-kernel", kernel(), "Bastide runs on Linux 5.10 or newer."),
        check(
            "Machine",
            "machine-disk",
            disk(&subject.data),
            "Free some space, or choose another place with --data.",
        ),
        check(
            "Machine",
            "machine-clock",
            clock(),
            "Set the clock: tokens and certificates depend on it (`timedatectl set-ntp true`).",
        ),
        check(
            "Names",
            "names-localhost",
            localhost(),
            "Install libnss-myhostname, so that browsers and curl find *.localhost; our own clients need nothing.",
        ),
        check(
            "Programs",
            "programs-broker",
            broker(subject.broker.as_ref()),
            "Run ./start once (it fetches a pinned one), or put nats-server 2.14.0 or newer on PATH, or name one with --nats-server.",
        ),
        check(
            "Rules",
            "rules-waf",
            rules(&subject.rules),
            "Install modsecurity-crs, or import a release (`bastide waf import`), or name rules with --waf-rules.",
        ),
    ];
    checks.extend(isolation_checks(subject));
    checks.extend(zone_checks(subject));
    if let Some(file) = &subject.database {
        checks.push(check(
            "Data",
            "data-control-plane",
            database(file),
            "The file holds one line, such as postgres://name:password@db.example.com/bastide?sslmode=verify-full&sslrootcert=/etc/ca.pem, \
             of a role that owns that database and is no superuser; only you should be able to read it (chmod 600).",
        ));
    }
    if let Some(file) = &subject.postgres {
        checks.push(check(
            "Data",
            "data-postgres",
            postgres(file),
            "The file holds one line, such as postgres://name:password@db.example.com/postgres?sslmode=verify-full&sslrootcert=/etc/ca.pem, \
             of a role with CREATEROLE and CREATEDB; only you should be able to read it (chmod 600).",
        ));
    }
    for (port, id) in subject.ports.into_iter().zip(["ports-https", "ports-http"]) {
        let outcome = if subject.running { Outcome::Good(format!("{port}: ours")) } else { port_free(port) };
        checks.push(check(
            "Ports",
            id,
            outcome,
            "Another program listens there. Choose others with --https-port and --http-port.",
        ));
    }
    checks
}

/// The report for people: groups, marks, hints.
pub fn report(checks: &[Check]) -> String {
    let mut text = String::new();
    let mut group = "";
    for check in checks {
        if check.group != group {
            group = check.group;
            let _ = writeln!(text, "{group}");
        }
        let (mark, found, hint) = match &check.outcome {
            Outcome::Good(found) => ("ok  ", found, None),
            Outcome::Worse(found) => ("warn", found, Some(check.hint)),
            Outcome::Bad(found) => ("FAIL", found, Some(check.hint)),
        };
        let _ = writeln!(text, "  {mark} {:<16} {found}", check.id);
        if let Some(hint) = hint {
            let _ = writeln!(text, "       {:<16} → {hint}", "");
        }
    }
    text
}

/// Whether nothing failed.
pub fn passed(checks: &[Check]) -> bool {
    !checks.iter().any(|check| matches!(check.outcome, Outcome::Bad(_)))
}

fn check(group: &'static str, id: &'static str, outcome: Outcome, hint: &'static str) -> Check {
    Check { group, id, outcome, hint }
}

/// Each finding, then the level that follows.
fn isolation_checks(subject: &Subject) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut level = Isolation::Kernel;
    for finding in &subject.isolation {
        let outcome = if finding.good {
            Outcome::Good(finding.found.clone())
        } else if finding.needed && !subject.allow_no_isolation {
            Outcome::Bad(finding.found.clone())
        } else {
            Outcome::Worse(finding.found.clone())
        };
        if finding.needed && !finding.good {
            level = Isolation::None;
        }
        checks.push(check("Isolation", finding.id, outcome, isolation::hint(finding.id)));
    }
    let outcome = match level {
        Isolation::Kernel => Outcome::Good(format!("{}: namespaces, limits, filters", level.label())),
        Isolation::None if subject.allow_no_isolation => Outcome::Worse(format!(
            "{}: apps run as plain processes; one customer, no Production",
            level.label()
        )),
        Isolation::None => Outcome::Bad(format!("{}: this machine cannot keep apps apart", level.label())),
    };
    let hint = "Mend what is missing above, or accept it with --allow-no-isolation.";
    checks.push(check("Isolation", "isolation-level", outcome, hint));
    checks
}

/// The address that outsiders see of each zone.
fn zone_checks(subject: &Subject) -> Vec<Check> {
    let zones = match &subject.zones {
        Ok(zones) => zones,
        Err(why) => {
            let hint = "Name each zone at most once, as in --egress-ip a=203.0.113.7.";
            return vec![check("Way out", "egress-zones", Outcome::Bad(why.clone()), hint)];
        }
    };
    let own = isolation::own_address();
    let one = |zone: &Zone| {
        let name = &zone.name;
        match (zone.public, own) {
            (Some(address), _) if isolation::is_own(address) => {
                Outcome::Good(format!("zone {name}: {address}"))
            }
            (Some(address), _) => Outcome::Bad(format!("zone {name}: {address} is no address of this host")),
            (None, Some(own)) => {
                Outcome::Good(format!("zone {name}: {own}, the address that this host sends with"))
            }
            (None, None) => Outcome::Worse(format!("zone {name}: this host has no way out")),
        }
    };
    let hint = "Give the host an address for each zone (`ip address add ADDRESS dev LINK`) and name it with --egress-ip.";
    let mut checks: Vec<_> =
        zones.iter().map(|zone| check("Way out", "egress-zone", one(zone), hint)).collect();
    checks.extend(forward_check());
    checks
}

/// Another firewall that drops what it does not name; only root may ask.
fn forward_check() -> Option<Check> {
    let nft = isolation::program_at("nft").filter(|_| nix::unistd::geteuid().is_root())?;
    let dropping: Vec<_> = forwarding::chains_that_drop(&nft).into_iter().collect();
    let outcome = if dropping.is_empty() {
        Outcome::Good("no other firewall drops what it does not name".into())
    } else {
        Outcome::Worse(format!("dropped after our rules, unless allowed there: {}", dropping.join(", ")))
    };
    let hint = "Let apps' packets through in that firewall, both ways, by their links (`ip -brief link`: b, five letters, u): \
        iptables -I FORWARD -i 'bxxxxxu+' -j ACCEPT; iptables -I FORWARD -o 'bxxxxxu+' -j ACCEPT. With Docker, in DOCKER-USER. \
        Then prove it: bastide verify.";
    Some(check("Way out", "egress-forward", outcome, hint))
}

fn kernel() -> Outcome {
    match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => {
            let release = release.trim();
            let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
            let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
            if version >= (5, 10) {
                Outcome::Good(format!("Linux {release}"))
            } else {
                Outcome::Bad(format!("Linux {release}"))
            }
        }
        Err(_) => Outcome::Bad("not Linux".into()),
    }
}

fn disk(data: &Path) -> Outcome {
    let Some(existing) = data.ancestors().find(|path| path.exists()) else {
        return Outcome::Bad(format!("{} does not exist", data.display()));
    };
    match nix::sys::statvfs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size() / (1024 * 1024);
            let found = format!("{free} MiB free at {}", existing.display());
            match free {
                0..200 => Outcome::Bad(found),
                200..2000 => Outcome::Worse(found),
                _ => Outcome::Good(found),
            }
        }
        Err(error) => Outcome::Worse(format!("unknown ({error})")),
    }
}

fn clock() -> Outcome {
    // Older than this source means: surely wrong.
    const WRITTEN_S: u64 = 1_790_000_000;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    if now < WRITTEN_S {
        Outcome::Bad("the clock is years behind".into())
    } else {
        Outcome::Good("plausible".into())
    }
}

fn localhost() -> Outcome {
    match ("demo.platform.localhost", 443).to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(address)) if address.ip().is_loopback() => {
            Outcome::Good("*.localhost leads to this machine".into())
        }
        _ => Outcome::Worse("*.localhost does not resolve".into()),
    }
}

fn broker(search: Option<&Search>) -> Outcome {
    let Some(search) = search else { return Outcome::Good("a cluster that somebody else runs".into()) };
    match bastide_bus::broker::find(search) {
        Ok(found) => {
            let Version(major, minor, patch) = found.version;
            Outcome::Good(format!("nats-server {major}.{minor}.{patch} at {}", found.program.display()))
        }
        Err(error) => Outcome::Bad(error.to_string()),
    }
}

fn rules(places: &Places) -> Outcome {
    let found = places.find().and_then(|found| {
        found.read()?;
        Ok(found)
    });
    match found {
        Ok(found) if found.origin == Origin::BuiltIn => {
            Outcome::Worse("none installed: a few built-in ones know plain attacks only".into())
        }
        Ok(found) => Outcome::Good(format!("{}, {} files", found.origin, found.files.len())),
        Err(error) => Outcome::Bad(whole(&error)),
    }
}

/// The control plane's database. Without it nothing starts.
fn database(file: &Path) -> Outcome {
    let server = bastide_platform::config::DatabaseServer { address_file: file.to_owned() };
    let address = match server.address() {
        Ok(address) => address,
        Err(error) => return Outcome::Bad(whole(&error)),
    };
    match asked(bastide_store::look_at(&address)) {
        Some(Ok(found)) if is_open(file) => {
            Outcome::Worse(format!("{found}, but others may read {}", file.display()))
        }
        Some(Ok(found)) => Outcome::Good(found),
        Some(Err(error)) => Outcome::Bad(whole(&error)),
        None => Outcome::Bad("it could not be asked".into()),
    }
}

/// The answer of a server. Somebody else's runtime may be running on this thread.
fn asked<T: Send>(ask: impl Future<Output = T> + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            Some(runtime.block_on(ask))
        };
        scope.spawn(ask).join().ok().flatten()
    })
}

fn is_open(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

/// A server that is away now may be back later; whatever else is wrong stays wrong.
fn postgres(file: &Path) -> Outcome {
    use bastide_store::ServerError;
    let admin = match bastide_platform::postgres_at(file) {
        Ok(admin) => admin,
        Err(error) => return Outcome::Bad(whole(&error)),
    };
    let asked = asked(admin.check());
    let open = is_open(file);
    match asked {
        Some(Ok(found)) if open => Outcome::Worse(format!("{found}, but others may read {}", file.display())),
        Some(Ok(found)) => Outcome::Good(found),
        Some(Err(error @ ServerError::Unreachable(_))) => Outcome::Worse(whole(&error)),
        Some(Err(error)) => Outcome::Bad(whole(&error)),
        None => Outcome::Worse("it could not be asked".into()),
    }
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn port_free(port: u16) -> Outcome {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Outcome::Good(format!("{port} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Outcome::Bad(format!("{port} needs root or CAP_NET_BIND_SERVICE"))
        }
        Err(error) => Outcome::Bad(format!("{port}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::ZoneName;

    #[test]
    fn a_taken_port_and_missing_rules_fail_with_a_hint() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let subject = Subject {
            data: dir.path().join("data"),
            ports: [port, port],
            rules: Places { named: vec![dir.path().join("none/*.conf")], versions: None },
            broker: Some(Search::default()),
            isolation: vec![Finding {
                id: "isolation-rights",
                good: false,
                needed: true,
                found: "not root".into(),
            }],
            allow_no_isolation: false,
            zones: Ok(vec![Zone {
                name: ZoneName::new("a").unwrap(),
                public: Some(Ipv4Addr::new(192, 0, 2, 1)),
            }]),
            database: Some(dir.path().join("none")),
            postgres: Some(dir.path().join("none")),
            running: false,
        };
        let checks = run(&subject);
        assert!(!passed(&checks));
        let report = report(&checks);
        assert!(report.contains("FAIL ports-https"), "{report}");
        assert!(report.contains("--waf-rules"), "{report}");
        assert!(report.contains("FAIL data-postgres"), "{report}");
        assert!(report.contains("FAIL data-control-plane"), "{report}");
        for part in [
            "FAIL isolation-rights",
            "sudo",
            "FAIL isolation-level",
            "isolation: NONE",
            "FAIL egress-zone",
            "192.0.2.1",
        ] {
            assert!(report.contains(part), "{part}: {report}");
        }
    }
}
