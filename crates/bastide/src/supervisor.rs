//! Keeps the processes of one installation running: starts them, waits until they serve, starts a
//! dead one again, and stops them in order.
//!
//! A process is renewed when the executable was replaced: ended and started again, or, where it can take over from
//! the one that serves, started beside it.
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
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

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
    /// A second one takes over from the one that serves, by itself.
    pub takes_over: bool,
}

/// How a process shows that it serves.
#[derive(Debug, Clone)]
pub enum Ready {
    /// It writes its process id into its ready mark.
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
/// Longest time that a process which is to take over may need to get ready: rules are compiled meanwhile.
const READY_LIMIT: Duration = Duration::from_mins(5);
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Asks for a process made of the executable as it is now; the answer says when it serves, or why it does not.
pub type Renewal = oneshot::Sender<Result<(), String>>;

/// Keeps `process` running until `stop`, then ends it. At each of `renewals` it is replaced.
///
/// Returns only after the process is gone. `seen` hears of changes.
pub async fn keep(
    layout: Layout,
    process: Process,
    stop: CancellationToken,
    renewals: mpsc::Receiver<Renewal>,
    seen: impl Fn(&Process, Change),
) {
    let mut keeper =
        Keeper { layout, process, stop, renewals, seen, asked: None, leaving: TaskTracker::new() };
    keeper.keep().await;
    keeper.leaving.close();
    keeper.leaving.wait().await;
}

struct Keeper<F> {
    layout: Layout,
    process: Process,
    stop: CancellationToken,
    renewals: mpsc::Receiver<Renewal>,
    seen: F,
    /// Who waits to hear that the process serves again.
    asked: Option<Renewal>,
    /// Processes from which another one has taken over: they end when their last request has.
    leaving: TaskTracker,
}

/// Why a process is no longer looked after.
enum End {
    /// It is to end: for good, or to be started again.
    Told,
    Died(String),
}

impl<F: Fn(&Process, Change)> Keeper<F> {
    async fn keep(&mut self) {
        let mut pause = RESTART_FIRST;
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            match start(&self.layout, &self.process) {
                Ok(mut child) => match self.watch(&mut child).await {
                    End::Told => {
                        finish(&self.process, &mut child).await;
                        if !self.stop.is_cancelled() {
                            (self.seen)(&self.process, Change::Restarted);
                        }
                        continue;
                    }
                    End::Died(end) => {
                        tracing::warn!(process = self.process.name, %end, "ended; starting it again");
                        self.answer(Err(format!("it ended: {end}")));
                    }
                },
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(process = self.process.name, error, "cannot start");
                    self.answer(Err(error));
                }
            }
            (self.seen)(&self.process, Change::Restarted);
            pause = if started.elapsed() > HEALTHY_AFTER {
                RESTART_FIRST
            } else {
                (pause * 2).min(RESTART_LONGEST)
            };
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let _ = fs::remove_file(self.layout.ready(&self.process.name));
        let _ = fs::remove_file(self.layout.pid(&self.process.name));
    }

