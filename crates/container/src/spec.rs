//! The OCI runtime configuration of a container. Plain: it makes nothing, it only says what to make.
//!
//! The network namespace is missing on purpose: the shim is in it before the engine starts. A container with
//! users of its own could not join it, for it belongs to the host's users.

use crate::{
    cgroup,
    container::{Container, USER},
    cores::Cores,
    seccomp,
};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};

/// Users of a container with its own: 65 536 of them, from a range that neither people nor systemd use.
const USERS_FIRST: u32 = 0x7000_0000;
const USERS_EACH: u32 = 65_536;
const USERS_RANGES: u32 = 4096;
const PERIOD_US: u64 = 100_000;

/// `config.json` of the bundle; `root` is where the shim has put the root file system.
pub(crate) fn spec(container: &Container, root: &str) -> Value {
    let limits = &container.limits;
    // Without CAP_SYS_RESOURCE nobody raises what the host has set.
    let files_max =
        getrlimit(Resource::RLIMIT_NOFILE).map_or(limits.files_max, |(_, hard)| limits.files_max.min(hard));
    let mut namespaces = vec!["mount", "pid", "ipc", "uts", "cgroup"];
    let mut linux = json!({
        "cgroupsPath": cgroup::path(&container.id),
        "resources": resources(container),
        "seccomp": seccomp::profile(),
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/key-users", "/proc/keys",
            "/proc/kallsyms", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags",
            "/proc/latency_stats", "/proc/modules", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
            "/proc/timer_stats", "/proc/vmallocinfo",
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        "rootfsPropagation": "private",
    });
    if container.user_namespace {
        namespaces.push("user");
        let range = json!([{
            "containerID": 0, "hostID": users_from(&container.id), "size": USERS_EACH,
        }]);
        linux["uidMappings"] = range.clone();
        linux["gidMappings"] = range;
    }
    linux["namespaces"] = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": root, "readonly": true },
        "hostname": container.hostname,
        "process": {
            "terminal": false,
            "user": { "uid": USER, "gid": USER, "umask": 0o022 },
            "args": container.args,
            "env": container.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "cwd": container.cwd,
            "noNewPrivileges": true,
            "oomScoreAdj": 500,
            "capabilities": {
                "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [],
            },
            "rlimits": [
                { "type": "RLIMIT_NOFILE", "soft": files_max, "hard": files_max },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            ],
        },
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=64k"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=16m"]),
            mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777", &format!("size={}", limits.tmp_bytes)]),
        ],
        "linux": linux,
    })
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}

fn resources(container: &Container) -> Value {
    let limits = &container.limits;
    let mut memory = json!({ "limit": limits.memory_bytes });
    if cgroup::counts_swap() {
        // Memory and swap together: the same number means no swap.
        memory["swap"] = limits.memory_bytes.into();
    }
    json!({
        "devices": [{ "allow": false, "access": "rwm" }],
        "memory": memory,
        "pids": { "limit": limits.pids_max },
        "cpu": processor(u64::from(limits.cpu_millis)),
    })
}

fn processor(millis: u64) -> Value {
    let mut processor = json!({
        "shares": (millis * 1024 / 1000).max(2),
        "quota": (millis * PERIOD_US / 1000).max(1000),
        "period": PERIOD_US,
    });
    // All of them, so that there is a group whose cores can be changed while it runs.
    if let Some(cores) = Cores::of_host().filter(|_| cgroup::has("cpuset")) {
        processor["cpus"] = cores.to_string().into();
    }
    processor
}

/// First user of a container's range. Two containers may meet in one range; they share nothing but the
/// number then, for no file of the host belongs to it.
fn users_from(id: &str) -> u32 {
    let hash =
        id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    USERS_FIRST + (hash % USERS_RANGES) * USERS_EACH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Container {
        Container::new("r-1", "/state", "/image", vec!["/app".into()])
    }

    #[test]
    fn a_container_gets_nothing_that_it_need_not_have() {
        let spec = spec(&container(), "/root");
        assert_eq!(spec["process"]["user"]["uid"], 65_532);
        assert_eq!(spec["process"]["noNewPrivileges"], true);
        assert_eq!(spec["root"]["readonly"], true);
        for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
            assert_eq!(spec["process"]["capabilities"][set], json!([]), "{set}");
        }
        let sees_sys = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .any(|mount| mount["destination"].as_str().is_some_and(|path| path.starts_with("/sys")));
        assert!(!sees_sys);
        serde_json::from_value::<libcontainer::oci_spec::runtime::Spec>(spec).unwrap();
    }

    #[test]
    fn users_of_its_own_begin_far_from_everybody_elses() {
        let mut container = container();
        container.user_namespace = true;
        let spec = spec(&container, "/root");
        let first = spec["linux"]["uidMappings"][0]["hostID"].as_u64().unwrap();
        assert!((0x7000_0000..0x8000_0000).contains(&first));
        assert_eq!(first % 65_536, 0);
        assert_eq!(spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]);
        assert!(spec["linux"]["namespaces"].as_array().unwrap().contains(&json!({ "type": "user" })));
    }
}
