//! Attacks on tokens, each on a cold and on a warm cache.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod revoked;
mod wycheproof;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::{Claims, Decision, Expect, SigningKey, TokenCache, TokenFault, decide, mint, verify};
use bastide_types::{AccessRule, Acr, snapshot::Issuer};
use proptest::prelude::*;
use serde_json::json;

const NOW: u64 = 1_800_000_000;
const EXPECT: Expect<'_> =
    Expect { audience: "https://a/shop", org: "org-a", stage: "test", life_max_s: 300 };

fn claims() -> Claims {
    Claims {
        iss: "https://issuer".into(),
        sub: "user".into(),
        aud: "https://a/shop".into(),
        exp: NOW + 300,
        nbf: NOW,
        iat: NOW,
        jti: "1".into(),
        sid: "s".into(),
        org: "org-a".into(),
        stage: "test".into(),
        client_id: "bastide-cli".into(),
        epoch: 3,
        name: "Ann".into(),
        roles: vec!["admin".into()],
        acr: Acr::Password,
        auth_time: 1,
    }
}

fn issuer(key: &SigningKey) -> Issuer {
    Issuer { url: "https://issuer".into(), keys: vec![key.verifying_key().clone()], token_epoch: 3 }
}

/// Checks a token cold, and again in a cache that already holds a good sibling.
fn check(issuer: &Issuer, key: &SigningKey, token: &str, expected: Result<(), TokenFault>) {
    assert_eq!(verify(token, issuer, &EXPECT, NOW).map(|_| ()), expected);
    let cache = TokenCache::new(100);
    let good = mint(key, &claims()).unwrap();
    cache.verify(&good, issuer, &EXPECT, NOW).unwrap();
    for _ in 0..2 {
        assert_eq!(cache.verify(token, issuer, &EXPECT, NOW).map(|_| ()), expected);
    }
}

/// Signs any header and any payload with the right key: what a careless issuer could make.
fn sign_raw(key: &SigningKey, header: &str, payload: &str) -> String {
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let text = format!("{}.{}", encode(header), encode(payload));
    let pair = Ed25519KeyPair::from_pkcs8(key.to_pkcs8()).unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.encode(pair.sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn good_header(key: &SigningKey) -> String {
    format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, key.verifying_key().kid)
}

/// Replaces the header and signs nothing anew.
fn with_header(token: &str, header: &str) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(header))
}

#[test]
fn a_good_token_passes() {
    let key = SigningKey::generate().unwrap();
    check(&issuer(&key), &key, &mint(&key, &claims()).unwrap(), Ok(()));
}

#[test]
fn each_wrong_claim_alone_is_refused() {
    let key = SigningKey::generate().unwrap();
    let issuer = issuer(&key);
    let refuse = |change: fn(&mut Claims), fault| {
        let mut claims = claims();
        change(&mut claims);
        check(&issuer, &key, &mint(&key, &claims).unwrap(), Err(fault));
    };
    refuse(|c| c.iss = "https://other".into(), TokenFault::WrongIssuer);
    refuse(|c| c.aud = "https://a/other".into(), TokenFault::WrongAudience);
    refuse(|c| c.org = "org-b".into(), TokenFault::WrongCustomer);
    refuse(|c| c.stage = "production".into(), TokenFault::WrongStage);
    refuse(|c| (c.iat, c.exp) = (NOW - 305, NOW - 5), TokenFault::Expired);
    refuse(|c| c.nbf = NOW + 6, TokenFault::NotYetValid);
    refuse(|c| (c.iat, c.exp) = (NOW + 6, NOW + 100), TokenFault::NotYetValid);
    refuse(|c| c.exp = NOW + 301, TokenFault::TooLongLived);
    refuse(|c| c.exp = u64::MAX, TokenFault::TooLongLived);
    refuse(|c| c.epoch = 2, TokenFault::Revoked);
    refuse(|c| c.sid = String::new(), TokenFault::Malformed);
}

