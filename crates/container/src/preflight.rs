//! What this host allows, and why not more. Reads only; starts nothing.

use crate::cgroup::{self, Layout};
use nix::unistd::geteuid;
use std::{fs, path::Path};

/// How far apps can be kept apart here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Namespaces, limits and filters of the kernel.
    Kernel,
    /// Nothing; apps are plain processes.
    None,
}

impl Level {
    /// The word in status and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "isolation: kernel",
            Self::None => "isolation: NONE",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable id, such as `isolation-cgroup-memory`.
    pub id: &'static str,
    /// Whether it is as containers want it.
    pub good: bool,
    /// Whether there can be no containers without it.
    pub needed: bool,
    /// What was found, for people.
    pub found: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// All findings.
    pub findings: Vec<Finding>,
    /// Whether containers can have users of their own here.
    pub user_namespaces: bool,
}

impl Preflight {
    /// The level that follows from the findings.
    pub fn level(&self) -> Level {
        if self.findings.iter().all(|finding| finding.good || !finding.needed) {
            Level::Kernel
        } else {
            Level::None
        }
    }

    /// What stands in the way of containers.
    pub fn missing(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.needed && !finding.good)
    }
}

/// Looks at this host.
pub fn preflight() -> Preflight {
    let users = user_namespaces();
    let user_namespaces = users.is_ok();
    let mut findings = vec![
        needed("isolation-rights", rights()),
        needed("isolation-namespaces", namespaces()),
        needed("isolation-seccomp", seccomp()),
        needed("isolation-overlay", overlay()),
    ];
    let layout = match cgroup::layout() {
        Layout::Unified => "one hierarchy (v2)",
        Layout::PerController => "one hierarchy per controller (v1 or hybrid)",
        Layout::Missing => "not mounted",
    };
    let limits = [
        ("isolation-cgroup-memory", "memory", "memory"),
        ("isolation-cgroup-pids", "pids", "processes"),
        ("isolation-cgroup-cpu", "cpu", "processor time"),
    ];
    findings.extend(limits.map(|(id, controller, what)| {
        let found = if cgroup::has(controller) {
            Ok(format!("{what} can be limited: {layout}"))
        } else {
            Err(format!("{what} cannot be limited: no controller `{controller}` ({layout})"))
        };
        needed(id, found)
    }));
    findings.push(Finding { needed: false, ..needed("isolation-users", users) });
    Preflight { findings, user_namespaces }
}

fn needed(id: &'static str, found: Result<String, String>) -> Finding {
    let good = found.is_ok();
    Finding { id, good, needed: true, found: found.unwrap_or_else(|why| why) }
}

fn rights() -> Result<String, String> {
    // Names and numbers from capabilities(7).
    const WANTED: [(&str, u32); 9] = [
        ("CHOWN", 0),
        ("DAC_OVERRIDE", 1),
        ("KILL", 5),
        ("SETGID", 6),
        ("SETUID", 7),
        ("SETPCAP", 8),
        ("NET_ADMIN", 12),
        ("SYS_ADMIN", 21),
        ("MKNOD", 27),
    ];
    if !geteuid().is_root() {
        return Err("not root: containers, network namespaces and firewalls need it".into());
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let have = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    let lacking: Vec<_> =
        WANTED.iter().filter(|(_, bit)| have >> bit & 1 == 0).map(|(name, _)| *name).collect();
    if lacking.is_empty() {
        Ok("root with the capabilities that containers need".into())
    } else {
        Err(format!("root, but without CAP_{}", lacking.join(", CAP_")))
    }
}

fn namespaces() -> Result<String, String> {
    let wanted = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];
    let absent: Vec<_> =
        wanted.iter().filter(|kind| !Path::new("/proc/self/ns").join(kind).exists()).copied().collect();
    if absent.is_empty() {
        Ok("all kinds that are needed".into())
    } else {
        Err(format!("the kernel has no namespaces of kind {}", absent.join(", ")))
    }
}

fn seccomp() -> Result<String, String> {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "errno") {
        Ok("system calls can be filtered".into())
    } else {
        Err("the kernel cannot filter system calls".into())
    }
}

fn overlay() -> Result<String, String> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let loadable = || {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Path::new("/lib/modules").join(release.trim()).join("kernel/fs/overlayfs").exists()
    };
    if known.lines().any(|line| line.ends_with("\toverlay")) || loadable() {
        Ok("overlayfs".into())
    } else {
        Err("the kernel has no overlayfs (modprobe overlay)".into())
    }
}

/// The kernel mounts a new `/proc` for other users only where the old one hides nothing.
fn user_namespaces() -> Result<String, String> {
    if !Path::new("/proc/self/ns/user").exists() {
        return Err("the kernel has no user namespaces".into());
    }
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if most.trim().parse::<u64>().is_ok_and(|most| most == 0) {
        return Err("switched off (user.max_user_namespaces is 0)".into());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match covered(&mounts) {
        Some(path) => Err(format!("parts of /proc are covered ({path}), most likely by a container")),
        None => Ok("containers get users of their own".into()),
    }
}

/// A mount over a part of `/proc`, from the text of `mountinfo`.
fn covered(mounts: &str) -> Option<&str> {
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|place| {
        // An empty directory that the kernel keeps for this very mount.
        place.starts_with("/proc/") && *place != "/proc/sys/fs/binfmt_misc"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_covered_proc_is_noticed() {
        let plain =
            "22 1 0:20 / /proc rw - proc proc rw\n30 22 0:30 / /proc/sys/fs/binfmt_misc rw - autofs x rw";
        assert_eq!(covered(plain), None);
        let inside = format!("{plain}\n31 22 0:31 / /proc/kcore ro - tmpfs tmpfs ro");
        assert_eq!(covered(&inside), Some("/proc/kcore"));
    }

    #[test]
    fn one_needed_finding_decides_the_level() {
        let finding = |needed, good| Finding { id: "x", good, needed, found: String::new() };
        let of = |findings| Preflight { findings, user_namespaces: false };
        assert_eq!(of(vec![finding(true, true), finding(false, false)]).level(), Level::Kernel);
        let bad = of(vec![finding(true, true), finding(true, false)]);
        assert_eq!(bad.level(), Level::None);
        assert_eq!(bad.missing().count(), 1);
    }

    #[test]
    fn a_plain_user_gets_no_containers_and_hears_why() {
        let found = preflight();
        if !geteuid().is_root() {
            assert_eq!(found.level(), Level::None);
            assert!(found.missing().any(|finding| finding.found.starts_with("not root")));
        }
    }
}
