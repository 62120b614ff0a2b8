//! The shim's long wait: output, orders, the end.

use super::{
    control::{Control, Order},
    engine::Started,
    root,
};
use crate::{
    Result,
    capture::{Capture, Took},
    cgroup::Cgroups,
    life::How,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    fs,
    io::PipeReader,
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// Threads that are looked at to find one that listens for signals.
const THREADS_MAX: usize = 256;
/// Pieces that are read from a pipe after the app's end: what a full pipe holds, and some.
const LAST_PIECES: usize = 16;

/// Waits for the app's end; keeps its output and follows orders meanwhile.
pub(crate) fn wait(
    started: &mut Started,
    log: &mut Capture,
    control: &mut Control,
    groups: &Cgroups,
) -> Result<How> {
    // Blocked only now: the app must not inherit it.
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        mask.add(signal);
    }
    mask.thread_block().map_err(root::at("signals"))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(root::at("signals"))?;
    let mut kill_at: Option<Instant> = None;
    loop {
        // First, for it may have ended before the signals were blocked.
        if let Some(how) = reap(started.pid)? {
            for pipe in &mut started.outputs {
                (0..LAST_PIECES).find(|_| log.take(pipe) != Took::Some);
            }
            return Ok(how);
        }
        let now = Instant::now();
        if kill_at.is_some_and(|at| at <= now) {
            groups.kill()?;
            kill_at = None;
            continue;
        }
        let pause = log.pause(now);
        let outputs: &[PipeReader] = if pause.is_none() { &started.outputs } else { &[] };
        let mut fds: Vec<PollFd<'_>> = std::iter::once(signals.as_fd())
            .chain(control.fds())
            .chain(outputs.iter().map(AsFd::as_fd))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let until = [pause, kill_at.map(|at| at.saturating_duration_since(now))].into_iter().flatten().min();
        match poll(&mut fds, until.map_or(PollTimeout::NONE, timeout)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(root::at("poll")(error)),
        }
        drop(fds);
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                kill_at = Some(Instant::now());
            }
        }
        if pause.is_none() {
            started.outputs.retain_mut(|pipe| log.take(pipe) != Took::Closed);
        }
        for order in control.serve() {
            let Order::Stop { grace_ms } = order;
            let grace = if ask(started.pid) { Duration::from_millis(grace_ms) } else { Duration::ZERO };
            let at = Instant::now() + grace;
            kill_at = Some(kill_at.map_or(at, |sooner| sooner.min(at)));
        }
    }
}

/// Rounded up: a wait that ends too early would spin.
fn timeout(wait: Duration) -> PollTimeout {
    PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

/// Asks the app to end; false when it does not listen. The kernel gives process 1 of a container no default
/// action for SIGTERM, so one that does not listen would never hear.
fn ask(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listens = threads.take(THREADS_MAX).any(|thread| {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        listens(&read("status"), &read("wchan"))
    });
    listens && kill(pid, Signal::SIGTERM).is_ok()
}

/// Whether a thread has a handler for SIGTERM, keeps it for somebody who waits for signals, or waits for them now
/// (what it waits for is not shown as kept).
fn listens(status: &str, waits_in: &str) -> bool {
    let holds = |set: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap_or_default();
        u64::from_str_radix(line.trim(), 16).unwrap_or(0) >> (Signal::SIGTERM as i32 - 1) & 1 == 1
    };
    holds("SigCgt:") || holds("SigBlk:") || waits_in.contains("sigtimedwait")
}

/// Reaps whatever ended; how the app ended, when it did.
fn reap(app: Pid) -> Result<Option<How>> {
    let mut how = None;
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == app => how = Some(How::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == app => how = Some(How::Signal(signal as i32)),
            Ok(WaitStatus::StillAlive) => return Ok(how),
            Ok(_) | Err(nix::Error::EINTR) => {}
            // No children: an app that nobody knows of cannot be waited for.
            Err(nix::Error::ECHILD) => return Ok(how.or(Some(How::Lost))),
            Err(error) => return Err(root::at("children")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_catches_keeps_or_waits_for_the_signal_listens() {
        let status = |caught: &str, kept: &str| format!("Name:\tapp\nSigBlk:\t{kept}\nSigCgt:\t{caught}\n");
        let (none, term, others) = ("0000000000000000", "0000000000004000", "000000000000bfff");
        assert!(!listens(&status(none, none), "do_epoll_wait"));
        assert!(!listens(&status(others, others), "0"));
        assert!(listens(&status(term, none), ""));
        assert!(listens(&status(none, term), ""));
        assert!(listens(&status(none, none), "do_sigtimedwait"));
        assert!(!listens("", ""));
    }
}
