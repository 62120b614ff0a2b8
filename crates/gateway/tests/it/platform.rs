//! The way to platform services.

use crate::world::{API, SHOP, World, now_s};
use bastide_identity::verify_assertion;
use futures_util::stream::{self, StreamExt};
use http::Method;

const HOST: &str = "https://demo.platform.localhost:8443";

#[tokio::test]
async fn the_api_wants_a_token_of_this_customer_and_replicas_take_turns() {
    let world = World::new().await;
    let whoami = format!("{API}/whoami");
    assert_eq!(world.get(&whoami, &[]).await.code(), "B-ID-0401");
    let token = world.keys.member_token();
    let mut by = Vec::new();
    for _ in 0..6 {
        let answer = world.get_as(&whoami, &token).await;
        assert!(answer.got("authorization").is_empty());
        let said = &answer.got("x-bastide-assertion")[0];
        let said = verify_assertion(said, &world.keys_of_assertions(), "platform", now_s()).unwrap();
        assert_eq!((said.sub.as_str(), said.org, said.stage), ("ann", world.keys.demo, None));
        by.push(answer.json()["by"].as_str().unwrap().to_owned());
    }
    assert!(by.windows(2).all(|pair| pair[0] != pair[1]), "{by:?}");
    let foreign = world.get_as("https://other.platform.localhost:8443/api/v1/whoami", &token).await;
    assert_eq!(foreign.code(), "B-ID-0402");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_get_exactly_as_many_of_many_requests_at_once() {
    const REQUESTS: usize = 300;
    const AT_ONCE: usize = 32;
    let world = World::new().await;
    let (whoami, token) = (format!("{API}/whoami"), world.keys.member_token());
    let requests = stream::iter((0..REQUESTS).map(|_| world.get_as(&whoami, &token)));
    let answers: Vec<_> = requests.buffer_unordered(AT_ONCE).collect().await;
    let by = |name: &str| answers.iter().filter(|answer| answer.json()["by"] == name).count();
    assert_eq!((by("platform-1"), by("platform-2")), (REQUESTS / 2, REQUESTS / 2));
}

#[tokio::test]
async fn what_is_open_is_open_and_nothing_else() {
    let world = World::new().await;
    for path in ["/api/v1/openapi.json", "/portal/assets/a.css", "/identity/jwks", "/identity/s/test/jwks"] {
        assert_eq!(world.get(&format!("{HOST}{path}"), &[]).await.status, 200, "{path}");
    }
    for path in [
        "/",
        "/api/v1/apps",
        "/portal/",
        "/portal/assets",
        "/identity",
        "/identityx/",
        "/api/v1/openapi.json/x",
    ] {
        assert_eq!(world.get(&format!("{HOST}{path}"), &[]).await.status, 401, "{path}");
    }
    for path in ["/identity/../api/v1/apps", "/identity/%2e%2e/api/v1/apps", "/identity%2f..%2fapi/apps"] {
        assert_eq!(world.get(&format!("{HOST}{path}"), &[]).await.status, 400, "{path}");
    }
    // Clients show the Identity Service their secrets; nothing can be said there in our name.
    let fields = [
        ("authorization", "Basic abc"),
        ("cookie", "__Host-bst=s; __Host-bst-sso=p; __Host-bst-form=f"),
        ("x-bastide-assertion", "forged"),
    ];
    let answer = world.send(Method::POST, &format!("{HOST}/identity/token"), &fields, "grant").await;
    assert_eq!(answer.got("authorization"), ["Basic abc"]);
    assert_eq!(answer.got("cookie"), ["__Host-bst-sso=p; __Host-bst-form=f"]);
    assert!(answer.got("x-bastide-assertion").is_empty());
}

#[tokio::test]
async fn nothing_internal_is_reached_from_outside() {
    let world = World::new().await;
    let token = world.keys.member_token();
    for path in [
        "/internal",
        "/internal/session/token",
        "/%69nternal/session/token",
        "/%2finternal/x",
        "/internal%2fx",
    ] {
        let answer = world.get_as(&format!("{HOST}{path}"), &token).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "B-API-0404"), "{path}");
    }
}

#[tokio::test]
async fn one_dead_platform_replica_is_not_noticed_and_with_both_dead_apps_still_answer() {
    let mut world = World::new().await;
    let (whoami, token) = (format!("{API}/whoami"), world.keys.member_token());
    assert_eq!(world.get_as(&whoami, &token).await.status, 200);
    assert_eq!(world.get_as(&whoami, &token).await.status, 200);
    world.platform[0].kill().await;
    for _ in 0..4 {
        assert_eq!(world.get_as(&whoami, &token).await.json()["by"], "platform-2");
    }
    world.platform[1].kill().await;
    let away = world.get_as(&whoami, &token).await;
    assert_eq!((away.status, away.code().as_str(), away.header("retry-after")), (503, "B-GW-0505", "1"));
    assert_eq!(world.get(&format!("{SHOP}/"), &[]).await.status, 200);
    let shop = world.keys.shop_token(|_| {});
    assert_eq!(world.get_as(&format!("{SHOP}/me"), &shop).await.status, 200);
    // Also for somebody whose session can be asked about nowhere: a public part stays public.
    let cookie = format!("__Host-bst={}", "x".repeat(43));
    assert_eq!(world.get(&format!("{SHOP}/"), &[("cookie", &cookie)]).await.status, 200);
    assert_eq!(world.get(&format!("{SHOP}/me"), &[("cookie", &cookie)]).await.code(), "B-GW-0505");
}

#[tokio::test]
async fn with_all_platform_replicas_away_a_request_waits_for_the_first_one_that_returns() {
    let mut world = World::new().await;
    let (whoami, token) = (format!("{API}/whoami"), world.keys.member_token());
    assert_eq!(world.get_as(&whoami, &token).await.status, 200);
    for replica in &mut world.platform {
        replica.kill().await;
    }
    let returns = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        world.platform_replica("platform-2", world.platform[1].addr)
    };
    let (answer, _replica) = tokio::join!(world.get_as(&whoami, &token), returns);
    assert_eq!((answer.status, answer.json()["by"].as_str()), (200, Some("platform-2")));
}
