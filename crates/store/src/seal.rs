//! Private values at rest: AES-256-GCM under the key-encryption key, bound to their place.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};

const NONCE_BYTES: usize = 12;

/// The key-encryption key.
pub struct Kek(RandomizedNonceKey);

/// A value cannot be sealed or opened: another key, another place, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wrong key, wrong place, or damage")]
pub struct SealError;

impl Kek {
    /// Reads the 32 bytes of the key.
    pub fn new(bytes: &[u8]) -> Result<Self, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes).map(Self).map_err(|_| SealError)
    }

    /// Seals a value for one place, such as `signing_key/<customer>/<kid>`: moved elsewhere it does not open.
    pub fn seal(&self, place: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = value.to_vec();
        let nonce = self
            .0
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
            self.0.open_in_place(nonce, Aad::from(place.as_bytes()), &mut sealed).map_err(|_| SealError)?;
        Ok(open.to_vec())
    }
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
}
