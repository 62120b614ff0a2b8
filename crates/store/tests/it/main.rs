//! The store as the platform uses it: two processes at one file, customers that never meet.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod audit;
mod backup;
mod bans;
mod client_keys;
mod domains;
mod feed;
mod keys;
mod look;
mod passkeys;
mod postgres;
mod purge;
mod renewal;
mod second_factor;
mod settings;
mod site;
mod tries;
mod world;

use bastide_store::{NewOperation, RevisionRow, Store, StoreError, now_s};
use bastide_types::{
    AppId, AppName, CustomerId, CustomerName, Digest, Manifest, Problem, ReplicaId, StageName, ZoneName,
    message::{LastEnd, ReplicaFact, ReplicaFacts, ReplicaState, Usage},
    network::{CALLEE_NUMBERS, CALLEES_MAX, Grant, StageNetwork},
};
use std::collections::{BTreeMap, BTreeSet};
use world::World;

const SEED: &str = "SAAFIRSTSEEDOFASTAGE";

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

async fn publish(store: &Store, customer: CustomerId, name: &AppName) -> RevisionRow {
    let manifest: Manifest =
        serde_json::from_value(serde_json::json!({"app": {"name": name, "kind": "static"}})).unwrap();
    let own = store.customer(customer);
    let mut write = store.write().await.unwrap();
    let app = own.ensure_app(&mut write, name).await.unwrap();
    let (digest, image) = (Digest::from_sha256([1; 32]), Digest::from_sha256([2; 32]));
    let mut row = RevisionRow::new(app, digest, image, manifest, vec![image]);
    row.number = own.add_revision(&mut write, &row).await.unwrap();
    write.commit().await.unwrap();
    row
}

async fn begin(
    store: &Store,
    customer: CustomerId,
    revision: &RevisionRow,
) -> Result<uuid::Uuid, StoreError> {
    let stage = StageName::development();
    let new = NewOperation {
        kind: "publish",
        app: revision.app,
        stage: &stage,
        revision: revision.number,
        deadline: now_s() + 60,
    };
    let zones = [ZoneName::new("a").unwrap(), ZoneName::new("b").unwrap()];
    let mut write = store.write().await?;
    let id = store.customer(customer).begin_operation(&mut write, &new, &zones).await?;
    write.commit().await?;
    Ok(id)
}

fn facts(replicas: Vec<ReplicaFact>) -> ReplicaFacts {
    ReplicaFacts { boot: 1, sequence: 1, generation: 1, replicas }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_open_and_write_one_database_and_lose_nothing() {
    let (world, two) = World::opened_twice().await;
    let one = world.store.clone();
    let acme = world.customer("acme").await;
    let mut tasks = tokio::task::JoinSet::new();
    for turn in 0..40 {
        let store = if turn % 2 == 0 { one.clone() } else { two.clone() };
        tasks.spawn(async move { publish(&store, acme, &shop()).await.number });
    }
    let mut numbers = tasks.join_all().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<u32>>());
    assert_eq!(two.customer(acme).apps().await.unwrap().len(), 1);
    assert_eq!(one.version().await.unwrap(), two.version().await.unwrap());
    assert!(one.lease("reconciler", "one", 60).await.unwrap());
    assert!(!two.lease("reconciler", "two", 60).await.unwrap(), "a lease has one holder");
}

