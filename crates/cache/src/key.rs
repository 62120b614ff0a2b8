//! What a stored response is found by.

use bytes::Bytes;
use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, OnceLock},
};

/// A key: every part with its length, so that no two requests share one by accident or design.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    hash: u64,
    target_at: usize,
    bytes: Bytes,
}

/// The beginning of all keys of one site: what keeps sites apart (customer, stage, app, revision).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(Arc<[u8]>);

impl Scope {
    /// A scope of these parts.
    pub fn new(parts: &[&str]) -> Self {
        let mut bytes = Vec::with_capacity(160);
        put(&mut bytes, &(parts.len() as u32).to_be_bytes());
        for part in parts {
            put(&mut bytes, part.as_bytes());
        }
        Self(bytes.into())
    }
}

impl Key {
    /// The key of a request: scope, scheme, host in any letter case, and canonical path with query.
    pub fn new(scope: &Scope, scheme: &str, host: &str, target: &str) -> Self {
        let length = scope.0.len() + scheme.len() + host.len() + target.len() + 12;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&scope.0);
        put(&mut bytes, scheme.as_bytes());
        let at = bytes.len() + 4;
        put(&mut bytes, host.as_bytes());
        bytes[at..].make_ascii_lowercase();
        put(&mut bytes, target.as_bytes());
        Self { hash: seed().hash_one(&bytes), target_at: bytes.len() - target.len(), bytes: bytes.into() }
    }

    /// The key of what was made of content that is stored under this one: its id, and what was done with it.
    #[must_use]
    pub fn derived(&self, content_id: u64, what: &str) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len() + what.len() + 16);
        bytes.extend_from_slice(&self.bytes);
        put(&mut bytes, &content_id.to_be_bytes());
        put(&mut bytes, what.as_bytes());
        // No purge means it by its address: it goes with what it was made of.
        Self { hash: seed().hash_one(&bytes), target_at: bytes.len(), bytes: bytes.into() }
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.target_at..]).unwrap_or_default()
    }

    /// A hash that nobody outside can foresee.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Bytes that it takes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: a key has parts.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
    bytes.extend_from_slice(part);
}

/// One seed for the whole process, so that a hash means the same everywhere in it.
fn seed() -> &'static RandomState {
    static SEED: OnceLock<RandomState> = OnceLock::new();
    SEED.get_or_init(RandomState::new)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x}, {:?})", self.hash, String::from_utf8_lossy(&self.bytes))
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// For maps by [`Key`], whose hash is there already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn different_parts_never_share_a_key(a in proptest::collection::vec("[a-c]{0,3}", 0..5), b in proptest::collection::vec("[a-c]{0,3}", 0..5), host in "[a-c]{0,2}", target in "[a-c]{0,2}") {
            let key = |parts: &[String], host: &str, target: &str| {
                let parts: Vec<_> = parts.iter().map(String::as_str).collect();
                Key::new(&Scope::new(&parts), "https", host, target)
            };
            prop_assert_eq!(key(&a, "h", "/") == key(&b, "h", "/"), a == b);
            prop_assert_eq!(key(&a, &host, &target) == key(&a, &target, &host), host == target);
            prop_assert_eq!(key(&a, &host, &target), key(&a, &host.to_ascii_uppercase(), &target));
        }
    }

    #[test]
    fn what_is_made_of_content_has_a_key_of_its_own() {
        let key = |target| Key::new(&Scope::new(&["acme", "test"]), "https", "a", target);
        let keys = [
            key("/x"),
            key("/x").derived(1, "br"),
            key("/x").derived(2, "br"),
            key("/x").derived(1, "gzip"),
            key("/y").derived(1, "br"),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(at + 1).all(|other| other != one), "{one:?}");
        }
    }

    #[test]
    fn scheme_host_path_and_query_are_all_in_it() {
        let scope = Scope::new(&["acme", "test"]);
        let keys = [
            Key::new(&scope, "https", "a", "/x?y"),
            Key::new(&scope, "http", "a", "/x?y"),
            Key::new(&scope, "https", "b", "/x?y"),
            Key::new(&scope, "https", "a", "/x"),
            Key::new(&scope, "https", "a", "/x?"),
            Key::new(&scope, "https", "a", "/X?y"),
            Key::new(&Scope::new(&["acmet", "est"]), "https", "a", "/x?y"),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(at + 1).all(|other| other != one), "{one:?}");
        }
    }
}
