//! The cgroups of a container, whichever hierarchies the host has: one per controller (v1), one for all
//! (v2), or some of each (hybrid). Found by looking, per controller; nothing is taken for granted.
//!
//! Making and joining them is the container engine's part; reading, killing and removing is here, so that
//! nothing is left even when the engine never got that far.

use crate::{Error, Result, cores::Cores};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const ROOT: &str = "/sys/fs/cgroup";
/// Directory of all containers of ours in every hierarchy.
pub const PARENT: &str = "bastide";
/// Longest wait for killed processes to be gone: the kernel needs it to free their memory.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How a host keeps its hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One hierarchy for all controllers.
    Unified,
    /// One per controller; there may be a unified one beside them.
    PerController,
    /// None is mounted.
    Missing,
}

/// The layout of this host.
pub fn layout() -> Layout {
    layout_at(Path::new(ROOT))
}

fn layout_at(root: &Path) -> Layout {
    if root.join("cgroup.controllers").exists() {
        Layout::Unified
    } else if ["memory", "pids", "cpu"].iter().any(|name| root.join(name).join("tasks").exists()) {
        Layout::PerController
    } else {
        Layout::Missing
    }
}

/// Whether a controller can limit containers of ours here.
pub fn has(controller: &str) -> bool {
    match layout() {
        Layout::Unified => fs::read_to_string(Path::new(ROOT).join("cgroup.controllers"))
            .is_ok_and(|all| all.split_whitespace().any(|one| one == controller)),
        Layout::PerController => Path::new(ROOT).join(controller).join("tasks").exists(),
        Layout::Missing => false,
    }
}

/// Whether swap is counted, so that it can be limited too.
pub(crate) fn counts_swap() -> bool {
    match layout() {
        Layout::Unified => Path::new("/proc/swaps").exists(),
        Layout::PerController => Path::new(ROOT).join("memory/memory.memsw.limit_in_bytes").exists(),
        Layout::Missing => false,
    }
}

/// The path that the engine is given: absolute, below the root of each hierarchy.
pub(crate) fn path(id: &str) -> String {
    format!("/{PARENT}/{id}")
}

/// The cgroups of one container.
#[derive(Debug, Clone)]
pub struct Cgroups {
    id: String,
    root: PathBuf,
}

impl Cgroups {
    /// Those of the container `id`, whether they exist or not.
    pub fn of(id: &str) -> Self {
        Self { id: id.to_owned(), root: ROOT.into() }
    }

    /// Those that hold all containers of this host; the host's figures of them, no limits.
    pub fn common() -> Self {
        Self { id: String::new(), root: ROOT.into() }
    }

    /// Those directories that exist, one per hierarchy.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let below = Path::new(PARENT).join(&self.id);
        let hierarchies = fs::read_dir(&self.root).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut seen = BTreeSet::new();
        std::iter::once(self.root.clone())
            .chain(hierarchies)
            .map(|hierarchy| hierarchy.join(&below))
            .filter(|dir| dir.join("cgroup.procs").exists())
            // Some hosts reach one hierarchy under two names (cpu, cpuacct → cpu,cpuacct).
            .filter(|dir| dir.canonicalize().is_ok_and(|real| seen.insert(real)))
            .collect()
    }

    /// All processes in them.
    pub fn processes(&self) -> BTreeSet<i32> {
        self.dirs().iter().flat_map(|dir| processes_below(dir)).collect()
    }

    /// Processes that the kernel killed here because the memory limit was reached.
    pub fn oom_kills(&self) -> u64 {
        let count = |dir: &PathBuf| {
            ["memory.events", "memory.oom_control"]
                .iter()
                .find_map(|name| field(&fs::read_to_string(dir.join(name)).ok()?, "oom_kill"))
        };
        self.dirs().iter().find_map(count).unwrap_or(0)
    }

    /// Memory used now, in bytes.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.number(&["memory.current", "memory.usage_in_bytes"])
    }

    /// Processor time used, in microseconds.
    pub fn cpu_us(&self) -> Option<u64> {
        let unified = |dir: &PathBuf| field(&fs::read_to_string(dir.join("cpu.stat")).ok()?, "usage_usec");
        self.dirs().iter().find_map(unified).or_else(|| Some(self.number(&["cpuacct.usage"])? / 1000))
    }

    /// Lets it run on these cores only, from now on.
    ///
    /// # Errors
    /// [`Error::File`] names what cannot be changed; a host without the controller has nothing to change.
    pub fn use_only(&self, cores: &Cores) -> Result<()> {
        let files = self.dirs().into_iter().map(|dir| dir.join("cpuset.cpus"));
        for file in files.filter(|file| file.exists()) {
            fs::write(&file, cores.to_string()).map_err(Error::file(&file))?;
        }
        Ok(())
    }

    /// Processes and threads now.
    pub fn pids(&self) -> Option<u64> {
        self.number(&["pids.current"])
    }

    fn number(&self, names: &[&str]) -> Option<u64> {
        self.dirs().iter().find_map(|dir| {
            names.iter().find_map(|name| fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok())
        })
    }

    /// Kills everything in them and waits until it is gone. Blocks, at most ten seconds.
    ///
    /// # Errors
    /// [`Error::Undead`] when something is still there.
    pub fn kill(&self) -> Result<()> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            // One write for all, where the kernel has it (v2 since 5.14): nothing can fork away from it.
            for dir in self.dirs() {
                let _ = fs::write(dir.join("cgroup.kill"), "1");
            }
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            // The first killed is most likely the container's process 1; the kernel then kills the rest.
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if begun.elapsed() > KILL_LIMIT {
                return Err(Error::Undead(self.id.clone()));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Removes them; nothing must run in them any more. Blocks.
    ///
    /// # Errors
    /// [`Error::File`] names one that cannot be removed.
    pub fn remove(&self) -> Result<()> {
        for dir in self.dirs() {
            remove_below(&dir).map_err(Error::file(&dir))?;
        }
        Ok(())
    }
}

