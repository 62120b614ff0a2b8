//! The process driver, with real processes.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod linux;
mod postgres;
mod relay;

use bastide_runtime::{
    Config, Error,
    driver::{Launch, Life, RuntimeDriver, process::ProcessDriver},
};
use bastide_types::{
    AppId, AppName, CustomerName, Digest, Manifest, ReplicaId, StageName, ZoneName,
    message::{DesiredReplica, Reach},
    service::Services,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Generous: only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stands for the executable of Bastide: `exec-child --app -- program …` becomes the program.
fn executable(dir: &Path) -> PathBuf {
    let path = dir.join("bastide");
    fs::write(&path, "#!/bin/sh\nshift 3\nexec \"$@\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// An app that is a shell script in its image.
fn launch(dir: &Path, script: &str) -> Launch {
    let root = dir.join("root");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("app"), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(root.join("app"), fs::Permissions::from_mode(0o755)).unwrap();
    let manifest: Manifest = serde_json::from_str(
        r#"{"app":{"name":"shop","kind":"binary","command":["./app","one"]},"env":{"GREETING":"hello"}}"#,
    )
    .unwrap();
    let replica = DesiredReplica {
        id: ReplicaId::generate(),
        app: AppId::generate(),
        app_name: AppName::new("shop").unwrap(),
        revision: Digest::from_sha256([0; 32]),
        revision_number: 3,
        zone: ZoneName::new("a").unwrap(),
        image: Digest::from_sha256([0; 32]),
        manifest,
        draining: false,
        assertion_keys: "{}".into(),
        serving: true,
        services: Services::default(),
    };
    Launch {
        account: "A".into(),
        replica,
        customer: CustomerName::new("acme").unwrap(),
        stage: StageName::test(),
        root,
    }
}

async fn wait_for(path: &Path) -> String {
    let begun = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with("end\n") => return text,
            _ => assert!(begun.elapsed() < PATIENCE, "{} never came", path.display()),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_app_sees_only_its_own_environment_and_ends_politely() {
    let dir = tempfile::tempdir().unwrap();
    let driver = ProcessDriver::new(executable(dir.path()), dir.path().join("logs")).unwrap();
    let out = dir.path().join("out");
    let script = format!(
        "trap 'echo stopped >> {0}; echo end >> {0}; exit 0' TERM; (env; echo args $1; echo end) > {0}; while :; do sleep 0.05; done",
        out.display()
    );
    let launch = launch(dir.path(), &script);
    let id = launch.replica.id;
    let started = driver.start(launch).await.unwrap();
    let seen = wait_for(&out).await;
    for expected in [
        "BASTIDE_APP=shop",
        "BASTIDE_CUSTOMER=acme",
        "BASTIDE_STAGE=test",
        "BASTIDE_ZONE=a",
        "GREETING=hello",
        "args one",
    ] {
        assert!(seen.contains(expected), "{expected} in {seen}");
    }
    let Reach::Address(addr) = started.reach else { panic!("{:?}", started.reach) };
    assert!(seen.contains(&format!("PORT={}", addr.port())));
    for foreign in ["HOME=", "CARGO", "USER="] {
        assert!(!seen.contains(foreign), "{foreign} in {seen}");
    }
    driver.stop(id, PATIENCE).await;
    assert!(
        matches!(&*started.life.borrow(), Life::Ended(why) if why.contains("exit status: 0")),
        "{:?}",
        started.life
    );
    assert!(fs::read_to_string(&out).unwrap().contains("stopped"));
}

#[tokio::test]
async fn an_app_that_does_not_end_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let driver = ProcessDriver::new(executable(dir.path()), dir.path().join("logs")).unwrap();
    let out = dir.path().join("out");
    let script = format!(
        "trap '' TERM; sleep 600 & (echo $!; echo end) > {}; while :; do sleep 0.05; done",
        out.display()
    );
    let launch = launch(dir.path(), &script);
    let id = launch.replica.id;
    let started = driver.start(launch).await.unwrap();
    let child: u32 = wait_for(&out).await.lines().next().unwrap().parse().unwrap();
    driver.stop(id, Duration::from_millis(50)).await;
    assert!(
        matches!(&*started.life.borrow(), Life::Ended(why) if why.contains("signal: 9")),
        "{:?}",
        started.life
    );
    let begun = Instant::now();
    while is_running(child) {
        assert!(begun.elapsed() < PATIENCE, "its child still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process runs; one that waits to be reaped does not.
fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_end_and_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let driver = ProcessDriver::new(executable(dir.path()), dir.path().join("logs")).unwrap();
    let launch = launch(dir.path(), "exit 7");
    let mut started = driver.start(launch).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, started.life.wait_for(|life| *life != Life::Running)).await;
    assert!(matches!(&*ended.unwrap().unwrap(), Life::Ended(why) if why.contains('7')));
}

#[tokio::test]
async fn without_leave_nothing_runs_that_is_not_isolated() {
    let config: Config = serde_json::from_value(serde_json::json!({
        "bus": { "url": "tls://127.0.0.1:1", "ca_file": "/none", "name": "n" },
        "driver": "process", "state_dir": "/none", "executable": "/none", "deploy_key_file": "/none", "down_mark": "/none",
        "doors": { "gateways": "/none/a", "egress": "/none/b", "verify": "/none/c" },
    }))
    .unwrap();
    let refused =
        bastide_runtime::run(config, Box::new(|| ()), tokio_util::sync::CancellationToken::new()).await;
    assert!(matches!(refused, Err(Error::NoIsolation)));
}

#[tokio::test]
async fn what_an_app_uses_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let driver = ProcessDriver::new(executable(dir.path()), dir.path().join("logs")).unwrap();
    let launch = launch(dir.path(), "while :; do :; done");
    let id = launch.replica.id;
    let _started = driver.start(launch).await.unwrap();
    let begun = Instant::now();
    loop {
        let usage = driver.usage(id).unwrap();
        if usage.cpu > Duration::from_millis(50) && usage.memory_bytes > 100_000 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{usage:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    driver.stop(id, Duration::ZERO).await;
    assert_eq!(driver.usage(id), None);
}
