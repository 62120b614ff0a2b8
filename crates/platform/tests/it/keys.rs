//! Keys of issuers are exchanged: by themselves, when asked for, and in an emergency.

use crate::{api::world, road::Road};
use axum::body::Body;
use bastide_identity::{Claims, Expect, TokenFault, claims::CLIENT_LIFE_S, opaque, verify};
use bastide_platform::{
    keys::{PUBLISHED_S, pass},
    router,
};
use bastide_store::{ClientRow, KeyKind, KeyState, now_s};
use bastide_types::{CustomerId, CustomerName, snapshot::Issuer};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

const DAY: i64 = 86_400;

struct Keys {
    road: Road,
    acme: CustomerId,
}

impl Keys {
    async fn new() -> Self {
        let road = Road::in_world(world().await).await;
        let store = &road.world.app.store;
        let acme = store.customer_named(&CustomerName::new("acme").unwrap()).await.unwrap().unwrap().id;
        let mut write = store.write().await.unwrap();
        let robot = ClientRow::service("robot", vec!["developer".into()]);
        store.customer(acme).put_client(&mut write, &robot, &opaque::hash("secret")).await.unwrap();
        write.commit().await.unwrap();
        Self { road, acme }
    }

    async fn look(&self, now: i64) {
        pass(&self.road.world.app, now).await.unwrap();
    }

    async fn identity(&self, method: Method, path: &str, body: &'static str) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "acme.platform.localhost:8443")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap();
        let app = self.road.world.app.clone();
        let response = router(app, |_| axum::Router::new()).oneshot(request).await.unwrap();
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    async fn token(&self) -> String {
        let form = "grant_type=client_credentials&client_id=robot&client_secret=secret";
        let answer = self.identity(Method::POST, "/identity/token", form).await;
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// The members' issuer as gateways know it.
    async fn issuer(&self) -> Issuer {
        self.road.snapshot().await.customers[&CustomerName::new("acme").unwrap()].issuer.clone()
    }

    async fn verified(&self, token: &str) -> Result<Claims, TokenFault> {
        let audience =
            self.road.world.app.config.domains.platform_audience(&CustomerName::new("acme").unwrap());
        let org = self.acme.to_string();
        let expect = Expect { audience: &audience, org: &org, stage: "platform", life_max_s: CLIENT_LIFE_S };
        verify(token, &self.issuer().await, &expect, now_s().unsigned_abs())
    }

    /// States of the keys of access tokens, with their ids.
    async fn states(&self) -> Vec<(KeyState, String)> {
        let own = self.road.world.app.store.customer(self.acme);
        let keys = own.public_keys(None, KeyKind::Access).await.unwrap();
        keys.into_iter().map(|key| (key.state, key.kid)).collect()
    }

    /// Ids of the keys that `/jwks` names.
    async fn published(&self) -> Vec<String> {
        let keys = self.identity(Method::GET, "/identity/jwks", "").await;
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    async fn rotate(&self, body: &str) -> (u16, String) {
        let world = &self.road.world;
        let administrator = world.assertion(self.acme, &["administrator"]);
        let path = "/api/v1/keys/rotation";
        let (status, text) =
            world.call("acme", Method::POST, path, Some(&administrator), body.to_owned()).await;
        (status.as_u16(), text)
    }
}

fn signer(token: &str) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let head = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_is_published_signs_counts_on_and_is_forgotten() {
    let keys = Keys::new().await;
    let begin = now_s();
    keys.look(begin).await;
    let [(KeyState::Current, first), (KeyState::Next, second)] = &keys.states().await[..] else { panic!() };
    let token = keys.token().await;
    assert_eq!(signer(&token), *first, "the next key signs nothing");
    for known in [first, second] {
        assert!(keys.published().await.contains(known));
        assert!(keys.issuer().await.keys.iter().any(|key| key.kid == *known));
    }
    keys.look(begin + 29 * DAY).await;
    assert_eq!(keys.states().await.len(), 2, "not yet");
    keys.look(begin + 31 * DAY).await;
    let after = keys.token().await;
    assert_eq!(signer(&after), *second);
    assert!(keys.verified(&token).await.is_ok(), "what the former key signed counts");
    assert!(keys.verified(&after).await.is_ok());
    keys.look(begin + 31 * DAY + 1).await;
    let states: Vec<_> = keys.states().await.into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, [KeyState::Current, KeyState::Next, KeyState::Previous]);
    keys.look(begin + 31 * DAY + 3600 + 601).await;
    assert_eq!(keys.states().await.len(), 2);
    assert_eq!(keys.verified(&token).await, Err(TokenFault::UnknownKey));
    assert!(!keys.published().await.contains(first) && keys.verified(&after).await.is_ok());
}

#[tokio::test]
async fn a_rotation_that_is_asked_for_waits_until_the_next_key_is_known() {
    let keys = Keys::new().await;
    let (status, text) = keys.rotate("{}").await;
    assert!(status == 409 && text.contains("B-ID-0409"), "there is no next key: {text}");
    keys.look(now_s()).await;
    assert_eq!(keys.rotate("{}").await.0, 409, "it is too young");
    assert_eq!(keys.rotate(r#"{"all":true}"#).await.0, 409);
    assert_eq!(keys.rotate(r#"{"stage":"nowhere"}"#).await.0, 404);
    assert_eq!(keys.rotate(r#"{"stage":"test","all":true}"#).await.0, 422);

    let keys = Keys::new().await;
    keys.look(now_s() - PUBLISHED_S - 1).await;
    let before = keys.states().await;
    let token = keys.token().await;
    let (status, text) = keys.rotate(r#"{"all":true}"#).await;
    assert_eq!(status, 204, "{text}");
    let after = keys.states().await;
    let expected = [(KeyState::Current, before[1].1.clone()), (KeyState::Previous, before[0].1.clone())];
    assert_eq!(after, expected);
    assert!(keys.verified(&token).await.is_ok());
    let trail = keys.road.world.app.store.customer(keys.acme).audit_trail(100).await.unwrap();
    assert_eq!(trail.iter().filter(|row| row.what == "key.rotated").count(), 4, "members and three stages");
}

#[tokio::test]
async fn an_emergency_takes_all_keys_and_whatever_they_signed_at_once() {
    let keys = Keys::new().await;
    keys.look(now_s()).await;
    let (token, before) = (keys.token().await, keys.states().await);
    let claims = keys.verified(&token).await.unwrap();
    let own = keys.road.world.app.store.customer(keys.acme);
    assert_eq!(own.token_floor().await.unwrap(), 0);
    let (status, text) = keys.rotate(r#"{"emergency":true}"#).await;
    assert_eq!(status, 204, "{text}");
    let (after, published) = (keys.states().await, keys.published().await);
    assert_eq!(
        after.iter().map(|(state, _)| *state).collect::<Vec<_>>(),
        [KeyState::Current, KeyState::Next]
    );
    for (_, gone) in &before {
        assert!(!published.contains(gone) && after.iter().all(|(_, kid)| kid != gone));
    }
    assert_eq!(keys.verified(&token).await, Err(TokenFault::UnknownKey));
    // Who forges tokens with the old key after all comes too late, too: their epoch is over.
    assert!(claims.epoch < own.token_floor().await.unwrap());
    assert_eq!(keys.issuer().await.token_epoch, own.token_floor().await.unwrap());
    let fresh = keys.token().await;
    assert_eq!(signer(&fresh), after[0].1);
    assert!(keys.verified(&fresh).await.is_ok());
}
