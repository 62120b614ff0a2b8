//! No bytes of a client make us panic, no word passes that its key did not sign, and a key that is read is read again.
#![no_main]

use bastide_identity::{ClientKey, SigningKey, Unproven};
use std::sync::LazyLock;

static KEY: LazyLock<ClientKey> = LazyLock::new(|| {
    let x = SigningKey::generate().expect("the system has randomness").verifying_key().x.clone();
    // A short id that the fuzzer finds.
    let jwk = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x });
    ClientKey::read(&jwk).expect("a good key")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(document) = serde_json::from_slice(bytes) {
        for key in ClientKey::read_all(&document).unwrap_or_default() {
            assert_eq!(ClientKey::read(&key.jwk()), Ok(key));
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(unproven) = Unproven::read(text) else { return };
    let _ = (unproven.client(), unproven.kid());
    assert!(unproven.prove(&KEY, "https://op", 1000).is_err());
});
