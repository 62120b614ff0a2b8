//! The head of a stored response: parsed, and ready to send.

use crate::control::Named;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::sync::Arc;

/// Fields of a stored response, in order: as a map, and as HTTP/1 sends them. The values of the map lie in that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    fields: Arc<HeaderMap>,
    wire: Bytes,
}

impl Head {
    /// A head with these fields.
    pub fn new(headers: &HeaderMap) -> Self {
        let length = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let mut wire = BytesMut::with_capacity(length);
        let mut places = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            wire.put_slice(name.as_str().as_bytes());
            wire.put_slice(b": ");
            places.push((name, wire.len(), wire.len() + value.len()));
            wire.put_slice(value.as_bytes());
            wire.put_slice(b"\r\n");
        }
        let wire = wire.freeze();
        let mut fields = HeaderMap::with_capacity(places.len());
        for (name, start, end) in places {
            let value = HeaderValue::from_maybe_shared(wire.slice(start..end));
            fields.append(name.clone(), value.expect("it was a field's value before"));
        }
        Self { fields: Arc::new(fields), wire }
    }

    /// All fields.
    pub fn fields(&self) -> &Arc<HeaderMap> {
        &self.fields
    }

    /// The fields as HTTP/1 sends them, each line ended.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// The first value of a field.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.fields.get(name)
    }

    /// The fields as a map of one's own.
    pub fn to_map(&self) -> HeaderMap {
        HeaderMap::clone(&self.fields)
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> usize {
        // An entry of the map holds a hash and links beside name and value, and there are indices to it.
        const ENTRY: usize = size_of::<(HeaderName, HeaderValue)>() + 40;
        self.wire.len() + self.fields.len() * ENTRY
    }
}

/// Fields of one connection (RFC 9111 §3.1, RFC 9110 §7.6.1).
const OF_A_CONNECTION: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "http2-settings",
];

/// The fields without those of a connection: the known ones and all that `Connection` nominates. The others
/// keep their order.
pub fn without_connection(headers: &HeaderMap) -> HeaderMap {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    only(headers, |name| !OF_A_CONNECTION.contains(&name.as_str()) && !nominated.contains(name))
}

/// The fields that are stored (RFC 9111 §3.1): none of a connection, none that `private` or `no-cache` names, and
/// not what is said anew in each answer, the length and the age.
pub fn to_store(headers: &HeaderMap, private: &Named, no_cache: &Named) -> HeaderMap {
    let named = |name: &HeaderName| private.fields().contains(name) || no_cache.fields().contains(name);
    only(&without_connection(headers), |name| {
        *name != header::CONTENT_LENGTH && *name != header::AGE && !named(name)
    })
}

/// Brings new fields into stored ones (RFC 9111 §3.2): all lines of a name are replaced; what the new ones lack
/// stays. The length and range of what is stored are facts about it, which no later head can change.
pub fn merge(stored: &HeaderMap, new: &HeaderMap) -> HeaderMap {
    let new = only(&without_connection(new), |name| {
        *name != header::CONTENT_LENGTH && *name != header::CONTENT_RANGE
    });
    let mut merged = only(stored, |name| !new.contains_key(name));
    merged.extend(new);
    merged
}

fn only(headers: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if keep(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    #[test]
    fn a_head_is_kept_in_both_forms() {
        let fields = map(&[("etag", "\"a\""), ("x", "1"), ("x", "")]);
        let head = Head::new(&fields);
        assert_eq!(&head.wire()[..], b"etag: \"a\"\r\nx: 1\r\nx: \r\n");
        assert_eq!(**head.fields(), fields);
        assert_eq!(head.get(&header::ETAG).unwrap(), "\"a\"");
    }

    #[test]
    fn fields_of_a_connection_and_nominated_ones_are_not_stored() {
        let headers = map(&[
            ("connection", "a, b"),
            ("connection", ",c"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("d", "4"),
            ("keep-alive", "x"),
            ("proxy-connection", "x"),
            ("te", "x"),
            ("transfer-encoding", "x"),
            ("upgrade", "x"),
            ("proxy-authenticate", "x"),
            ("proxy-authentication-info", "x"),
            ("proxy-authorization", "x"),
            ("content-length", "5"),
            ("age", "5"),
            ("e", "5"),
            ("f", "6"),
            ("set-cookie", "a=b"),
            ("content-foo", "7"),
        ]);
        let named = |name| Named::Fields(vec![HeaderName::from_static(name)]);
        let left = to_store(&headers, &named("e"), &named("f"));
        let left: Vec<_> = left.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["d", "set-cookie", "content-foo"]);
    }

    #[test]
    fn every_field_of_the_new_head_replaces_all_stored_lines() {
        let stored = map(&[
            ("a", "1"),
            ("a", "2"),
            ("b", "1"),
            ("content-length", "5"),
            ("content-range", "x"),
            ("content-foo", "1"),
        ]);
        let new = map(&[
            ("a", "3"),
            ("a", "4"),
            ("c", "5"),
            ("content-length", "9"),
            ("content-range", "y"),
            ("content-foo", "2"),
            ("connection", "d"),
            ("d", "6"),
        ]);
        let expected = map(&[
            ("a", "3"),
            ("a", "4"),
            ("b", "1"),
            ("c", "5"),
            ("content-length", "5"),
            ("content-range", "x"),
            ("content-foo", "2"),
        ]);
        assert_eq!(merge(&stored, &new), expected);
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(stored in proptest::collection::vec(("[a-d]", "[0-9]"), 0..8), new in proptest::collection::vec(("[a-d]", "[0-9]"), 0..8)) {
            let fields = |list: &[(String, String)]| map(&list.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>());
            let (stored, new) = (fields(&stored), fields(&new));
            let once = merge(&stored, &new);
            prop_assert_eq!(merge(&once, &new), once);
        }
    }
}
