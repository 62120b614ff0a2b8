//! Private values at rest: AES-256-GCM under the key-encryption key, bound to their place.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    hkdf, hmac,
};

const NONCE_BYTES: usize = 12;

/// The key-encryption key.
pub struct Kek {
    key: RandomizedNonceKey,
    /// Made from it, for marks alone.
    marks: hmac::Key,
}

/// A value cannot be sealed or opened: another key, another place, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wrong key, wrong place, or damage")]
pub struct SealError;

impl Kek {
    /// Reads the 32 bytes of the key.
    pub fn new(bytes: &[u8]) -> Result<Self, SealError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| SealError)?;
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bastide store");
        let prk = salt.extract(bytes);
        let marks = prk.expand(&[b"marks"], hmac::HMAC_SHA256).map_err(|_| SealError)?;
        Ok(Self { key, marks: marks.into() })
    }

    /// A mark that shows that whoever holds the key wrote this value at this place.
    pub fn mark(&self, place: &str, value: &[u8]) -> Vec<u8> {
        hmac::sign(&self.marks, &marked(place, value)).as_ref().to_vec()
    }

    /// Whether it is such a mark.
    pub fn is_mark_of(&self, place: &str, value: &[u8], mark: &[u8]) -> bool {
        hmac::verify(&self.marks, &marked(place, value), mark).is_ok()
    }

    /// Seals a value for one place, such as `signing_key/<customer>/<kid>`: moved elsewhere it does not open.
    pub fn seal(&self, place: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = value.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| SealError)?;
        let mut bytes = nonce.as_ref().to_vec();
        bytes.append(&mut sealed);
        Ok(bytes)
    }

    /// Opens a value of this place.
    pub fn open(&self, place: &str, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        if bytes.len() < NONCE_BYTES {
            return Err(SealError);
        }
        let (nonce, sealed) = bytes.split_at(NONCE_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let mut sealed = sealed.to_vec();
        let open =
            self.key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut sealed).map_err(|_| SealError)?;
        Ok(open.to_vec())
    }
}

/// Place and value, kept apart by the length of the first.
fn marked(place: &str, value: &[u8]) -> Vec<u8> {
    [&(place.len() as u64).to_be_bytes(), place.as_bytes(), value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_in_its_place_only() {
        let kek = Kek::new(&[1; 32]).unwrap();
        let sealed = kek.seal("a/1", b"secret").unwrap();
        assert_eq!(kek.open("a/1", &sealed).unwrap(), b"secret");
        assert_eq!(kek.open("a/2", &sealed), Err(SealError));
        assert_eq!(Kek::new(&[2; 32]).unwrap().open("a/1", &sealed), Err(SealError));
        assert_eq!(kek.open("a/1", b"x"), Err(SealError));
    }

    #[test]
    fn a_mark_holds_for_its_place_value_and_key() {
        let kek = Kek::new(&[1; 32]).unwrap();
        let mark = kek.mark("a/1", b"value");
        assert!(kek.is_mark_of("a/1", b"value", &mark));
        for (place, value) in [("a/2", b"value".as_slice()), ("a/1", b"other"), ("a/1v", b"alue")] {
            assert!(!kek.is_mark_of(place, value, &mark), "{place}");
        }
        assert!(!Kek::new(&[2; 32]).unwrap().is_mark_of("a/1", b"value", &mark));
        assert!(!kek.is_mark_of("a/1", b"value", b""));
    }
}
