//! The way to apps.

use crate::world::{SHOP, World, now_s};
use bastide_identity::{mint, verify_assertion};
use http::Method;

fn url(path: &str) -> String {
    format!("{SHOP}{path}")
}

#[tokio::test]
async fn a_part_for_signed_in_users_answers_401_without_and_200_with_a_token() {
    let world = World::new().await;
    let refused = world.get(&url("/me"), &[]).await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "B-ID-0401"));
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    let token = world.keys.shop_token(|_| {});
    for _ in 0..2 {
        let passed = world.get_as(&url("/me?x=1"), &token).await;
        assert_eq!(passed.status, 200);
        assert_eq!(passed.json()["uri"], "/me?x=1");
        assert_eq!(passed.got("x-forwarded-prefix"), ["/shop"]);
        assert_eq!(passed.got("x-bastide-user"), ["ann"]);
        assert_eq!(passed.got("x-bastide-user-name"), ["%C3%84nn"]);
        assert_eq!(passed.got("x-bastide-roles"), ["buyer"]);
        assert!(passed.got("authorization").is_empty());
        let said = &passed.got("x-bastide-assertion")[0];
        let said = verify_assertion(said, &world.keys_of_assertions(), SHOP, now_s()).unwrap();
        assert_eq!((said.sub.as_str(), said.stage.as_deref()), ("ann", Some("production")));
        assert_eq!((said.org, said.org_name.as_str()), (world.keys.demo, "demo"));
    }
    world.end().await;
}

#[tokio::test]
async fn a_token_in_the_query_is_never_read() {
    let world = World::new().await;
    let token = world.keys.shop_token(|_| {});
    for name in ["access_token", "token", "bearer_token", "authorization", "jwt"] {
        let refused = world.get(&url(&format!("/me?{name}={token}")), &[]).await;
        assert_eq!((refused.status, refused.code().as_str()), (401, "B-ID-0401"), "{name}");
    }
    assert_eq!(world.get_as(&url("/me?access_token=junk"), &token).await.status, 200, "nor does it do harm");
    world.end().await;
}

#[tokio::test]
async fn tokens_for_elsewhere_are_refused_and_the_answer_says_why() {
    let world = World::new().await;
    let keys = world.keys.clone();
    let check = async |token: String, word: &str| {
        // The second time a good sibling is in the cache.
        for _ in 0..2 {
            let refused = world.get_as(&url("/me"), &token).await;
            assert_eq!((refused.status, refused.code().as_str()), (401, "B-ID-0402"), "{word}");
            assert_eq!(refused.json()["detail"], word);
            assert!(refused.header("www-authenticate").starts_with("Bearer"));
            assert_eq!(world.get_as(&url("/me"), &keys.shop_token(|_| {})).await.status, 200);
        }
    };
    let with = |change: fn(&mut bastide_identity::Claims)| keys.shop_token(change);
    check(mint(&keys.others, &keys.shop()).unwrap(), "unknown-key").await;
    check(mint(&keys.test, &keys.shop()).unwrap(), "unknown-key").await;
    check(keys.member_token(), "unknown-key").await;
    check(
        with(|c| c.iss = "https://other.platform.localhost:8443/identity/s/production".into()),
        "wrong-issuer",
    )
    .await;
    check(with(|c| c.aud = "https://demo.apps.localhost:8443/idle".into()), "wrong-audience").await;
    check(with(|c| c.aud = "https://other.apps.localhost:8443/shop".into()), "wrong-audience").await;
    let foreign = keys.other.to_string();
    check(keys.shop_token(|c| c.org = foreign), "wrong-customer").await;
    check(with(|c| c.stage = "test".into()), "wrong-stage").await;
    check(with(|c| (c.nbf, c.iat, c.exp) = (c.nbf - 400, c.iat - 400, c.exp - 400)), "expired").await;
    check(with(|c| c.nbf += 60), "not-yet-valid").await;
    check(with(|c| c.exp += 60), "too-long-lived").await;
    check(with(|c| c.epoch = 0), "revoked").await;
    check("not.a.token".into(), "malformed").await;
    // The same good token is refused by every other customer, stage and app.
    let good = keys.shop_token(|_| {});
    for elsewhere in [
        "https://other.apps.localhost:8443/shop/me",
        "https://demo--test.apps.localhost:8443/shop/me",
        "https://demo.apps.localhost:8443/idle/me",
        "https://demo.platform.localhost:8443/api/v1/whoami",
    ] {
        assert_eq!(world.get_as(elsewhere, &good).await.code(), "B-ID-0402", "{elsewhere}");
    }
}

