//! Browsers: signing in, the session, signing out.

use crate::world::{Answer, LONG, SHOP, World};
use bastide_identity::pkce;
use http::Method;
use http_body_util::BodyExt;
use std::{collections::HashMap, sync::atomic::Ordering};
use url::Url;

pub(crate) const ORIGIN: &str = "https://demo.apps.localhost:8443";
pub(crate) const NAVIGATE: (&str, &str) = ("accept", "text/html,*/*");
const ISSUER: &str = "https://demo.platform.localhost:8443/identity";
const STAGE_ISSUER: &str = "https://demo.platform.localhost:8443/identity/s/production";

/// Follows a redirect to the Identity Service as a user who signs in there; gives the way back.
pub(crate) fn sign_in(world: &World, redirect: &Answer) -> String {
    assert_eq!(redirect.status, 302);
    let url = Url::parse(redirect.header("location")).unwrap();
    let asked: HashMap<_, _> = url.query_pairs().into_owned().collect();
    // The host decides whom it asks.
    let issuer = if asked["redirect_uri"].starts_with(ORIGIN) { STAGE_ISSUER } else { ISSUER };
    assert!(url.as_str().starts_with(&format!("{issuer}/authorize?")), "{url}");
    assert_eq!(asked["client_id"], "bastide-gateway");
    assert_eq!(asked["response_type"], "code");
    assert_eq!(asked["code_challenge_method"], "S256");
    let code = pkce::challenge(&asked["state"]);
    let kept = (asked["code_challenge"].clone(), asked["redirect_uri"].clone());
    world.state.codes.lock().unwrap().insert(code.clone(), kept);
    let mut back = Url::parse(&asked["redirect_uri"]).unwrap();
    back.query_pairs_mut()
        .append_pair("code", &code)
        .append_pair("state", &asked["state"])
        .append_pair("iss", issuer);
    back.into()
}

/// A whole sign-in; gives the session cookie's value.
pub(crate) async fn session(world: &World) -> String {
    let redirect = world.get(&format!("{SHOP}/me?x=1"), &[NAVIGATE]).await;
    let login = format!("__Host-bst-login={}", redirect.cookie("__Host-bst-login").unwrap());
    let back = world.get(&sign_in(world, &redirect), &[NAVIGATE, ("cookie", &login)]).await;
    assert_eq!((back.status, back.header("location")), (302, "/shop/me?x=1"));
    let set: Vec<_> = back.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
    assert!(set[0].ends_with("; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"), "{}", set[0]);
    assert_eq!(back.cookie("__Host-bst-login").unwrap(), "", "the login cookie is taken back");
    back.cookie("__Host-bst").unwrap()
}

#[tokio::test]
async fn a_browser_signs_in_works_and_signs_out() {
    let world = World::new().await;
    let session = session(&world).await;
    let cookie = format!("own=1; __Host-bst={session}");
    let me = world.get(&format!("{SHOP}/me"), &[("cookie", &cookie)]).await;
    assert_eq!((me.status, me.got("x-bastide-user")), (200, vec!["ann".to_owned()]));
    assert_eq!(me.got("cookie"), ["own=1"]);
    assert!(!me.body.contains(&session));
    // State changes only from the same site.
    let post = async |fields: &[(&str, &str)]| {
        let mut all = vec![("cookie", cookie.as_str())];
        all.extend_from_slice(fields);
        world.send(Method::POST, &format!("{SHOP}/me"), &all, "x").await
    };
    for cross in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("origin", ORIGIN)],
    ] {
        let answer = post(cross).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "B-ID-0406"), "{cross:?}");
    }
    assert_eq!(post(&[("sec-fetch-site", "same-origin")]).await.status, 200);
    assert_eq!(post(&[("origin", ORIGIN)]).await.status, 200);
    // Signing out: by POST, from the same site.
    let logout = format!("{ORIGIN}/.bastide/logout?to=/shop/");
    let out = async |method: Method, fields: &[(&str, &str)]| {
        let mut all = vec![("cookie", cookie.as_str())];
        all.extend_from_slice(fields);
        world.send(method, &logout, &all, "").await
    };
    assert_eq!(out(Method::POST, &[("origin", "https://evil")]).await.status, 403);
    assert_eq!(out(Method::GET, &[("origin", ORIGIN)]).await.status, 404);
    let gone = out(Method::POST, &[("origin", ORIGIN)]).await;
    assert_eq!((gone.status, gone.header("location")), (302, "/shop/"));
    assert_eq!(gone.cookie("__Host-bst").unwrap(), "");
    assert!(world.state.sessions.lock().unwrap().is_empty());
    let after = world.get(&format!("{SHOP}/me"), &[("cookie", &cookie)]).await;
    assert_eq!(after.code(), "B-ID-0401", "at once, not when the token would have ended");
}