/// What all containers of this host together may use, so that the roles beside them always have something left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Together {
    memory_bytes: u64,
    pids_max: u64,
}

/// Half the weight of one role's process (cgroup v1) or group (v2): whoever wants the processor, roles come first.
const SHARES: u64 = 512;
const WEIGHT: u64 = 50;
const MIB: u64 = 1024 * 1024;

impl Together {
    /// A tenth of the memory is kept back, at least 512 MiB and at most 2 GiB, but never more than half; a quarter of
    /// the process numbers.
    fn of(memory_total: u64, pids_total: u64) -> Self {
        let back = (memory_total / 10).clamp(512 * MIB, 2048 * MIB).min(memory_total / 2);
        Self { memory_bytes: memory_total - back, pids_max: pids_total / 4 * 3 }
    }

    fn of_host() -> io::Result<Self> {
        let unknown = |what: &str| io::Error::other(format!("{what} is not known"));
        let memory = fs::read_to_string("/proc/meminfo")?;
        let total =
            memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        let total: u64 = total.and_then(|text| text.parse().ok()).ok_or_else(|| unknown("MemTotal"))?;
        let number =
            |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let pids = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"]
            .iter()
            .filter_map(|path| number(path));
        Ok(Self::of(total * 1024, pids.min().ok_or_else(|| unknown("pid_max"))?))
    }

    /// Files below the root of the hierarchies, and what is written there.
    fn files(self, layout: Layout) -> Vec<(String, u64)> {
        match layout {
            Layout::PerController => vec![
                (format!("cpu/{PARENT}/cpu.shares"), SHARES),
                (format!("memory/{PARENT}/memory.limit_in_bytes"), self.memory_bytes),
                (format!("pids/{PARENT}/pids.max"), self.pids_max),
            ],
            Layout::Unified => vec![
                (format!("{PARENT}/cpu.weight"), WEIGHT),
                (format!("{PARENT}/memory.max"), self.memory_bytes),
                (format!("{PARENT}/pids.max"), self.pids_max),
            ],
            Layout::Missing => Vec::new(),
        }
    }
}

/// Keeps something of the host back for everything that is no container of ours. Cheap when it is done already; to be
/// called before each start, since an empty common directory may have been removed meanwhile.
///
/// # Errors
/// [`Error::File`] names what cannot be limited; containers have their own limits all the same.
pub fn reserve() -> Result<()> {
    let together = Together::of_host().map_err(Error::file("/proc/meminfo"))?;
    reserve_at(Path::new(ROOT), layout(), together)
}

fn reserve_at(root: &Path, layout: Layout, together: Together) -> Result<()> {
    if layout == Layout::Unified {
        // Does nothing where they are on already; what is missing shows below.
        let _ = fs::write(root.join("cgroup.subtree_control"), "+cpu +memory +pids");
    }
    for (file, value) in together.files(layout) {
        let path = root.join(file);
        if fs::read_to_string(&path).is_ok_and(|now| near(&now, value)) {
            continue;
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(Error::file(dir))?;
        }
        fs::write(&path, value.to_string()).map_err(Error::file(&path))?;
    }
    Ok(())
}

/// Whether a file says this number; the kernel rounds memory to pages.
fn near(text: &str, value: u64) -> bool {
    text.trim().parse::<u64>().is_ok_and(|now| now.abs_diff(value) < 65_536 && (now == value || value > MIB))
}

