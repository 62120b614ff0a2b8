//! What a stored response is found by.

use http::Uri;

/// A key: every part with its length, so that no two requests share one by accident or design.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key of a request: scheme, host, canonical path and query, and the scopes that keep sites apart
    /// (customer, stage, app, revision).
    pub fn new(scheme: &str, host: &str, uri: &Uri, scopes: &[&str]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        for part in [scheme, &host.to_ascii_lowercase(), target].into_iter().chain(scopes.iter().copied()) {
            bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(bytes)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn different_parts_never_share_a_key(a in proptest::collection::vec("[a-z]{0,3}", 2), b in proptest::collection::vec("[a-z]{0,3}", 2)) {
            let uri = Uri::from_static("/x");
            let key = |parts: &[String]| Key::new("https", "h", &uri, &[&parts[0], &parts[1]]);
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }
}
