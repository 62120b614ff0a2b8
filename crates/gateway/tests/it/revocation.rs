//! What the session feed says, at a gateway that hears it over a real bus.

use crate::{
    sockets::{APPS, Edge, SOCKET},
    world::{API, LONG, SHOP, Server, World, now_s},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::opaque;
use bastide_types::feed::What;
use http::Method;
use http_body_util::BodyExt;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Asks until it is so; the limit is only for a hanging test.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(LONG, wait).await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn each_revocation_refuses_its_tokens_at_once_also_those_of_the_cache() {
    let world = World::by_bus(15).await;
    let me = format!("{SHOP}/me");
    let demo = world.keys.demo;
    let token = |sid: &str, sub: &str, client: &str, epoch: u64| {
        world.keys.shop_token(|claims| {
            (claims.sid, claims.sub, claims.client_id) = (sid.into(), sub.into(), client.into());
            claims.epoch = epoch;
        })
    };
    // One for each number in the feed below; the epoch says that it was made before.
    let steps = [
        (What::Session, "s1", token("s1", "ann", "cli", 1)),
        (What::Subject, "bob", token("s2", "bob", "cli", 1)),
        (What::Client, "web", token("s3", "ann", "web", 2)),
        (What::Customer, "", token("s4", "ann", "cli", 3)),
    ];
    for (_, _, token) in &steps {
        assert_eq!(world.get_as(&me, token).await.status, 200);
    }
    for (step, (what, id, own)) in steps.iter().enumerate() {
        world.told().say(demo, *what, id, None).await;
        until("refused", async || world.get_as(&me, own).await.status == 401).await;
        let refused = world.get_as(&me, own).await;
        assert_eq!(
            (refused.code().as_str(), refused.json()["detail"].as_str()),
            ("B-ID-0402", Some("revoked"))
        );
        for (_, _, later) in &steps[step + 1..] {
            assert_eq!(world.get_as(&me, later).await.status, 200, "{what:?} hits nobody else");
        }
    }
    let after = token("s5", "bob", "web", 4);
    assert_eq!(world.get_as(&me, &after).await.status, 200);
}

#[tokio::test]
async fn a_browser_gets_a_new_token_after_a_change_of_roles_and_none_after_its_end() {
    let world = World::by_bus(15).await;
    let (me, secret) = (format!("{SHOP}/me"), "s".repeat(43));
    let cookie = format!("__Host-bst={secret}");
    let get = async || world.get(&me, &[("cookie", &cookie)]).await.status;
    let asked = || world.state.asked.load(Ordering::SeqCst);
    world.state.sessions.lock().unwrap().insert(secret.clone(), "ann".into());
    world.state.epoch.store(1, Ordering::SeqCst);
    assert_eq!((get().await, get().await, asked()), (200, 200, 1));
    world.state.epoch.store(2, Ordering::SeqCst);
    world.told().say(world.keys.demo, What::Began, "x", None).await;
    world.told().say(world.keys.demo, What::Subject, "ann", None).await;
    let before = asked();
    until("asked anew", async || {
        assert_eq!(get().await, 200);
        asked() > before
    })
    .await;
    world.state.sessions.lock().unwrap().remove(&secret);
    world.told().say(world.keys.demo, What::Session, "s", None).await;
    until("signed out", async || get().await == 401).await;
}

#[tokio::test]
async fn long_answers_and_websockets_of_a_revoked_session_are_cut_and_others_go_on() {
    let world = World::by_bus(15).await;
    let token = |sid: &str, aud: &str| {
        world.keys.shop_token(|claims| (claims.sid, claims.aud) = (sid.into(), aud.into()))
    };
    let begin = async |sid: &str| {
        let bearer = format!("Bearer {}", token(sid, SHOP));
        let url = format!("{SHOP}/me/endless");
        let mut answer = world.begin(Method::GET, &url, &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status(), 200);
        let first = answer.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(&first.into_data().unwrap()[..], b"first");
        answer
    };
    let edge = Server::start(Edge::of(&world), None);
    let open = async |sid: &str| {
        let token = token(sid, "https://demo.apps.localhost:8443/live");
        let mut stream = TcpStream::connect(edge.addr).await.unwrap();
        let head = format!(
            "GET /live/me HTTP/1.1\r\nHost: {APPS}:8443\r\nConnection: Upgrade\r\n{SOCKET}\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(stream.read_u8().await.unwrap());
        }
        assert!(seen.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&seen));
        echo(&mut stream).await;
        stream
    };
    let (mut ended, mut other) = (begin("ended").await, begin("other").await);
    let (mut ended_socket, mut other_socket) = (open("ended").await, open("other").await);
    world.told().say(world.keys.demo, What::Session, "ended", None).await;
    let cut = timeout(LONG, ended.body_mut().frame()).await.expect("it is cut");
    assert!(!matches!(cut, Some(Ok(_))), "{cut:?}");
    let cut = timeout(LONG, ended_socket.read_u8()).await.expect("it is cut");
    assert!(cut.is_err());
    // What belongs to others is as it was.
    echo(&mut other_socket).await;
    let more = timeout(Duration::from_millis(200), other.body_mut().frame()).await;
    assert!(more.is_err(), "{more:?}");
}