#[test]
fn header_tricks_are_refused() {
    let key = SigningKey::generate().unwrap();
    let issuer = issuer(&key);
    let token = mint(&key, &claims()).unwrap();
    let kid = &key.verifying_key().kid;
    let refuse = |header: String, fault| check(&issuer, &key, &with_header(&token, &header), Err(fault));
    refuse(format!(r#"{{"alg":"none","typ":"at+jwt","kid":"{kid}"}}"#), TokenFault::BadSignature);
    refuse(format!(r#"{{"alg":"HS256","typ":"at+jwt","kid":"{kid}"}}"#), TokenFault::BadSignature);
    refuse(format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}"}}"#), TokenFault::WrongType);
    refuse(format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#), TokenFault::WrongType);
    refuse(r#"{"alg":"EdDSA","typ":"at+jwt"}"#.into(), TokenFault::UnknownKey);
    refuse(r#"{"alg":"EdDSA","typ":"at+jwt","kid":"x"}"#.into(), TokenFault::UnknownKey);
    for member in ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"] {
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}","{member}":[]}}"#);
        refuse(header, TokenFault::HeaderNotAllowed);
    }
    refuse(format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"x","kid":"{kid}"}}"#), TokenFault::Malformed);
}

#[test]
fn wrong_types_are_refused_although_signed() {
    let key = SigningKey::generate().unwrap();
    let issuer = issuer(&key);
    let header = good_header(&key);
    let good = serde_json::to_value(claims()).unwrap();
    check(&issuer, &key, &sign_raw(&key, &header, &good.to_string()), Ok(()));
    let later = (NOW + 100).to_string();
    for (name, value) in [
        ("exp", json!(later)),
        ("exp", json!(NOW as f64 + 100.5)),
        ("exp", json!(-1)),
        ("exp", json!(null)),
        ("nbf", json!(NOW.to_string())),
        ("iat", json!(NOW as f64 + 0.5)),
        ("iss", json!(["https://issuer"])),
        ("aud", json!(["https://a/shop"])),
        ("aud", json!({"https://a/shop": 1})),
        ("sub", json!(7)),
        ("sub", json!("")),
        ("sid", json!("")),
        ("org", json!(["org-a"])),
        ("stage", json!(["test"])),
        ("epoch", json!("3")),
        ("roles", json!("admin")),
        ("roles", json!({"admin": true})),
    ] {
        let mut changed = good.clone();
        changed[name] = value;
        let token = sign_raw(&key, &header, &changed.to_string());
        assert!(verify(&token, &issuer, &EXPECT, NOW).is_err(), "{changed}");
        let cache = TokenCache::new(10);
        for _ in 0..2 {
            assert!(cache.verify(&token, &issuer, &EXPECT, NOW).is_err(), "{changed}");
        }
    }
}

#[test]
fn an_absent_or_repeated_claim_is_refused_although_signed() {
    let key = SigningKey::generate().unwrap();
    let issuer = issuer(&key);
    let header = good_header(&key);
    let good = serde_json::to_value(claims()).unwrap();
    for name in good.as_object().unwrap().keys() {
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(name);
        let token = sign_raw(&key, &header, &without.to_string());
        match verify(&token, &issuer, &EXPECT, NOW) {
            // Tokens of an earlier version say nothing of it: they count as the weakest and oldest.
            Ok(found) if name == "acr" => assert_eq!(found.acr, Acr::Client),
            Ok(found) if name == "auth_time" => assert_eq!(found.auth_time, 0),
            Ok(_) => panic!("without {name}"),
            Err(_) => {}
        }
        if name == "acr" {
            let mut other = good.clone();
            other[name] = "better".into();
            let token = sign_raw(&key, &header, &other.to_string());
            assert!(verify(&token, &issuer, &EXPECT, NOW).is_err(), "an unknown class");
        }
        let twice = good.to_string().replacen('{', &format!(r#"{{"{name}":{},"#, good[name]), 1);
        let token = sign_raw(&key, &header, &twice);
        assert!(verify(&token, &issuer, &EXPECT, NOW).is_err(), "{name} twice");
    }
}

#[test]
fn a_claim_that_nobody_knows_is_refused_although_signed() {
    let key = SigningKey::generate().unwrap();
    let issuer = issuer(&key);
    let header = good_header(&key);
    for (name, value) in
        [("admin", json!(true)), ("cnf", json!({"jkt": "x"})), ("Roles", json!(["x"])), ("", json!(0))]
    {
        let mut more = serde_json::to_value(claims()).unwrap();
        more[name] = value;
        check(&issuer, &key, &sign_raw(&key, &header, &more.to_string()), Err(TokenFault::Malformed));
    }
}

#[test]
fn signed_header_tricks_are_refused() {
    let key = SigningKey::generate().unwrap();
    let issuer = issuer(&key);
    let payload = serde_json::to_string(&claims()).unwrap();
    let good = good_header(&key);
    let refuse = |header: &str, fault| {
        check(&issuer, &key, &sign_raw(&key, header, &payload), Err(fault));
    };
    for typ in ["JWT", "jwt", "logout+jwt", "dpop+jwt", "bst+jwt", "AT+JWT", "application/at+jwt"] {
        refuse(&good.replace("at+jwt", typ), TokenFault::WrongType);
    }
    for alg in ["none", "None", "HS256", "ES256", "RS256", "eddsa", "Ed25519"] {
        refuse(&good.replace("EdDSA", alg), TokenFault::BadSignature);
    }
    for member in [
        r#""crit":["exp"]"#,
        r#""b64":false"#,
        r#""zip":"DEF""#,
        r#""jku":"https://evil""#,
        r#""x":1"#,
        r#""cty":"JWT""#,
    ] {
        refuse(&good.replacen('{', &format!("{{{member},"), 1), TokenFault::HeaderNotAllowed);
    }
    let own_key = format!(r#"{{"jwk":{{"kty":"OKP","crv":"Ed25519","x":"{}"}},"#, key.verifying_key().x);
    refuse(&good.replacen('{', &own_key, 1), TokenFault::HeaderNotAllowed);
    for kid in ["../../key", "https://evil/jwks", "' or 1=1--", ""] {
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}"}}"#);
        refuse(&header, TokenFault::UnknownKey);
    }
    refuse("[]", TokenFault::Malformed);
    refuse("null", TokenFault::Malformed);
}

#[test]
fn the_public_key_does_not_serve_as_a_shared_secret() {
    let key = SigningKey::generate().unwrap();
    let issuer = issuer(&key);
    let header = format!(r#"{{"alg":"HS256","typ":"at+jwt","kid":"{}"}}"#, key.verifying_key().kid);
    let payload = serde_json::to_string(&claims()).unwrap();
    let text =
        format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(&header), BASE64_URL_SAFE_NO_PAD.encode(payload));
    let public = BASE64_URL_SAFE_NO_PAD.decode(&key.verifying_key().x).unwrap();
    let tag = aws_lc_rs::hmac::sign(
        &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public),
        text.as_bytes(),
    );
    let token = format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag));
    check(&issuer, &key, &token, Err(TokenFault::BadSignature));
}

#[test]
fn each_barrier_between_customers_holds_alone() {
    let (ours, theirs) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let issuer_of = |url: &str, keys: &[&SigningKey]| Issuer {
        url: url.into(),
        keys: keys.iter().map(|key| key.verifying_key().clone()).collect(),
        token_epoch: 3,
    };
    // Only the key is foreign.
    let token = mint(&theirs, &claims()).unwrap();
    check(&issuer_of("https://issuer", &[&ours]), &ours, &token, Err(TokenFault::UnknownKey));
    // Even if the key were shared, the issuer differs.
    let token = mint(&theirs, &Claims { iss: "https://theirs".into(), ..claims() }).unwrap();
    let shared = issuer_of("https://issuer", &[&ours, &theirs]);
    check(&shared, &ours, &token, Err(TokenFault::WrongIssuer));
    // Even if key and issuer were shared, the audience differs.
    let token = mint(&theirs, &Claims { aud: "https://theirs/shop".into(), ..claims() }).unwrap();
    check(&shared, &ours, &token, Err(TokenFault::WrongAudience));
}

#[test]
fn a_person_gets_five_minutes_and_a_client_an_hour() {
    let key = SigningKey::generate().unwrap();
    let issuer = issuer(&key);
    let expect = Expect { life_max_s: 3600, ..EXPECT };
    let hour = Claims { exp: NOW + 3600, ..claims() };
    let person = mint(&key, &hour).unwrap();
    assert_eq!(verify(&person, &issuer, &expect, NOW).map(|_| ()), Err(TokenFault::TooLongLived));
    let client = mint(&key, &Claims { sub: hour.client_id.clone(), ..hour }).unwrap();
    assert_eq!(verify(&client, &issuer, &expect, NOW).map(|_| ()), Ok(()));
    assert_eq!(verify(&client, &issuer, &EXPECT, NOW).map(|_| ()), Err(TokenFault::TooLongLived));
}

#[test]
fn a_key_that_takes_over_an_id_does_not_inherit_its_tokens() {
    let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let good = issuer(&key);
    let token = mint(&key, &claims()).unwrap();
    let cache = TokenCache::new(100);
    cache.verify(&token, &good, &EXPECT, NOW).unwrap();
    let mut taken = good.clone();
    taken.keys[0].x = other.verifying_key().x.clone();
    assert_eq!(cache.verify(&token, &taken, &EXPECT, NOW).map(|_| ()), Err(TokenFault::UnknownKey));
    assert_eq!(verify(&token, &taken, &EXPECT, NOW).map(|_| ()), Err(TokenFault::BadSignature));
}

#[test]
fn the_cache_stays_within_its_bounds_and_goes_on_working() {
    let key = SigningKey::generate().unwrap();
    let issuer = issuer(&key);
    let cache = TokenCache::new(1);
    for number in 0..300 {
        let token = mint(&key, &Claims { jti: number.to_string(), ..claims() }).unwrap();
        assert!(cache.verify(&token, &issuer, &EXPECT, NOW).is_ok());
        assert!(cache.verify(&token, &issuer, &EXPECT, NOW).is_ok());
    }
}

#[test]
fn a_foreign_key_and_a_changed_token_are_refused() {
    let (key, foreign) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let issuer = issuer(&key);
    check(&issuer, &key, &mint(&foreign, &claims()).unwrap(), Err(TokenFault::UnknownKey));
    let token = mint(&foreign, &claims()).unwrap();
    let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, key.verifying_key().kid);
    check(&issuer, &key, &with_header(&token, &header), Err(TokenFault::BadSignature));
    check(&issuer, &key, &"x".repeat(9000), Err(TokenFault::TooLarge));
}

#[test]
fn a_cached_token_dies_with_its_time_its_key_and_its_epoch() {
    let key = SigningKey::generate().unwrap();
    let good = issuer(&key);
    let token = mint(&key, &claims()).unwrap();
    let cache = TokenCache::new(100);
    cache.verify(&token, &good, &EXPECT, NOW).unwrap();
    assert_eq!(cache.verify(&token, &good, &EXPECT, NOW + 305).map(|_| ()), Err(TokenFault::Expired));
    let revoked = Issuer { token_epoch: 4, ..good.clone() };
    assert_eq!(cache.verify(&token, &revoked, &EXPECT, NOW).map(|_| ()), Err(TokenFault::Revoked));
    let rotated = Issuer { keys: vec![], ..good.clone() };
    assert_eq!(cache.verify(&token, &rotated, &EXPECT, NOW).map(|_| ()), Err(TokenFault::UnknownKey));
    let elsewhere = Expect { audience: "https://a/other", ..EXPECT };
    assert_eq!(cache.verify(&token, &good, &elsewhere, NOW).map(|_| ()), Err(TokenFault::WrongAudience));
}

#[test]
fn rules_decide_as_written() {
    let (ann, nobody) = (claims(), None);
    assert_eq!(decide(&AccessRule::Public, nobody), Decision::Pass);
    assert_eq!(decide(&AccessRule::Authenticated, nobody), Decision::SignIn);
    assert_eq!(decide(&AccessRule::Authenticated, Some(&ann)), Decision::Pass);
    assert_eq!(decide(&AccessRule::Roles(vec!["admin".into()]), Some(&ann)), Decision::Pass);
    assert_eq!(decide(&AccessRule::Roles(vec!["boss".into()]), Some(&ann)), Decision::Forbid);
    assert_eq!(decide(&AccessRule::Roles(vec!["boss".into()]), nobody), Decision::SignIn);
}

proptest! {
    #[test]
    fn no_change_of_one_byte_passes(place: prop::sample::Index, byte: u8) {
        static KEY: std::sync::LazyLock<SigningKey> =
            std::sync::LazyLock::new(|| SigningKey::generate().unwrap());
        let mut bytes = mint(&KEY, &claims()).unwrap().into_bytes();
        let place = place.index(bytes.len());
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(verify(&text, &issuer(&KEY), &EXPECT, NOW).is_err());
    }
    #[test]
    fn no_payload_makes_the_check_panic(payload in "\\PC*") {
        static KEY: std::sync::LazyLock<SigningKey> =
            std::sync::LazyLock::new(|| SigningKey::generate().unwrap());
        let token = sign_raw(&KEY, &good_header(&KEY), &payload);
        prop_assert!(verify(&token, &issuer(&KEY), &EXPECT, NOW).is_err());
    }
    #[test]
    fn no_text_makes_the_check_panic(text in "\\PC*") {
        let issuer = Issuer { url: String::new(), keys: vec![], token_epoch: 0 };
        prop_assert!(verify(&text, &issuer, &EXPECT, NOW).is_err());
    }
}
