//! What an app cannot do, tried from inside.

use crate::scene::{Scene, begin, log};
use bastide_container::{Engine, How, start};
use std::path::PathBuf;

fn runc() -> Option<PathBuf> {
    let found = ["/usr/sbin/runc", "/usr/bin/runc"].map(PathBuf::from).into_iter().find(|path| path.exists());
    if found.is_none() {
        crate::scene::skipped("the part with runc: it is not installed");
    }
    found
}

/// Both engines, with and without users of their own.
fn ways() -> Vec<(Engine, bool)> {
    let users = bastide_container::preflight().user_namespaces;
    let engines = std::iter::once(Engine::Libcontainer).chain(runc().map(Engine::Runc));
    engines
        .flat_map(|engine| [(engine.clone(), false), (engine, true)])
        .filter(|(_, own)| users || !own)
        .collect()
}

#[tokio::test]
async fn an_app_is_nobody_and_sees_only_itself() {
    let Some(mut scene) = Scene::new("an_app_is_nobody_and_sees_only_itself") else { return };
    for (engine, user_namespace) in ways() {
        let mut container = scene.container(&["look"]);
        container.engine = engine.clone();
        container.user_namespace = user_namespace;
        container.hostname = "replica-7".into();
        container.nameservers = vec!["192.0.2.53".parse().unwrap()];
        let (said, ended) = scene.run(&container).await;
        let way = format!("{engine:?}, users of its own: {user_namespace}\n{said}\n{ended}");
        assert_eq!(ended.how, How::Code(0), "{way}");
        for line in [
            "uid 65532",
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "CapEff: 0000000000000000",
            "CapBnd: 0000000000000000",
            "SigBlk: 0000000000000000",
            "processes 1\n",
            "hostname replica-7",
            "resolv nameserver 192.0.2.53",
            "interfaces 1",
        ] {
            assert!(said.contains(line), "{line}: {way}");
        }
        // The host's directories are not there; nothing of the shim is open.
        assert!(!said.contains("home") && !said.contains("sys "), "{way}");
        assert!(said.contains("descriptors 4"), "{way}");
        assert!(!said.contains("sda") && said.contains("urandom"), "{way}");
    }
}

#[tokio::test]
async fn what_is_forbidden_fails_and_what_is_needed_works() {
    let Some(mut scene) = Scene::new("what_is_forbidden_fails_and_what_is_needed_works") else { return };
    for (engine, user_namespace) in ways() {
        let mut container = scene.container(&["forbidden"]);
        container.engine = engine.clone();
        container.user_namespace = user_namespace;
        container.limits.tmp_bytes = 4 * 1024 * 1024;
        let (said, ended) = scene.run(&container).await;
        let way = format!("{engine:?}, users of its own: {user_namespace}\n{said}\n{ended}");
        assert_eq!(ended.how, How::Code(0), "{way}");
        for name in [
            "mount",
            "unshare",
            "write-root",
            "write-etc",
            "write-image",
            "write-proc",
            "write-sysrq",
            "read-kcore",
            "see-sys",
            "vsock",
            "packet",
            "fill-tmp",
        ] {
            assert!(said.contains(&format!("{name} refused")), "{name}: {way}");
        }
        assert!(said.contains("mount refused: EPERM"), "{way}");
        for name in ["write-tmp", "socket", "thread", "child"] {
            assert!(said.contains(&format!("{name} ALLOWED")), "{name}: {way}");
        }
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_at_once() {
    let Some(mut scene) = Scene::new("a_program_that_is_not_there_is_said_at_once") else { return };
    let mut container = scene.container(&[]);
    container.args = vec!["/nowhere".into()];
    let error = start(crate::scene::probe(), &container).await.unwrap_err().to_string();
    assert!(error.contains("cannot start `/nowhere`"), "{error}");
    crate::scene::nothing_left(&container.id);
}

#[tokio::test]
async fn a_program_without_a_path_is_looked_for_and_gets_its_environment_alone() {
    let Some(mut scene) = Scene::new("a_program_without_a_path…") else { return };
    let mut container = scene.container(&["echo-env", "GREETING"]);
    container.args[0] = "probe".into();
    container.env = vec![("PATH".into(), "/nowhere:/".into()), ("GREETING".into(), "hello = world".into())];
    let (said, ended) = scene.run(&container).await;
    assert_eq!((said.trim(), ended.how), ("hello = world", How::Code(0)));
}

#[tokio::test]
async fn an_image_cannot_lead_our_mounts_astray() {
    let Some(mut scene) = Scene::new("an_image_cannot_lead_our_mounts_astray") else { return };
    // Where we mount, the image has links to the host.
    for name in ["proc", "dev", "tmp", "etc"] {
        std::os::unix::fs::symlink("/usr", scene.path("image").join(name)).unwrap();
    }
    let container = scene.container(&["look"]);
    let handle = begin(&container).await;
    handle.ended().await;
    assert!(log(&container).contains("processes 1"), "{}", log(&container));
    assert!(!PathBuf::from("/usr/hosts").exists());
}
