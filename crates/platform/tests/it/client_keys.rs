//! Clients that prove themselves by a signature (`private_key_jwt`), at every endpoint at which a secret counts.

use super::{
    api,
    identity::{ACME, Answer, World, encode},
};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::http::{Method, StatusCode};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::{ClientKey, Revoked, claims::CLIENT_LIFE_S, opaque};
use bastide_store::{ClientKeyRow, ClientRow, KeysAdded, now_s};
use serde_json::{Value, json};

const ISSUER: &str = "https://acme.platform.localhost:8443/identity";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A client's key pair.
struct Pair(Ed25519KeyPair, &'static str);

impl Pair {
    fn new(kid: &'static str) -> Self {
        Self(Ed25519KeyPair::generate().unwrap(), kid)
    }

    fn jwk(&self) -> Value {
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.0.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.1, "x": x })
    }

    fn row(&self) -> ClientKeyRow {
        let jwk = ClientKey::read(&self.jwk()).unwrap().jwk().to_string();
        ClientKeyRow { kid: self.1.to_owned(), jwk, since: now_s() }
    }

    /// A fresh word of this client, with changed claims.
    fn word(&self, client: &str, change: &[(&str, Value)]) -> String {
        let now = now_s();
        let mut claims = json!({
            "iss": client, "sub": client, "aud": ISSUER, "iat": now, "exp": now + 60,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({ "alg": "EdDSA", "kid": self.1 })), encode(&claims));
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes())))
    }
}

/// The fields of a word.
fn shown(word: &str) -> [(&str, &str); 2] {
    [("client_assertion_type", TYPE), ("client_assertion", word)]
}

async fn asked(world: &World, path: &str, form: &[(&str, &str)]) -> Answer {
    world.send(ACME, Method::POST, path, &encode(form), &[FORM]).await
}

/// Asks for a token by this word.
async fn by(world: &World, word: &str) -> Answer {
    let form = [&[("grant_type", "client_credentials")][..], &shown(word)].concat();
    asked(world, "/identity/token", &form).await
}

/// A world in which the service `robot` has these keys and no secret.
async fn world(pairs: &[&Pair]) -> World {
    let world = World::with_ann().await;
    let own = world.store.customer(world.acme);
    let keys: Vec<_> = pairs.iter().map(|pair| pair.row()).collect();
    let mut write = world.store.write().await.unwrap();
    own.add_client(&mut write, &ClientRow::service("robot", vec!["developer".into()])).await.unwrap();
    assert_eq!(own.add_client_keys(&mut write, "robot", &keys, 4).await.unwrap(), KeysAdded::Done);
    write.commit().await.unwrap();
    world
}

