//! Replicas of the Platform at one database on a PostgreSQL server, as on several machines.

use crate::{
    api::{World, world_of},
    road::Road,
};
use bastide_bus::PlatformHandler;
use bastide_platform::{
    BusServices,
    config::{Database, DatabaseServer},
};
use bastide_testkit::postgres::{Shared, shared};
use bastide_types::{StageName, message::SnapshotQuery};
use http::{Method, StatusCode};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A replica at this database.
async fn at(database: &Shared) -> World {
    world_of(|config| {
        let address_file = config.kek_file.with_file_name("address");
        fs::write(&address_file, database.url()).unwrap();
        config.database = Database::Server(DatabaseServer { address_file });
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_acknowledged_the_others_know_and_nothing_is_done_twice_whatever_is_cut_off_when() {
    const WRITES: usize = 200;
    let database = Arc::new(shared());
    let (one, two) = tokio::join!(at(&database), at(&database));
    let acme = one.customer_with_stages("acme").await;
    let replicas = [&one, &two];
    let (acknowledged, cut) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let write = async |number: usize| {
        let body = format!(r#"{{"id":"robot-{number}","kind":"service","roles":["developer"]}}"#);
        // Whoever hears nothing, or of a failure, asks again, wherever the request comes to.
        for turn in number.. {
            let world = replicas[turn % 2];
            // It lives for a minute only.
            let assertion = world.assertion(acme, &["administrator"]);
            let key = [("idempotency-key", &*number.to_string())];
            let path = "/api/v1/clients";
            let answer =
                world.answer_with("acme", Method::POST, path, Some(&assertion), &key, body.clone()).await;
            let status = answer.status();
            if status == StatusCode::CREATED {
                break;
            }
            assert!(status.is_server_error() || status == StatusCode::CONFLICT, "{status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // As if a replica died: its connections are gone, in the middle of whatever others write.
        if acknowledged.fetch_add(1, Ordering::Relaxed) % 25 == 10 {
            let database = database.clone();
            let gone = tokio::task::spawn_blocking(move || database.cut()).await.unwrap();
            cut.fetch_add(gone, Ordering::Relaxed);
        }
    };
    futures_util::future::join_all((0..WRITES).map(write)).await;
    // Whether a request noticed depends on where it was in that moment.
    assert!(cut.load(Ordering::Relaxed) > 0, "connections were cut");
    for world in replicas {
        let own = world.app.store.customer(acme);
        assert_eq!(own.clients().await.unwrap().len(), WRITES);
        let entries = own.audit_trail(1000).await.unwrap();
        let made =
            entries.iter().filter(|entry| entry.what.starts_with("client.") && entry.outcome == "done");
        assert_eq!(made.count(), WRITES, "each is there once, and so is its entry");
        own.verify_audit().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_is_published_through_one_is_told_by_the_other() {
    let database = shared();
    let road = Road::in_world(at(&database).await).await;
    let other = BusServices(at(&database).await.app);
    let before = other.snapshot_head(SnapshotQuery::default()).await.unwrap();
    let (operation, _) = road.publish("one").await;
    road.all_ready(&StageName::development()).await;
    assert_eq!(road.operation(&operation).await["status"], "finished");
    assert_eq!(road.serves(&StageName::development()).await, Some(1));
    let after = other.snapshot_head(SnapshotQuery::default()).await.unwrap();
    let own = road.services.snapshot_head(SnapshotQuery::default()).await.unwrap();
    assert!(after.revision > before.revision, "it looks at the database");
    assert_eq!((after.epoch, after.revision), (own.epoch, own.revision));
}
