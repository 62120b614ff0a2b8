//! Making the container, by library or by program, and proof that its fences stand.
//!
//! With the library we are the last code before the app: the filters are installed and everything is
//! verified *before* it runs. Either way the same is verified from outside afterwards.

use super::root::{self, BUNDLE, ENGINE, ROOT};
use crate::{Container, Engine, Result, container::USER, error::Error, seccomp::Filters, spec};
use libcontainer::{
    container::builder::ContainerBuilder,
    oci_spec::runtime::Spec,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorValidationError},
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        prctl::{set_child_subreaper, set_pdeathsig},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use std::{
    convert::Infallible,
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

/// Longest wait for an engine's process to become the app.
const EXEC_LIMIT: Duration = Duration::from_secs(5);
/// Exit code of a container whose app could not be started, as shells have it.
const NOT_STARTED: i32 = 127;

/// A running container.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    /// Read ends of its output; they do not block.
    pub(crate) outputs: Vec<PipeReader>,
}

/// Makes the container and lets the app run.
pub(crate) fn start(container: &Container) -> Result<Started> {
    let spec = spec::spec(container, ROOT);
    root::file(&Path::new(BUNDLE).join("config.json"), &spec.to_string())?;
    drop(spec);
    // Whatever the container's first process leaves behind is ours to reap.
    set_child_subreaper(true).map_err(root::at("subreaper"))?;
    let (out, stdout) = io::pipe().map_err(Error::Shim)?;
    let (err, stderr) = io::pipe().map_err(Error::Shim)?;
    let pid = match &container.engine {
        Engine::Libcontainer => by_library(container, stdout, stderr)?,
        Engine::Runc(program) => by_program(program, container, stdout, stderr)?,
    };
    if let Err(error) = verify(pid) {
        // Fail closed: an app without its fences does not run on.
        let _ = kill(pid, Signal::SIGKILL);
        return Err(error);
    }
    for pipe in [&out, &err] {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(root::at("output"))?;
    }
    Ok(Started { pid, outputs: vec![out, err] })
}

fn by_library(container: &Container, stdout: PipeWriter, stderr: PipeWriter) -> Result<Pid> {
    let filters = Filters::compile().map_err(|error| Error::Start(format!("system call filter: {error}")))?;
    // Closed by the kernel when the app's program is loaded; until then, why it was not is said here.
    let (mut said, report) = io::pipe().map_err(Error::Shim)?;
    let failed = |error| Error::Start(super::chain(&error));
    let mut made = ContainerBuilder::new(container.id.clone(), SyscallType::default())
        .with_executor(Start { filters, report: Rc::new(report) })
        .with_root_path(ENGINE)
        .map_err(failed)?
        .with_stdin(nothing()?)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .validate_id()
        .map_err(failed)?
        .as_init(BUNDLE)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(failed)?;
    let pid = made.pid().ok_or_else(|| Error::Start("the container has no process".into()))?;
    made.start().map_err(failed)?;
    let mut why = String::new();
    said.read_to_string(&mut why).map_err(Error::Shim)?;
    if !why.is_empty() {
        return Err(Error::Start(why));
    }
    Ok(Pid::from_raw(pid.as_raw()))
}

fn by_program(program: &Path, container: &Container, stdout: PipeWriter, stderr: PipeWriter) -> Result<Pid> {
    let pid_file = Path::new(ENGINE).join("pid");
    let runc = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(["--root", ENGINE]).args(arguments).stdin(Stdio::null());
        command
    };
    let pid_path = pid_file.to_string_lossy().into_owned();
    let created = runc(&[
        "--log",
        "/sys/firmware/log",
        "create",
        "--bundle",
        BUNDLE,
        "--pid-file",
        &pid_path,
        &container.id,
    ])
    .stdout(stdout)
    .stderr(stderr)
    .status()
    .map_err(Error::file(program))?;
    if !created.success() {
        let log = fs::read_to_string("/sys/firmware/log").unwrap_or_default();
        return Err(Error::Start(format!("{}: {created}: {}", program.display(), log.trim())));
    }
    let pid = fs::read_to_string(&pid_file).map_err(Error::file(&pid_file))?;
    let pid = pid.trim().parse().map_err(|_| Error::Start("no process id".into()))?;
    let started = runc(&["start", &container.id]).output().map_err(Error::file(program))?;
    if !started.status.success() {
        return Err(Error::Start(String::from_utf8_lossy(&started.stderr).trim().to_owned()));
    }
    Ok(Pid::from_raw(pid))
}

