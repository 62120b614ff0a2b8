//! Which directives govern a response: a targeted field (RFC 9213) or `Cache-Control`.

use crate::{
    control::{CacheControl, Named, SECONDS_MAX},
    sf::{self, Value},
};
use http::{HeaderMap, HeaderName};

/// The usual targeted field of a CDN.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Directives that govern, and whether they came from a targeted field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Governing {
    /// The directives.
    pub control: CacheControl,
    /// A targeted field governs: `Cache-Control` and `Expires` of the response count for nothing.
    pub targeted: bool,
}

/// Finds the first field of `targets` that is valid and not empty; without one, `Cache-Control` governs.
pub fn governing(headers: &HeaderMap, targets: &[HeaderName]) -> Governing {
    for name in targets {
        if !headers.contains_key(name) {
            continue;
        }
        match sf::dictionary(headers, name) {
            Some(members) if !members.is_empty() => {
                return Governing { control: control(&members), targeted: true };
            }
            _ => {}
        }
    }
    Governing { control: CacheControl::read(headers), targeted: false }
}

/// A value of the wrong type is never coerced: a flag is then not set, a lifetime is there and stale.
fn control(members: &[(String, Value)]) -> CacheControl {
    let mut control = CacheControl::default();
    for (name, value) in members {
        let seconds = match value {
            Value::Integer(seconds) => u64::try_from(*seconds).unwrap_or(0).min(SECONDS_MAX),
            _ => 0,
        };
        let is_set = *value == Value::Boolean(true);
        let named = |slot: &mut Named| match value {
            Value::Boolean(true) => slot.add(None),
            Value::String(names) => slot.add(Some(names.as_bytes())),
            _ => {}
        };
        match name.as_str() {
            "max-age" => control.max_age = Some(seconds),
            "s-maxage" => control.s_maxage = Some(seconds),
            "stale-while-revalidate" => control.stale_while_revalidate = Some(seconds),
            "stale-if-error" => control.stale_if_error = Some(seconds),
            "no-cache" => named(&mut control.no_cache),
            "private" => named(&mut control.private),
            "no-store" => control.no_store = is_set,
            "public" => control.public = is_set,
            "must-revalidate" => control.must_revalidate = is_set,
            "proxy-revalidate" => control.proxy_revalidate = is_set,
            "must-understand" => control.must_understand = is_set,
            "no-transform" => control.no_transform = is_set,
            _ => {}
        }
    }
    control
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};

    fn found(targeted: &str, plain: &str) -> Governing {
        let mut headers = HeaderMap::new();
        headers.insert(CDN_CACHE_CONTROL, HeaderValue::from_str(targeted).unwrap());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_str(plain).unwrap());
        governing(&headers, &[CDN_CACHE_CONTROL])
    }

    #[test]
    fn a_valid_targeted_field_governs_alone() {
        let governing = found("max-age=60, foobar, no-cache=\"set-cookie\"", "no-store, private");
        assert!(governing.targeted && !governing.control.no_store);
        assert_eq!(governing.control.max_age, Some(60));
        assert_eq!(governing.control.no_cache.fields(), [header::SET_COOKIE]);
        assert!(found("none", "max-age=60").targeted);
    }

    #[test]
    fn an_invalid_or_empty_one_is_absent() {
        for absent in ["", "max-age=10000, &&&&&", "Max-Age=1", "max-age=1000000000000000", "max-age= 1"] {
            let governing = found(absent, "no-store");
            assert!(!governing.targeted && governing.control.no_store, "{absent}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_not_coerced() {
        for wrong in ["1.5", "\"10000\"", "token", "(10)", "-1", "?1"] {
            let governing = found(&format!("max-age={wrong}"), "max-age=60");
            assert!(governing.targeted);
            assert_eq!(governing.control.max_age, Some(0), "{wrong}");
        }
        for wrong in ["no-store=?0", "no-store=1", "no-store=\"x\"", "no-store=yes"] {
            assert!(!found(wrong, "").control.no_store, "{wrong}");
        }
        assert!(
            found("private", "").control.private.is_all() && found("no-cache", "").control.no_cache.is_all()
        );
        assert_eq!(found("private=1", "").control.private, Named::No);
    }

    #[test]
    fn lifetimes_saturate_and_the_last_duplicate_counts() {
        assert_eq!(found("max-age=99999999999", "").control.max_age, Some(SECONDS_MAX));
        assert_eq!(found("max-age=1, max-age=2", "").control.max_age, Some(2));
        assert_eq!(found("max-age=3600;x=5", "").control.max_age, Some(3600));
    }

    #[test]
    fn the_first_of_several_targets_governs() {
        let own = HeaderName::from_static("bastide-cache-control");
        let mut headers = HeaderMap::new();
        headers.insert(CDN_CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
        let targets = [own.clone(), CDN_CACHE_CONTROL];
        assert_eq!(governing(&headers, &targets).control.max_age, Some(1));
        headers.insert(own, HeaderValue::from_static("max-age=2"));
        assert_eq!(governing(&headers, &targets).control.max_age, Some(2));
        assert!(!governing(&headers, &[]).targeted, "what is on no list changes nothing");
    }
}
