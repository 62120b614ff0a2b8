//! Connections: who is let in, what expires, what comes back.

use crate::house::*;
use bastide_bus::{Bus, BusError, facts as bus_facts};
use bastide_types::message::{ReplicaFact, ReplicaState};
use bastide_types::{ReplicaId, Role};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for a handshake here; a refusal shows as not being connected then.
const SHORT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn after_kill_9_and_a_restart_everything_goes_on() {
    let mut house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (_, agent) = house.stage(&platform).await;
    bus_facts::report(&agent, &facts(1, 1, 1), LONG).await.unwrap();
    house.kill();
    let down = bus_facts::report(&agent, &facts(1, 2, 1), Duration::from_millis(300)).await;
    assert!(matches!(down, Err(BusError::TimedOut(_) | BusError::Disconnected(_))), "{down:?}");
    house.start();
    // The agent may be back before the platform is: nobody answers then, and it tries again.
    let begun = std::time::Instant::now();
    loop {
        assert!(begun.elapsed() < LONG, "{}", house.log());
        match bus_facts::report(&agent, &facts(1, 3, 1), LONG).await {
            Ok(()) => break,
            Err(BusError::NoResponders(_) | BusError::Disconnected(_)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let sequences: Vec<u64> = fake.facts.lock().unwrap().iter().map(|(_, facts)| facts.sequence).collect();
    assert_eq!(sequences, [1, 3], "what failed during the outage did not run afterwards");
    let (_, newcomer) = house.stage(&platform).await;
    bus_facts::report(&newcomer, &facts(1, 1, 1), LONG).await.unwrap();
}

#[tokio::test]
async fn what_was_said_to_a_frozen_broker_does_not_run_when_it_goes_on() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (_, agent) = house.stage(&platform).await;
    bus_facts::report(&agent, &facts(1, 1, 1), LONG).await.unwrap();
    house.freeze();
    let limit = Duration::from_millis(300);
    let many: Vec<_> = (2..52).map(|sequence| facts(1, sequence, 1)).collect();
    let asked = many.iter().map(|facts| bus_facts::report(&agent, facts, limit));
    for answer in futures_util::future::join_all(asked).await {
        assert!(matches!(answer, Err(BusError::TimedOut(_))), "{answer:?}");
    }
    house.thaw();
    // One connection, one subject: what was stuck comes before this.
    bus_facts::report(&agent, &facts(1, 99, 1), LONG).await.unwrap();
    let sequences: Vec<u64> = fake.facts.lock().unwrap().iter().map(|(_, facts)| facts.sequence).collect();
    assert_eq!(sequences, [1, 99], "whoever asked was told that it failed");
}

#[tokio::test]
async fn a_broker_of_another_authority_is_refused() {
    let (house, foreign) = (House::new(), House::silent());
    let mut config = house.role(Role::Edge, "edge");
    config.ca_file = foreign.path("ca.pem");
    let bus = Bus::connect(&config).await.unwrap();
    house.logs("TLS handshake error").await;
    assert!(matches!(bus.connected(SHORT).await, Err(BusError::TimedOut(_))));
    config.url = config.url.replace("tls://", "nats://");
    assert!(matches!(Bus::connect(&config).await, Err(BusError::Config(_))), "never without TLS");
}

#[tokio::test]
async fn another_role_cannot_pose_as_the_broker() {
    let mut house = House::silent();
    house.certify(Role::Runtime, &[]);
    house.start();
    let bus = Bus::connect(&house.role(Role::Edge, "edge")).await.unwrap();
    house.logs("TLS handshake error").await;
    assert!(matches!(bus.connected(SHORT).await, Err(BusError::TimedOut(_))));
    assert_eq!(bus.counters().connects, 0);
}

#[tokio::test]
async fn credentials_of_another_installation_are_refused() {
    let (house, foreign) = (House::new(), House::silent());
    let mut config = foreign.role(Role::Platform, "platform-9");
    config.url = format!("tls://127.0.0.1:{}", house.port);
    config.ca_file = house.path("ca.pem");
    let bus = Bus::connect(&config).await.unwrap();
    house.logs("authentication error").await;
    assert!(matches!(bus.connected(SHORT).await, Err(BusError::TimedOut(_))));
}

#[tokio::test]
async fn a_request_past_its_deadline_is_not_run() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (stage, agent) = house.stage(&platform).await;
    let config = house.agent(&stage, 3600);
    let seed = std::fs::read_to_string(config.seed_file.unwrap()).unwrap();
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n",
        config.jwt.unwrap()
    );
    let raw = async_nats::ConnectOptions::with_credentials(&creds)
        .unwrap()
        .require_tls(true)
        .add_root_certificates(house.path("ca.pem"))
        .custom_inbox_prefix(format!("_INBOX.{}", agent.user_name()))
        .connect(config.url)
        .await
        .unwrap();
    let past = (now_s() - 1) * 1000;
    for (sequence, deadline) in
        [(1, past.to_string()), (2, "soon".into()), (3, (past + 3_600_000).to_string())]
    {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Bst-Deadline", deadline);
        let payload = serde_json::to_vec(&facts(1, sequence, 1)).unwrap();
        let inbox = raw.new_inbox();
        raw.publish_with_reply_and_headers("platform.evt.replicas", inbox, headers, payload.into())
            .await
            .unwrap();
    }
    // One connection, one subject: the last of these comes after the three.
    let last = serde_json::to_vec(&facts(1, 4, 1)).unwrap();
    raw.request("platform.evt.replicas", last.into()).await.unwrap();
    let mut sequences: Vec<u64> =
        fake.facts.lock().unwrap().iter().map(|(_, facts)| facts.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, [3, 4]);
}