fn nothing() -> Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from).map_err(Error::file("/dev/null"))
}

/// What the library calls last, inside the container, as its user.
#[derive(Clone)]
struct Start {
    filters: Filters,
    report: Rc<PipeWriter>,
}

impl Start {
    fn become_app(&self, spec: &Spec) -> std::result::Result<Infallible, String> {
        // The shim is the parent; without it nobody would keep the limits of the log or know of the end.
        set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("parent-death signal: {error}"))?;
        self.filters.install().map_err(|error| format!("system call filter: {error}"))?;
        let status = fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc: {error}"))?;
        fenced(&status)?;
        let args = spec.process().as_ref().and_then(|process| process.args().as_ref());
        let (program, arguments) = args.and_then(|args| args.split_first()).ok_or("no program")?;
        // `exec` unblocks all signals and gives SIGPIPE its meaning back.
        let error = Command::new(program).args(arguments).exec();
        Err(format!("cannot start `{program}`: {error}"))
    }
}

impl Executor for Start {
    fn exec(&self, spec: &Spec) -> std::result::Result<(), ExecutorError> {
        let why = match self.become_app(spec) {
            Ok(never) => match never {},
            Err(why) => why,
        };
        let _ = (&*self.report).write_all(why.as_bytes());
        std::process::exit(NOT_STARTED)
    }

    fn validate(&self, _: &Spec) -> std::result::Result<(), ExecutorValidationError> {
        // The program is looked for when it is started, with all the container's fences up.
        Ok(())
    }
}

/// Waits until the process has become the app, and judges its fences from outside.
fn verify(pid: Pid) -> Result<()> {
    let path = format!("/proc/{pid}/status");
    let begun = Instant::now();
    loop {
        let status = fs::read_to_string(&path).map_err(Error::file(&path))?;
        match fenced(&status) {
            Ok(()) => return Ok(()),
            // A program such as runc installs the filter a moment after it says that it started.
            Err(_) if begun.elapsed() < EXEC_LIMIT => std::thread::sleep(Duration::from_millis(1)),
            Err(what) => return Err(Error::Start(format!("killed, for its fences do not stand: {what}"))),
        }
    }
}

/// Judges `/proc/PID/status`: filter, no new privileges, no capability, not root.
fn fenced(status: &str) -> std::result::Result<(), String> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or("")
    };
    let expect = |name: &str, value: &str| match field(name) {
        found if found == value => Ok(()),
        found => Err(format!("{name} is {found:?}, not {value}")),
    };
    // A process that has ended already has no privileges to judge.
    if field("State").starts_with(['Z', 'X']) {
        return Ok(());
    }
    expect("Seccomp", "2")?;
    expect("NoNewPrivs", "1")?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        expect(set, "0000000000000000")?;
    }
    let ours = |id: &str| id == USER.to_string() || id.parse().is_ok_and(|id: u32| id >= 0x7000_0000);
    for ids in ["Uid", "Gid"] {
        if !field(ids).split_whitespace().all(ours) || field(ids).is_empty() {
            return Err(format!("{ids} is {}", field(ids)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCED: &str = "Name:\tapp\nState:\tS (sleeping)\nUid:\t65532\t65532\t65532\t65532\nGid:\t65532\t65532\t65532\t65532\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";

    #[test]
    fn every_missing_fence_is_noticed() {
        fenced(FENCED).unwrap();
        let check = |from: &str, to: &str| {
            let broken = FENCED.replacen(from, to, 1);
            assert_ne!(broken, FENCED);
            fenced(&broken).unwrap_err();
        };
        check("Seccomp:\t2", "Seccomp:\t0");
        check("NoNewPrivs:\t1", "NoNewPrivs:\t0");
        check("CapEff:\t0000000000000000", "CapEff:\t0000000000000400");
        check("CapBnd:\t0000000000000000", "CapBnd:\t000001ffffffffff");
        check("Uid:\t65532\t65532", "Uid:\t65532\t0");
        check("Gid:\t65532", "Gid:\t0");
        check("Seccomp:", "Other:");
        assert!(fenced("").is_err());
    }
}
