//! Limits, tried by an app that wants more.

use crate::scene::{PATIENCE, Scene, begin, log, until_said};
use bastide_container::{
    Cores, How,
    cgroup::{self, Cgroups},
};
use std::{fs, time::Duration};

#[tokio::test]
async fn a_memory_hog_is_killed_and_the_reason_kept() {
    let Some(mut scene) = Scene::new("a_memory_hog_is_killed_and_the_reason_kept") else { return };
    let mut container = scene.container(&["hog"]);
    container.limits.memory_bytes = 64 * 1024 * 1024;
    let (said, ended) = scene.run(&container).await;
    assert_eq!(ended.how, How::Signal(9), "{said}");
    assert!(ended.out_of_memory() && said.contains("holding 17 MiB"), "{said}\n{ended:?}");
    assert!(!said.contains("holding 81 MiB"), "{said}");
    assert!(ended.to_string().contains("its limit is 64 MiB"), "{ended}");
}

#[tokio::test]
async fn a_fork_bomb_is_stopped_at_its_number() {
    let Some(mut scene) = Scene::new("a_fork_bomb_is_stopped_at_its_number") else { return };
    let mut container = scene.container(&["bomb"]);
    container.limits.pids_max = 20;
    let (said, ended) = scene.run(&container).await;
    assert_eq!(ended.how, How::Code(0));
    assert!(said.contains("stopped at 19 children"), "{said}");
    crate::scene::nothing_left(&container.id);
}

#[tokio::test]
async fn processor_time_is_shared_out_as_promised() {
    let Some(mut scene) = Scene::new("processor_time_is_shared_out_as_promised") else { return };
    let mut container = scene.container(&["spin", "3000"]);
    container.limits.cpu_millis = 200;
    let (said, _) = scene.run(&container).await;
    let used: u64 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
    // A fifth of three seconds; a machine that is busy gives less, never more.
    assert!(used <= 900, "{said}");
}

#[tokio::test]
async fn a_flood_of_output_is_bounded_and_makes_only_its_app_wait() {
    let Some(mut scene) = Scene::new("a_flood_of_output…") else { return };
    let mut container = scene.container(&["flood"]);
    container.log.file_bytes_max = 100_000;
    container.log.files_max = 3;
    container.log.bytes_per_second = 200_000;
    let handle = begin(&container).await;
    // Until it has written its burst and waits.
    let older = container.log.file.with_file_name("app.log.2");
    let rotated = async {
        while !older.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rotated).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = Cgroups::of(&container.id).cpu_us().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = Cgroups::of(&container.id).cpu_us().unwrap();
    handle.stop(Duration::ZERO).await.unwrap();
    // It may print two hundred thousand bytes in that second, which costs next to nothing.
    assert!(after - before < 500_000, "{} µs", after - before);
    let kept: u64 = fs::read_dir(&container.state_dir)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("app.log"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(kept <= 300_000, "{kept}");
}

#[tokio::test]
async fn all_containers_together_leave_something_of_the_host() {
    let Some(mut scene) = Scene::new("all_containers_together_leave_something_of_the_host") else { return };
    // As the driver does it, before each start.
    cgroup::reserve().unwrap();
    let container = scene.container(&["family"]);
    let handle = begin(&container).await;
    until_said(&container, "family").await;
    let parents: Vec<_> =
        Cgroups::of(&container.id).dirs().iter().map(|dir| dir.parent().unwrap().to_owned()).collect();
    let number = |name: &str| -> u64 {
        let found = parents.iter().find_map(|dir| fs::read_to_string(dir.join(name)).ok());
        found.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("no number in {name}"))
    };
    let (memory, weight) = match cgroup::layout() {
        cgroup::Layout::Unified => ("memory.max", "cpu.weight"),
        _ => ("memory.limit_in_bytes", "cpu.shares"),
    };
    let host = fs::read_to_string("/proc/meminfo").unwrap();
    let total = host.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    assert!(number(memory) < total.unwrap().parse::<u64>().unwrap() * 1024, "{host}");
    // Of 100 or 1024 that a role has.
    assert!([50, 512].contains(&number(weight)));
    assert!(number("pids.max") > 0);
    handle.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn what_a_container_uses_can_be_read() {
    let Some(mut scene) = Scene::new("what_a_container_uses_can_be_read") else { return };
    let container = scene.container(&["family"]);
    let handle = begin(&container).await;
    until_said(&container, "family").await;
    let groups = Cgroups::of(&container.id);
    assert_eq!(groups.pids(), Some(4), "{}", log(&container));
    assert!(groups.memory_bytes().unwrap() > 100_000);
    assert!(groups.cpu_us().unwrap() > 0);
    handle.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_running_container_can_be_kept_to_some_cores_and_let_free_again() {
    let name = "a_running_container_can_be_kept_to_some_cores_and_let_free_again";
    let Some(mut scene) = Scene::new(name) else { return };
    if !cgroup::has("cpuset") {
        eprintln!("{name}: no cpuset controller, skipped");
        return;
    }
    let all = Cores::of_host().expect("a host with the controller says which cores there are");
    let container = scene.container(&["family"]);
    let handle = begin(&container).await;
    until_said(&container, "family").await;
    let groups = Cgroups::of(&container.id);
    let allowed = || -> Vec<Cores> {
        let status = |pid: i32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let list = |pid| {
            let status = status(pid);
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")?.parse().ok()).unwrap()
        };
        groups.processes().into_iter().map(list).collect()
    };
    assert!(allowed().iter().all(|cores| *cores == all), "{:?}", allowed());
    if let Some(half) = all.half() {
        groups.use_only(&half).unwrap();
        assert!(!allowed().is_empty() && allowed().iter().all(|cores| *cores == half), "{:?}", allowed());
        groups.use_only(&all).unwrap();
        assert!(allowed().iter().all(|cores| *cores == all), "{:?}", allowed());
    }
    handle.stop(Duration::ZERO).await.unwrap();
}