#[tokio::test]
async fn a_malformed_message_is_answered_with_a_problem_and_harms_nobody() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (_, agent) = house.stage(&platform).await;
    let refused = agent.request::<_, ()>("platform.evt.replicas", &"not facts", LONG).await;
    assert!(matches!(&refused, Err(BusError::Problem(problem)) if problem.status == 422), "{refused:?}");
    let big = "x".repeat(2 * 1024 * 1024);
    let refused = agent.request::<_, ()>("platform.evt.replicas", &big, LONG).await;
    assert!(matches!(refused, Err(BusError::TooLarge { .. })), "{refused:?}");
    let mut many = facts(1, 2, 1);
    let one = ReplicaFact::new(ReplicaId::generate(), ReplicaState::Ready);
    many.replicas = vec![one; 5000];
    let refused = bus_facts::report(&agent, &many, LONG).await;
    assert!(matches!(refused, Err(BusError::TooLarge { .. })), "{refused:?}");
    assert_eq!(agent.counters().connects, 1, "the broker did not have to end the connection");
    bus_facts::report(&agent, &facts(1, 1, 1), LONG).await.unwrap();
}

#[tokio::test]
async fn a_credential_that_ends_is_renewed_and_the_connection_comes_back() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (stage, _) = house.stage(&platform).await;
    let agent = connected(&house.agent(&stage, 2)).await;
    agent.renew(house.agent(&stage, 3600).jwt.unwrap()).unwrap();
    tokio::time::timeout(LONG, async {
        while agent.counters().connects < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the broker ends the connection with the old credential, the new one is taken");
    bus_facts::report(&agent, &facts(1, 1, 1), LONG).await.unwrap();
    let (other, _) = house.stage(&platform).await;
    assert!(agent.renew(house.agent(&other, 60).jwt.unwrap()).is_err(), "another key's credential");
}

#[tokio::test]
async fn two_platform_replicas_share_the_work_and_one_may_stop() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let (one, two) = (house.platform(&fake).await, house.platform(&fake).await);
    let (_, agent) = house.stage(&one).await;
    for sequence in 0..20 {
        bus_facts::report(&agent, &facts(1, sequence, 1), LONG).await.unwrap();
    }
    assert_eq!(fake.facts.lock().unwrap().len(), 20, "each request ran once");
    one.stop.cancel();
    one.task.await.unwrap().unwrap();
    one.bus.close().await;
    bus_facts::report(&agent, &facts(1, 21, 1), LONG).await.unwrap();
    assert!(!two.task.is_finished());
}

#[tokio::test]
async fn a_stage_that_asks_too_much_at_once_hears_so_and_others_are_served() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (_, greedy) = house.stage(&platform).await;
    let (_, modest) = house.stage(&platform).await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    *fake.gate.lock().unwrap() = Some(gate.clone());
    let begun = async |number: usize| {
        while fake.facts.lock().unwrap().len() < number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ask = |bus: &Bus, sequence| {
        let bus = bus.clone();
        tokio::spawn(async move { bus_facts::report(&bus, &facts(1, sequence, 1), LONG).await })
    };
    let mut waiting: Vec<_> = (0..64).map(|sequence| ask(&greedy, sequence)).collect();
    tokio::time::timeout(LONG, begun(64)).await.unwrap();
    let refused = bus_facts::report(&greedy, &facts(1, 64, 1), LONG).await;
    assert!(matches!(refused, Err(BusError::Overloaded(_))), "{refused:?}");
    waiting.push(ask(&modest, 1));
    tokio::time::timeout(LONG, begun(65)).await.unwrap();
    gate.add_permits(1000);
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(fake.facts.lock().unwrap().len(), 65, "what was refused did not run");
    bus_facts::report(&greedy, &facts(1, 65, 1), LONG).await.unwrap();
}

#[tokio::test]
async fn accounts_that_vanish_from_the_brokers_disk_are_there_again_before_anybody_misses_them() {
    let mut house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (stage, agent) = house.stage(&platform).await;
    bus_facts::report(&agent, &facts(1, 1, 1), LONG).await.unwrap();
    let dir = house.path("accounts");
    let held = || std::fs::read_to_string(dir.join(format!("{}.jwt", stage.account)));
    let before = held().unwrap();
    for file in std::fs::read_dir(&dir).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    // What the Platform does whenever a node asks for its stages.
    let ensured = platform.bus.ensure_accounts(std::slice::from_ref(&stage)).await.unwrap();
    assert_eq!(ensured, 1, "it is looked at, and pushed");
    assert_eq!(platform.bus.ensure_accounts(std::slice::from_ref(&stage)).await.unwrap(), 0);
    let claims = |jwt: &str| jwt.split('.').nth(1).map(str::len);
    assert_eq!(claims(&held().unwrap()), claims(&before));
    // A broker that starts anew finds the stage there.
    house.kill();
    house.start();
    let again = async { while bus_facts::report(&agent, &facts(1, 2, 1), LONG).await.is_err() {} };
    tokio::time::timeout(LONG, again).await.unwrap();
}
