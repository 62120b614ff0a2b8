//! The check that operators run on their own broker.

use crate::house::*;
use bastide_bus::check::{self, Room};
use bastide_types::Role;
use std::sync::Arc;

/// A credential of the system account.
fn sys(house: &House) -> bastide_bus::Config {
    let creds = house.material.issuers.creds(Role::Platform, "check", now_s()).unwrap();
    let file = house.path("check.sys.creds");
    std::fs::write(&file, creds["check.sys.creds"].expose()).unwrap();
    bastide_bus::Config { creds_file: Some(file), ..house.role(Role::Platform, "platform-9") }
}

#[tokio::test]
async fn every_subject_is_tried_and_found_shut_and_again() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let _platform = house.platform(&fake).await;
    let rooms = [Room::generate().unwrap(), Room::generate().unwrap()];
    for _ in 0..2 {
        let report = check::run(&sys(&house), &house.material.authority, &rooms, now_s()).await.unwrap();
        assert_eq!(report.faults, [""; 0]);
        assert!(report.tried > 200, "{}", report.tried);
    }
    let accounts = std::fs::read_dir(house.path("accounts")).unwrap().count();
    assert_eq!(accounts, 4 + 2, "nothing is left but the two that are used again");
    assert!(fake.facts.lock().unwrap().is_empty(), "nobody believed a word of it");
}

#[tokio::test]
async fn rooms_that_are_not_apart_are_found() {
    let house = House::new();
    let room = Room::generate().unwrap();
    // Two rooms of one account: whatever is said in one is heard in the other, and one's key opens the other.
    let same = [room.clone(), room];
    let found = check::run(&sys(&house), &house.material.authority, &same, now_s()).await.unwrap();
    assert!(found.faults.iter().any(|fault| fault.contains("is heard as `cmd.state.changed`")), "{found:?}");
    assert!(found.faults.iter().any(|fault| fault.contains("makes agents of another")), "{found:?}");
}
