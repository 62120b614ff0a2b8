//! Security fields of a stage's answers.

use bastide_types::site::{SecurityField, SecurityFields};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Fields that answers get.
pub(crate) struct Fields {
    all: Vec<Field>,
    mark: u64,
}

struct Field {
    name: HeaderName,
    value: HeaderValue,
    force: bool,
    /// Only where the host is the customer's own.
    custom_only: bool,
}

impl Default for Fields {
    fn default() -> Self {
        Self::new(&SecurityFields::default())
    }
}

impl Fields {
    /// Those that were said, and the defaults.
    pub(crate) fn new(said: &SecurityFields) -> Self {
        let (mut all, mut mark) = (Vec::new(), DefaultHasher::new());
        for own in said.in_force() {
            let Ok(value) = HeaderValue::from_str(&own.value) else { continue };
            (own.field, &own.value, own.force).hash(&mut mark);
            let custom_only = own.field == SecurityField::StrictTransportSecurity;
            let name = HeaderName::from_static(own.field.name());
            all.push(Field { name, value, force: own.force, custom_only });
        }
        Self { all, mark: mark.finish() }
    }

    /// What tells them apart from others: stored answers carry those that held when they were stored.
    pub(crate) fn mark(&self) -> u64 {
        self.mark
    }

    /// Adds them to an answer of an app. One that only says that a stored answer holds gets none: the app need not
    /// repeat its own there, and they would be taken for the newer ones (RFC 9111 §3.2).
    pub(crate) fn add_to_answer(&self, status: StatusCode, is_custom: bool, headers: &mut HeaderMap) {
        if !status.is_informational() && status != StatusCode::NOT_MODIFIED {
            self.add(is_custom, headers);
        }
    }

    /// Adds those that are not there yet, and puts the forced ones in the place of what is.
    pub(crate) fn add(&self, is_custom: bool, headers: &mut HeaderMap) {
        for field in self.all.iter().filter(|field| is_custom || !field.custom_only) {
            if field.force || !says(headers, &field.name) {
                headers.insert(field.name.clone(), field.value.clone());
            }
        }
    }
}

/// Whether an answer says this already. `frame-ancestors` says more than `X-Frame-Options`, and counts in its place
/// (CSP Level 3, section 6.4.2.1).
fn says(headers: &HeaderMap, name: &HeaderName) -> bool {
    if headers.contains_key(name) {
        return true;
    }
    name == header::X_FRAME_OPTIONS
        && headers.get_all(header::CONTENT_SECURITY_POLICY).iter().any(|policy| {
            let mut directives =
                policy.as_bytes().split(|b| *b == b';' || *b == b',').map(<[u8]>::trim_ascii);
            directives.any(|directive| {
                directive.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"frame-ancestors"))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(said: &str, is_custom: bool, own: &[(&'static str, &'static str)]) -> String {
        let fields = Fields::new(&serde_json::from_str(said).unwrap());
        let own =
            own.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers: HeaderMap = own.collect();
        fields.add(is_custom, &mut headers);
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines.join("\n")
    }

    const DEFAULT: &str = "referrer-policy: strict-origin-when-cross-origin\nx-content-type-options: nosniff\nx-frame-options: SAMEORIGIN";

    #[test]
    fn what_an_app_says_itself_stays_unless_it_is_forced() {
        assert_eq!(added("{}", false, &[]), DEFAULT);
        assert_eq!(added("{}", false, &[("x-frame-options", "DENY")]), DEFAULT.replace("SAMEORIGIN", "DENY"));
        let forced = r#"{"x-frame-options":{"value":"SAMEORIGIN","force":true}}"#;
        assert_eq!(added(forced, false, &[("x-frame-options", "DENY")]), DEFAULT);
    }

    #[test]
    fn an_app_that_says_who_may_frame_it_is_believed() {
        let policy = [("content-security-policy", "default-src 'self'; Frame-Ancestors https://a.example")];
        assert!(!added("{}", false, &policy).contains("x-frame-options"));
        let other = [("content-security-policy", "default-src 'self'")];
        assert!(added("{}", false, &other).contains("x-frame-options: SAMEORIGIN"));
    }

    #[test]
    fn strict_transport_security_is_for_hosts_of_the_customers_own() {
        let said = r#"{"strict-transport-security":{"value":"max-age=60; includeSubDomains"}}"#;
        assert!(added(said, true, &[]).contains("strict-transport-security: max-age=60; includeSubDomains"));
        assert_eq!(added(said, false, &[]), DEFAULT);
    }

    #[test]
    fn what_was_stored_with_other_fields_is_told_apart() {
        let mark = |said: &str| Fields::new(&serde_json::from_str(said).unwrap()).mark();
        assert_eq!(mark("{}"), Fields::default().mark());
        assert_ne!(mark("{}"), mark(r#"{"x-frame-options":{}}"#));
        let (soft, hard) = (
            r#"{"x-frame-options":{"value":"DENY"}}"#,
            r#"{"x-frame-options":{"value":"DENY","force":true}}"#,
        );
        assert_ne!(mark(soft), mark(hard));
    }
}