#[tokio::test]
async fn a_customer_reaches_nothing_of_another() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let revision = publish(&world.store, acme, &shop()).await;
    let operation = begin(&world.store, acme, &revision).await.unwrap();
    let stage = StageName::development();
    let own = world.store.customer(acme);
    let other = world.store.customer(beta);

    assert_eq!(other.apps().await.unwrap(), []);
    assert_eq!(other.app_named(&shop()).await.unwrap(), None);
    assert_eq!(other.revision(revision.app, revision.number).await.unwrap(), None);
    assert_eq!(other.revisions().await.unwrap(), []);
    assert_eq!(other.operation(operation).await.unwrap(), None);
    assert_eq!(other.replicas(&stage).await.unwrap(), []);
    // Knowing the ids does not help: neither to deploy it, nor to serve it, nor to end or drain anything.
    assert!(begin(&world.store, beta, &revision).await.is_err());
    let mut write = world.store.write().await.unwrap();
    assert!(other.serve(&mut write, &stage, revision.app, 1, &[], 0).await.is_err());
    drop(write);
    let replicas = own.replicas(&stage).await.unwrap();
    let mut write = world.store.write().await.unwrap();
    assert!(!other.end_operation(&mut write, operation, None).await.unwrap());
    other.drain(&mut write, &stage, replicas[0].id, 1).await.unwrap();
    other.forget_replica(&mut write, &stage, replicas[1].id).await.unwrap();
    write.commit().await.unwrap();
    let ready = ReplicaFact::new(replicas[0].id, ReplicaState::Ready);
    assert!(!other.record_facts(&stage, &facts(vec![ready])).await.unwrap());
    assert_eq!(own.replicas(&stage).await.unwrap(), replicas);
    assert_eq!(own.operation(operation).await.unwrap().unwrap().0.status, "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_queue_keep_nobody_from_reading() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let first = world.store.write().await.unwrap();
    let mut queue = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let store = world.store.clone();
        queue.spawn(async move {
            let mut write = store.write().await.unwrap();
            // Inside a transaction, too.
            assert!(store.customer_named(&CustomerName::new("acme").unwrap()).await.unwrap().is_some());
            store.customer(acme).audit(&mut write, "ann", "queued", "").await.unwrap();
            write.commit().await.unwrap();
        });
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert_eq!(world.store.customers().await.unwrap().len(), 1);
    }
    first.rollback().await.unwrap();
    queue.join_all().await;
    assert_eq!(world.store.customer(acme).audit_trail(100).await.unwrap().len(), 40);
}

#[tokio::test]
async fn the_customer_comes_first_in_every_key() {
    let world = World::new().await;
    let mut sql = world.sql().await;
    let (tables, first) = if world.file().is_some() {
        (
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '_sqlx*' AND name NOT GLOB 'sqlite_*'",
            "SELECT name FROM pragma_table_info('TABLE') WHERE pk = 1",
        )
    } else {
        (
            "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_sqlx%'",
            "SELECT a.attname::TEXT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
             WHERE i.indisprimary AND i.indrelid = '\"TABLE\"'::regclass",
        )
    };
    let tables = sql.find_texts(tables).await;
    let mut checked = 0;
    for table in tables {
        // These are the installation's, not a customer's; the session feed runs through all of them. `audit` is of before.
        let ours = [
            "meta",
            "lease",
            "customer",
            "audit",
            "session_feed",
            "waf_office",
            "acme_account",
            "label_lock",
            "feed_sequence",
        ];
        if ours.contains(&table.as_str()) {
            continue;
        }
        assert_eq!(sql.find_texts(&first.replace("TABLE", &table)).await, ["customer"], "{table}");
        checked += 1;
    }
    assert!(checked >= 12, "{checked}");
}

#[tokio::test]
async fn a_revision_that_somebody_changed_in_sql_is_not_vouched_for() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let own = world.store.customer(acme);
    for statement in [
        "UPDATE revision SET image = replace(image, '0', '1')",
        "UPDATE revision SET digest = replace(digest, '0', '3')",
        "UPDATE revision SET manifest = replace(manifest, 'static', 'binary')",
        "UPDATE revision SET blobs = '[]'",
        "UPDATE revision SET mark = NULL",
        "UPDATE revision SET mark = zeroblob(32)",
        "UPDATE revision SET number = number + 100",
    ] {
        let made = publish(&world.store, acme, &shop()).await;
        let rows = own.revisions_of(made.app, 1).await.unwrap();
        assert_eq!((rows[0].number, rows[0].vouched), (made.number, true));
        let mut sql = world.sql().await;
        sql.run(&format!("{statement} WHERE number = {}", made.number)).await.unwrap();
        let rows = own.revisions_of(made.app, 1).await.unwrap();
        assert!(!rows[0].vouched, "{statement}");
    }
    // A second start gives no marks to what it finds.
    let again = world.again().await;
    let app = again.customer(acme).app_named(&shop()).await.unwrap().unwrap();
    let rows = again.customer(acme).revisions_of(app.id, 100).await.unwrap();
    assert!(rows.iter().all(|row| !row.vouched));
}

