//! How far apps can be kept apart on this machine, and with which addresses they call outside.

use crate::args::{DriverArg, EgressIp, UpArgs};
use anyhow::{Result, bail};
use bastide_container::Finding;
use bastide_runtime::config::{DriverKind, Zone};
use bastide_types::{
    ZoneName,
    node::{Isolation, ZoneAddress},
};
use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
};

/// Everything that was looked at: the kernel's part, and the programs.
pub fn findings() -> Vec<Finding> {
    let mut all = bastide_container::preflight().findings;
    let firewall = firewall();
    let good = firewall.is_ok();
    all.push(Finding { id: "isolation-nft", good, needed: true, found: firewall.unwrap_or_else(|why| why) });
    let tracks = Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists();
    let found = if tracks {
        "the kernel follows connections"
    } else {
        "the kernel does not follow connections yet; it begins with the first rule"
    };
    all.push(Finding { id: "isolation-conntrack", good: tracks, needed: false, found: found.into() });
    all
}

/// Whether rules can be loaded: the program is there, and the kernel answers it.
fn firewall() -> Result<String, String> {
    let program = program_at("nft").ok_or("`nft` is not installed")?;
    let asked = Command::new(&program).args(["list", "tables"]).output();
    match asked {
        Ok(answer) if answer.status.success() => Ok(program.display().to_string()),
        Ok(answer) => {
            let said = String::from_utf8_lossy(&answer.stderr);
            Err(format!("{} does not work: {}", program.display(), said.lines().next().unwrap_or_default()))
        }
        Err(error) => Err(format!("{} cannot be started: {error}", program.display())),
    }
}

/// What a finding asks for.
pub fn hint(id: &str) -> &'static str {
    match id {
        "isolation-rights" => "Run as root (`sudo ./start`).",
        "isolation-namespaces" | "isolation-seccomp" | "isolation-overlay" => {
            "The kernel, or the container that this runs in, does not offer it. Use a kernel of a distribution, and give a container around Bastide its rights (such as --privileged)."
        }
        "isolation-cgroup-memory" | "isolation-cgroup-pids" | "isolation-cgroup-cpu" => {
            "Mount the controller (v1), or enable it for the root cgroup (v2)."
        }
        "isolation-conntrack" => "Load it: `modprobe nf_conntrack`.",
        "isolation-users" => "Optional: set user.max_user_namespaces above 0.",
        _ => "Install the package nftables (`apt-get install nftables`); the kernel needs nf_tables.",
    }
}

/// A program by its name: on PATH, or where root's programs usually are.
pub fn program_at(name: &str) -> Option<PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&own).chain(usual).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Which driver runs, and so what keeps apps apart.
///
/// # Errors
/// When the one that was asked for cannot run, or nothing can be kept apart and nobody allowed that.
pub fn choose(args: &UpArgs, findings: &[Finding]) -> Result<(DriverKind, Isolation)> {
    let missing: Vec<_> = findings.iter().filter(|finding| finding.needed && !finding.good).collect();
    let wanted = match args.driver {
        DriverArg::Auto if missing.is_empty() => DriverArg::Linux,
        DriverArg::Auto if args.allow_no_isolation => DriverArg::Process,
        DriverArg::Auto => DriverArg::Linux,
        chosen => chosen,
    };
    match wanted {
        DriverArg::Process if args.allow_no_isolation => Ok((DriverKind::Process, Isolation::None)),
        DriverArg::Process => bail!(
            "the `process` driver isolates nothing: apps can reach each other and read this user's files. \
             Start with --allow-no-isolation if you accept that (bastide explain B-RT-0403)"
        ),
        _ if missing.is_empty() => Ok((DriverKind::Linux, Isolation::Kernel)),
        _ => {
            let mut text =
                String::from("apps cannot be isolated on this machine (bastide explain B-RT-0404):\n\n");
            for finding in missing {
                text.push_str(&format!(
                    "  {:<24} {}\n  {:<24} → {}\n",
                    finding.id,
                    finding.found,
                    "",
                    hint(finding.id)
                ));
            }
            text.push_str(
                "\nWithout isolation Bastide serves one customer and no Production: --allow-no-isolation says that you accept that.",
            );
            bail!(text)
        }
    }
}