#[tokio::test]
async fn a_client_proves_itself_by_its_key_wherever_a_secret_counts() {
    let pair = Pair::new("first");
    let world = world(&[&pair]).await;
    let token = by(&world, &pair.word("robot", &[])).await;
    assert_eq!(token.status, 200, "{}", token.body);
    let token = token.text("access_token");
    let claims = world.check_platform(&token, CLIENT_LIFE_S).await.unwrap();
    assert_eq!((&*claims.sub, &claims.roles[..]), ("robot", &["developer".to_owned()][..]));
    let with = async |path: &str, more: &[(&str, &str)], word: &str| {
        asked(&world, path, &[more, &shown(word)].concat()).await
    };
    // Its id may stand beside the word.
    let about = [("token", token.as_str()), ("client_id", "robot")];
    let said = with("/identity/introspect", &about, &pair.word("robot", &[])).await.json();
    assert_eq!((&said["active"], &said["client_id"]), (&json!(true), &json!("robot")));
    assert_eq!(with("/identity/revoke", &about, &pair.word("robot", &[])).await.status, 200);
    let device = with("/identity/device_authorization", &[], &pair.word("robot", &[])).await;
    assert_eq!(device.text("error"), "unauthorized_client", "known, but with no users to wait for");
    // Each issuer is an audience of its own.
    let stage = "/identity/s/development";
    let here = [("aud", json!(format!("{ISSUER}/s/development")))];
    let grant = [("grant_type", "client_credentials")];
    let refused = with(&format!("{stage}/token"), &grant, &pair.word("robot", &[])).await;
    assert_eq!(refused.text("error"), "invalid_client");
    let given = with(&format!("{stage}/token"), &grant, &pair.word("robot", &here)).await;
    assert_eq!(given.status, 200, "{}", given.body);
    for base in ["/identity", stage] {
        let path = format!("{base}/.well-known/openid-configuration");
        let document = world.send(ACME, Method::GET, &path, "", &[]).await.json();
        for endpoint in ["token", "introspection", "revocation"] {
            let methods = &document[format!("{endpoint}_endpoint_auth_methods_supported")];
            assert!(methods.as_array().unwrap().contains(&json!("private_key_jwt")), "{endpoint}");
            let algorithms = &document[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")];
            assert_eq!(*algorithms, json!(["ES256", "EdDSA", "Ed25519", "RS256", "PS256"]), "{endpoint}");
        }
    }
}

#[tokio::test]
async fn what_proves_no_client_gets_one_answer_and_leaves_an_entry() {
    let (pair, foreign) = (Pair::new("first"), Pair::new("first"));
    let world = world(&[&pair]).await;
    let refusals = async || {
        let rows = world.store.customer(world.acme).audit_trail(1000).await.unwrap();
        rows.into_iter().filter(|row| row.what == "client.refused").collect::<Vec<_>>()
    };
    let refused = async |word: &str, why: &str| {
        let before = refusals().await.len();
        let answer = by(&world, word).await;
        let said = (answer.status, answer.text("error"), answer.text("error_description"));
        let expected = "The client is unknown or has not proven itself.";
        assert_eq!(said, (StatusCode::UNAUTHORIZED, "invalid_client".into(), expected.into()), "{why}");
        let entries = refusals().await;
        assert_eq!(entries.len(), before + 1, "{why}");
        assert!(entries.iter().any(|row| row.detail.contains(why)), "{why}");
    };
    let word = pair.word("robot", &[]);
    assert_eq!(by(&world, &word).await.status, 200);
    refused(&word, "has counted already").await;
    refused(&pair.word("robot", &[("exp", json!(now_s() - 60))]), "has expired").await;
    refused(&pair.word("robot", &[("exp", json!(now_s() + 600))]), "lives too long").await;
    refused(&pair.word("robot", &[("aud", json!(format!("{ISSUER}/token")))]), "audience").await;
    refused(&pair.word("robot", &[("iss", json!("boss"))]), "another client's").await;
    refused(&foreign.word("robot", &[]), "signature is not").await;
    // Unknown, and known without such a key.
    for client in ["nobody", "automation", "bastide-cli", "bastide-gateway"] {
        refused(&pair.word(client, &[]), "no key of this client").await;
    }
    refused(&Pair::new("second").word("robot", &[]), "no key of this client").await;
    refused("x.y.z", "malformed").await;

    let check = async |more: &[(&str, &str)], error: &str| {
        let word = pair.word("robot", &[]);
        let form = [&[("grant_type", "client_credentials"), ("client_assertion", &word)][..], more].concat();
        assert_eq!(asked(&world, "/identity/token", &form).await.text("error"), error, "{more:?}");
    };
    let kind = ("client_assertion_type", TYPE);
    check(&[kind, ("client_secret", "x")], "invalid_request").await;
    check(&[kind, ("client_id", "automation")], "invalid_client").await;
    check(
        &[("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")],
        "invalid_client",
    )
    .await;
    check(&[], "invalid_client").await;
    let word = pair.word("robot", &[]);
    let form = encode(&[&[("grant_type", "client_credentials")][..], &shown(&word)].concat());
    let basic = ("authorization", "Basic cm9ib3Q6eA==");
    let both = world.send(ACME, Method::POST, "/identity/token", &form, &[FORM, basic]).await;
    assert_eq!(both.text("error"), "invalid_request");
    let alone =
        [("grant_type", "client_credentials"), ("client_assertion_type", TYPE), ("client_id", "robot")];
    assert_eq!(asked(&world, "/identity/token", &alone).await.text("error"), "invalid_client");
    // None of the refused ones was spent.
    assert_eq!(by(&world, &word).await.status, 200);
    let secret = [("grant_type", "client_credentials"), ("client_id", "robot"), ("client_secret", "")];
    assert_eq!(asked(&world, "/identity/token", &secret).await.text("error"), "invalid_client");
}

#[tokio::test]
async fn a_source_whose_words_prove_nothing_waits_as_with_secrets() {
    let pair = Pair::new("first");
    let world = world(&[&pair]).await;
    let mut statuses = Vec::new();
    for _ in 0..61 {
        statuses.push(by(&world, &pair.word("nobody", &[])).await.status.as_u16());
    }
    assert_eq!((statuses[0], statuses[60]), (401, 429));
    assert_eq!(by(&world, &pair.word("robot", &[])).await.status, 200, "who proves itself does not wait");
}

#[tokio::test]
async fn a_token_names_the_grant_of_its_key_and_dies_with_it() {
    let (first, second) = (Pair::new("first"), Pair::new("second"));
    let world = world(&[&first, &second]).await;
    let own = world.store.customer(world.acme);
    let claims = async |pair: &Pair| {
        let answer = by(&world, &pair.word("robot", &[])).await;
        world.check_platform(&answer.text("access_token"), CLIENT_LIFE_S).await.unwrap()
    };
    let is_alive = async |claims| {
        let life = world.store.version().await.unwrap().0;
        let mut revoked = Revoked::default();
        revoked.replace(&[world.store.session_feed(life, 0).await.unwrap()], now_s() as u64);
        revoked.check(claims).is_ok()
    };
    let (one, other) = (claims(&first).await, claims(&second).await);
    assert!(one.sid.starts_with("robot.") && one.sid != other.sid);
    let mut write = world.store.write().await.unwrap();
    assert!(own.remove_client_key(&mut write, "robot", "second").await.unwrap());
    assert!(!own.remove_client_key(&mut write, "robot", "second").await.unwrap());
    write.commit().await.unwrap();
    assert!(is_alive(&one).await && !is_alive(&other).await);
    assert!(own.has_grant("robot", &one.sid).await.unwrap());
    assert!(!own.has_grant("robot", &other.sid).await.unwrap());
    assert_eq!(by(&world, &second.word("robot", &[])).await.text("error"), "invalid_client");
    // The same key once more is another grant: what died stays dead, and what is new lives.
    let mut write = world.store.write().await.unwrap();
    own.add_client_keys(&mut write, "robot", &[second.row()], 4).await.unwrap();
    write.commit().await.unwrap();
    let again = claims(&second).await;
    assert!(is_alive(&again).await && !is_alive(&other).await);
    let mut write = world.store.write().await.unwrap();
    own.suspend_client(&mut write, "robot", true).await.unwrap();
    write.commit().await.unwrap();
    assert!(!is_alive(&one).await && !is_alive(&again).await);
    assert_eq!(by(&world, &first.word("robot", &[])).await.text("error"), "invalid_client");
}

#[tokio::test]
async fn a_client_changes_over_from_its_secret_to_a_key() {
    let pair = Pair::new("first");
    let world = world(&[]).await;
    let own = world.store.customer(world.acme);
    let mut write = world.store.write().await.unwrap();
    let secret =
        own.add_client_secret(&mut write, "robot", &opaque::hash("old"), None, 2).await.unwrap().unwrap();
    own.add_client_keys(&mut write, "robot", &[pair.row()], 4).await.unwrap();
    write.commit().await.unwrap();
    let by_secret = [("grant_type", "client_credentials"), ("client_id", "robot"), ("client_secret", "old")];
    assert_eq!(asked(&world, "/identity/token", &by_secret).await.status, 200);
    assert_eq!(by(&world, &pair.word("robot", &[])).await.status, 200);
    let mut write = world.store.write().await.unwrap();
    assert!(own.remove_client_secret(&mut write, "robot", &secret).await.unwrap());
    write.commit().await.unwrap();
    assert_eq!(asked(&world, "/identity/token", &by_secret).await.status, 401);
    assert_eq!(by(&world, &pair.word("robot", &[])).await.status, 200);
}

#[tokio::test]
async fn administrators_give_clients_public_keys_and_no_others() {
    let world = api::world().await;
    let acme = world.customer("acme").await;
    let admin = world.assertion(acme, &["administrator"]);
    let call = async |method: Method, path: &str, body: Value| {
        let (status, text) = world.call("acme", method, path, Some(&admin), body.to_string()).await;
        (status.as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let (first, second) = (Pair::new("first"), Pair::new("second"));
    let robot = json!({ "id": "robot", "kind": "service", "keys": { "keys": [first.jwk()] } });
    let (status, made) = call(Method::POST, "/api/v1/clients", robot).await;
    assert_eq!((status, &made["secret"]), (201, &Value::Null), "{made}");
    let path = "/api/v1/clients/robot/keys";
    let (status, listed) = call(Method::POST, path, second.jwk()).await;
    let listed = (status, listed["keys"].as_array().unwrap().len());
    assert_eq!(listed, (201, 2));
    assert_eq!(call(Method::POST, path, second.jwk()).await.0, 409, "its id is taken");
    let three: Vec<_> = ["3", "4", "5"].map(|kid| Pair::new(kid).jwk()).into();
    assert_eq!(call(Method::POST, path, json!({ "keys": three })).await.0, 409, "too many");
    let mut private = Pair::new("third").jwk();
    private["d"] = json!("AAAA");
    let shared = json!({ "kty": "oct", "kid": "s", "k": "AAAA" });
    for body in [private.clone(), shared, json!({}), json!([]), json!({ "keys": [] }), json!(7)] {
        let (status, said) = call(Method::POST, path, body.clone()).await;
        assert_eq!(status, 422, "{body}");
        assert!(!said.to_string().contains("AAAA"));
    }
    let lost = json!({ "id": "lost", "kind": "service", "keys": private });
    assert_eq!(call(Method::POST, "/api/v1/clients", lost).await.0, 422);
    let public = json!({ "id": "spa", "kind": "public", "redirect_uris": ["https://a.example/cb"] });
    let mut with_keys = public.clone();
    with_keys["keys"] = first.jwk();
    assert_eq!(call(Method::POST, "/api/v1/clients", with_keys).await.0, 422);
    assert_eq!(call(Method::POST, "/api/v1/clients", public).await.0, 201);
    assert_eq!(call(Method::POST, "/api/v1/clients/spa/keys", first.jwk()).await.0, 422);
    assert_eq!(call(Method::POST, "/api/v1/clients/none/keys", first.jwk()).await.0, 404);
    assert_eq!(call(Method::GET, "/api/v1/clients/none/keys", Value::Null).await.0, 404);
    let (_, shown) = call(Method::GET, "/api/v1/clients/robot", Value::Null).await;
    assert_eq!((shown["keys"].as_array().unwrap().len(), &shown["secrets"]), (2, &json!([])));
    assert_eq!(call(Method::DELETE, &format!("{path}/first"), Value::Null).await.0, 204);
    assert_eq!(call(Method::DELETE, &format!("{path}/first"), Value::Null).await.0, 404);
    let (_, left) = call(Method::GET, path, Value::Null).await;
    assert_eq!(
        (left["keys"][0]["kid"].as_str(), left["keys"].as_array().unwrap().len()),
        (Some("second"), 1)
    );
    let trail = world.app.store.customer(acme).audit_trail(100).await.unwrap();
    for what in ["client.key.added", "client.key.removed"] {
        assert!(trail.iter().any(|row| row.what == what && row.detail.starts_with("robot ")), "{what}");
    }
}