#[tokio::test]
async fn many_requests_at_once_ask_once_and_the_dead_are_remembered_for_a_moment() {
    let world = World::new().await;
    let cookie = format!("__Host-bst={}", session(&world).await);
    let me = format!("{SHOP}/me");
    let fields = [("cookie", cookie.as_str())];
    let all = futures_util::future::join_all((0..20).map(|_| world.get(&me, &fields))).await;
    assert!(all.iter().all(|answer| answer.status == 200));
    assert_eq!(world.state.asked.load(Ordering::SeqCst), 1);
    let made_up = format!("__Host-bst={}", "y".repeat(43));
    let fields = [("cookie", made_up.as_str())];
    let all = futures_util::future::join_all((0..20).map(|_| world.get(&me, &fields))).await;
    assert!(all.iter().all(|answer| answer.status == 401));
    // Once, and on a very slow machine again after two seconds: never each for itself.
    assert!(world.state.asked.load(Ordering::SeqCst) < 20);
    // What cannot be a session is not asked about.
    let asked = world.state.asked.load(Ordering::SeqCst);
    assert_eq!(world.get(&me, &[("cookie", "__Host-bst=short")]).await.status, 401);
    assert_eq!(world.state.asked.load(Ordering::SeqCst), asked);
}

#[tokio::test]
async fn a_session_outlives_a_dead_platform_until_its_token_ends() {
    let mut world = World::new().await;
    let cookie = format!("__Host-bst={}", session(&world).await);
    let me = format!("{SHOP}/me");
    assert_eq!(world.get(&me, &[("cookie", &cookie)]).await.status, 200);
    world.platform[0].kill().await;
    world.platform[1].kill().await;
    assert_eq!(world.get(&me, &[("cookie", &cookie)]).await.status, 200);
}

#[tokio::test]
async fn a_token_that_ends_is_renewed_and_nobody_notices() {
    let world = World::new().await;
    let cookie = format!("__Host-bst={}", session(&world).await);
    world.state.life_s.store(1, Ordering::SeqCst);
    for asked in 1..4 {
        assert_eq!(world.get(&format!("{SHOP}/me"), &[("cookie", &cookie)]).await.status, 200);
        assert_eq!(world.state.asked.load(Ordering::SeqCst), asked);
    }
}

