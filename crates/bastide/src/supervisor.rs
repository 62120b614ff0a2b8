//! Keeps the processes of one installation running: starts them, waits until they serve, starts a
//! dead one again, and stops them in order.
//!
//! It does not know what the processes do. Each runs in a process group of its own, so that a Ctrl-C
//! reaches only the supervisor, which then drains from the outside in.

use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// One process to keep running.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its name: also that of its log and its ready mark.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<PathBuf>,
    /// How the supervisor knows that it serves.
    pub ready: Ready,
    /// How long it may take to drain before it is killed, in seconds.
    pub grace_s: u64,
}

/// How a process shows that it serves.
#[derive(Debug, Clone)]
pub enum Ready {
    /// It writes its ready mark.
    Mark,
    /// Its port accepts a connection.
    Port(SocketAddr),
}

/// A change that somebody may want to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The process serves.
    Ready,
    /// The process ended and is started again.
    Restarted,
}

const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_LONGEST: Duration = Duration::from_secs(10);
/// A process that lived this long starts again at once when it dies.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Keeps `process` running until `stop`, then ends it.
///
/// Returns only after the process is gone. `seen` hears of changes.
pub async fn keep(
    layout: Layout,
    process: Process,
    stop: CancellationToken,
    seen: impl Fn(&Process, Change),
) {
    let mut pause = RESTART_FIRST;
    while !stop.is_cancelled() {
        let started = Instant::now();
        match start(&layout, &process) {
            Ok(mut child) => {
                let end = watch(&layout, &process, &mut child, &stop, &seen).await;
                let Some(end) = end else {
                    finish(&process, &mut child).await;
                    break;
                };
                tracing::warn!(process = process.name, %end, "ended; starting it again");
            }
            Err(error) => {
                tracing::error!(process = process.name, error = format!("{error:#}"), "cannot start");
            }
        }
        seen(&process, Change::Restarted);
        pause =
            if started.elapsed() > HEALTHY_AFTER { RESTART_FIRST } else { (pause * 2).min(RESTART_LONGEST) };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    let _ = fs::remove_file(layout.ready(&process.name));
    let _ = fs::remove_file(layout.pid(&process.name));
}

fn start(layout: &Layout, process: &Process) -> Result<Child> {
    let _ = fs::remove_file(layout.ready(&process.name));
    let log_path = layout.log(&process.name);
    if fs::metadata(&log_path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        fs::rename(&log_path, log_path.with_extension("log.1"))?;
    }
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .with_context(|| format!("cannot open {}", log_path.display()))?;
    let (program, arguments) = process.command.split_first().context("a process has a program")?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
        .and_then(|child| {
            let pid = child.id().unwrap_or_default().to_string();
            crate::files::write_private(&layout.pid(&process.name), pid.as_bytes())?;
            Ok(child)
        })
}

/// Waits for the end of the process; `None` when `stop` came first.
async fn watch(
    layout: &Layout,
    process: &Process,
    child: &mut Child,
    stop: &CancellationToken,
    seen: &impl Fn(&Process, Change),
) -> Option<String> {
    let mut serves = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            status = child.wait() => {
                return Some(status.map_or_else(|e| e.to_string(), |s| s.to_string()));
            }
            ready = is_ready(layout, process), if !serves => {
                if ready {
                    serves = true;
                    seen(process, Change::Ready);
                }
            }
        }
    }
}

async fn is_ready(layout: &Layout, process: &Process) -> bool {
    tokio::time::sleep(POLL).await;
    match &process.ready {
        Ready::Mark => layout.ready(&process.name).exists(),
        Ready::Port(address) => tokio::net::TcpStream::connect(address).await.is_ok(),
    }
}

/// Asks the process to drain, and kills it when it does not end in time.
async fn finish(process: &Process, child: &mut Child) {
    let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    let grace = Duration::from_secs(process.grace_s);
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        tracing::warn!(process = process.name, "did not drain in time; killed");
        let _ = child.kill().await;
    }
}

/// The supervisor of an installation, as `bastide down` finds it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot: tells a reused pid from the same process.
    pub started: u64,
}

impl Identity {
    /// This process.
    pub fn own() -> Result<Self> {
        let pid = i32::try_from(std::process::id())?;
        Ok(Self { pid, started: start_time(pid).context("/proc is readable")? })
    }

    /// Whether that process still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            bail!("process {} is gone", self.pid);
        }
        kill(Pid::from_raw(self.pid), signal).context("cannot signal the supervisor")
    }
}

/// Ends roles of a supervisor that was killed: they end with it, each after its grace, and are waited for. One that
/// does not is killed, as the supervisor would have done.
///
/// # Errors
/// When one is still there after [`LEFT_LIMIT`] and [`KILL_LIMIT`].
pub fn end_what_is_left(layout: &Layout) -> Result<()> {
    end_within(layout, LEFT_LIMIT)
}

