//! The redirects of a stage, ready to be asked.
//!
//! The most precise one counts: an exact path before one with a star, a longer path before a shorter, and for the same
//! path one that names the host before one for all hosts. The order in which they were written means nothing.

use super::redirect::{FromPath, Query, Redirect, is_ours};
use crate::Domains;
use std::{borrow::Cow, collections::HashMap};

/// The table. A look costs one look-up per segment of the path, at most as many as the longest redirect has.
#[derive(Debug, Default)]
pub struct RedirectTable {
    rules: Vec<Redirect>,
    exact: HashMap<String, Vec<usize>>,
    below: HashMap<String, Vec<usize>>,
    base_bytes_max: usize,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Base domains and port.
    pub domains: &'a Domains,
    /// Host, lower case, without port.
    pub host: &'a str,
    /// Path, canonical.
    pub path: &'a str,
    /// Query.
    pub query: Option<&'a str>,
}

/// Where a request is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent<'t> {
    pub(super) at: usize,
    pub(super) origin: Option<&'t str>,
    pub(super) path: String,
    pub(super) query: Option<Cow<'t, str>>,
}

impl RedirectTable {
    /// A table of these.
    pub fn new(redirects: &[Redirect]) -> Self {
        let mut table = Self { rules: redirects.to_vec(), ..Self::default() };
        // Those that name a host come first.
        table.rules.sort_by_key(|rule| rule.host.is_none());
        for (at, rule) in table.rules.iter().enumerate() {
            match &rule.from {
                FromPath::Exact(path) => table.exact.entry(path.clone()).or_default().push(at),
                FromPath::Below(base) => {
                    table.base_bytes_max = table.base_bytes_max.max(base.len());
                    table.below.entry(base.clone()).or_default().push(at);
                }
            }
        }
        table
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Status and `Location` for a request; nothing when no redirect is for it, or the one that is leads to the very
    /// address that was asked for.
    pub fn find(&self, asked: &Asked<'_>) -> Option<(u16, String)> {
        let sent = self.sent(asked)?;
        let status = self.rules[sent.at].status.code();
        let query = sent.query.map_or_else(String::new, |query| format!("?{query}"));
        Some((status, format!("{}{}{query}", sent.origin.unwrap_or_default(), sent.path)))
    }

    pub(super) fn rules(&self) -> &[Redirect] {
        &self.rules
    }

    pub(super) fn sent<'t>(&'t self, asked: &Asked<'t>) -> Option<Sent<'t>> {
        if self.rules.is_empty() || is_ours(asked.path).is_some() {
            return None;
        }
        let (at, rest) = self.matched(asked)?;
        let sent = self.apply(at, rest, asked.query);
        (!is_same(&sent, asked)).then_some(sent)
    }

    /// Where a rule sends a request with this rest of a path.
    pub(super) fn apply<'t>(&'t self, at: usize, rest: &str, asked: Option<&'t str>) -> Sent<'t> {
        let rule = &self.rules[at];
        let query = match rule.query {
            Query::Keep => asked,
            Query::Drop => rule.to.query.as_deref(),
        };
        let query = query.filter(|query| !query.is_empty()).map(Cow::from);
        Sent { at, origin: rule.to.origin.as_deref(), path: rule.to.path(rest), query }
    }

    /// The rule that counts, and the rest of the path below its own.
    fn matched<'a>(&self, asked: &Asked<'a>) -> Option<(usize, &'a str)> {
        let for_host = |list: Option<&Vec<usize>>| {
            let host = |at: &&usize| self.rules[**at].host.as_ref().is_none_or(|host| host == asked.host);
            list?.iter().find(host).copied()
        };
        if let Some(at) = for_host(self.exact.get(asked.path)) {
            return Some((at, ""));
        }
        let path = asked.path;
        let whole = (path.len() <= self.base_bytes_max).then_some((path, ""));
        // Slashes beyond the longest rule are not looked at.
        let most = path.len().min(self.base_bytes_max + 1);
        let slashes = path.as_bytes()[..most].iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
        let cuts = slashes.map(|(at, _)| (&path[..at], &path[at + 1..]));
        whole.into_iter().chain(cuts).find_map(|(base, rest)| Some((for_host(self.below.get(base))?, rest)))
    }
}