#[tokio::test]
async fn a_long_answer_ends_when_its_session_has_lasted_as_long_as_it_may() {
    let world = World::new().await;
    let (short, long) = (session(&world).await, session(&world).await);
    // Each request asks for a token, and hears how long the session may last.
    world.state.life_s.store(1, Ordering::SeqCst);
    let begin = async |secret: &str, max_s| {
        world.state.max_s.store(max_s, Ordering::SeqCst);
        let cookie = format!("__Host-bst={secret}");
        let mut answer =
            world.begin(Method::GET, &format!("{SHOP}/me/endless"), &[("cookie", &cookie)], "").await;
        assert_eq!(answer.status(), 200);
        assert!(answer.body_mut().frame().await.unwrap().is_ok());
        answer
    };
    let (mut ends, mut goes_on) = (begin(&short, 2).await, begin(&long, 3600).await);
    let cut = tokio::time::timeout(LONG, ends.body_mut().frame()).await.expect("it is cut");
    assert!(!matches!(cut, Some(Ok(_))), "{cut:?}");
    let more = tokio::time::timeout(std::time::Duration::from_millis(200), goes_on.body_mut().frame()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn a_session_at_an_app_outlives_the_platform_while_it_is_used_and_a_member_s_does_not() {
    let mut world = World::new().await;
    let (me, api) = (format!("{SHOP}/me"), "https://demo.platform.localhost:8443/api/v1/whoami");
    let used = format!("__Host-bst={}", session(&world).await);
    let idle = format!("__Host-bst={}", session(&world).await);
    let get = async |world: &World, url: &str, cookie: &str| world.get(url, &[("cookie", cookie)]).await;
    world.state.life_s.store(1, Ordering::SeqCst);
    for (url, cookie) in [(me.as_str(), &used), (api, &used)] {
        assert_eq!(get(&world, url, cookie).await.status, 200);
    }
    world.state.idle_s.store(1, Ordering::SeqCst);
    assert_eq!(get(&world, &me, &idle).await.status, 200);
    world.platform[0].kill().await;
    world.platform[1].kill().await;
    // Tokens have ended by now.
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let alive = get(&world, &me, &used).await;
    assert_eq!((alive.status, alive.got("x-bastide-user")), (200, vec!["ann".to_owned()]));
    for (url, cookie) in [(me.as_str(), &idle), (api, &used)] {
        let gone = get(&world, url, cookie).await;
        assert_eq!((gone.status, gone.code().as_str()), (503, "B-GW-0505"), "{url}");
    }
}

#[tokio::test]
async fn a_token_that_lives_too_long_is_refused_from_the_platform_as_well() {
    let world = World::new().await;
    let cookie = format!("__Host-bst={}", session(&world).await);
    world.state.life_s.store(3600, Ordering::SeqCst);
    let answer = world.get(&format!("{SHOP}/me"), &[("cookie", &cookie)]).await;
    assert_eq!(
        (answer.code().as_str(), answer.json()["detail"].as_str()),
        ("B-ID-0402", Some("too-long-lived"))
    );
}

#[tokio::test]
async fn only_navigations_are_sent_to_sign_in() {
    let world = World::new().await;
    let me = format!("{SHOP}/me");
    assert_eq!(world.get(&me, &[NAVIGATE, ("sec-fetch-mode", "navigate")]).await.status, 302);
    assert_eq!(world.get(&me, &[NAVIGATE, ("sec-fetch-mode", "cors")]).await.status, 401);
    assert_eq!(world.get(&me, &[("accept", "application/json")]).await.status, 401);
    assert_eq!(world.send(Method::POST, &me, &[NAVIGATE], "").await.status, 401);
    let portal = world.get("https://demo.platform.localhost:8443/", &[NAVIGATE]).await;
    let asked: HashMap<_, _> =
        Url::parse(portal.header("location")).unwrap().query_pairs().into_owned().collect();
    assert_eq!(asked["redirect_uri"], "https://demo.platform.localhost:8443/.bastide/callback");
    assert!(!asked.contains_key("resource"));
    let bad = world.get(&me, &[NAVIGATE, ("authorization", "Bearer x")]).await;
    assert_eq!(bad.status, 401);
}

#[tokio::test]
async fn an_answer_that_belongs_to_another_sign_in_opens_nothing() {
    let world = World::new().await;
    let refused = async |url: String, cookie: String| {
        let answer = world.get(&url, &[("cookie", &cookie)]).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "B-ID-0400"), "{url}");
        assert!(answer.cookie("__Host-bst").is_none());
    };
    let begin = async || {
        let redirect = world.get(&format!("{SHOP}/me"), &[NAVIGATE]).await;
        let login = format!("__Host-bst-login={}", redirect.cookie("__Host-bst-login").unwrap());
        (sign_in(&world, &redirect), login)
    };
    let (ours, login) = begin().await;
    let (theirs, _) = begin().await;
    refused(theirs, login.clone()).await;
    refused(ours.clone(), String::new()).await;
    refused(ours.clone(), "__Host-bst-login=forged".into()).await;
    refused(ours.replace("&iss=", "&x="), login.clone()).await;
    refused(ours.replace("&iss=https%3A%2F%2Fdemo", "&iss=https%3A%2F%2Fother"), login.clone()).await;
    refused(ours.replace("%2Fs%2Fproduction", "%2Fs%2Ftest"), login.clone()).await;
    refused(ours.replace("%2Fs%2Fproduction", ""), login.clone()).await;
    refused(ours.replace("demo.apps", "demo--test.apps"), login.clone()).await;
    refused(format!("{ORIGIN}/.bastide/callback?error=access_denied"), login.clone()).await;
    // What was sealed by hand with another key does not open either.
    let back = world.get(&ours, &[("cookie", &login)]).await;
    assert_eq!(back.status, 302);
    refused(ours, login).await;
}

