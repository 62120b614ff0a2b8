//! No bytes of an authenticator make the check of passkeys panic, and none pass: nobody has signed them.
#![no_main]

use bastide_identity::{
    Passkey, RelyingParty,
    passkey::{Answer, NewAnswer, Owner},
};
use std::sync::LazyLock;

struct Asked {
    party: RelyingParty,
    made: String,
    shown: String,
}

static ASKED: LazyLock<Asked> = LazyLock::new(|| {
    let party = RelyingParty::new("a.example", "https://a.example", "a").expect("a host and its origin");
    let owner = Owner { id: uuid::Uuid::nil(), email: "a", name: "a" };
    let made = party.ask_new(&owner, &[]).expect("the system has randomness").state;
    let shown = party.ask(&[]).expect("the system has randomness").state;
    Asked { party, made, shown }
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Asked { party, made, shown } = &*ASKED;
    let passkey = Passkey::from_bytes(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Parts are apart by lines, so that the fuzzer can change one of them.
    let mut lines = text.lines();
    let mut part = || lines.next().unwrap_or_default();
    assert!(party.made(made, &NewAnswer { client_data: part(), attestation: part() }).is_err());
    let answer = Answer {
        credential: part(),
        client_data: part(),
        authenticator_data: part(),
        signature: part(),
        user_handle: Some(part()),
    };
    let _ = (answer.hash(), answer.owner());
    if let Ok(passkey) = passkey {
        let _ = party.shown(shown, &answer, &passkey);
    }
});