/// Removes the common directory of all containers, where none is left. For the end of an installation only:
/// an engine that is just making a container would miss it.
pub fn sweep() {
    let root = Path::new(ROOT);
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in std::iter::once(root.to_owned()).chain(hierarchies) {
        let _ = fs::remove_dir(hierarchy.join(PARENT));
    }
}

/// Ids of all containers of ours that have cgroups on this host.
pub fn ids() -> BTreeSet<String> {
    let root = Path::new(ROOT);
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(root.to_owned())
        .chain(hierarchies)
        .flat_map(|hierarchy| fs::read_dir(hierarchy.join(PARENT)).into_iter().flatten().flatten())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn processes_below(dir: &Path) -> BTreeSet<i32> {
    let mut found: BTreeSet<i32> = fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes_below(&entry.path()));
        }
    }
    // Zero stands for a process of another pid namespace; it is not ours to kill.
    found.remove(&0);
    found
}

/// Innermost first; files of a cgroup go with their directory.
fn remove_below(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path())?;
        }
    }
    let begun = Instant::now();
    loop {
        match fs::remove_dir(dir) {
            // The last process is gone from the list a moment before the kernel lets go of the directory.
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && begun.elapsed() < Duration::from_secs(2) =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}

/// The number after `name` in lines of names and numbers.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn something_of_the_host_is_kept_back() {
        let gib = 1024 * MIB;
        assert_eq!(
            Together::of(8 * gib, 32_768),
            Together { memory_bytes: 8 * gib - 8 * gib / 10, pids_max: 24_576 }
        );
        assert_eq!(Together::of(gib, 4).memory_bytes, gib / 2);
        assert_eq!(Together::of(256 * gib, 4).memory_bytes, 254 * gib);
        let together = Together::of(8 * gib, 32_768);
        for layout in [Layout::PerController, Layout::Unified] {
            let host = tempfile::tempdir().unwrap();
            for _again in 0..2 {
                reserve_at(host.path(), layout, together).unwrap();
            }
            let limit = if layout == Layout::Unified {
                "bastide/memory.max"
            } else {
                "memory/bastide/memory.limit_in_bytes"
            };
            assert_eq!(
                fs::read_to_string(host.path().join(limit)).unwrap(),
                together.memory_bytes.to_string()
            );
        }
        assert!(near("7730941952\n", 7_730_941_133) && !near("513", 512) && !near("max", 5));
    }

    #[test]
    fn a_hybrid_host_is_read_per_controller() {
        let host = tree(&[
            ("memory/tasks", ""),
            ("unified/cgroup.controllers", "hugetlb"),
            ("memory/bastide/r-1/cgroup.procs", "12\n13\n"),
            ("memory/bastide/r-1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("memory/bastide/r-1/memory.usage_in_bytes", "4096\n"),
            ("cpuacct/bastide/r-1/cgroup.procs", "12\n"),
            ("cpuacct/bastide/r-1/cpuacct.usage", "5000000\n"),
            ("pids/bastide/r-1/cgroup.procs", "12\n0\n"),
            ("pids/bastide/r-1/pids.current", "2\n"),
            ("pids/bastide/r-2/cgroup.procs", "99\n"),
        ]);
        assert_eq!(layout_at(host.path()), Layout::PerController);
        let groups = Cgroups { id: "r-1".into(), root: host.path().into() };
        assert_eq!(groups.processes(), [12, 13].into());
        assert_eq!(groups.oom_kills(), 2);
        assert_eq!(groups.memory_bytes(), Some(4096));
        assert_eq!(groups.cpu_us(), Some(5000));
        assert_eq!(groups.pids(), Some(2));
    }

    #[test]
    fn a_unified_host_is_read_too() {
        let host = tree(&[
            ("cgroup.controllers", "cpu memory pids"),
            ("bastide/r-1/cgroup.procs", "12\n"),
            ("bastide/r-1/deeper/cgroup.procs", "14\n"),
            ("bastide/r-1/memory.events", "low 0\noom 1\noom_kill 1\noom_group_kill 0\n"),
            ("bastide/r-1/memory.current", "8192\n"),
            ("bastide/r-1/cpu.stat", "usage_usec 77\nuser_usec 70\n"),
        ]);
        assert_eq!(layout_at(host.path()), Layout::Unified);
        let groups = Cgroups { id: "r-1".into(), root: host.path().into() };
        assert_eq!(groups.processes(), [12, 14].into());
        assert_eq!(groups.oom_kills(), 1);
        assert_eq!(groups.memory_bytes(), Some(8192));
        assert_eq!(groups.cpu_us(), Some(77));
        assert_eq!(layout_at(&host.path().join("bastide")), Layout::Missing);
    }
}
