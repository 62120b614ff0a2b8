//! What every test needs: an image with the probe in it, unique names, and a clean end.

use bastide_container::{Container, Handle, Life, Limits, Mount, cgroup::Cgroups, preflight, remove, start};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Longest wait for anything; far more than a slow machine needs.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Says on the real standard error that something was skipped: the test harness keeps what `eprintln` says.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}");
}

pub fn probe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_container-probe"))
}

/// A place for containers of one test; everything in it is removed when it goes.
pub struct Scene {
    dir: tempfile::TempDir,
    names: Vec<String>,
}

impl Scene {
    /// `None`, and a line on standard error, where there can be no containers.
    pub fn new(test: &str) -> Option<Self> {
        let found = preflight();
        if let Some(missing) = found.missing().next() {
            skipped(&format!("{test}: {}", missing.found));
            return None;
        }
        let dir = tempfile::Builder::new().prefix("bst-it-").tempdir().unwrap();
        let image = dir.path().join("image");
        fs::create_dir(&image).unwrap();
        fs::copy(probe(), image.join("probe")).unwrap();
        Some(Self { dir, names: Vec::new() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A container that runs the probe. The probe is linked dynamically, so it sees the host's libraries.
    pub fn container(&mut self, words: &[&str]) -> Container {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("it-{}-{number}", std::process::id());
        self.names.push(name.clone());
        let args = std::iter::once("/probe").chain(words.iter().copied()).map(str::to_owned).collect();
        let mut container = Container::new(name.clone(), self.path(&name), self.path("image"), args);
        let libraries = ["/lib", "/lib64", "/usr/lib"].map(PathBuf::from);
        container.mounts = libraries
            .into_iter()
            .filter(|path| path.exists())
            .map(|path| Mount { source: path.clone(), target: path })
            .collect();
        container.limits = Limits { memory_bytes: 128 * 1024 * 1024, ..Limits::default() };
        container
    }

    /// Runs it to its end; what it printed, and how it ended.
    pub async fn run(&self, container: &Container) -> (String, bastide_container::Ended) {
        let handle = begin(container).await;
        let ended = tokio::time::timeout(PATIENCE, handle.ended()).await.expect("it ends");
        (log(container), ended)
    }
}

pub async fn begin(container: &Container) -> Handle {
    match start(probe(), container).await {
        Ok(handle) => handle,
        Err(error) => panic!("{error}: {:?}; {}", std::error::Error::source(&error), log(container)),
    }
}

pub fn log(container: &Container) -> String {
    fs::read_to_string(&container.log.file).unwrap_or_default()
}

/// Waits until the log has `text` in it.
pub async fn until_said(container: &Container, text: &str) {
    let said = async {
        while !log(container).contains(text) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, said).await.expect("it says so");
}

pub fn running(handle: &Handle) -> bool {
    matches!(*handle.life().borrow(), Life::Running { .. })
}

/// Whether a process is there and not just waiting to be reaped.
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

/// Nothing of a container is left outside its state directory.
pub fn nothing_left(id: &str) {
    assert_eq!(Cgroups::of(id).dirs(), Vec::<PathBuf>::new(), "cgroups of {id}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/sys/firmware/root"), "mounts on the host");
}

impl Drop for Scene {
    fn drop(&mut self) {
        // On a thread of its own: the test's runtime may be on its way down.
        let dirs: Vec<PathBuf> = self.names.iter().map(|name| self.path(name)).collect();
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for dir in dirs {
                if let Err(error) = runtime.block_on(remove(&dir)) {
                    eprintln!("{}: {error}", dir.display());
                }
            }
        });
        let cleaned = cleaned.join();
        if !std::thread::panicking() {
            cleaned.unwrap();
            self.names.iter().for_each(|name| nothing_left(name));
        }
    }
}
