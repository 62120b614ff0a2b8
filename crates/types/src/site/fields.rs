//! Security fields of answers: which there are, what they may say, and what is said without being told.

use super::SiteFault;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Longest value of one field, in bytes.
const VALUE_BYTES_MAX: usize = 1500;

/// A field that a customer may set. There are no others: what frames an answer, what cookies it sets and what caches do
/// with it is not said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecurityField {
    /// CSP Level 3.
    ContentSecurityPolicy,
    /// The same, only reported.
    ContentSecurityPolicyReportOnly,
    /// HTML, section 7.1.3.
    CrossOriginOpenerPolicy,
    /// HTML, section 7.1.4.
    CrossOriginEmbedderPolicy,
    /// Fetch, section 3.7.
    CrossOriginResourcePolicy,
    /// Permissions Policy.
    PermissionsPolicy,
    /// Referrer Policy.
    ReferrerPolicy,
    /// RFC 6797. For domains of the customer only: built-in hosts have it anyway.
    StrictTransportSecurity,
    /// Fetch, section 3.5.
    XContentTypeOptions,
    /// RFC 7034, HTML section 7.1.5.
    XFrameOptions,
}

/// What is said without being told.
const DEFAULTS: &[(SecurityField, &str)] = &[
    (SecurityField::ReferrerPolicy, "strict-origin-when-cross-origin"),
    (SecurityField::XContentTypeOptions, "nosniff"),
    (SecurityField::XFrameOptions, "SAMEORIGIN"),
];

/// What a customer says about one field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FieldRule {
    /// Its value. Without one nothing is added, not even the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether it replaces what the app says itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// What a customer says about fields; for the others the defaults hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecurityFields(pub BTreeMap<SecurityField, FieldRule>);

/// A field as answers carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FieldInForce {
    /// Which.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub field: SecurityField,
    /// Its value.
    pub value: String,
    /// Whether it replaces what the app says itself.
    pub force: bool,
}

impl SecurityField {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ContentSecurityPolicy,
        Self::ContentSecurityPolicyReportOnly,
        Self::CrossOriginOpenerPolicy,
        Self::CrossOriginEmbedderPolicy,
        Self::CrossOriginResourcePolicy,
        Self::PermissionsPolicy,
        Self::ReferrerPolicy,
        Self::StrictTransportSecurity,
        Self::XContentTypeOptions,
        Self::XFrameOptions,
    ];

    /// Its name, lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ContentSecurityPolicy => "content-security-policy",
            Self::ContentSecurityPolicyReportOnly => "content-security-policy-report-only",
            Self::CrossOriginOpenerPolicy => "cross-origin-opener-policy",
            Self::CrossOriginEmbedderPolicy => "cross-origin-embedder-policy",
            Self::CrossOriginResourcePolicy => "cross-origin-resource-policy",
            Self::PermissionsPolicy => "permissions-policy",
            Self::ReferrerPolicy => "referrer-policy",
            Self::StrictTransportSecurity => "strict-transport-security",
            Self::XContentTypeOptions => "x-content-type-options",
            Self::XFrameOptions => "x-frame-options",
        }
    }

    /// Refuses a value that this field cannot have, with what it can.
    fn judge(self, value: &str) -> Result<(), String> {
        if value.is_empty() || value.len() > VALUE_BYTES_MAX {
            return Err(format!("a value has 1 to {VALUE_BYTES_MAX} bytes, this one has {}", value.len()));
        }
        if !value.bytes().all(|b| (0x20..0x7f).contains(&b)) || value.trim() != value {
            return Err("a value is visible ASCII with single spaces inside".into());
        }
        let one_of = |known: &[&str]| {
            if known.contains(&value) { Ok(()) } else { Err(format!("write one of: {}", known.join(", "))) }
        };
        match self {
            Self::ContentSecurityPolicy | Self::ContentSecurityPolicyReportOnly => content_policy(value),
            Self::CrossOriginOpenerPolicy => {
                one_of(&["same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"])
            }
            Self::CrossOriginEmbedderPolicy => one_of(&["require-corp", "credentialless", "unsafe-none"]),
            Self::CrossOriginResourcePolicy => one_of(&["same-origin", "same-site", "cross-origin"]),
            Self::PermissionsPolicy => permissions(value),
            Self::ReferrerPolicy => referrer(value),
            Self::StrictTransportSecurity => transport(value),
            Self::XContentTypeOptions => one_of(&["nosniff"]),
            Self::XFrameOptions => one_of(&["DENY", "SAMEORIGIN"]),
        }
    }
}

impl fmt::Display for SecurityField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SecurityField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|field| field.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("fields that can be set are: {}", Self::ALL.map(Self::name).join(", ")))
    }
}