#[tokio::test]
async fn roles_decide_and_a_missing_one_is_403() {
    let world = World::new().await;
    let token = world.keys.shop_token(|_| {});
    assert_eq!(world.get_as(&url("/buy"), &token).await.status, 200);
    let forbidden = world.get_as(&url("/admin/x"), &token).await;
    assert_eq!((forbidden.status, forbidden.code().as_str()), (403, "B-ID-0403"));
    let boss = world.keys.shop_token(|claims| claims.roles = vec!["boss".into()]);
    assert_eq!(world.get_as(&url("/admin/x"), &boss).await.status, 200);
    assert_eq!(world.get(&url("/admin"), &[]).await.status, 401);
}

#[tokio::test]
async fn no_spelling_of_a_path_escapes_its_rule() {
    let world = World::new().await;
    for path in [
        "/admin",
        "/admin/",
        "/%61dmin",
        "/%61%64min/x",
        "/admin%2fx",
        "/admin%5Cx",
        "/%2fadmin",
        "/%5cadmin/x",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x%2f..%2fadmin",
        "/x%5c..%5cadmin",
        "/./admin",
        "//admin",
        "/admin%00",
    ] {
        let answer = world.get(&url(path), &[]).await;
        assert!([400, 401].contains(&answer.status), "{path}: {}", answer.status);
    }
    let answer = world.get(&url("/%7Eann/%e2%82%ac"), &[]).await;
    assert_eq!(answer.json()["uri"], "/~ann/%E2%82%AC");
}

#[tokio::test]
async fn replicas_of_the_own_zone_take_strict_turns() {
    let world = World::new().await;
    let mut by = Vec::new();
    for _ in 0..10 {
        let answer = world.get(&url("/"), &[]).await;
        assert_eq!(answer.header("x-bastide-zone"), "a");
        by.push(answer.json()["by"].as_str().unwrap().to_owned());
    }
    assert!(by.windows(2).all(|pair| pair[0] != pair[1]), "{by:?}");
    assert!(!by.contains(&"three".to_owned()), "that one is of zone b");
}

#[tokio::test]
async fn when_replicas_die_others_answer_and_then_another_zone() {
    let mut world = World::new().await;
    for _ in 0..4 {
        assert_eq!(world.get(&url("/"), &[]).await.status, 200);
    }
    world.shop[0].1.kill().await;
    for _ in 0..6 {
        let answer = world.get(&url("/"), &[]).await;
        assert_eq!((answer.status, answer.json()["by"].as_str()), (200, Some("two")));
        // A request with a body that no replica got goes elsewhere as well.
        let answer = world.send(Method::POST, &url("/"), &[], "body").await;
        assert_eq!((answer.status, answer.json()["body"].as_str()), (200, Some("body")));
    }
    world.shop[1].1.kill().await;
    let answer = world.get(&url("/"), &[]).await;
    assert_eq!((answer.status, answer.header("x-bastide-zone")), (200, "b"));
    assert_eq!(answer.header("x-bastide-replica"), world.shop[2].0.to_string());
    world.shop[2].1.kill().await;
    assert_eq!(world.get(&url("/"), &[]).await.code(), "B-GW-0502");
    let idle = world.get("https://demo.apps.localhost:8443/idle/", &[]).await;
    assert_eq!((idle.status, idle.code().as_str(), idle.header("retry-after")), (503, "B-GW-0503", "1"));
}