#[tokio::test]
async fn revisions_that_nobody_goes_back_to_are_given_up() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let own = world.store.customer(acme);
    let stage = StageName::development();
    let others = publish(&world.store, beta, &shop()).await.app;
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(publish(&world.store, acme, &shop()).await);
    }
    for served in &all[..3] {
        let mut write = world.store.write().await.unwrap();
        own.serve(&mut write, &stage, served.app, served.number, &[], 0).await.unwrap();
        write.commit().await.unwrap();
    }
    begin(&world.store, acme, &all[3]).await.unwrap();
    let give_up = async |at: i64, kept: (u32, u32)| {
        let mut write = world.store.write().await.unwrap();
        let gone = own.give_up_revisions(&mut write, at, kept).await.unwrap();
        write.commit().await.unwrap();
        let left = own.revisions_of(all[0].app, 100).await.unwrap();
        (gone, left.iter().map(|row| row.number).collect::<Vec<_>>())
    };
    assert_eq!(give_up(now_s() - 60, (2, 2)).await.0, 0, "all are young");
    // The newest two, what is being deployed, what serves, and what served before it.
    assert_eq!(give_up(now_s() + 60, (2, 2)).await, (3, vec![8, 7, 4, 3, 2]));
    assert_eq!(give_up(now_s() + 60, (0, 1)).await, (3, vec![4, 3]));
    assert_eq!(
        world.store.customer(beta).revisions_of(others, 100).await.unwrap().len(),
        1,
        "another customer's"
    );
    assert_eq!(world.store.content_named().await.unwrap().len(), 1, "all have the same content");
}

#[tokio::test]
async fn a_stage_whose_seed_cannot_be_opened_holds_up_no_other() {
    let world = World::new().await;
    for name in ["acme", "beta"] {
        let customer = world.customer(name).await;
        let revision = publish(&world.store, customer, &shop()).await;
        begin(&world.store, customer, &revision).await.unwrap();
    }
    let seeds = async || {
        let stages = world.store.stages_with_replicas().await.unwrap();
        stages
            .into_iter()
            .map(|stage| (stage.customer_name.to_string(), !stage.seed.expose().is_empty()))
            .collect::<Vec<_>>()
    };
    assert_eq!(seeds().await, [("acme".to_owned(), true), ("beta".to_owned(), true)]);
    let acme = world.store.customer_named(&CustomerName::new("acme").unwrap()).await.unwrap().unwrap().id;
    let whole = world.store.customer(acme).stages().await.unwrap();
    assert_eq!((whole.len(), &whole[0].name), (3, &StageName::development()));
    let mut sql = world.sql().await;
    sql.run(&format!("UPDATE stage SET seed = zeroblob(32) WHERE customer = '{acme}'")).await.unwrap();
    assert_eq!(seeds().await, [("acme".to_owned(), false), ("beta".to_owned(), true)]);
    assert!(world.store.customer(acme).stages().await.is_err());
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_runs_out() {
    let world = World::new().await;
    let store = &world.store;
    assert!(store.lease("reconciler", "one", 60).await.unwrap());
    assert!(!store.lease("reconciler", "two", 60).await.unwrap());
    assert!(store.lease("other", "two", 60).await.unwrap());
    assert!(store.lease("reconciler", "one", -1).await.unwrap(), "its holder may keep or end it");
    assert!(store.lease("reconciler", "two", 60).await.unwrap());
    assert!(!store.lease("reconciler", "one", 60).await.unwrap());
}

#[tokio::test]
async fn what_is_not_committed_never_was() {
    let world = World::new().await;
    let before = world.store.version().await.unwrap();
    let mut write = world.store.write().await.unwrap();
    let name = CustomerName::new("acme").unwrap();
    world.store.create_customer(&mut write, CustomerId::generate(), &name).await.unwrap();
    drop(write);
    assert_eq!(world.store.customer_named(&name).await.unwrap(), None);
    assert_eq!(world.store.version().await.unwrap(), before);
}

#[tokio::test]
async fn a_name_is_given_once() {
    let world = World::new().await;
    world.customer("acme").await;
    let mut write = world.store.write().await.unwrap();
    let name = CustomerName::new("acme").unwrap();
    let second = world.store.create_customer(&mut write, CustomerId::generate(), &name).await;
    assert!(matches!(second, Err(StoreError::Taken)));
}

#[tokio::test]
async fn whatever_the_data_plane_must_know_raises_the_revision() {
    let world = World::new().await;
    let start = world.revision().await;
    let acme = world.customer("acme").await;
    let created = world.revision().await;
    assert!(created > start);
    let revision = publish(&world.store, acme, &shop()).await;
    assert_eq!(world.revision().await, created, "a revision that runs nowhere is nobody's business");
    begin(&world.store, acme, &revision).await.unwrap();
    let begun = world.revision().await;
    assert!(begun > created, "new replicas of a serving revision are in the Snapshot");
    let own = world.store.customer(acme);
    let stage = StageName::development();
    let keep: Vec<_> = own.replicas(&stage).await.unwrap().iter().map(|replica| replica.id).collect();
    let mut write = world.store.write().await.unwrap();
    own.serve(&mut write, &stage, revision.app, revision.number, &keep, 0).await.unwrap();
    write.commit().await.unwrap();
    assert!(world.revision().await > begun);
    assert_eq!(own.serving(&stage).await.unwrap()[&revision.app], revision.number);
}

#[tokio::test]
async fn other_settings_raise_the_revision_and_the_same_do_not() {
    let world = World::new().await;
    world.store.note_settings(b"port 8443").await.unwrap();
    let noted = world.revision().await;
    world.store.note_settings(b"port 8443").await.unwrap();
    assert_eq!(world.revision().await, noted);
    world.store.note_settings(b"port 9443").await.unwrap();
    assert_eq!(world.revision().await, noted + 1);
}

#[tokio::test]
async fn one_operation_at_a_time_runs_for_an_app_in_a_stage() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let revision = publish(&world.store, acme, &shop()).await;
    let first = begin(&world.store, acme, &revision).await.unwrap();
    assert!(matches!(begin(&world.store, acme, &revision).await, Err(StoreError::Taken)));
    let own = world.store.customer(acme);
    assert_eq!(own.replicas(&StageName::development()).await.unwrap().len(), 2, "the refused one left none");
    let problem: Problem = bastide_types::Code::DeployFailed.because("late");
    let mut write = world.store.write().await.unwrap();
    assert!(own.end_operation(&mut write, first, Some(&problem)).await.unwrap());
    assert!(!own.end_operation(&mut write, first, None).await.unwrap(), "it ended before");
    write.commit().await.unwrap();
    let (row, _) = own.operation(first).await.unwrap().unwrap();
    assert_eq!((row.status.as_str(), row.problem), ("failed", Some(problem)));
    begin(&world.store, acme, &revision).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_its_agent_no_longer_names_is_gone() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let revision = publish(&world.store, acme, &shop()).await;
    begin(&world.store, acme, &revision).await.unwrap();
    let (own, stage) = (world.store.customer(acme), StageName::development());
    let ids: Vec<_> = own.replicas(&stage).await.unwrap().iter().map(|replica| replica.id).collect();
    let states = async || {
        let rows = own.replicas(&stage).await.unwrap();
        rows.into_iter().map(|replica| replica.state).collect::<Vec<_>>()
    };
    let ready = |id| ReplicaFact::new(id, ReplicaState::Ready);
    assert!(!own.record_facts(&stage, &facts(vec![])).await.unwrap(), "not spoken of yet is not gone");
    let unknown = ready(ReplicaId::generate());
    assert!(!own.record_facts(&stage, &facts(vec![unknown])).await.unwrap(), "nobody ordered that one");
    assert!(own.record_facts(&stage, &facts(vec![ready(ids[0])])).await.unwrap());
    assert_eq!(states().await, ["ready", "starting"]);
    assert!(!own.record_facts(&stage, &facts(vec![ready(ids[0])])).await.unwrap(), "nothing new");
    assert!(own.record_facts(&stage, &facts(vec![ready(ids[1])])).await.unwrap());
    assert_eq!(states().await, ["gone", "ready"]);
}

