//! Whether redirects lead in a circle.
//!
//! A redirect without a star in its target leads to one fixed place: from there the redirects are followed, step by
//! step, as a client would. What goes on through stars for ever must pass some circle of such redirects without the
//! path ever becoming shorter; a circle that shortens the path comes to an end by itself.

use super::{
    Asked, RedirectTable, SiteFault, StageHosts,
    redirect::{FromPath, Redirect},
    table::Sent,
};

/// Redirects in a row that clients are asked to follow.
const STEPS_MAX: usize = 10;

/// # Errors
/// A redirect that leads in a circle, or through too many others.
pub(super) fn check(redirects: &[Redirect], hosts: &StageHosts<'_>) -> Result<(), SiteFault> {
    let table = RedirectTable::new(redirects);
    for (at, rule) in table.rules().iter().enumerate().filter(|(_, rule)| !rule.to.below) {
        for host in hosts.names.iter().filter(|host| is_for(rule, host)) {
            if !ends(&table, hosts, host, table.apply(at, "", None)) {
                return Err(endless(rule));
            }
        }
    }
    let starred: Vec<&Redirect> = table.rules().iter().filter(|rule| rule.to.below).collect();
    match circle(&starred, hosts) {
        Some(at) => Err(endless(starred[at])),
        None => Ok(()),
    }
}

fn endless(rule: &Redirect) -> SiteFault {
    let why = format!("leads in a circle, or through more than {STEPS_MAX} redirects in a row");
    SiteFault::new(format!("{} → {}", rule.from, rule.to), why)
}

fn is_for(rule: &Redirect, host: &str) -> bool {
    rule.host.as_ref().is_none_or(|own| own == host)
}

/// Whether a client that was sent somewhere is not sent on and on.
fn ends(table: &RedirectTable, hosts: &StageHosts<'_>, host: &str, first: Sent<'_>) -> bool {
    let mut place = Place::of(host, first);
    for _ in 0..STEPS_MAX {
        if let Some(origin) = &place.origin {
            match hosts.of_origin(origin) {
                Some(host) => host.clone_into(&mut place.host),
                None => return true,
            }
        }
        let asked = Asked {
            domains: hosts.domains,
            host: &place.host,
            path: &place.path,
            query: place.query.as_deref(),
        };
        let Some(sent) = table.sent(&asked) else { return true };
        place = Place::of(&place.host, sent);
    }
    false
}

struct Place {
    host: String,
    origin: Option<String>,
    path: String,
    query: Option<String>,
}

impl Place {
    fn of(host: &str, sent: Sent<'_>) -> Self {
        Self {
            host: host.to_owned(),
            origin: sent.origin.map(str::to_owned),
            path: sent.path,
            query: sent.query.map(std::borrow::Cow::into_owned),
        }
    }
}

/// A redirect on a circle of redirects with stars along which the path does not become shorter.
///
/// Each step from one to another weighs how many segments it adds. Scaled so that every step adds a little, a circle
/// whose sum is not below zero has one above zero, and that is what Bellman and Ford's algorithm finds.
fn circle(rules: &[&Redirect], hosts: &StageHosts<'_>) -> Option<usize> {
    let count = rules.len();
    let scale = i64::try_from(count).unwrap_or(i64::MAX) + 1;
    let mut steps = Vec::new();
    for (from, one) in rules.iter().enumerate() {
        let (FromPath::Below(base), to) = (&one.from, &one.to) else { continue };
        let weight = (segments(&to.base) - segments(base)) * scale + 1;
        let next = rules.iter().enumerate().filter(|(_, other)| may_follow(one, other, hosts));
        steps.extend(next.map(|(next, _)| (from, next, weight)));
    }
    let mut longest = vec![0_i64; count];
    let mut grown = None;
    for _ in 0..=count {
        grown = None;
        for (from, to, weight) in &steps {
            if longest[*from] + weight > longest[*to] {
                longest[*to] = longest[*from] + weight;
                grown = Some(*to);
            }
        }
        grown?;
    }
    // It still grows after more rounds than there are redirects.
    grown
}

/// Whether what `one` sends somewhere may be sent on by `other`.
fn may_follow(one: &Redirect, other: &Redirect, hosts: &StageHosts<'_>) -> bool {
    let (FromPath::Below(from), FromPath::Below(next)) = (&one.from, &other.from) else { return false };
    let meets = match &one.to.origin {
        None => hosts.names.iter().any(|host| is_for(one, host) && is_for(other, host)),
        Some(origin) => hosts.of_origin(origin).is_some_and(|host| is_for(other, host)),
    };
    // Only another host: on that one it leads to itself, and is not obeyed.
    let moves_host_only = one == other && one.to.base == *from;
    let to = &one.to.base;
    meets && !moves_host_only && (is_at_or_below(to, next) || is_at_or_below(next, to))
}

