//! Stages and the platform.

use crate::house::*;
use bastide_bus::{BusError, SigningKey, facts as bus_facts, state};
use bastide_types::message::{StageGrant, StateQuery};
use bastide_types::{CustomerId, CustomerName, Role, StageName};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_new_stage_connects_without_a_restart_and_follows_its_state() {
    let house = House::new();
    let (fake, key) = (Arc::new(Fake::default()), signing_key());
    let platform = house.platform(&fake).await;
    let (stage, agent) = house.stage(&platform).await;
    assert_eq!(platform.bus.ensure_accounts(std::slice::from_ref(&stage)).await.unwrap(), 0, "held already");

    let put = |generation| {
        let signed = state::sign(&key, stage_state(&stage.account, generation), now_s()).unwrap();
        fake.states.lock().unwrap().insert(stage.account.clone(), signed);
    };
    put(1);
    let dir = house.path("agent");
    std::fs::create_dir(&dir).unwrap();
    let stop = CancellationToken::new();
    let mut states = state::follow(&agent, &dir, key.verify_key(), &stage.account, stop.clone());
    until(&mut states, |state| state.as_ref().is_some_and(|state| state.generation == 1)).await;
    put(2);
    platform.bus.notify_state(&stage.account, 2).await.unwrap();
    until(&mut states, |state| state.as_ref().is_some_and(|state| state.generation == 2)).await;
    assert_eq!(mode(&dir.join("state.json")), 0o600);
    agent.close().await;

    // The broker is gone, the state is not.
    let again = state::follow(&agent, &dir, key.verify_key(), &stage.account, stop);
    assert_eq!(again.borrow().as_ref().unwrap().generation, 2);
    assert_eq!(agent.counters().violations, 0, "the shipped agent never causes a violation");
}

#[tokio::test]
async fn a_state_of_another_stage_or_signed_by_another_key_or_long_ago_is_refused() {
    let house = House::new();
    let (fake, key) = (Arc::new(Fake::default()), signing_key());
    let platform = house.platform(&fake).await;
    let (stage, agent) = house.stage(&platform).await;
    let offer = |signed| {
        fake.states.lock().unwrap().insert(stage.account.clone(), signed);
    };
    let signed = |key: &SigningKey, account: &str, generation, at_s| {
        state::sign(key, stage_state(account, generation), at_s).unwrap()
    };
    offer(signed(&key, "AOTHER", 5, now_s()));
    let stop = CancellationToken::new();
    let mut states = state::follow(&agent, house.dir.path(), key.verify_key(), &stage.account, stop);
    let asked = || fake.asked.lock().unwrap().len();
    let mut expected = 0;
    for offered in [
        signed(&signing_key(), &stage.account, 6, now_s()),
        key.sign(&"not a state").unwrap(),
        // Somebody kept them, or has them of a version that put no end to them.
        signed(&key, &stage.account, 7, now_s() - state::STATE_LIFE_S - 60),
        key.sign(&stage_state(&stage.account, 8)).unwrap(),
        signed(&key, &stage.account, 1, now_s()),
    ] {
        expected = expected.max(asked()) + 1;
        // Each offer was looked at before the next one replaces it.
        while asked() < expected {
            tokio::task::yield_now().await;
        }
        assert!(states.borrow().is_none());
        offer(offered);
        platform.bus.notify_state(&stage.account, 9).await.unwrap();
    }
    let state = until(&mut states, Option::is_some).await;
    assert_eq!(state.unwrap().generation, 1);
}

#[tokio::test]
async fn facts_reach_the_platform_and_every_edge_and_are_kept() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (stage, agent) = house.stage(&platform).await;
    let (edge, gateway) = (house.edge("edge").await, house.edge("gateway-a").await);
    let stop = CancellationToken::new();
    let dirs = [house.path("edge"), house.path("gateway")];
    for dir in &dirs {
        std::fs::create_dir(dir).unwrap();
    }
    let mut seen = [
        bus_facts::follow(&edge, &dirs[0], stop.clone()),
        bus_facts::follow(&gateway, &dirs[1], stop.clone()),
    ];

    bus_facts::report(&agent, &facts(7, 1, 1), LONG).await.unwrap();
    assert_eq!(*fake.facts.lock().unwrap(), [(stage.account.clone(), facts(7, 1, 1))]);

    let told = |generation| {
        let account = stage.account.clone();
        move |all: &Arc<bus_facts::Facts>| {
            all.get(&account).is_some_and(|facts| facts.generation == generation)
        }
    };
    for (boot, sequence, generation) in [(7, 2, 2), (3, 1, 3)] {
        for receiver in &mut seen {
            // Said again until it arrived, as agents do: a subscription may be younger than a message.
            let say = async {
                loop {
                    bus_facts::publish(&agent, &facts(boot, sequence, generation)).await.unwrap();
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            tokio::select! { _ = until(receiver, told(generation)) => {}, () = say => {} }
        }
    }
    edge.close().await;
    let after = bus_facts::follow(&edge, &dirs[0], stop);
    assert_eq!(after.borrow()[&stage.account], facts(3, 1, 3), "kept on disk");
    assert_eq!(agent.counters().violations + gateway.counters().violations, 0);
}

#[tokio::test]
async fn a_node_learns_its_stages_and_nothing_else() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (stage, _) = house.stage(&platform).await;
    let grant = StageGrant {
        customer: CustomerName::new("acme").unwrap(),
        customer_id: CustomerId::generate(),
        stage: StageName::test(),
        account: stage.account.clone(),
        user_jwt: "x.y.z".into(),
    };
    fake.grants.lock().unwrap().push(grant.clone());
    let node = connected(&house.role(Role::Runtime, "runtime")).await;
    assert_eq!(state::grants(&node, "UKEY", LONG).await.unwrap(), [grant]);
    let refused = node.request::<_, ()>("platform.state.get", &StateQuery { applied: None }, LONG).await;
    assert!(matches!(refused, Err(BusError::Denied(_))), "{refused:?}");
}