#[tokio::test]
async fn a_browser_whose_user_s_rights_have_changed_gets_another_secret_and_notices_nothing() {
    let world = World::new().await;
    let old = session(&world).await;
    let me = format!("{SHOP}/me");
    let get = async |secret: &str| world.get(&me, &[("cookie", &format!("__Host-bst={secret}"))]).await;
    assert_eq!(get(&old).await.cookie("__Host-bst"), None);
    // As if the token of before were revoked: the gateway asks, many requests at once.
    let asked_anew = session(&world).await;
    world.state.renew.store(true, Ordering::SeqCst);
    let all = futures_util::future::join_all((0..10).map(|_| get(&asked_anew))).await;
    assert!(all.iter().all(|answer| answer.status == 200), "nobody is signed out");
    let secrets: Vec<_> = all.iter().filter_map(|answer| answer.cookie("__Host-bst")).collect();
    assert_eq!(secrets.len(), 1, "one of them brings it");
    let renewed = all.iter().find(|answer| answer.cookie("__Host-bst").is_some()).unwrap();
    let field = renewed.header("set-cookie");
    assert!(field.ends_with("; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"), "{field}");
    assert_eq!(renewed.header("cache-control"), "no-store");
    assert!(secrets[0] != asked_anew && !renewed.body.contains(&secrets[0]));
    let after = get(&secrets[0]).await;
    assert_eq!((after.status, after.cookie("__Host-bst")), (200, None));
    assert_eq!(after.got("x-bastide-user"), ["ann"]);
    // Once the Platform says so, the old one is dead: no gateway keeps it alive.
    world.state.former.lock().unwrap().clear();
    world.state.life_s.store(1, Ordering::SeqCst);
    let fresh = session(&world).await;
    assert_eq!(get(&fresh).await.status, 200);
    world.state.renew.store(true, Ordering::SeqCst);
    let next = get(&fresh).await.cookie("__Host-bst").unwrap();
    world.state.former.lock().unwrap().clear();
    assert_eq!((get(&fresh).await.code(), get(&next).await.status), ("B-ID-0401".to_owned(), 200));
}

#[tokio::test]
async fn a_refusal_brings_the_new_secret_too_and_a_sign_out_takes_it_back() {
    let world = World::new().await;
    let old = session(&world).await;
    world.state.renew.store(true, Ordering::SeqCst);
    let cookie = format!("__Host-bst={old}");
    let refused = world.get(&format!("{SHOP}/admin"), &[("cookie", &cookie)]).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "B-ID-0403"));
    let new = refused.cookie("__Host-bst").unwrap();
    let cookie = format!("__Host-bst={new}");
    let fields = [("cookie", cookie.as_str()), ("origin", ORIGIN)];
    let out = world.send(Method::POST, &format!("{ORIGIN}/.bastide/logout"), &fields, "").await;
    assert_eq!((out.status, out.cookie("__Host-bst").as_deref()), (302, Some("")));
    assert_eq!(world.get(&format!("{SHOP}/me"), &[("cookie", &cookie)]).await.code(), "B-ID-0401");
}