fn is_at_or_below(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn segments(base: &str) -> i64 {
    i64::try_from(base.matches('/').count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CustomerName, Domains, StageName};
    use proptest::prelude::*;

    /// `host from to`; `-` is every host.
    fn rules(list: &[&str]) -> Vec<Redirect> {
        let rule = |text: &&str| {
            let words: Vec<&str> = text.split(' ').collect();
            let mut json = serde_json::json!({"from": words[1], "to": words[2], "query": "drop"});
            if words[0] != "-" {
                json["host"] = words[0].into();
            }
            serde_json::from_value(json).unwrap()
        };
        list.iter().map(rule).collect()
    }

    fn with_hosts<T>(act: impl FnOnce(&StageHosts<'_>) -> T) -> T {
        let domains = Domains { https_port: 443, ..Domains::default() };
        let custom = ["a.example".to_owned(), "b.example".to_owned()];
        let acme = CustomerName::new("acme").unwrap();
        act(&StageHosts::new(&domains, &acme, &StageName::production(), custom))
    }

    fn is_endless(list: &[&str]) -> bool {
        with_hosts(|hosts| check(&rules(list), hosts).is_err())
    }

    #[test]
    fn circles_are_found() {
        for list in [
            &["- /a /b", "- /b /a"][..],
            &["- /a/* /a/b/*"],
            &["- /* /new/*"],
            &["- /a/* /b/*", "- /b/* /a/*"],
            &["- /a/* /b", "- /b /a/x"],
            &["a.example /* https://b.example/*", "b.example /* https://a.example/*"],
            &["a.example /x https://b.example/x", "- /x https://a.example/x"],
            &["- /a/x/* /b/*", "- /b/* /a/x/y/*"],
            &["- /p /q", "- /q /p?a=1"],
        ] {
            assert!(is_endless(list), "{list:?}");
        }
    }

    #[test]
    fn what_ends_is_taken() {
        for list in [
            &["- /a /b", "- /b /c"][..],
            &["- / /shop/"],
            &["- /old/* /new/*", "- /new/legacy /archive"],
            &["- /shop/* /*"],
            &["- /* https://a.example/*"],
            &["a.example /* https://b.example/*"],
            &["- /* https://elsewhere.example/*"],
            &["- /a/* /b/*", "- /b/x/* /c/*"],
            &["- /about /about/"],
            &["- /q /q?a=1", "- /q/* /q"],
            &["- /stay /stay", "- /* https://elsewhere.example/"],
        ] {
            assert!(!is_endless(list), "{list:?}");
        }
    }

    #[test]
    fn a_long_row_is_no_better_than_a_circle() {
        let row = |length: usize| {
            let list: Vec<String> = (0..length).map(|n| format!("- /r{n} /r{}", n + 1)).collect();
            is_endless(&list.iter().map(String::as_str).collect::<Vec<_>>())
        };
        assert!(!row(STEPS_MAX) && row(STEPS_MAX + 2));
    }

    proptest! {
        /// What passes is followed by a client here: it always arrives.
        #[test]
        fn what_passes_sends_nobody_around_for_ever(
            list in prop::collection::vec(("(-|a\\.example|b\\.example)", "(/[xy]){0,2}(/\\*)?", "(https://[ab]\\.example)?(/[xy]){0,2}(/\\*)?"), 1..6),
            start in "(/[xy]){1,6}",
        ) {
            let texts: Vec<String> = list
                .into_iter()
                .map(|(host, from, to)| (host, if from.is_empty() { "/".into() } else { from }, if to.is_empty() { "/".into() } else { to }))
                .filter(|(_, from, to)| from.ends_with('*') || !to.ends_with('*'))
                .map(|(host, from, to)| format!("{host} {from} {to}"))
                .collect();
            let rules = rules(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            with_hosts(|hosts| {
                if check(&rules, hosts).is_err() {
                    return Ok(());
                }
                let table = RedirectTable::new(&rules);
                for host in &hosts.names {
                    let mut place = Place { host: host.clone(), origin: None, path: start.clone(), query: None };
                    let mut steps = 0;
                    while let Some(sent) = table.sent(&Asked { domains: hosts.domains, host: &place.host, path: &place.path, query: None }) {
                        place = Place::of(&place.host, sent);
                        match place.origin.as_deref().map(|origin| hosts.of_origin(origin)) {
                            None => {}
                            Some(Some(host)) => host.clone_into(&mut place.host),
                            Some(None) => break,
                        }
                        steps += 1;
                        prop_assert!(steps < 100, "{:?} from {}{}", texts, host, start);
                    }
                }
                Ok(())
            })?;
        }
    }
}
