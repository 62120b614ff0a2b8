//! From a replica to a container: what is in it, what it is told, what it may use.

use super::outward::PROXY_PORT;
use crate::{
    Error,
    driver::{Launch, environment},
};
use bastide_container::{Container, Limits, Log, Mount};
use bastide_image::elf;
use bastide_isolation::address;
use bastide_types::manifest::Kind;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// Where the files of a static app are in its container, and the file server.
const SITE: &str = "/srv";
const SERVER: &str = "/bastide";
const MIB: u64 = 1024 * 1024;

/// What is the same for all replicas of a node.
#[derive(Debug, Clone)]
pub(crate) struct Making {
    /// The executable of Bastide; it serves the files of static apps.
    pub(crate) executable: PathBuf,
    /// What the executable needs besides itself, found once.
    pub(crate) libraries: Vec<Mount>,
    /// An empty directory: the image of static apps.
    pub(crate) empty: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) user_namespaces: bool,
    pub(crate) engine: bastide_container::Engine,
}

impl Making {
    /// The container of a replica; `state_dir` is its own, `netns` its network.
    pub(crate) fn container(
        &self,
        launch: &Launch,
        state_dir: &Path,
        netns: PathBuf,
    ) -> Result<Container, Error> {
        let (replica, manifest) = (&launch.replica, &launch.replica.manifest);
        let (root, args) = match manifest.app.kind {
            Kind::Binary => (launch.root.clone(), program(launch)?),
            Kind::Static => {
                let args = [SERVER, "static-server", "--root", SITE].map(str::to_owned);
                (self.empty.clone(), args.into())
            }
            // What the image says of program and directory stands in the manifest since it was published.
            Kind::Image if manifest.app.command.is_empty() => return Err(Error::Image("no command".into())),
            Kind::Image => (launch.root.clone(), manifest.app.command.clone()),
        };
        let mut container = Container::new(replica.id.to_string(), state_dir, root, args);
        if manifest.app.kind == Kind::Static {
            let ours = Mount { source: self.executable.clone(), target: SERVER.into() };
            let files = Mount { source: launch.root.clone(), target: SITE.into() };
            container.mounts = self.libraries.iter().cloned().chain([ours, files]).collect();
        }
        let resources = &manifest.resources;
        container.limits = Limits {
            memory_bytes: u64::from(resources.memory_mb) * MIB,
            pids_max: resources.pids,
            cpu_millis: resources.cpu_millis,
            tmp_bytes: u64::from(resources.tmp_mb()) * MIB,
            ..Limits::default()
        };
        if let Some(dir) = &manifest.app.workdir {
            container.cwd = dir.clone();
        }
        container.env = variables(launch);
        container.log = Log::new(self.log(launch));
        container.netns = Some(netns);
        container.nameservers = vec![address::BROKER.into()];
        container.user_namespace = self.user_namespaces;
        container.engine = self.engine.clone();
        Ok(container)
    }

    /// A file for each replica: two that write one would turn it under each other.
    fn log(&self, launch: &Launch) -> PathBuf {
        let Launch { customer, stage, replica, .. } = launch;
        self.logs.join(format!("{customer}-{stage}-{}-{}-{}.log", replica.app_name, replica.zone, replica.id))
    }

    /// Removes logs of replicas that are gone, but the newest of each app.
    pub(crate) fn sweep_logs(&self, running: impl Fn(&str) -> bool) {
        let mut apps: BTreeMap<String, Vec<(std::time::SystemTime, PathBuf)>> = BTreeMap::new();
        for entry in fs::read_dir(&self.logs).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // `<customer>-<stage>-<app>-<zone>-<id>.log`, and `.log.1` for the one before.
            let Some((stem, _)) = name.split_once(".log") else { continue };
            let Some((app, id)) = stem.len().checked_sub(36).and_then(|at| stem.split_at_checked(at)) else {
                continue;
            };
            let written = entry.metadata().and_then(|meta| meta.modified());
            if let (false, Ok(written)) = (running(id), written) {
                apps.entry(app.to_owned()).or_default().push((written, entry.path()));
            }
        }
        for logs in apps.values_mut() {
            logs.sort();
            let many = logs.len().saturating_sub(LOGS_KEPT);
            for (_, path) in &logs[..many] {
                if let Err(error) = fs::remove_file(path) {
                    tracing::warn!(%error, path = %path.display(), "cannot remove an old log");
                }
            }
        }
    }
}

/// Logs of replicas that are gone, kept of each app and zone.
const LOGS_KEPT: usize = 8;