/// Whether a request would be sent to where it is.
fn is_same(sent: &Sent<'_>, asked: &Asked<'_>) -> bool {
    sent.path == asked.path
        && sent.query.as_deref().unwrap_or_default() == asked.query.unwrap_or_default()
        && sent.origin.is_none_or(|origin| origin == asked.domains.origin(asked.host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(json: &str) -> RedirectTable {
        RedirectTable::new(&serde_json::from_str::<Vec<Redirect>>(json).unwrap())
    }

    fn find(table: &RedirectTable, host: &str, target: &str) -> Option<(u16, String)> {
        let domains = Domains { https_port: 443, ..Domains::default() };
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        table.find(&Asked { domains: &domains, host, path, query })
    }

    #[test]
    fn the_most_precise_redirect_counts() {
        let table = table(
            r#"[{"from":"/*","to":"/rest/*","status":302},{"from":"/a/*","to":"/b/*"},{"from":"/a/x/*","to":"/c"},
                {"from":"/a/x","to":"/exact","status":308},{"host":"h","from":"/a/*","to":"/host/*"},
                {"from":"/","to":"/start/"}]"#,
        );
        let check = |host: &str, target: &str, status: u16, location: &str| {
            assert_eq!(find(&table, host, target), Some((status, location.to_owned())), "{host}{target}");
        };
        check("g", "/", 301, "/start/");
        check("g", "/z", 302, "/rest/z");
        check("g", "/a", 301, "/b/");
        check("g", "/a/", 301, "/b/");
        check("g", "/a/y/z", 301, "/b/y/z");
        check("h", "/a/y", 301, "/host/y");
        check("h", "/a/x", 308, "/exact");
        check("g", "/a/x/y", 301, "/c");
        check("g", "/ab", 302, "/rest/ab");
        check("g", &format!("/{}/x", "l".repeat(4000)), 302, &format!("/rest/{}/x", "l".repeat(4000)));
    }

    #[test]
    fn a_query_is_kept_or_dropped() {
        let table = table(
            r#"[{"from":"/k","to":"/n"},{"from":"/d","to":"/n","query":"drop"},{"from":"/o","to":"/n?own=1","query":"drop"}]"#,
        );
        let to = |target: &str| find(&table, "h", target).unwrap().1;
        assert_eq!(to("/k?a=b&c=d"), "/n?a=b&c=d");
        assert_eq!((to("/k"), to("/k?")), ("/n".to_owned(), "/n".to_owned()));
        assert_eq!((to("/d?a=b"), to("/o?a=b")), ("/n".to_owned(), "/n?own=1".to_owned()));
    }

    #[test]
    fn what_leads_to_itself_is_an_exception_and_no_circle() {
        let table = table(
            r#"[{"from":"/*","to":"https://main.example/*"},{"from":"/stay","to":"/stay"},{"from":"/q","to":"/q?x=1","query":"drop"}]"#,
        );
        assert_eq!(find(&table, "old.example", "/x?y=1").unwrap().1, "https://main.example/x?y=1");
        assert_eq!(find(&table, "main.example", "/x?y=1"), None);
        assert_eq!(find(&table, "old.example", "/stay"), None);
        assert_eq!(find(&table, "h", "/q").unwrap().1, "/q?x=1");
        assert_eq!(find(&table, "h", "/q?x=1"), None);
    }

    #[test]
    fn paths_of_bastide_are_never_redirected() {
        let table = table(r#"[{"from":"/*","to":"https://main.example/*"}]"#);
        for path in ["/.bastide/callback", "/.well-known/acme-challenge/token", "/.bastide"] {
            assert_eq!(find(&table, "h", path), None, "{path}");
        }
        assert!(find(&table, "h", "/.bastidex").is_some());
    }

    proptest! {
        #[test]
        fn no_request_chooses_another_host(path in "(/[a-z.:@%]{0,6}){1,6}", query in "[a-z/:@=&?]{0,20}") {
            let table = table(r#"[{"from":"/*","to":"/*"},{"from":"/a/*","to":"/*"},{"from":"/b/*","to":"https://b.example/*"}]"#);
            let Ok(path) = crate::canonical::canonical(&path) else { return Ok(()) };
            if let Some((_, location)) = find(&table, "h", &format!("{path}?{query}")) {
                let base = url::Url::parse("https://h/").unwrap();
                let host = base.join(&location).unwrap().host_str().unwrap().to_owned();
                prop_assert!(host == "h" || host == "b.example", "{} {}", location, host);
            }
        }
    }
}
