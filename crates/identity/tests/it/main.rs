//! Attacks on tokens, each on a cold and on a warm cache.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::{Claims, Decision, Expect, SigningKey, TokenCache, TokenFault, decide, mint, verify};
use bastide_types::{AccessRule, snapshot::Issuer};
use proptest::prelude::*;

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
    fn no_text_makes_the_check_panic(text in "\\PC*") {
        let issuer = Issuer { url: String::new(), keys: vec![], token_epoch: 0 };
        prop_assert!(verify(&text, &issuer, &EXPECT, NOW).is_err());
    }
}
