//! Starts, ends, and what happens when somebody dies in between.

use crate::scene::{PATIENCE, Scene, alive, begin, nothing_left, probe, running, until_said};
use bastide_container::{How, Life, attach, cgroup::Cgroups, remove};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, time::Duration};

#[tokio::test]
async fn an_exit_code_is_kept_on_disk_too() {
    let Some(mut scene) = Scene::new("an_exit_code_is_kept_on_disk_too") else { return };
    let container = scene.container(&["exit", "7"]);
    let (_, ended) = scene.run(&container).await;
    assert_eq!(ended.how, How::Code(7));
    let found = attach(&container.state_dir).await.unwrap().unwrap();
    assert_eq!(found.ended().await, ended);
    assert!(attach(&scene.path("never")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_stopped_container_leaves_no_process() {
    let Some(mut scene) = Scene::new("a_stopped_container_leaves_no_process") else { return };
    let container = scene.container(&["family"]);
    let handle = begin(&container).await;
    until_said(&container, "family").await;
    let all = Cgroups::of(&container.id).processes();
    assert_eq!(all.len(), 4);
    // The probe does not listen to SIGTERM: no grace is waited for.
    let ended = tokio::time::timeout(PATIENCE, handle.stop(Duration::from_hours(1))).await.unwrap().unwrap();
    assert_eq!(ended.how, How::Signal(9));
    assert!(all.iter().all(|pid| !alive(*pid)));
    nothing_left(&container.id);
}

/// The agent is another process here, which is killed.
#[tokio::test]
async fn a_container_outlives_its_agent_and_is_found_again() {
    let Some(mut scene) = Scene::new("a_container_outlives_its_agent_and_is_found_again") else { return };
    let container = scene.container(&["family"]);
    {
        // An agent's life: a runtime that ends with all it owns.
        let (container, executable) = (container.clone(), probe());
        let life = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let handle = runtime.block_on(bastide_container::start(executable, &container)).unwrap();
            handle.pid().unwrap()
        });
        let pid = life.join().unwrap();
        assert!(alive(pid));
    }
    until_said(&container, "family").await;
    let handle = attach(&container.state_dir).await.unwrap().unwrap();
    assert!(running(&handle) && alive(handle.pid().unwrap()));
    // Two agents at a time would see the same.
    let second = attach(&container.state_dir).await.unwrap().unwrap();
    let ended = handle.stop(Duration::ZERO).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, second.ended()).await.unwrap(), ended);
}

fn shim_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}

#[tokio::test]
async fn when_its_shim_is_killed_nothing_of_the_app_survives() {
    let Some(mut scene) = Scene::new("when_its_shim_is_killed_nothing_of_the_app_survives") else { return };
    let container = scene.container(&["family"]);
    let handle = begin(&container).await;
    until_said(&container, "family").await;
    let all = Cgroups::of(&container.id).processes();
    kill(Pid::from_raw(shim_of(handle.pid().unwrap())), Signal::SIGKILL).unwrap();
    let ended = tokio::time::timeout(PATIENCE, handle.ended()).await.unwrap();
    assert_eq!(ended.how, How::Lost);
    assert!(all.iter().all(|pid| !alive(*pid)));
    nothing_left(&container.id);
}

#[tokio::test]
async fn an_agent_that_was_away_learns_that_a_shim_was_killed() {
    let Some(mut scene) = Scene::new("an_agent_that_was_away…") else { return };
    let container = scene.container(&["family"]);
    let handle = begin(&container).await;
    let pid = handle.pid().unwrap();
    let shim = shim_of(pid);
    drop(handle);
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    // The kernel alone ends the app: nobody else is here to do it.
    let gone = async {
        while alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    let found = attach(&container.state_dir).await.unwrap().unwrap();
    assert!(matches!(&*found.life().borrow(), Life::Ended(ended) if ended.how == How::Lost));
    nothing_left(&container.id);
}

#[tokio::test]
async fn remove_takes_a_running_container_away_and_may_be_called_twice() {
    let Some(mut scene) = Scene::new("remove_takes_a_running_container_away…") else { return };
    let container = scene.container(&["family"]);
    let handle = begin(&container).await;
    let pid = handle.pid().unwrap();
    remove(&container.state_dir).await.unwrap();
    assert!(!alive(pid) && !container.state_dir.exists());
    nothing_left(&container.id);
    remove(&container.state_dir).await.unwrap();
}

#[tokio::test]
async fn the_same_directory_can_be_started_again() {
    let Some(mut scene) = Scene::new("the_same_directory_can_be_started_again") else { return };
    let mut container = scene.container(&["exit", "1"]);
    assert_eq!(scene.run(&container).await.1.how, How::Code(1));
    container.args[2] = "2".into();
    assert_eq!(scene.run(&container).await.1.how, How::Code(2));
}
