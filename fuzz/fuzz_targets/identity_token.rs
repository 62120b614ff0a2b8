//! No bytes make the token check panic, and none pass: the key that would sign them is not known here.
#![no_main]

use bastide_identity::{Expect, IdKey, SigningKey, TokenCache, id_token, opaque, verify, verify_assertion};
use bastide_types::snapshot::Issuer;
use std::sync::LazyLock;

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let key = SigningKey::generate().expect("the system has randomness");
    let mut public = key.verifying_key().clone();
    // A short id that the fuzzer finds, so that it gets beyond the choice of the key.
    public.kid = "k".into();
    Issuer { url: "https://issuer".into(), keys: vec![public], token_epoch: 1 }
});

static ID_KEY: LazyLock<IdKey> = LazyLock::new(|| IdKey::generate().expect("the system has randomness").0);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(token) = std::str::from_utf8(bytes) else { return };
    let expect = Expect { audience: "a", org: "o", stage: "s", life_max_s: 300 };
    assert!(verify(token, &ISSUER, &expect, 1000).is_err());
    assert!(TokenCache::new(4).verify(token, &ISSUER, &expect, 1000).is_err());
    assert!(verify_assertion(token, &ISSUER.keys, "a", 1000).is_err());
    assert!(id_token::read_hint(token, "https://issuer", &[("k", &ID_KEY.n)]).is_none());
    assert!(opaque::typed_user_code(token).len() <= opaque::USER_CODE_LENGTH + 1);
});