/// The zones with their addresses as chosen.
///
/// # Errors
/// When an address is for a zone that is not here, or two are for one.
pub fn zones(all: &[ZoneName], chosen: &[EgressIp]) -> Result<Vec<Zone>> {
    for (place, one) in chosen.iter().enumerate() {
        if !all.contains(&one.zone) {
            let names: Vec<_> = all.iter().map(ToString::to_string).collect();
            bail!("--egress-ip: there is no zone `{}`; the zones are {}", one.zone, names.join(", "));
        }
        if chosen[..place].iter().any(|other| other.zone == one.zone) {
            bail!("--egress-ip: zone `{}` has two addresses", one.zone);
        }
    }
    let public = |zone: &ZoneName| chosen.iter().find(|one| one.zone == *zone).map(|one| one.address);
    Ok(all.iter().map(|zone| Zone { name: zone.clone(), public: public(zone) }).collect())
}

/// What outsiders see of each zone.
pub fn addresses(zones: &[Zone]) -> Vec<ZoneAddress> {
    let own = own_address();
    let shown = zones.iter().map(|zone| ZoneAddress {
        zone: zone.name.clone(),
        address: zone.public.or(own),
        chosen: zone.public.is_some(),
    });
    shown.collect()
}

/// The address that this host sends with to the world; nothing is sent to find out.
pub fn own_address() -> Option<Ipv4Addr> {
    // A constant of the internet's: where there is a way to it, there is one to the rest.
    let somewhere = (Ipv4Addr::new(198, 41, 0, 4), 53);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(somewhere).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_unspecified() => Some(address),
        _ => None,
    }
}

/// Whether an address belongs to this host, so that answers to it come back here.
pub fn is_own(address: Ipv4Addr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whether the process may take away what containers and networks left.
pub fn may_clear(runtime_dir: &Path) -> bool {
    nix::unistd::geteuid().is_root() && runtime_dir.join("network.json").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Command as Typed};
    use clap::Parser;

    fn args(more: &str) -> UpArgs {
        let typed = format!("bastide up {more}");
        match Arguments::try_parse_from(typed.split_whitespace()).unwrap().command {
            Typed::Up(args) => args,
            _ => panic!("not up"),
        }
    }

    fn found(good: bool) -> Vec<Finding> {
        vec![
            Finding { id: "isolation-rights", good, needed: true, found: "not root".into() },
            Finding { id: "isolation-users", good: false, needed: false, found: "none".into() },
        ]
    }

    #[test]
    fn isolation_is_the_default_and_its_absence_must_be_allowed() {
        let check = |more: &str, good| choose(&args(more), &found(good)).map(|(driver, _)| driver);
        assert_eq!(check("", true).unwrap(), DriverKind::Linux);
        assert_eq!(
            check("--allow-no-isolation", true).unwrap(),
            DriverKind::Linux,
            "it is there, so it is used"
        );
        assert_eq!(check("--allow-no-isolation", false).unwrap(), DriverKind::Process);
        assert_eq!(check("--driver process --allow-no-isolation", true).unwrap(), DriverKind::Process);
        let refused = |more: &str, good, code: &str| {
            let text = check(more, good).unwrap_err().to_string();
            assert!(text.contains(code) && text.contains("--allow-no-isolation"), "{text}");
        };
        refused("", false, "B-RT-0404");
        refused("--driver linux --allow-no-isolation", false, "B-RT-0404");
        refused("--driver process", true, "B-RT-0403");
        let text = check("", false).unwrap_err().to_string();
        assert!(text.contains("not root") && text.contains("sudo"), "it says what is missing: {text}");
        assert!(!text.contains("isolation-users"), "and nothing that is not needed");
    }

    #[test]
    fn addresses_belong_to_zones_that_are_there() {
        let all = ["a", "b"].map(|zone| ZoneName::new(zone).unwrap());
        let chosen = |more: &str| zones(&all, &args(more).egress_ip);
        assert!(chosen("").unwrap().iter().all(|zone| zone.public.is_none()));
        let both = chosen("--egress-ip b=192.0.2.2 --egress-ip a=192.0.2.1").unwrap();
        assert_eq!(both[1].public, Some(Ipv4Addr::new(192, 0, 2, 2)));
        assert!(addresses(&both).iter().all(|zone| zone.chosen));
        assert!(chosen("--egress-ip c=192.0.2.1").unwrap_err().to_string().contains("a, b"));
        assert!(chosen("--egress-ip a=192.0.2.1 --egress-ip a=192.0.2.2").is_err());
    }
}