    /// Looks after the process until it ends or is to end.
    async fn watch(&mut self, child: &mut Child) -> End {
        let (mut serves, id) = (false, child.id());
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return End::Told,
                status = child.wait() => {
                    return End::Died(status.map_or_else(|e| e.to_string(), |s| s.to_string()));
                }
                () = becomes_ready(&self.layout, &self.process, id), if !serves => {
                    serves = true;
                    self.answer(Ok(()));
                    (self.seen)(&self.process, Change::Ready);
                }
                Some(asked) = self.renewals.recv(), if serves => {
                    if !self.process.takes_over {
                        self.asked = Some(asked);
                        return End::Told;
                    }
                    let outcome = self.replace(child).await;
                    // Whoever asked may not wait any more.
                    let _ = asked.send(outcome);
                }
            }
        }
    }

    fn answer(&mut self, outcome: Result<(), String>) {
        if let Some(asked) = self.asked.take() {
            // Whoever asked may not wait any more.
            let _ = asked.send(outcome);
        }
    }

    /// Starts another process beside the one that serves. Once it serves, it is the one that is looked after, and the
    /// former one leaves; if it never does, nothing has changed.
    async fn replace(&self, child: &mut Child) -> Result<(), String> {
        let mut next = spawn(&self.layout, &self.process).map_err(|error| format!("{error:#}"))?;
        let id = next.id();
        let failed = tokio::select! {
            () = becomes_ready(&self.layout, &self.process, id) => None,
            status = next.wait() => Some(format!("it ended: {}", status.map_or_else(|e| e.to_string(), |s| s.to_string()))),
            () = tokio::time::sleep(READY_LIMIT) => Some(format!("it was not ready after {} s", READY_LIMIT.as_secs())),
            () = self.stop.cancelled() => Some("everything is being stopped".to_owned()),
        };
        if let Some(why) = failed {
            finish(&self.process, &mut next).await;
            tracing::warn!(
                process = self.process.name,
                why,
                "the next one did not take over; the former one serves on"
            );
            return Err(why);
        }
        let former = std::mem::replace(child, next);
        self.see_off(former);
        write_pid(&self.layout, &self.process.name, child).map_err(|error| format!("{error:#}"))
    }

    /// Waits for the end of a process from which another one has taken over.
    fn see_off(&self, mut former: Child) {
        let name = format!("{}-{}", self.process.name, former.id().unwrap_or_default());
        // `down` finds it even when this supervisor is killed.
        if let Err(error) = write_pid(&self.layout, &name, &former) {
            tracing::warn!(error = format!("{error:#}"), "a process that leaves is not written down");
        }
        let (mark, stop, process) = (self.layout.pid(&name), self.stop.clone(), self.process.clone());
        self.leaving.spawn(async move {
            tokio::select! {
                _ = former.wait() => {}
                () = stop.cancelled() => finish(&process, &mut former).await,
            }
            let _ = fs::remove_file(mark);
        });
    }
}

fn start(layout: &Layout, process: &Process) -> Result<Child> {
    let _ = fs::remove_file(layout.ready(&process.name));
    let child = spawn(layout, process)?;
    write_pid(layout, &process.name, &child)?;
    Ok(child)
}

fn spawn(layout: &Layout, process: &Process) -> Result<Child> {
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
}

fn write_pid(layout: &Layout, name: &str, child: &Child) -> Result<()> {
    let pid = child.id().unwrap_or_default().to_string();
    crate::files::write_private(&layout.pid(name), pid.as_bytes())
}

