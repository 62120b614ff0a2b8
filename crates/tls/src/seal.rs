//! Private keys on their way to an edge: sealed to that edge's own key, so that neither the broker nor a copied
//! Snapshot gives them away. HPKE (RFC 9180): X25519, HKDF-SHA256, AES-256-GCM, as rustls brings it.

use crate::TlsError;
use bastide_types::Secret;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};

/// Bytes of an X25519 key, and of an encapsulated secret.
const KEY_BYTES: usize = 32;
/// What these sealed values are, so that they are nothing else anywhere.
const INFO: &[u8] = b"bastide: a certificate's private key for an edge, 1";

/// The key that an edge opens sealed values with.
pub struct SealingKey {
    public: SealingPublic,
    private: HpkePrivateKey,
}

/// Its public half, with which the Platform seals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingPublic(Vec<u8>);

/// A sealed value does not open: another key, another place, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wrong key, wrong place, or damage")]
pub struct SealedFault;

impl SealingKey {
    /// Makes a key.
    pub fn generate() -> Result<Self, TlsError> {
        let (public, private) = SUITE.generate_key_pair().map_err(TlsError::Config)?;
        Ok(Self { public: SealingPublic(public.0), private })
    }

    /// Reads what [`Self::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TlsError> {
        match bytes.split_at_checked(KEY_BYTES) {
            Some((public, private)) if private.len() == KEY_BYTES => {
                Ok(Self { public: SealingPublic(public.into()), private: private.to_vec().into() })
            }
            _ => Err(TlsError::Pem { what: "sealing key" }),
        }
    }

    /// Public and private half, for a file that nobody else reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.public.0, self.private.secret_bytes()].concat()
    }

    /// The public half.
    pub fn public(&self) -> &SealingPublic {
        &self.public
    }

    /// Opens what was sealed for this key and place.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Secret, SealedFault> {
        let (secret, text) = sealed.split_at_checked(KEY_BYTES).ok_or(SealedFault)?;
        let secret = EncapsulatedSecret(secret.to_vec());
        let opened = SUITE.open(&secret, INFO, place.as_bytes(), text, &self.private);
        String::from_utf8(opened.map_err(|_| SealedFault)?).map(Secret::new).map_err(|_| SealedFault)
    }
}

impl SealingPublic {
    /// Reads the bytes of a public key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TlsError> {
        if bytes.len() == KEY_BYTES {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(TlsError::Pem { what: "public sealing key" })
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A short name for it: the first half of its SHA-256, hexadecimal.
    pub fn id(&self) -> String {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0);
        crate::ca::hex(&hash.as_ref()[..16])
    }

    /// Seals a value for one place, such as the domain that it belongs to: it opens nowhere else.
    pub fn seal(&self, place: &str, value: &Secret) -> Result<Vec<u8>, TlsError> {
        let to = HpkePublicKey(self.0.clone());
        let (secret, text) =
            SUITE.seal(INFO, place.as_bytes(), value.expose().as_bytes(), &to).map_err(TlsError::Config)?;
        Ok([secret.0, text].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_opens_with_its_key_and_in_its_place_only() {
        let (key, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        let sealed = key.public().seal("a.example.com", &Secret::new("the key")).unwrap();
        let read = SealingKey::from_bytes(&key.to_bytes()).unwrap();
        assert_eq!(read.open("a.example.com", &sealed).unwrap().expose(), "the key");
        assert!(read.open("b.example.com", &sealed).is_err());
        assert!(other.open("a.example.com", &sealed).is_err());
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(read.open("a.example.com", &damaged).is_err());
        assert_ne!(key.public().id(), other.public().id());
        assert!(SealingKey::from_bytes(&[0; 63]).is_err() && SealingPublic::from_bytes(&[0; 31]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = SealingKey::generate().unwrap();
            prop_assert!(key.open("a.example.com", &bytes).is_err());
        }
    }
}