/// The environment: the app's own, then ours, then the way out.
fn variables(launch: &Launch) -> Vec<(String, String)> {
    let mut all = environment(launch, Ipv4Addr::UNSPECIFIED.into(), launch.replica.manifest.port());
    let proxy = format!("http://{}:{PROXY_PORT}", address::BROKER);
    let set: Vec<String> = all.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        // Both spellings are read out there. An app that sets its own means it.
        for name in [name.to_owned(), name.to_ascii_lowercase()] {
            if !set.contains(&name.to_ascii_lowercase()) {
                all.push((name, proxy.clone()));
            }
        }
    }
    for name in ["NO_PROXY", "no_proxy"] {
        if !set.iter().any(|set| set == "no_proxy") {
            all.push((name.to_owned(), "localhost,127.0.0.1,.internal,*.internal".to_owned()));
        }
    }
    all
}

/// Program and arguments of a `binary` app. The program needs nothing but the kernel, or finds its loader inside.
fn program(launch: &Launch) -> Result<Vec<String>, Error> {
    let command = &launch.replica.manifest.app.command;
    let (program, arguments) = command.split_first().ok_or_else(|| Error::Image("no command".into()))?;
    let below = program.trim_start_matches("./");
    let mut head = Vec::new();
    bastide_image::open_file(&launch.root, below)
        .and_then(|file| file.take(elf::HEAD_BYTES as u64).read_to_end(&mut head))
        .map_err(|error| Error::Image(format!("`{program}` cannot be read: {error}")))?;
    let found = elf::inspect(&head);
    match found.refusal(program) {
        Some(why) if !brings_its_loader(&launch.root, &found) => Err(Error::Image(why)),
        _ => Ok(std::iter::once(format!("/{below}")).chain(arguments.iter().cloned()).collect()),
    }
}

/// Who brings a loader brings its libraries too; what of them is missing, the loader says in the app's log.
fn brings_its_loader(root: &Path, program: &elf::Program) -> bool {
    matches!(program, elf::Program::Dynamic { loader } if bastide_image::open_file(root, loader).is_ok())
}

/// What the executable of Bastide needs besides itself: its loader and libraries, as this process, which it is,
/// has them loaded. Nothing when it is static.
pub(crate) fn libraries(executable: &Path) -> Result<Vec<Mount>, Error> {
    let mut head = Vec::new();
    File::open(executable)
        .and_then(|file| file.take(elf::HEAD_BYTES as u64).read_to_end(&mut head))
        .map_err(Error::file(executable))?;
    let elf::Program::Dynamic { loader } = elf::inspect(&head) else { return Ok(Vec::new()) };
    let loader = PathBuf::from(loader);
    let maps = fs::read_to_string("/proc/self/maps").map_err(Error::file("/proc/self/maps"))?;
    let real = loader.canonicalize().map_err(Error::file(&loader))?;
    let mut mounts = vec![Mount { source: real.clone(), target: loader }];
    for path in loaded(&maps) {
        if path != real {
            mounts.push(Mount { source: path.clone(), target: path });
        }
    }
    Ok(mounts)
}

/// Shared objects in `/proc/PID/maps`, each once.
fn loaded(maps: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.splitn(6, ' ').nth(5).map(str::trim))
        .filter(|path| {
            path.starts_with('/') && path.rsplit('/').next().is_some_and(|name| name.contains(".so"))
        })
        .map(PathBuf::from)
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_the_map_of_a_process() {
        let maps = "55c0-55c1 r--p 00000000 fe:00 12   /usr/bin/bastide\n\
            7f00-7f01 r--p 00000000 fe:00 13                         /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            7f01-7f02 r-xp 00001000 fe:00 13                         /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            7f03-7f04 rw-p 00000000 00:00 0\n\
            7f05-7f06 rw-p 00000000 00:00 0                          [stack]\n\
            7f07-7f08 r--p 00000000 fe:00 14                         /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\n";
        let lib = |name: &str| PathBuf::from("/usr/lib/x86_64-linux-gnu").join(name);
        assert_eq!(loaded(maps), [lib("ld-linux-x86-64.so.2"), lib("libc.so.6")]);
    }

    #[test]
    fn the_test_itself_names_its_loader_by_the_path_that_it_asks_for() {
        let mounts = libraries(&std::env::current_exe().unwrap()).unwrap();
        let dynamic = !cfg!(target_feature = "crt-static");
        assert_eq!(!mounts.is_empty(), dynamic);
        assert!(mounts.iter().all(|mount| mount.source.is_file()), "{mounts:?}");
    }
}
