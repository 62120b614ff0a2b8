//! JWTs as the broker reads them (`ed25519-nkey`, version 2 of its claims).
//!
//! Only minting and looking inside our own: the broker is the one who verifies them.

use crate::BusError;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Map, Value, json};

/// Longest JWT that is read, in bytes; those of stages have about 2 KB.
const BYTES_MAX: usize = 64 * 1024;

/// What a claim says about whom.
pub(crate) struct Claim<'c> {
    /// Public key of the operator, account or user.
    pub subject: &'c str,
    /// Its name for people.
    pub name: &'c str,
    /// Seconds since 1970.
    pub issued_at: u64,
    /// Seconds since 1970; `None` for ever.
    pub expires_at: Option<u64>,
    /// The broker's own part.
    pub nats: Value,
}

/// Signs a claim.
pub(crate) fn mint(signer: &KeyPair, claim: Claim<'_>) -> Result<String, BusError> {
    let mut body = Map::new();
    body.insert("iat".into(), claim.issued_at.into());
    body.insert("iss".into(), signer.public_key().into());
    body.insert("sub".into(), claim.subject.into());
    body.insert("name".into(), claim.name.into());
    if let Some(expires_at) = claim.expires_at {
        body.insert("exp".into(), expires_at.into());
    }
    body.insert("nats".into(), claim.nats);
    let id = digest(&SHA256, Value::Object(body.clone()).to_string().as_bytes());
    body.insert("jti".into(), URL_SAFE_NO_PAD.encode(id).into());
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(Value::Object(body).to_string())
    );
    let signature =
        signer.sign(signed.as_bytes()).map_err(|_| BusError::Config("a key cannot sign".into()))?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The claims inside a JWT of ours, **not verified**.
pub(crate) fn claims(jwt: &str) -> Result<Value, BusError> {
    let fault = || BusError::Malformed("not a JWT".into());
    if jwt.len() > BYTES_MAX {
        return Err(fault());
    }
    let mut parts = jwt.split('.');
    let (Some(_), Some(body), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(fault());
    };
    let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| fault())?;
    serde_json::from_slice(&body).map_err(|_| fault())
}

/// Whether two JWTs allow the same: all but the time and id of issue.
pub(crate) fn same_meaning(one: &str, other: &str) -> bool {
    let essence = |jwt: &str| {
        let mut claims = claims(jwt).ok()?;
        let object = claims.as_object_mut()?;
        object.remove("iat");
        object.remove("jti");
        Some(claims)
    };
    matches!((essence(one), essence(other)), (Some(one), Some(other)) if one == other)
}

/// Reads the seed of a key of one kind (`O`, `A` or `U`).
pub(crate) fn key_from_seed(seed: &str, kind: char) -> Result<KeyPair, BusError> {
    let seed = seed.trim();
    let form = seed.len() == 58 && seed.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let key = form.then(|| KeyPair::from_seed(seed).ok()).flatten();
    match key {
        Some(key) if key.public_key().starts_with(kind) => Ok(key),
        _ => Err(BusError::Config(format!("not the seed of a key of kind {kind}"))),
    }
}

/// Whether a text is a public key of this kind, checksum included.
pub(crate) fn is_public_key(text: &str, kind: char) -> bool {
    // The form is checked first: what comes here may come from a stage.
    let form = text.len() == 56 && text.bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b));
    form && text.starts_with(kind) && KeyPair::from_public_key(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,80}", key in "[A-Z2-7]{56}", seed in "S[A-Z0-9]{57}") {
            let _ = claims(&text);
            let _ = is_public_key(&text, 'A');
            prop_assert!(key_from_seed(&text, 'A').is_err());
            let _ = is_public_key(&key, 'A');
            let _ = key_from_seed(&seed, 'U');
        }
    }

    fn sample(name: &str, issued_at: u64) -> String {
        let key = KeyPair::new_from_raw(nkeys::KeyPairType::Account, [7; 32]).unwrap();
        let claim =
            Claim { subject: "A", name, issued_at, expires_at: None, nats: json!({"type": "account"}) };
        mint(&key, claim).unwrap()
    }

    #[test]
    fn a_jwt_minted_later_has_the_same_meaning_and_another_name_has_not() {
        assert!(same_meaning(&sample("x", 1), &sample("x", 2)));
        assert!(!same_meaning(&sample("x", 1), &sample("y", 1)));
        assert!(!same_meaning("", "") && !same_meaning("a.b.c", "a.b.c"));
    }

    #[test]
    fn keys_are_known_by_kind_and_checksum() {
        let key = KeyPair::new_user();
        let public = key.public_key();
        assert!(is_public_key(&public, 'U') && !is_public_key(&public, 'A'));
        let mut broken = public.into_bytes();
        broken[20] = if broken[20] == b'A' { b'B' } else { b'A' };
        assert!(!is_public_key(std::str::from_utf8(&broken).unwrap(), 'U'));
        for text in ["", "U", "U.>", &"U".repeat(56), &"=".repeat(56)] {
            assert!(!is_public_key(text, 'U'), "{text}");
        }
        assert!(key_from_seed(&key.seed().unwrap(), 'U').is_ok());
        assert!(key_from_seed(&key.seed().unwrap(), 'A').is_err());
        assert!(key_from_seed("SU", 'U').is_err());
    }
}
