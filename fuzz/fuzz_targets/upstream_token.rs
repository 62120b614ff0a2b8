//! No bytes of another provider make us panic, and no token passes that its key did not sign.
#![no_main]

use bastide_identity::{IdKey, Upstream, UpstreamKeys, id_token::RSA_EXPONENT, upstream};
use std::sync::LazyLock;

static KEYS: LazyLock<UpstreamKeys> = LazyLock::new(|| {
    let key = IdKey::generate().expect("the system has randomness").0;
    // A short id that the fuzzer finds.
    let set = serde_json::json!({ "keys": [{ "kty": "RSA", "kid": "k", "n": key.n, "e": RSA_EXPONENT }] });
    UpstreamKeys::read(set.to_string().as_bytes()).expect("a set of one key")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = UpstreamKeys::read(bytes);
    let Ok(token) = std::str::from_utf8(bytes) else { return };
    let ours = Upstream { issuer: "https://op", client_id: "us", keys: &KEYS };
    assert!(ours.id_token(token, "n", 1000).is_err());
    assert!(ours.logout(token, 1000).is_err());
    let _ = upstream::key_id(token);
});