#[tokio::test]
async fn seeds_of_accounts_are_sealed_at_rest() {
    let world = World::new().await;
    world.customer("acme").await;
    let stage = world.store.stage_of_account("A-acme-test").await.unwrap().unwrap();
    assert_eq!(stage.seed.expose(), SEED);
    let mut sql = world.sql().await;
    let at_rest = sql.find_bytes("SELECT seed FROM stage WHERE account = 'A-acme-test'").await;
    assert!(!at_rest.windows(8).any(|part| SEED.as_bytes().starts_with(part)));
    // A seed that somebody moves to another stage does not open there.
    let other = sql.bytes(&at_rest);
    sql.run(&format!("UPDATE stage SET seed = {other} WHERE account = 'A-acme-production'")).await.unwrap();
    let moved = world.store.stage_of_account("A-acme-production").await;
    assert!(matches!(moved, Err(StoreError::Seal(_))));
    let wrong = world.with_another_key().await;
    assert!(matches!(wrong.stage_of_account("A-acme-test").await, Err(StoreError::Seal(_))));
}

#[tokio::test]
async fn a_second_start_keeps_everything() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let version = world.store.version().await.unwrap();
    let again = world.again().await;
    assert_eq!(again.version().await.unwrap(), version);
    assert_eq!(again.customer(acme).stage_names().await.unwrap(), StageName::defaults());
    assert_eq!(again.customer(acme).app_named(&shop()).await.unwrap(), None::<bastide_store::AppRow>);
    let _: AppId = publish(&again, acme, &shop()).await.app;
}

