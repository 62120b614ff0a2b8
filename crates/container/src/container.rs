//! What a container is: the words between the agent and the shim, which reads them as JSON.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    net::IpAddr,
    path::{Component, Path, PathBuf},
};

/// Who runs in a container: no user of the host, no root.
pub const USER: u32 = 65_532;
const ID_BYTES_MAX: usize = 64;

/// A container to start. [`Container::new`] has safe defaults for everything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Unique on this host; names its cgroups. Letters, digits and `-`, at most 64.
    pub id: String,
    /// Directory of this container alone: configuration, control socket, how it ended.
    pub state_dir: PathBuf,
    /// The unpacked image. Never written to; many containers may share it.
    pub root: PathBuf,
    /// Network namespace to join (a file such as `/run/netns/NAME`); without one it gets an empty one.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// Program and arguments. A program without `/` is looked for on the container's `PATH`.
    pub args: Vec<String>,
    /// Its whole environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: String,
    /// What it may use.
    pub limits: Limits,
    /// Where standard output and standard error go.
    pub log: Log,
    /// Its host name.
    pub hostname: String,
    /// Further files and directories it sees, all read-only.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Name servers of its `/etc/resolv.conf`.
    #[serde(default)]
    pub nameservers: Vec<IpAddr>,
    /// Lines of its `/etc/hosts` besides `localhost` and its own name.
    #[serde(default)]
    pub hosts: Vec<(IpAddr, String)>,
    /// Users of its own: root in the container is nobody on the host. [`crate::preflight`] says whether the
    /// host allows it.
    #[serde(default)]
    pub user_namespace: bool,
    /// What makes the container.
    #[serde(default)]
    pub engine: Engine,
}

/// What makes the container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The library, inside the shim.
    #[default]
    Libcontainer,
    /// A program with runc's command line.
    Runc(PathBuf),
}

/// What a container may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory with its page cache and its `/tmp`; there is no swap on top. Default 256 MiB.
    pub memory_bytes: u64,
    /// Processes and threads. Default 512.
    pub pids_max: u32,
    /// Thousandths of a processor. Default 1000.
    pub cpu_millis: u32,
    /// Bytes in `/tmp`; they count as memory. Default 64 MiB.
    pub tmp_bytes: u64,
    /// Open files per process. Default 65 536.
    pub files_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 * 1024 * 1024,
            pids_max: 512,
            cpu_millis: 1000,
            tmp_bytes: 64 * 1024 * 1024,
            files_max: 65_536,
        }
    }
}

/// Where output goes, and how much of it is kept. Who writes faster than `bytes_per_second` for long waits
/// in `write`: a flood of lines costs the app that makes it, nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The newest; older ones have `.1`, `.2` … appended.
    pub file: PathBuf,
    /// Bytes of one file. Default of [`Log::new`]: 8 MiB.
    pub file_bytes_max: u64,
    /// Files, the newest among them. Default of [`Log::new`]: 2.
    pub files_max: u32,
    /// Bytes a second in the long run; ten seconds' worth may come at once. Default of [`Log::new`]: 1 MiB.
    pub bytes_per_second: u64,
}

impl Log {
    /// A log with the default bounds.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            file_bytes_max: 8 * 1024 * 1024,
            files_max: 2,
            bytes_per_second: 1024 * 1024,
        }
    }
}

/// A file or directory of the host that the container sees, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the container, absolute.
    pub target: PathBuf,
}

impl Container {
    /// A container with default limits, a log beside its state, and no network.
    pub fn new(
        id: impl Into<String>,
        state_dir: impl Into<PathBuf>,
        root: impl Into<PathBuf>,
        args: Vec<String>,
    ) -> Self {
        let (id, state_dir) = (id.into(), state_dir.into());
        Self {
            hostname: id.clone(),
            id,
            log: Log::new(state_dir.join("app.log")),
            state_dir,
            root: root.into(),
            netns: None,
            args,
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            cwd: "/".into(),
            limits: Limits::default(),
            mounts: Vec::new(),
            nameservers: Vec::new(),
            hosts: Vec::new(),
            user_namespace: false,
            engine: Engine::default(),
        }
    }

