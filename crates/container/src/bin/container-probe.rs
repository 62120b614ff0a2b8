//! A program for this crate's tests and benches: the shim, and an app that tries what it must not be able
//! to do and prints what came of it. Never part of an installation.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::{getgroups, getuid},
};
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["shim", "--config", path] => return bastide_container::shim_main(Path::new(path)),
        ["sleep"] => thread::sleep(Duration::from_mins(10)),
        ["family"] => {
            // Children that outlive their parent's end, if they can.
            for _ in 0..3 {
                let _ = Command::new("/probe").arg("sleep").spawn();
            }
            say("family");
            thread::sleep(Duration::from_mins(10));
        }
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap_or(99)),
        ["look"] => look(),
        ["forbidden"] => forbidden(),
        ["hog"] => hog(),
        ["bomb"] => bomb(),
        ["spin", millis] => spin(millis.parse().unwrap_or(1000)),
        ["flood"] => flood(),
        ["say", text] => say(text),
        ["echo-env", name] => say(&std::env::var(name).unwrap_or_default()),
        other => {
            eprintln!("no such probe: {other:?}");
            return ExitCode::from(98);
        }
    }
    ExitCode::SUCCESS
}

fn say(text: &str) {
    println!("{text}");
    let _ = std::io::stdout().flush();
}

/// What it sees of itself and the host.
fn look() {
    say(&format!("uid {} groups {:?}", getuid(), getgroups().map(|all| all.len())));
    for name in ["NoNewPrivs", "Seccomp", "CapEff", "CapBnd", "SigBlk", "SigIgn"] {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_default();
        say(&line.replace('\t', " "));
    }
    let names = |dir: &str| {
        let mut all: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        all.sort();
        all.join(" ")
    };
    let processes = names("/proc").split(' ').filter(|name| name.parse::<u32>().is_ok()).count();
    say(&format!("processes {processes}"));
    say(&format!("root {}", names("/")));
    say(&format!("dev {}", names("/dev")));
    say(&format!("hostname {}", fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim()));
    say(&format!("resolv {}", fs::read_to_string("/etc/resolv.conf").unwrap_or_default().trim()));
    say(&format!(
        "mounts {}",
        fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().count()
    ));
    say(&format!(
        "interfaces {}",
        fs::read_to_string("/proc/net/dev").unwrap_or_default().lines().count() - 2
    ));
    say(&format!(
        "cgroup {}",
        fs::read_to_string("/proc/self/cgroup").unwrap_or_default().replace('\n', " ")
    ));
    let fds = fs::read_dir("/proc/self/fd").into_iter().flatten().count();
    say(&format!("descriptors {fds}"));
}

/// What must fail, each with its error.
fn forbidden() {
    let none = None::<&str>;
    let outcome = |name: &str, result: Result<(), String>| match result {
        Ok(()) => say(&format!("{name} ALLOWED")),
        Err(why) => say(&format!("{name} refused: {why}")),
    };
    let errno = |result: nix::Result<()>| result.map_err(|error| error.to_string());
    let io = |result: std::io::Result<()>| result.map_err(|error| error.to_string());
    outcome("mount", errno(mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), none)));
    outcome("unshare", errno(unshare(CloneFlags::CLONE_NEWUSER)));
    outcome("write-root", io(fs::write("/evil", "x")));
    outcome("write-etc", io(fs::write("/etc/hosts", "x")));
    outcome("write-image", io(fs::write("/probe", "x")));
    outcome("write-proc", io(fs::write("/proc/sys/kernel/hostname", "x")));
    outcome("write-sysrq", io(fs::write("/proc/sysrq-trigger", "x")));
    outcome(
        "read-kcore",
        io(fs::read_to_string("/proc/kcore").and_then(|text| {
            if text.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
        })),
    );
    outcome("see-sys", io(fs::read_dir("/sys/fs").map(drop)));
    outcome(
        "vsock",
        errno(socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None).map(drop)),
    );
    outcome("packet", errno(socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).map(drop)));
    let big = vec![0u8; 1024 * 1024];
    let fill = (0..256).try_for_each(|number| fs::write(format!("/tmp/{number}"), &big));
    outcome("fill-tmp", io(fill));
    (0..256).for_each(|number| drop(fs::remove_file(format!("/tmp/{number}"))));
    outcome("write-tmp", io(fs::write("/tmp/mine", "x")));
    outcome(
        "socket",
        errno(socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).map(drop)),
    );
    outcome("thread", thread::Builder::new().spawn(|| {}).map(drop).map_err(|error| error.to_string()));
    outcome("child", io(Command::new("/probe").args(["exit", "0"]).status().map(drop)));
}

fn hog() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for number in 0.. {
        kept.push(vec![1; 1024 * 1024]);
        if number % 16 == 0 {
            say(&format!("holding {} MiB", kept.len()));
        }
    }
}

fn bomb() {
    let mut children = Vec::new();
    let refused = loop {
        match Command::new("/probe").arg("sleep").spawn() {
            Ok(child) => children.push(child),
            Err(error) => break error,
        }
        if children.len() > 2000 {
            say("NO LIMIT");
            return;
        }
    };
    say(&format!("stopped at {} children: {refused}", children.len()));
}

fn spin(millis: u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(millis) {
        std::hint::black_box(begun);
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let used = usage.map(|usage| usage.user_time().tv_sec() * 1000 + usage.user_time().tv_usec() / 1000);
    say(&format!("used {} ms", used.unwrap_or(0)));
}

fn flood() {
    let line = [b'x'; 4096];
    let mut out = std::io::stdout().lock();
    while out.write_all(&line).is_ok() {}
}