async fn echo(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
}

#[tokio::test]
async fn members_and_step_up_are_refused_while_the_platform_is_silent_and_users_of_apps_go_on() {
    let mut world = World::by_bus(2).await;
    let (me, whoami) = (format!("{SHOP}/me"), format!("{API}/whoami"));
    let (user, member) = (world.keys.shop_token(|_| ()), world.keys.member_token());
    let stepped = world.keys.shop_token(|claims| claims.acr = bastide_types::Acr::Mfa);
    let vault = format!("{SHOP}/vault");
    // Heard again and again: the follower asks when nobody speaks for a while.
    until("a word", async || world.get_as(&whoami, &member).await.status == 200).await;
    assert_eq!(world.get_as(&vault, &stepped).await.status, 200);
    world.told().be_silent();
    until("silence", async || world.get_as(&whoami, &member).await.status == 503).await;
    let refused = world.get_as(&whoami, &member).await;
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("B-ID-0503", "1"));
    let refused = world.get_as(&vault, &stepped).await;
    assert_eq!(refused.code(), "B-ID-0503", "what wants a better sign-in is as strict");
    assert_eq!(world.get_as(&me, &user).await.status, 200);
    let open = world.get("https://demo.platform.localhost:8443/identity/jwks", &[]).await;
    assert_eq!(open.status, 200, "what needs no sign-in is open");
    // One word is enough.
    world.told().say(world.keys.demo, What::Began, "x", None).await;
    until("a word", async || world.get_as(&whoami, &member).await.status == 200).await;
    drop(world.bus.take());
    until("no bus", async || world.get_as(&whoami, &member).await.status == 503).await;
    assert_eq!(world.get_as(&me, &user).await.status, 200);
}

#[tokio::test]
async fn what_may_have_been_revoked_before_a_gateway_listens_is_refused_until_it_hears() {
    // There is no bus: whatever was revoked before its start is unknown.
    let world = World::new().await;
    let me = format!("{SHOP}/me");
    let old =
        |claims: &mut bastide_identity::Claims| (claims.iat, claims.exp) = (now_s() - 100, now_s() + 100);
    let older = world.keys.shop_token(old);
    let refused = world.get_as(&me, &older).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "B-ID-0503"));
    assert_eq!(world.get_as(&me, &world.keys.shop_token(|_| ())).await.status, 200);
    let world = World::by_bus(15).await;
    let older = world.keys.shop_token(old);
    assert_eq!(world.get_as(&me, &older).await.status, 200);
}

#[tokio::test]
async fn a_session_that_began_is_known_before_its_browser_comes() {
    let mut world = World::by_bus(15).await;
    let secret = "n".repeat(43);
    world.state.sessions.lock().unwrap().insert(secret.clone(), "ann".into());
    let hash = BASE64_URL_SAFE_NO_PAD.encode(opaque::hash(&secret));
    // The feed is told once it is heard.
    let whoami = format!("{API}/whoami");
    until("a word", async || world.get_as(&whoami, &world.keys.member_token()).await.status == 200).await;
    world.told().say(world.keys.demo, What::Began, &hash, Some(SHOP)).await;
    until("asked", async || world.state.asked.load(Ordering::SeqCst) == 1).await;
    // The answer is on its way or there: from then on the Platform is not needed.
    let me = format!("{SHOP}/me");
    let cookie = format!("__Host-bst={secret}");
    assert_eq!(world.get(&me, &[("cookie", &cookie)]).await.status, 200);
    assert_eq!(world.state.asked.load(Ordering::SeqCst), 1);
    world.platform[0].kill().await;
    world.platform[1].kill().await;
    assert_eq!(world.get(&me, &[("cookie", &cookie)]).await.status, 200);
}
