//! Clients hear of sessions that ended, in whichever way.

use super::api::{World, world, world_of};
use axum::{Form, Router, http::StatusCode, routing::post};
use bastide_identity::{IdKey, Upstream, UpstreamKeys, id_token::RSA_EXPONENT, opaque};
use bastide_platform::{backchannel::pass, config::OutboundHost};
use bastide_store::{
    ClientRow, CustomerStore, KeyKind, KeyState, MemberRow, NewKey, NewSession, SessionUse, Write, now_s,
};
use bastide_types::{CustomerId, UserId};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

/// A client on loopback: what it hears, and what it answers, 200 unless it is told otherwise.
#[derive(Clone, Default)]
pub(crate) struct Ear {
    heard: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Ear {
    /// Starts it; its port.
    async fn listen(&self) -> u16 {
        let ear = self.clone();
        let hear = move |Form(form): Form<HashMap<String, String>>| async move {
            ear.heard.lock().unwrap().push(form["logout_token"].clone());
            let status = ear.answers.lock().unwrap().pop_front().unwrap_or(200);
            StatusCode::from_u16(status).unwrap()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(axum::serve(listener, Router::new().route("/out", post(hear))).into_future());
        port
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

/// A replica with a client that listens, and Ann.
struct Town {
    world: World,
    ear: Ear,
    acme: CustomerId,
    ann: UserId,
    keys: UpstreamKeys,
}

impl Town {
    async fn new() -> Self {
        let ear = Ear::default();
        let host = format!("127.0.0.1:{}", ear.listen().await);
        let named = OutboundHost { host: host.clone(), ca_file: None, plain_http: true };
        let world = world_of(|config| config.outbound = vec![named]).await;
        let acme = world.customer("acme").await;
        let own = world.app.store.customer(acme);
        let (key, private) = IdKey::generate().unwrap();
        let public = json!({ "kty": "RSA", "kid": key.kid, "n": key.n, "e": RSA_EXPONENT });
        let keys = UpstreamKeys::read(json!({ "keys": [public] }).to_string().as_bytes()).unwrap();
        let ann =
            MemberRow { state: "active".into(), ..MemberRow::invited("", "ann@example.com", "Ann", vec![]) };
        let client = ClientRow {
            kind: "confidential".into(),
            backchannel_logout_uri: Some(format!("http://{host}/out")),
            ..ClientRow::service("web", vec![])
        };
        let mut write = world.app.store.write().await.unwrap();
        let key = NewKey { kind: KeyKind::Id, kid: key.kid, public: key.n, private };
        own.add_key(&mut write, None, &key, KeyState::Current, now_s()).await.unwrap();
        own.add_member(&mut write, &ann).await.unwrap();
        own.add_client(&mut write, &client).await.unwrap();
        own.add_client(
            &mut write,
            &ClientRow { kind: "confidential".into(), ..ClientRow::service("deaf", vec![]) },
        )
        .await
        .unwrap();
        write.commit().await.unwrap();
        Self { world, ear, acme, ann: ann.id, keys }
    }

    fn own(&self) -> CustomerStore<'_> {
        self.world.app.store.customer(self.acme)
    }

    /// A sign-in of Ann and what came of it at a client; their ids.
    async fn session(&self, client: &str, until: i64) -> (String, String) {
        let hash = || opaque::Opaque::generate().unwrap().hash;
        let (own, mut write) = (self.own(), self.world.app.store.write().await.unwrap());
        let (first, second) = (hash(), hash());
        let (parent, lasting) = (None, now_s() + 600);
        let sign_in = NewSession { kind: "provider", hash: &first, parent, member: self.ann, until: lasting };
        let sign_in = own.add_session(&mut write, &sign_in).await.unwrap();
        let new =
            NewSession { kind: "program", hash: &second, parent: Some(&sign_in), member: self.ann, until };
        let id = own.add_session(&mut write, &new).await.unwrap();
        let used = SessionUse { client: client.into(), ..SessionUse::default() };
        own.describe_session(&mut write, &id, &used).await.unwrap();
        write.commit().await.unwrap();
        (sign_in, id)
    }

    async fn changes(&self, change: impl AsyncFnOnce(&mut Write)) {
        let mut write = self.world.app.store.write().await.unwrap();
        change(&mut write).await;
        write.commit().await.unwrap();
    }

    /// What the client hears now: the sessions.
    async fn heard(&self) -> Vec<String> {
        pass(&self.world.app).await.unwrap();
        let issuer = "https://acme.platform.localhost:8443/identity";
        let theirs = Upstream { issuer, client_id: "web", keys: &self.keys };
        let said = self.ear.take().into_iter().map(|token| {
            let logout = theirs.logout(&token, now_s() as u64).unwrap();
            assert_eq!(logout.sub, Some(self.ann.to_string()));
            assert!(theirs.id_token(&token, "n", now_s() as u64).is_err(), "it is no ID token");
            logout.sid.unwrap()
        });
        said.collect()
    }
}

#[tokio::test]
async fn a_client_hears_of_each_session_that_ends_before_its_time_and_once() {
    let town = Town::new().await;
    let (own, later) = (town.own(), now_s() + 600);
    assert!(town.heard().await.is_empty());
    let (sign_in, session) = town.session("web", later).await;
    town.changes(async |write| own.delete_session(write, &sign_in).await.unwrap()).await;
    assert_eq!((town.heard().await, town.heard().await), (vec![session], vec![]), "with its sign-in, once");
    let (_, session) = town.session("web", later).await;
    town.changes(async |write| own.end_sessions_of(write, town.ann).await.unwrap()).await;
    assert_eq!(town.heard().await, [session]);
    let (_, session) = town.session("web", later).await;
    town.changes(async |write| assert!(own.suspend_member(write, town.ann, true).await.unwrap())).await;
    assert_eq!(town.heard().await, [session]);
    let (_, session) = town.session("web", later).await;
    town.changes(async |write| own.end_everything(write).await.unwrap()).await;
    assert_eq!(town.heard().await, [session]);
    let (_, session) = town.session("web", later).await;
    town.changes(async |write| assert!(own.suspend_client(write, "web", true).await.unwrap())).await;
    assert_eq!(town.heard().await, [session]);
    // What ends by itself is no sign-out; a client that named no address hears nothing.
    town.session("web", now_s() - 1).await;
    let (deaf, _) = town.session("deaf", later).await;
    town.changes(async |write| own.delete_session(write, &deaf).await.unwrap()).await;
    town.session("web", later).await;
    assert!(town.heard().await.is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_told_again_and_given_up_in_the_end() {
    let town = Town::new().await;
    let own = town.own();
    let (sign_in, session) = town.session("web", now_s() + 600).await;
    town.ear.answers.lock().unwrap().extend([500, 302]);
    town.changes(async |write| own.delete_session(write, &sign_in).await.unwrap()).await;
    let soon = async || {
        town.changes(async |write| {
            own.put_logout_off(write, "web", &session, now_s()).await.unwrap();
        })
        .await;
        town.heard().await
    };
    assert_eq!(town.heard().await, [session.clone()]);
    assert_eq!(soon().await, [session.clone()]);
    assert_eq!(soon().await, [session.clone()], "a redirect is no answer");
    assert!(soon().await.is_empty(), "it has heard it");
    // Nobody listens there any more.
    let (sign_in, session) = town.session("web", now_s() + 600).await;
    town.ear.answers.lock().unwrap().extend([500; 20]);
    town.changes(async |write| own.delete_session(write, &sign_in).await.unwrap()).await;
    for _ in 0..9 {
        town.heard().await;
        town.changes(async |write| own.put_logout_off(write, "web", &session, now_s()).await.unwrap()).await;
    }
    assert!(!town.world.app.store.logouts_due(9).await.unwrap().is_empty(), "its time is not over");
}

#[tokio::test]
async fn only_addresses_that_may_be_asked_are_taken_and_shown() {
    let world = world().await;
    let acme = world.customer("acme").await;
    let boss = world.assertion(acme, &["administrator"]);
    let create = async |id: &str, kind: &str, uri: &str| {
        let redirects: &[&str] = if kind == "device" { &[] } else { &["https://a.example/cb"] };
        let body =
            json!({ "id": id, "kind": kind, "redirect_uris": redirects, "backchannel_logout_uri": uri });
        let (status, _) =
            world.call("acme", Method::POST, "/api/v1/clients", Some(&boss), body.to_string()).await;
        status.as_u16()
    };
    assert_eq!(create("web", "confidential", "https://a.example/out?x=1").await, 201);
    for uri in ["http://a.example/out", "https://u:p@a.example/", "https://a.example/#x", "nowhere", ""] {
        assert_eq!(create("other", "confidential", uri).await, 422, "{uri}");
    }
    assert_eq!(create("tv", "device", "https://a.example/out").await, 422);
    let (_, text) = world.call("acme", Method::GET, "/api/v1/clients/web", Some(&boss), "").await;
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["backchannel_logout_uri"], "https://a.example/out?x=1");
}