#[tokio::test]
async fn columns_that_a_newer_replica_adds_cost_a_second_try_at_most() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let revision = publish(&world.store, acme, &shop()).await;
    begin(&world.store, acme, &revision).await.unwrap();
    let (own, stage) = (world.store.customer(acme), StageName::development());
    assert_eq!(own.replicas(&stage).await.unwrap().len(), 2);
    world.sql().await.run("ALTER TABLE replica ADD COLUMN later TEXT").await.unwrap();
    if let Err(error) = own.replicas(&stage).await {
        assert!(error.is_away(), "{error:?}");
    }
    assert_eq!(own.replicas(&stage).await.unwrap().len(), 2);
}

/// Lets `shop` call these apps; the numbers that there are then.
async fn grant(world: &World, customer: CustomerId, callees: &[String]) -> BTreeMap<AppName, u8> {
    let grants = callees.iter().map(|to| Grant { from: shop(), to: AppName::new(to.as_str()).unwrap() });
    let network = StageNetwork { grants: grants.collect(), ..StageNetwork::default() };
    let (own, stage) = (world.store.customer(customer), StageName::development());
    let mut write = world.store.write().await.unwrap();
    own.set_network(&mut write, &stage, &network).await.unwrap();
    write.commit().await.unwrap();
    own.callees(&stage).await.unwrap()
}

#[tokio::test]
async fn an_app_that_others_call_keeps_its_number_while_there_are_others_left() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let number = |numbers: &BTreeMap<AppName, u8>, app: &str| numbers[app];
    let first = grant(&world, acme, &["a".into(), "b".into()]).await;
    assert_eq!((number(&first, "a"), number(&first, "b")), (2, 3));
    let second = grant(&world, acme, &["c".into(), "b".into()]).await;
    assert_eq!((number(&second, "b"), number(&second, "c")), (3, 4), "the number of `a` is not given away");
    assert_eq!(number(&grant(&world, acme, &["a".into()]).await, "a"), 2);
    assert!(world.store.customer(beta).callees(&StageName::development()).await.unwrap().is_empty());
    assert!(world.store.customer(acme).callees(&StageName::test()).await.unwrap().is_empty());

    // All that a stage can have at a time, none of them granted before: the old ones give way.
    let many: Vec<_> = (0..CALLEES_MAX).map(|n| format!("x{n}")).collect();
    let full = grant(&world, acme, &many).await;
    assert_eq!(full.len(), CALLEES_MAX);
    assert_eq!(full.values().collect::<BTreeSet<_>>().len(), CALLEES_MAX);
    assert!(full.values().all(|number| CALLEE_NUMBERS.contains(number)));
    assert_eq!(grant(&world, acme, &many).await, full);
}

#[tokio::test]
async fn what_replicas_use_and_how_they_ended_is_kept_and_is_no_news() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let revision = publish(&world.store, acme, &shop()).await;
    begin(&world.store, acme, &revision).await.unwrap();
    let (own, stage) = (world.store.customer(acme), StageName::development());
    let id = own.replicas(&stage).await.unwrap()[0].id;
    let mut fact = ReplicaFact::new(id, ReplicaState::Ready);
    assert!(own.record_facts(&stage, &facts(vec![fact.clone()])).await.unwrap());
    let usage = Usage { cpu_millis: 250, memory_bytes: 1 << 33 };
    let end = LastEnd { at_s: 7, why: "it ended with exit code 3".into() };
    (fact.usage, fact.restarts, fact.last_end) = (Some(usage), 2, Some(end.clone()));
    assert!(!own.record_facts(&stage, &facts(vec![fact.clone()])).await.unwrap());
    let row = own.replicas(&stage).await.unwrap().into_iter().find(|row| row.id == id).unwrap();
    assert_eq!((row.restarts, row.last_end, row.usage.map(|(usage, _)| usage)), (2, Some(end), Some(usage)));
    assert!(row.usage.unwrap().1 >= bastide_store::now_s() - 60);
    fact.state = ReplicaState::Failed;
    assert!(own.record_facts(&stage, &facts(vec![fact])).await.unwrap());
}