impl SecurityFields {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What answers carry: the defaults, and what was said.
    pub fn in_force(&self) -> Vec<FieldInForce> {
        let default = DEFAULTS.iter().filter(|(field, _)| !self.0.contains_key(field));
        let default = default.map(|(field, value)| FieldInForce {
            field: *field,
            value: (*value).to_owned(),
            force: false,
        });
        let said = self.0.iter().filter_map(|(field, rule)| {
            Some(FieldInForce { field: *field, value: rule.value.clone()?, force: rule.force })
        });
        let mut all: Vec<_> = default.chain(said).collect();
        all.sort_by_key(|own| own.field);
        all
    }

    pub(super) fn check(&self) -> Result<(), SiteFault> {
        for (field, rule) in &self.0 {
            let fault = |why: String| SiteFault::new(field.name(), why);
            match &rule.value {
                Some(value) => field.judge(value).map_err(fault)?,
                None if rule.force => {
                    return Err(fault("what an app says itself cannot be taken away, only replaced".into()));
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// Directives of a content security policy (CSP Level 3, Upgrade Insecure Requests, Trusted Types).
const DIRECTIVES: &[&str] = &[
    "base-uri",
    "child-src",
    "connect-src",
    "default-src",
    "font-src",
    "form-action",
    "frame-ancestors",
    "frame-src",
    "img-src",
    "manifest-src",
    "media-src",
    "object-src",
    "report-to",
    "report-uri",
    "require-trusted-types-for",
    "sandbox",
    "script-src",
    "script-src-attr",
    "script-src-elem",
    "style-src",
    "style-src-attr",
    "style-src-elem",
    "trusted-types",
    "upgrade-insecure-requests",
    "worker-src",
];

fn content_policy(value: &str) -> Result<(), String> {
    if value.contains(',') {
        return Err("a comma would begin a second policy; directives are separated by `;`".into());
    }
    let mut seen = Vec::new();
    for directive in value.split(';').map(str::trim).filter(|directive| !directive.is_empty()) {
        let name = directive.split(' ').next().unwrap_or_default().to_ascii_lowercase();
        if !DIRECTIVES.contains(&name.as_str()) {
            return Err(format!("`{name}` is no directive; there are: {}", DIRECTIVES.join(", ")));
        }
        if seen.contains(&name) {
            return Err(format!("`{name}` stands there twice, and only the first would count"));
        }
        seen.push(name);
    }
    if seen.is_empty() { Err("there is no directive".into()) } else { Ok(()) }
}

fn referrer(value: &str) -> Result<(), String> {
    const KNOWN: &[&str] = &[
        "no-referrer",
        "no-referrer-when-downgrade",
        "origin",
        "origin-when-cross-origin",
        "same-origin",
        "strict-origin",
        "strict-origin-when-cross-origin",
        "unsafe-url",
    ];
    if value.split(',').all(|one| KNOWN.contains(&one.trim())) {
        Ok(())
    } else {
        Err(format!("write one of, or several separated by commas: {}", KNOWN.join(", ")))
    }
}

/// `geolocation=(), camera=(self "https://example.com"), fullscreen=*`: a dictionary whose values are inner lists
/// (RFC 9651).
fn permissions(value: &str) -> Result<(), String> {
    let wrong =
        || "write it like: geolocation=(), camera=(self \"https://example.com\"), fullscreen=*".to_owned();
    let mut seen = Vec::new();
    for member in value.split(',').map(str::trim) {
        let (name, list) = member.split_once('=').ok_or_else(wrong)?;
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !name.as_bytes().first().is_some_and(u8::is_ascii_lowercase) || !name.bytes().all(is_name) {
            return Err(wrong());
        }
        if seen.contains(&name) {
            return Err(format!("`{name}` stands there twice, and only the last would count"));
        }
        seen.push(name);
        if list == "*" || list == "self" {
            continue;
        }
        let inner = list.strip_prefix('(').and_then(|list| list.strip_suffix(')')).ok_or_else(wrong)?;
        if !inner.split(' ').filter(|item| !item.is_empty()).all(is_permitted) {
            return Err(wrong());
        }
    }
    Ok(())
}

fn is_permitted(item: &str) -> bool {
    let is_origin = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/*[]".contains(&b);
    let quoted = |item: &str| {
        let origin = item.strip_prefix('"').and_then(|item| item.strip_suffix('"'));
        origin.is_some_and(|origin| !origin.is_empty() && origin.bytes().all(is_origin))
    };
    matches!(item, "self" | "src" | "*") || quoted(item)
}

fn transport(value: &str) -> Result<(), String> {
    let wrong = || "write it like: max-age=31536000; includeSubDomains; preload".to_owned();
    let mut parts = value.split(';').map(str::trim);
    let age = parts.next().and_then(|part| part.strip_prefix("max-age=")).ok_or_else(wrong)?;
    if age.is_empty() || age.len() > 10 || !age.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let rest: Vec<&str> = parts.collect();
    match rest[..] {
        [] | ["includeSubDomains" | "preload"] | ["includeSubDomains", "preload"] => Ok(()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::SecurityField::{
        ContentSecurityPolicy, ContentSecurityPolicyReportOnly, CrossOriginEmbedderPolicy,
        CrossOriginOpenerPolicy, CrossOriginResourcePolicy, PermissionsPolicy, ReferrerPolicy,
        StrictTransportSecurity, XContentTypeOptions, XFrameOptions,
    };
    use super::*;
    use proptest::prelude::*;

    fn said(field: SecurityField, value: Option<&str>, force: bool) -> SecurityFields {
        SecurityFields([(field, FieldRule { value: value.map(str::to_owned), force })].into())
    }

    #[test]
    fn what_is_said_stands_in_the_place_of_the_default() {
        let text = |fields: &SecurityFields| {
            let all = fields.in_force();
            all.iter().map(|own| format!("{}: {}", own.field, own.value)).collect::<Vec<_>>().join("\n")
        };
        let default = "referrer-policy: strict-origin-when-cross-origin\nx-content-type-options: nosniff\nx-frame-options: SAMEORIGIN";
        assert_eq!(text(&SecurityFields::default()), default);
        assert_eq!(text(&said(XFrameOptions, Some("DENY"), false)), default.replace("SAMEORIGIN", "DENY"));
        assert_eq!(
            text(&said(XFrameOptions, None, false)),
            default.replace("\nx-frame-options: SAMEORIGIN", "")
        );
        assert!(
            text(&said(ContentSecurityPolicy, Some("default-src 'self'"), true)).starts_with("content-sec")
        );
    }

    #[test]
    fn values_are_those_that_the_field_knows() {
        let good = |field, value: &str| {
            let checked = said(field, Some(value), true).check();
            assert_eq!(checked, Ok(()), "{field}: {value}");
        };
        let bad = |field, value: &str| {
            assert!(said(field, Some(value), false).check().is_err(), "{field}: {value}");
        };
        good(
            ContentSecurityPolicy,
            "default-src 'self'; img-src 'self' data: https://*.example.com; object-src 'none';",
        );
        good(ContentSecurityPolicyReportOnly, "upgrade-insecure-requests; frame-ancestors 'none'");
        bad(ContentSecurityPolicy, "default 'self'");
        bad(ContentSecurityPolicy, "default-src 'self', script-src 'none'");
        bad(ContentSecurityPolicy, "img-src a; IMG-SRC b");
        bad(ContentSecurityPolicy, ";");
        bad(ContentSecurityPolicy, "default-src 'self'\r\nset-cookie: a=b");
        bad(ContentSecurityPolicy, "default-src ü.example");
        bad(ContentSecurityPolicy, &format!("img-src {}", "a".repeat(1500)));
        good(CrossOriginOpenerPolicy, "same-origin");
        bad(CrossOriginOpenerPolicy, "same-site");
        good(CrossOriginEmbedderPolicy, "credentialless");
        good(CrossOriginResourcePolicy, "same-site");
        good(PermissionsPolicy, "geolocation=(), camera=(self \"https://example.com\"), fullscreen=*");
        for wrong in
            ["geolocation", "geolocation=none", "a=(b)", "A=()", "a=(\"x\\\"\")", "a=();b", "a=(),a=*", ""]
        {
            bad(PermissionsPolicy, wrong);
        }
        good(ReferrerPolicy, "no-referrer, strict-origin-when-cross-origin");
        bad(ReferrerPolicy, "none");
        good(StrictTransportSecurity, "max-age=63072000; includeSubDomains; preload");
        for wrong in ["max-age=", "max-age=-1", "includeSubDomains", "max-age=1; x", "max-age=12345678901"] {
            bad(StrictTransportSecurity, wrong);
        }
        good(XContentTypeOptions, "nosniff");
        bad(XFrameOptions, "ALLOW-FROM https://example.com");
        assert!(said(XFrameOptions, None, true).check().is_err());
    }

    #[test]
    fn a_field_has_one_name_everywhere() {
        for field in SecurityField::ALL {
            assert_eq!(serde_json::to_value(field).unwrap(), field.name());
            assert_eq!(field.name().to_uppercase().parse(), Ok(field));
        }
        for reserved in
            ["set-cookie", "cdn-loop", "cache-control", "x-bastide-user", "content-length", "location"]
        {
            assert!(reserved.parse::<SecurityField>().is_err(), "{reserved}");
        }
    }

    proptest! {
        #[test]
        fn no_value_that_passes_ends_a_line(at in 0..10usize, value in "[ -~\r\n\t\0=();,'\"*a-z-]{0,60}") {
            if said(SecurityField::ALL[at], Some(&value), true).check().is_ok() {
                prop_assert!(value.bytes().all(|b| (0x20..0x7f).contains(&b)));
            }
        }
    }
}
