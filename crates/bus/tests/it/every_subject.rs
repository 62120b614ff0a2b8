//! A stage that is taken over, and every subject that the system uses, from the code's own list.

use crate::house::*;
use crate::isolation::full_rights_in;
use async_nats::{Client, Subscriber};
use bastide_bus::account::{StageAccount, every_subject};
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the thief says, and what the others say.
const LIE: &str = "lie";
const SECRET: &str = "secret";
const MARKER: &str = "marker";

/// Somebody with full rights in an account, who hears all that is said there.
struct Ear {
    client: Client,
    tap: Subscriber,
}

impl Ear {
    async fn new(house: &House, account: &str, jwt: &str) -> Self {
        let client = full_rights_in(house, account, jwt).await;
        let tap = client.subscribe(">").await.unwrap();
        let mut ear = Self { client, tap };
        ear.heard().await; // the broker knows of the tap now
        ear
    }

    async fn of_stage(house: &House, stage: &StageAccount) -> Self {
        let jwt = stage.jwt(&house.material.authority, now_s()).unwrap();
        Self::new(house, &stage.account, &jwt).await
    }

    async fn say(&self, subjects: impl IntoIterator<Item = &String>, what: &'static str) {
        for subject in subjects {
            self.client.publish(subject.clone(), what.into()).await.unwrap();
        }
    }

    /// All that came until now, as subject and content. Whatever this client said before is at its readers:
    /// the broker handles what one connection says in order.
    async fn heard(&mut self) -> Vec<(String, String)> {
        self.client.publish(MARKER, "".into()).await.unwrap();
        let mut heard = Vec::new();
        loop {
            let message = tokio::time::timeout(LONG, self.tap.next()).await.unwrap().unwrap();
            if message.subject.as_str() == MARKER {
                return heard;
            }
            heard.push((message.subject.to_string(), String::from_utf8_lossy(&message.payload).into()));
        }
    }

    async fn heard_as(&mut self, what: &str) -> BTreeSet<String> {
        self.heard().await.into_iter().filter(|(_, said)| said == what).map(|(subject, _)| subject).collect()
    }
}

fn words<const N: usize>(words: [String; N]) -> BTreeSet<String> {
    words.into()
}

#[tokio::test]
async fn of_every_subject_of_the_system_a_stage_taken_over_reaches_and_hears_only_its_own() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let stages = [StageAccount::generate().unwrap(), StageAccount::generate().unwrap()];
    platform.bus.ensure_accounts(&stages).await.unwrap();
    let [victim, own] = &stages;
    let accounts = house.material.authority.accounts.clone();
    let of = |account: &str| house.material.issuers.account_jwts[account].clone();
    let mut thief = Ear::of_stage(&house, own).await;
    let mut services = Ear::new(&house, &accounts.platform, &of(&accounts.platform)).await;
    let mut edges = Ear::new(&house, &accounts.edge, &of(&accounts.edge)).await;
    let mut silent = [
        Ear::of_stage(&house, victim).await,
        Ear::new(&house, &accounts.node, &of(&accounts.node)).await,
        Ear::new(&house, &accounts.sys, &of(&accounts.sys)).await,
    ];
    let every = every_subject(&accounts, &[&victim.account, &own.account]);
    assert!(every.len() > 50, "{every:?}");

    // The thief says everything. What it may say arrives under its own key, so the silence is no accident.
    thief.say(&every, LIE).await;
    assert_eq!(thief.heard_as(LIE).await, every, "all of it was said");
    let key = &own.account;
    let said = ["state.get", "blob.get", "evt.replicas"].map(|method| format!("api.{key}.{method}"));
    assert_eq!(services.heard_as(LIE).await, words(said));
    assert_eq!(edges.heard_as(LIE).await, words([format!("fact.{key}.replicas")]));
    for ear in &mut silent {
        assert_eq!(ear.heard_as(LIE).await, BTreeSet::new());
    }

    // Everybody else says everything. The thief hears the one hint that is meant for its stage.
    for ear in silent.iter_mut().chain([&mut services, &mut edges]) {
        ear.say(&every, SECRET).await;
        assert!(ear.heard_as(SECRET).await.is_superset(&every));
    }
    assert_eq!(thief.heard_as(SECRET).await, words(["cmd.state.changed".to_owned()]));
    assert!(fake.asked.lock().unwrap().is_empty() && fake.facts.lock().unwrap().is_empty());
}