#[tokio::test]
async fn nobody_outside_speaks_for_us_towards_an_app() {
    let world = World::new().await;
    let spoofed = [
        ("x-bastide-user", "boss"),
        ("x_bastide_user", "boss"),
        ("x-bastide-roles", "boss"),
        ("x-bastide_assertion", "boss"),
        ("x-bastide-assertion", "boss"),
        ("remote-user", "boss"),
        ("x-forwarded-prefix", "/boss"),
        ("x-auth-request-user", "boss"),
        ("cookie", "__Host-bst=boss; __Host-bst-login=boss; __Host-bst-sso=boss; own=1"),
    ];
    let answer = world.get(&url("/"), &spoofed).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("boss"), "{}", answer.body);
    assert_eq!(answer.got("cookie"), ["own=1"]);
    let both = [("authorization", "Bearer x"), ("authorization", "Bearer y")];
    assert_eq!(world.get(&url("/"), &both).await.status, 401);
}

#[tokio::test]
async fn an_app_speaks_only_for_itself() {
    let world = World::new().await;
    // Authenticated: never cacheable, whatever the app says.
    let token = world.keys.shop_token(|_| {});
    for (path, cacheable) in [("/me/evil", false), ("/evil", false)] {
        let answer = world.get_as(&url(path), &token).await;
        assert_eq!(answer.header("x-bastide-cacheable").is_empty(), !cacheable);
    }
    let answer = world.get(&url("/evil"), &[]).await;
    let revision = world.revision.to_string();
    assert_eq!(answer.header("x-bastide-cacheable"), revision, "the gateway's word, not the app's");
    assert!(!answer.headers.contains_key("x_bastide_cacheable"));
    assert_ne!(answer.header("x-bastide-replica"), "evil");
    assert_eq!(answer.header("x-bastide-zone"), "a");
    assert_ne!(answer.header("x-request-id"), "evil");
    assert_eq!(answer.header("location"), "https://elsewhere/x");
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["own=1"]);
}

#[tokio::test]
async fn only_what_is_for_everybody_is_marked_so() {
    let world = World::new().await;
    let marked = async |path: &str, fields: &[(&str, &str)]| {
        !world.get(&url(path), fields).await.header("x-bastide-cacheable").is_empty()
    };
    assert!(marked("/", &[]).await);
    assert!(marked("/", &[("cookie", "own=1")]).await);
    assert!(!marked("/", &[("authorization", &format!("Bearer {}", world.keys.shop_token(|_| {})))]).await);
    let dead = "x".repeat(43);
    assert!(!marked("/", &[("cookie", &format!("__Host-bst={dead}"))]).await);
    assert!(!marked("/", &[("cookie", "__Host-bst=a; __Host-bst=b")]).await);
}

#[tokio::test]
async fn unknown_hosts_and_unknown_apps_are_refused_in_the_same_words() {
    let world = World::new().await;
    let mut seen = Vec::new();
    for url in [
        "https://nobody.apps.localhost:8443/shop/",
        "https://demo.apps.localhost:8443/nothing/",
        "https://demo--nostage.apps.localhost:8443/shop/",
        "https://example.com/shop/",
        "https://demo.apps.localhost:8443/",
    ] {
        let mut answer = world.get(url, &[]).await.json();
        assert_eq!(answer["trace_id"], answer["request_id"].as_str().unwrap().replace('-', ""));
        for own in ["request_id", "trace_id"] {
            answer[own] = serde_json::Value::Null;
        }
        seen.push(answer);
    }
    assert_eq!(seen[0]["code"], "B-EDGE-0404");
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    let slash = world.get("https://demo.apps.localhost:8443/shop?a=1", &[]).await;
    assert_eq!((slash.status, slash.header("location")), (308, "/shop/?a=1"));
}
