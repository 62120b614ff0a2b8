//! Browser sessions whose user's rights have changed get another secret.

use super::identity::{Browser, World, hashed, opened};
use bastide_identity::claims::USER_LIFE_S;
use bastide_store::{Write, now_s};
use bastide_types::{StageName, UserId};
use serde_json::{Value, json};

async fn changed(world: &World, change: impl AsyncFnOnce(&mut Write)) {
    let mut write = world.store.write().await.unwrap();
    change(&mut write).await;
    write.commit().await.unwrap();
}

/// What a gateway hears that can hand another secret on, or cannot.
async fn asked(world: &World, secret: &str, renew: bool) -> Option<Value> {
    let ask = json!({ "customer": "acme", "hash": hashed(secret), "renew": renew });
    let answer = world.internal("token", ask).await;
    (answer.status == 200).then(|| answer.json())
}

#[tokio::test]
async fn each_change_of_rights_puts_another_secret_in_the_place_of_the_one_before() {
    let world = World::with_ann().await;
    let own = world.store.customer(world.acme);
    let mut secret = opened(&world, &mut Browser::default()).await;
    let given = asked(&world, &secret, true).await.unwrap();
    assert!(given["renewed"].is_null(), "nothing has changed");
    let claims = world.check_platform(given["access_token"].as_str().unwrap(), USER_LIFE_S).await.unwrap();
    let ann: UserId = claims.sub.parse().unwrap();
    let app = own.app_named(&"shop".parse().unwrap()).await.unwrap().unwrap().id;
    let stage = StageName::development();
    for step in ["roles", "given", "taken", "everything"] {
        changed(&world, async |write| match step {
            "roles" => assert!(own.set_member_roles(write, ann, &["developer".to_owned()]).await.unwrap()),
            "given" => own.grant_app_role(write, &stage, app, "buyer", ann).await.unwrap(),
            "taken" => assert!(own.revoke_app_role(write, &stage, app, "buyer", ann).await.unwrap()),
            // The same once more is no change: see below.
            _ => own.grant_app_role(write, &stage, app, "seller", ann).await.unwrap(),
        })
        .await;
        // A gateway that cannot hand it on gets a token for a moment, and the secret stays due.
        let moment = asked(&world, &secret, false).await.unwrap();
        assert!(
            moment["renewed"].is_null() && moment["expires_at"].as_i64().unwrap() <= now_s() + 10,
            "{step}"
        );
        let first = asked(&world, &secret, true).await.unwrap();
        let new = first["renewed"]["session"].as_str().unwrap().to_owned();
        assert_ne!(new, secret, "{step}");
        // Requests that were under way go on for a moment, and bring no third secret.
        let late = asked(&world, &secret, true).await.unwrap();
        assert!(late["renewed"].is_null(), "{step}");
        assert!(
            late["expires_at"].as_i64().unwrap() <= now_s() + 30
                && late["until_s"].as_i64().unwrap() <= now_s() + 30
        );
        let next = asked(&world, &new, true).await.unwrap();
        assert!(next["renewed"].is_null() && next["until_s"] == given["until_s"], "{step}");
        let text = next["access_token"].as_str().unwrap();
        let now = world.check_platform(text, USER_LIFE_S).await.unwrap();
        assert_eq!(
            (now.sid.clone(), &now.roles[..]),
            (claims.sid.clone(), &["developer".to_owned()][..]),
            "one session"
        );
        secret = new;
    }
    changed(&world, async |write| own.grant_app_role(write, &stage, app, "seller", ann).await.unwrap()).await;
    assert!(
        asked(&world, &secret, true).await.unwrap()["renewed"].is_null(),
        "what one has already is no change"
    );
    assert!(world.audited("session.renewed").await);
}

#[tokio::test]
async fn of_many_who_ask_at_once_one_gets_the_new_secret_and_two_changes_kill_the_oldest() {
    let world = World::with_ann().await;
    let own = world.store.customer(world.acme);
    let old = opened(&world, &mut Browser::default()).await;
    let given = asked(&world, &old, true).await.unwrap();
    let claims = world.check_platform(given["access_token"].as_str().unwrap(), USER_LIFE_S).await.unwrap();
    let ann: UserId = claims.sub.parse().unwrap();
    let lose = async || {
        changed(&world, async |write| own.revoke_member(write, ann).await.unwrap()).await;
    };
    lose().await;
    let all = futures_util::future::join_all((0..8).map(|_| asked(&world, &old, true))).await;
    let secrets: Vec<_> =
        all.iter().filter_map(|given| given.as_ref().unwrap()["renewed"]["session"].as_str()).collect();
    assert_eq!(secrets.len(), 1);
    lose().await;
    let third = asked(&world, secrets[0], true).await.unwrap();
    let third = third["renewed"]["session"].as_str().unwrap();
    assert!(asked(&world, &old, true).await.is_none(), "two changes old");
    // Whoever signs out with the one before ends the session.
    world.internal("close", json!({ "customer": "acme", "hash": hashed(secrets[0]) })).await;
    for secret in [secrets[0], third] {
        assert!(asked(&world, secret, true).await.is_none());
    }
}