fn end_within(layout: &Layout, limit: Duration) -> Result<()> {
    signal_all(&left(layout), Signal::SIGTERM);
    let stuck = wait_for_end(layout, limit);
    for (name, pid) in &stuck {
        tracing::warn!(process = name, pid, "did not drain in time; killed");
    }
    signal_all(&stuck, Signal::SIGKILL);
    let stuck = wait_for_end(layout, KILL_LIMIT);
    if !stuck.is_empty() {
        bail!("processes of an earlier start cannot be killed: {stuck:?}");
    }
    Ok(())
}

/// Name and process id of what an earlier supervisor started and still runs.
fn left(layout: &Layout) -> Vec<(String, i32)> {
    let root = layout.root().display().to_string();
    let files = fs::read_dir(layout.run()).into_iter().flatten().flatten().map(|entry| entry.path());
    let marks = files.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
    let noted = marks.filter_map(|path| {
        let name = path.file_stem()?.to_string_lossy().into_owned();
        Some((name, fs::read_to_string(path).ok()?.trim().parse::<i32>().ok()?))
    });
    // A number that was given to somebody else meanwhile is left alone.
    let ours = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|command| String::from_utf8_lossy(&command).contains(&root))
    };
    noted.filter(|(_, pid)| ours(pid)).collect()
}

fn signal_all(processes: &[(String, i32)], signal: Signal) {
    for (_, pid) in processes {
        // One that has ended meanwhile is as good as signalled.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

/// Waits until nothing is left, at most `limit`; says what is.
fn wait_for_end(layout: &Layout, limit: Duration) -> Vec<(String, i32)> {
    let begun = Instant::now();
    loop {
        let left = left(layout);
        if left.is_empty() || begun.elapsed() > limit {
            return left;
        }
        std::thread::sleep(POLL);
    }
}

/// Longer than any role's grace.
const LEFT_LIMIT: Duration = Duration::from_secs(90);
/// How long the kernel may take to end what was killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);

fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name stands in parentheses and may hold anything; the fields follow the last one.
    let after = stat.rsplit_once(')')?.1;
    let mut fields = after.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn shell(script: &str) -> Vec<PathBuf> {
        ["sh", "-c", script].iter().map(PathBuf::from).collect()
    }

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        crate::files::private_dir(&layout.run()).unwrap();
        crate::files::private_dir(&layout.logs()).unwrap();
        (dir, layout)
    }

    #[test]
    fn what_does_not_end_with_its_supervisor_is_killed() {
        let (_dir, layout) = layout();
        let file = layout.run().join("file");
        std::fs::write(&file, "").unwrap();
        let script = format!("trap '' TERM; exec tail -f {}", file.display());
        let mut deaf = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
        std::fs::write(layout.run().join("deaf.pid"), deaf.id().to_string()).unwrap();
        let command = format!("/proc/{}/comm", deaf.id());
        while std::fs::read_to_string(&command).unwrap().trim() != "tail" {
            std::thread::sleep(POLL);
        }
        let outcome = end_within(&layout, Duration::from_millis(100));
        let alive = deaf.try_wait().unwrap().is_none();
        let _ = deaf.kill();
        outcome.unwrap();
        assert!(!alive, "it was killed");
    }

    #[tokio::test]
    async fn a_dead_process_is_started_again_and_ends_on_stop() {
        let (_dir, layout) = layout();
        let mark = layout.ready("p").display().to_string();
        let once = layout.run().join("once").display().to_string();
        // The first run dies at once, the second marks itself ready and stays.
        let script = format!("[ -e {once} ] || {{ : > {once}; exit 3; }}; : > {mark}; sleep 600 & wait");
        let process = Process { name: "p".into(), command: shell(&script), ready: Ready::Mark, grace_s: 5 };
        let stop = CancellationToken::new();
        let changes = Arc::new(Mutex::new(Vec::new()));
        let (log, ended) = (changes.clone(), stop.clone());
        keep(layout.clone(), process, stop, move |_, change| {
            log.lock().unwrap().push(change);
            if change == Change::Ready {
                ended.cancel();
            }
        })
        .await;
        assert_eq!(*changes.lock().unwrap(), [Change::Restarted, Change::Ready]);
        assert!(!layout.ready("p").exists());
    }

    #[test]
    fn a_process_knows_itself_and_not_a_reused_pid() {
        let own = Identity::own().unwrap();
        assert!(own.is_alive());
        assert!(!Identity { started: own.started + 1, ..own }.is_alive());
    }
}