/// Waits until the process serves. Safe to drop at any time.
async fn becomes_ready(layout: &Layout, process: &Process, id: Option<u32>) {
    loop {
        tokio::time::sleep(POLL).await;
        let ready = match &process.ready {
            // The mark says whose it is: that of another one may still be there.
            Ready::Mark => fs::read_to_string(layout.ready(&process.name))
                .is_ok_and(|mark| mark.trim().parse().ok() == id && id.is_some()),
            Ready::Port(address) => tokio::net::TcpStream::connect(address).await.is_ok(),
        };
        if ready {
            return;
        }
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
    let mut left = left(layout);
    signal_all(&left, Signal::SIGTERM);
    wait_for_end(&mut left, limit);
    for (name, process) in &left {
        tracing::warn!(process = name, pid = process.pid, "did not drain in time; killed");
    }
    signal_all(&left, Signal::SIGKILL);
    wait_for_end(&mut left, KILL_LIMIT);
    if !left.is_empty() {
        bail!("processes of an earlier start cannot be killed: {left:?}");
    }
    Ok(())
}

/// What an earlier supervisor started and still runs, with its name.
fn left(layout: &Layout) -> Vec<(String, Identity)> {
    let root = layout.root().display().to_string();
    let files = fs::read_dir(layout.run()).into_iter().flatten().flatten().map(|entry| entry.path());
    let marks = files.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
    let noted = marks.filter_map(|path| {
        let name = path.file_stem()?.to_string_lossy().into_owned();
        let pid = fs::read_to_string(path).ok()?.trim().parse::<i32>().ok()?;
        Some((name, Identity { pid, started: start_time(pid)? }))
    });
    // A number that was given to somebody else meanwhile is left alone.
    let ours = |process: &Identity| {
        fs::read(format!("/proc/{}/cmdline", process.pid))
            .is_ok_and(|command| String::from_utf8_lossy(&command).contains(&root))
    };
    noted.filter(|(_, process)| ours(process)).collect()
}

fn signal_all(processes: &[(String, Identity)], signal: Signal) {
    for (_, process) in processes {
        // One that has ended meanwhile is as good as signalled.
        let _ = process.signal(signal);
    }
}

/// Waits until all have ended, at most `limit`; keeps those that have not. One that ends has no command line any more,
/// but may still hold its ports: it counts until it is gone.
fn wait_for_end(processes: &mut Vec<(String, Identity)>, limit: Duration) {
    let begun = Instant::now();
    loop {
        processes.retain(|(_, process)| process.is_alive());
        if processes.is_empty() || begun.elapsed() > limit {
            return;
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

    fn process(script: &str, takes_over: bool) -> Process {
        Process { name: "p".into(), command: shell(script), ready: Ready::Mark, grace_s: 5, takes_over }
    }

    /// Asks for renewals of a process until all have their answer, then ends it.
    async fn renew(layout: &Layout, process: Process, mut between: impl AsyncFnMut(u32, Result<(), String>)) {
        let (renewals, asked) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let kept = tokio::spawn(keep(layout.clone(), process, stop.clone(), asked, |_, _| {}));
        for round in 0..3 {
            let (answer, outcome) = oneshot::channel();
            renewals.send(answer).await.unwrap();
            between(round, outcome.await.unwrap()).await;
        }
        stop.cancel();
        kept.await.unwrap();
    }

    fn pids(layout: &Layout) -> Vec<String> {
        let files = fs::read_dir(layout.run()).unwrap().flatten().map(|entry| entry.path());
        let marks = files.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
        marks.map(|path| fs::read_to_string(path).unwrap()).collect()
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
        // Its command line names the directory from the shell on; it is deaf once the shell has become `tail`.
        let command = format!("/proc/{}/cmdline", deaf.id());
        while !std::fs::read_to_string(&command).unwrap().starts_with("tail") {
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
        let script =
            format!("[ -e {once} ] || {{ : > {once}; exit 3; }}; echo $$ > {mark}; sleep 600 & wait");
        let process = process(&script, false);
        let (_renewals, none) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let changes = Arc::new(Mutex::new(Vec::new()));
        let (log, ended) = (changes.clone(), stop.clone());
        keep(layout.clone(), process, stop, none, move |_, change| {
            log.lock().unwrap().push(change);
            if change == Change::Ready {
                ended.cancel();
            }
        })
        .await;
        assert_eq!(*changes.lock().unwrap(), [Change::Restarted, Change::Ready]);
        assert!(!layout.ready("p").exists());
    }

    #[tokio::test]
    async fn a_process_that_is_renewed_ends_and_serves_again() {
        let (_dir, layout) = layout();
        let mark = layout.ready("p").display().to_string();
        let script = format!("echo $$ > {mark}; sleep 600 & wait");
        let mut seen = Vec::new();
        renew(&layout, process(&script, false), async |_, outcome| {
            assert_eq!(outcome, Ok(()));
            let pids = pids(&layout);
            assert_eq!(pids.len(), 1, "one at a time");
            assert!(!seen.contains(&pids[0]));
            seen.extend(pids);
        })
        .await;
        assert_eq!(pids(&layout), Vec::<String>::new());
    }

    #[tokio::test]
    async fn one_that_takes_over_runs_beside_the_former_and_costs_nothing_when_it_fails() {
        let (_dir, layout) = layout();
        let mark = layout.ready("p").display().to_string();
        let broken = layout.run().join("broken");
        // It leaves only when it is told to end, as one with a long download does.
        let script = format!("[ -e {} ] && exit 3; echo $$ > {mark}; sleep 600 & wait", broken.display());
        let mut serving = String::new();
        renew(&layout, process(&script, true), async |round, outcome| {
            let now = fs::read_to_string(layout.pid("p")).unwrap();
            if round == 1 {
                assert!(outcome.unwrap_err().contains("exit status: 3"));
                assert_eq!(now, serving, "the former one serves on");
                fs::remove_file(&broken).unwrap();
            } else {
                assert_eq!(outcome, Ok(()));
                assert_ne!(now, serving);
                fs::write(&broken, "").unwrap();
            }
            serving = now;
            assert_eq!(pids(&layout).len(), if round == 2 { 3 } else { 2 }, "those that leave are known");
        })
        .await;
        assert_eq!(pids(&layout), Vec::<String>::new(), "they end with the rest");
    }

    #[test]
    fn a_process_knows_itself_and_not_a_reused_pid() {
        let own = Identity::own().unwrap();
        assert!(own.is_alive());
        assert!(!Identity { started: own.started + 1, ..own }.is_alive());
    }
}
