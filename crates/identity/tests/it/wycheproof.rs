//! Wycheproof's vectors against what checks our signatures. They are not kept here: `BASTIDE_WYCHEPROOF` names a directory
//! with the project's `testvectors_v1`; without it the test says that it skips.

use crate::{EXPECT, NOW};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::{id_token::read_hint, verify};
use bastide_types::snapshot::{Issuer, VerifyingKey};
use data_encoding::HEXLOWER;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::Value;
use std::path::PathBuf;

/// The vectors of a file; `None` when there are none here.
fn vectors(name: &str) -> Option<Value> {
    #[allow(clippy::disallowed_methods)] // only whoever runs the test knows where they are
    let Some(dir) = std::env::var_os("BASTIDE_WYCHEPROOF") else {
        println!("skipped: BASTIDE_WYCHEPROOF names no directory with Wycheproof's testvectors_v1");
        return None;
    };
    let text = std::fs::read_to_string(PathBuf::from(dir).join(name)).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

/// Each group with each of its tests.
fn tests(file: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let groups = file["testGroups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["tests"].as_array().unwrap().iter().map(move |test| (group, test)))
}

#[test]
fn every_ed25519_vector_is_judged_right() {
    let Some(file) = vectors("ed25519_test.json") else { return };
    let hex = |value: &Value| HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let mut judged = 0;
    for (group, test) in tests(&file) {
        let key = DecodingKey::from_ed_der(&hex(&group["publicKey"]["pk"]));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(hex(&test["sig"]));
        let good = crypto::verify(&signature, &hex(&test["msg"]), &key, Algorithm::EdDSA).unwrap_or(false);
        assert_eq!(good, test["result"] == "valid", "{test}");
        judged += 1;
    }
    println!("{judged} vectors, 0 exceptions");
    assert_eq!(Some(judged), file["numberOfTests"].as_u64());
}

#[test]
fn no_foreign_jws_passes_as_a_token_of_ours() {
    let Some(file) = vectors("json_web_signature_test.json") else { return };
    let mut refused = 0;
    for (group, test) in tests(&file) {
        let key = [&group["public"], &group["private"]].into_iter().find(|key| key.is_object());
        let part = |name: &str| key.and_then(|key| key[name].as_str()).unwrap_or("none").to_owned();
        let jws = match &test["jws"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // The key that signed, as if it were ours, under the id that the token names.
        let kid = part("kid");
        let keys = ["x", "n", "k"].map(|name| VerifyingKey { kid: kid.clone(), x: part(name) });
        let issuer = Issuer { url: "https://issuer".into(), keys: keys.to_vec(), token_epoch: 0 };
        assert!(verify(&jws, &issuer, &EXPECT, NOW).is_err(), "{test}");
        assert_eq!(read_hint(&jws, "https://issuer", &[(&kid, &part("n"))]), None, "{test}");
        refused += 1;
    }
    println!("{refused} vectors, none accepted");
    assert_eq!(Some(refused), file["numberOfTests"].as_u64());
}