    /// Refuses what cannot be meant, before anything is made of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field.
    pub fn check(&self) -> Result<()> {
        let plain = |text: &str, most: usize| {
            let inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
            !text.is_empty() && text.len() <= most && text.chars().all(inside) && !text.starts_with('-')
        };
        let clean = |text: &str| !text.contains('\0');
        let invalid = |what: &str| Err(Error::Invalid(what.to_owned()));
        if !plain(&self.id, ID_BYTES_MAX) {
            return invalid("id");
        }
        if !plain(&self.hostname, ID_BYTES_MAX) {
            return invalid("hostname");
        }
        if self.args.first().is_none_or(String::is_empty) || !self.args.iter().all(|arg| clean(arg)) {
            return invalid("args");
        }
        let named = |name: &str| !name.is_empty() && clean(name) && !name.contains('=');
        if !self.env.iter().all(|(name, value)| named(name) && clean(value)) {
            return invalid("env");
        }
        if !self.cwd.starts_with('/') || !clean(&self.cwd) {
            return invalid("cwd");
        }
        if !self.state_dir.is_absolute() || !self.root.is_absolute() || !self.log.file.is_absolute() {
            return invalid("a path that is not absolute");
        }
        if !self.mounts.iter().all(|mount| mount.source.is_absolute() && inner(&mount.target).is_some()) {
            return invalid("mounts");
        }
        if !self.hosts.iter().all(|(_, name)| plain(&name.replace('.', "-"), 253)) {
            return invalid("hosts");
        }
        let limits = &self.limits;
        if limits.memory_bytes < 1024 * 1024 || limits.pids_max == 0 || limits.cpu_millis < 10 {
            return invalid("limits: at least 1 MiB, 1 process and 10 thousandths of a processor");
        }
        Ok(())
    }
}

/// A path of the container as one below its root; `None` when it is not absolute or has `..` in it.
pub(crate) fn inner(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    (parts.next()? == Component::RootDir).then_some(())?;
    let below: PathBuf = parts
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect::<Option<_>>()?;
    (!below.as_os_str().is_empty()).then_some(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Container {
        Container::new("r-1", "/state", "/image", vec!["/app".into()])
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        container().check().unwrap();
        let check = |change: fn(&mut Container)| {
            let mut container = container();
            change(&mut container);
            container.check().unwrap_err()
        };
        for change in [
            (|c| c.id = "a/../b".into()) as fn(&mut Container),
            |c| c.id = String::new(),
            |c| c.hostname = "a b".into(),
            |c| c.args.clear(),
            |c| c.args = vec!["a\0b".into()],
            |c| c.env = vec![("A=B".into(), String::new())],
            |c| c.cwd = "tmp".into(),
            |c| c.root = "image".into(),
            |c| c.mounts = vec![Mount { source: "/a".into(), target: "/a/../../b".into() }],
            |c| c.hosts = vec![([127, 0, 0, 1].into(), "a b".into())],
            |c| c.limits.pids_max = 0,
        ] {
            assert!(matches!(check(change), Error::Invalid(_)));
        }
    }

    #[test]
    fn the_shim_reads_what_the_agent_wrote() {
        let mut container = container();
        container.engine = Engine::Runc("/usr/sbin/runc".into());
        container.netns = Some("/run/netns/x".into());
        let text = serde_json::to_string(&container).unwrap();
        assert_eq!(serde_json::from_str::<Container>(&text).unwrap(), container);
    }

    #[test]
    fn a_target_stays_below_the_root() {
        assert_eq!(inner(Path::new("/opt/x")), Some("opt/x".into()));
        for path in ["opt", "/", "/../x", "/a/../b"] {
            assert_eq!(inner(Path::new(path)), None, "{path}");
        }
    }
}
