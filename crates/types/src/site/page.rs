//! Pages of a customer's own, shown to people instead of the built-in ones.

use crate::{
    Problem,
    problem::{Code, escape},
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr};

/// Most bytes of one page.
pub const PAGE_BYTES_MAX: usize = 32 * 1024;
/// Statuses that may have a page.
const STATUSES: &[u16] = &[403, 404, 413, 429, 500, 502, 503, 504];

/// When a page is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PageKind {
    /// With this status.
    Status(u16),
    /// While the stage or the app is closed.
    Maintenance,
}

/// A page: HTML, in which `{{status}}`, `{{code}}`, `{{title}}` and `{{request_id}}` are filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Page(String);

/// Why there is no such page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// No such kind.
    #[error("`{0}` has no page: there are pages for 403, 404, 413, 429, 500, 502, 503, 504 and maintenance")]
    Kind(String),
    /// Too long, or empty.
    #[error("a page has 1 to {PAGE_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// NUL.
    #[error("a page is text in UTF-8 without NUL")]
    Text,
}

impl FromStr for PageKind {
    type Err = PageError;

    fn from_str(text: &str) -> Result<Self, PageError> {
        if text == "maintenance" {
            return Ok(Self::Maintenance);
        }
        let known = STATUSES.iter().find(|status| status.to_string() == text);
        known.copied().map(Self::Status).ok_or_else(|| PageError::Kind(text.chars().take(20).collect()))
    }
}

impl fmt::Display for PageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Maintenance => f.write_str("maintenance"),
        }
    }
}

impl TryFrom<String> for PageKind {
    type Error = PageError;
    fn try_from(text: String) -> Result<Self, PageError> {
        text.parse()
    }
}
impl From<PageKind> for String {
    fn from(kind: PageKind) -> Self {
        kind.to_string()
    }
}

impl PageKind {
    /// The kind that a refusal is of.
    pub fn of(problem: &Problem) -> Self {
        if problem.code == Code::Maintenance.as_str() {
            Self::Maintenance
        } else {
            Self::Status(problem.status)
        }
    }
}

impl Page {
    /// Takes a page.
    ///
    /// # Errors
    /// When it is empty, too long, or holds NUL.
    pub fn new(html: String) -> Result<Self, PageError> {
        if html.is_empty() || html.len() > PAGE_BYTES_MAX {
            return Err(PageError::Length(html.len()));
        }
        if html.contains('\0') {
            return Err(PageError::Text);
        }
        Ok(Self(html))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The page for a refusal: what is known is filled in, escaped; everything else stays as it is. Linear in the
    /// page's length.
    pub fn filled(&self, problem: &Problem) -> String {
        let mut filled = String::with_capacity(self.0.len() + 128);
        let mut rest = &*self.0;
        while let Some(at) = rest.find("{{") {
            filled.push_str(&rest[..at]);
            if let Some((value, after)) = place(&rest[at + 2..], problem) {
                filled.push_str(&escape(&value));
                rest = after;
            } else {
                filled.push('{');
                rest = &rest[at + 1..];
            }
        }
        filled.push_str(rest);
        filled
    }
}

/// The value of the place that a text begins with, and what follows it.
fn place<'t>(text: &'t str, problem: &Problem) -> Option<(Cow<'static, str>, &'t str)> {
    let known: [(&str, fn(&Problem) -> Cow<'static, str>); 4] = [
        ("status}}", |problem| problem.status.to_string().into()),
        ("code}}", |problem| problem.code.clone()),
        ("title}}", |problem| problem.title.clone()),
        ("request_id}}", |problem| problem.request_id.map(|id| id.to_string()).unwrap_or_default().into()),
    ];
    known.iter().find_map(|(name, value)| Some((value(problem), text.strip_prefix(name)?)))
}

impl TryFrom<String> for Page {
    type Error = PageError;
    fn try_from(html: String) -> Result<Self, PageError> {
        Self::new(html)
    }
}
impl From<Page> for String {
    fn from(page: Page) -> Self {
        page.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestId;
    use proptest::prelude::*;

    fn filled(html: &str, problem: &Problem) -> String {
        Page::new(html.to_owned()).unwrap().filled(problem)
    }

    #[test]
    fn places_are_filled_in_and_nothing_else() {
        let id = RequestId::generate();
        let problem = Code::SiteUnknown.problem().of_request(id);
        let check = |html: &str, expected: &str| assert_eq!(filled(html, &problem), expected);
        check("{{status}} {{code}}", "404 B-EDGE-0404");
        check("<p>{{title}}</p>{{request_id}}", &format!("<p>Nothing is served here.</p>{id}"));
        for same in ["{{", "}}", "{{ status }}", "{{{", "{{other}}", "{{status", "{{Status}}", "x"] {
            check(same, same);
        }
        check("{{{status}}}", "{404}");
        check("{{ {{status}}", "{{ 404");
    }

    #[test]
    fn what_is_filled_in_is_escaped() {
        let mut problem = Code::SiteUnknown.problem();
        problem.title = "<script>\"'&".into();
        assert_eq!(filled("{{title}}{{request_id}}", &problem), "&lt;script&gt;&quot;&#39;&amp;");
    }

    #[test]
    fn a_page_is_text_of_a_bounded_length() {
        assert!(Page::new("x".repeat(PAGE_BYTES_MAX)).is_ok());
        assert!(Page::new("x".repeat(PAGE_BYTES_MAX + 1)).is_err());
        assert!(Page::new(String::new()).is_err() && Page::new("a\0b".into()).is_err());
    }

    #[test]
    fn a_refusal_has_the_page_of_its_status_and_maintenance_has_one_of_its_own() {
        assert_eq!(PageKind::of(&Code::NoReplica.problem()), PageKind::Status(503));
        assert_eq!(PageKind::of(&Code::Maintenance.problem()), PageKind::Maintenance);
        for text in ["200", "0404", "421", "", "Maintenance", "404 "] {
            assert!(text.parse::<PageKind>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_page_grows_by_what_is_filled_in_only(html in "(\\{|\\{\\{|\\}\\}|status|code|x|<){1,20}") {
            let problem = Code::SiteUnknown.problem();
            let filled = filled(&html, &problem);
            let places = html.matches("{{").count();
            prop_assert!(filled.len() <= html.len() + places * 16);
            prop_assert!(!filled.contains("{{status}}") && !filled.contains("{{code}}"));
        }
    }
}
