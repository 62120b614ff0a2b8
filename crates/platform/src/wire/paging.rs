//! Lists come in pages: at most so many members, and a cursor to go on with.
//!
//! A cursor names the last member that was given, by what its list is ordered by. So members that come and go between two
//! pages move nothing: none is given twice, none is left out that was there all the time.

use crate::ApiError;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bastide_types::Code;
use serde::Deserialize;
use serde_json::Value;

/// Most members in one page.
pub const LIMIT_MAX: usize = 100;
const CURSOR_BYTES_MAX: usize = 2048;

/// Lists, and by what they are ordered. Together these fields are unique.
pub const LISTS: &[(&str, &[&str])] = &[
    ("/apps", &["name"]),
    ("/apps/{app}/roles", &["stage", "role", "email", "group", "user"]),
    ("/apps/{app}/services", &["stage", "kind"]),
    ("/bans", &["network"]),
    ("/clients", &["id"]),
    ("/customers", &["name"]),
    ("/domains", &["domain", "stage"]),
    ("/idps", &["id"]),
    ("/keys", &["stage", "signs", "state", "id"]),
    ("/locks", &["kind", "label"]),
    ("/members", &["email"]),
    ("/members/{member}/sessions", &["id"]),
    ("/permissions", &["name"]),
    ("/roles", &["name"]),
    ("/sessions", &["id"]),
    ("/stages/{stage}/groups", &["name"]),
    ("/stages/{stage}/groups/{group}/users", &["email"]),
    ("/stages/{stage}/users", &["email"]),
    ("/stages/{stage}/users/{user}/sessions", &["id"]),
];

/// Lists that may be long, so that the store reads them in pages: `limit` members `after` one.
const FROM_STORE: &[&str] =
    &["/bans", "/clients", "/members", "/stages/{stage}/groups/{group}/users", "/stages/{stage}/users"];

/// Which part of a list the store reads.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    /// Those that come after this one.
    after: Option<String>,
    /// How many: 1 to 100, which is the default.
    limit: Option<u32>,
}

impl Part {
    /// After which one, and how many.
    pub(crate) fn page(&self) -> (&str, u32) {
        let most = LIMIT_MAX as u32;
        (self.after.as_deref().unwrap_or_default(), self.limit.unwrap_or(most).clamp(1, most))
    }
}

/// Whether the store reads the pages of a list.
pub(crate) fn is_from_store(path: &str) -> bool {
    FROM_STORE.contains(&path)
}

/// Whether the operation that shows this path is a list.
pub fn is_list(path: &str) -> bool {
    order(path).is_some()
}

pub(crate) fn order(path: &str) -> Option<&'static [&'static str]> {
    LISTS.iter().find(|(list, _)| *list == path).map(|(_, order)| *order)
}

/// Which page is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    limit: usize,
    after: Option<Vec<String>>,
}

impl Page {
    /// Reads the two names of a query.
    pub(crate) fn new(limit: Option<&str>, cursor: Option<&str>) -> Result<Self, ApiError> {
        let bad = |what: &str| ApiError::because(Code::InputInvalid, what.to_owned());
        let limit = match limit {
            None => LIMIT_MAX,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| bad("limit: a number from 1 to 100"))?,
        };
        let after = match cursor {
            None => None,
            Some(text) => Some(
                read_cursor(text)
                    .ok_or_else(|| bad("cursor: take it from the `Link` field of the page before"))?,
            ),
        };
        Ok(Self { limit, after })
    }

    /// After which member of a list that is ordered by one field the page begins.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_ref()?.first().map(String::as_str)
    }

    /// The cursor after a page that the store read.
    pub(crate) fn next(&self, page: &[Value], order: &[&str]) -> Option<String> {
        page.last().filter(|_| page.len() >= self.limit).map(|last| cursor(&key(last, order)))
    }

    /// The page of a list, and the cursor of the next one.
    pub(crate) fn of(&self, mut list: Vec<Value>, order: &[&str]) -> (Vec<Value>, Option<String>) {
        let key = |one: &Value| key(one, order);
        list.sort_by_cached_key(key);
        if let Some(after) = &self.after {
            list.drain(..list.partition_point(|one| key(one) <= *after));
        }
        if list.len() <= self.limit {
            return (list, None);
        }
        list.truncate(self.limit);
        let next = list.last().map(|last| cursor(&key(last)));
        (list, next)
    }
}

fn key(one: &Value, order: &[&str]) -> Vec<String> {
    order.iter().map(|field| text(&one[*field])).collect()
}

fn cursor(key: &[String]) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::json!(key).to_string())
}

fn read_cursor(text: &str) -> Option<Vec<String>> {
    if text.len() > CURSOR_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn list(names: impl IntoIterator<Item = String>) -> Vec<Value> {
        names.into_iter().map(|name| json!({ "name": name })).collect()
    }

    #[test]
    fn a_limit_or_a_cursor_that_cannot_be_is_refused() {
        for limit in ["0", "101", "-1", "x", ""] {
            assert!(Page::new(Some(limit), None).is_err(), "{limit}");
        }
        let long = "A".repeat(CURSOR_BYTES_MAX + 1);
        for cursor in ["", "!", "AAAA", long.as_str(), "e30"] {
            assert!(Page::new(None, Some(cursor)).is_err(), "{cursor}");
        }
    }

    proptest! {
        #[test]
        fn pages_give_each_member_once_whatever_comes_and_goes_meanwhile(
            stays in proptest::collection::btree_set("[a-z]{1,6}", 0..60),
            others in proptest::collection::vec("[a-z]{1,6}", 8),
            limit in 1_usize..=9,
        ) {
            let (mut seen, mut cursor, mut turn) = (Vec::new(), None::<String>, 0);
            loop {
                // Somebody else's name is there for one page only.
                let mut now = stays.clone();
                now.insert(others[turn % others.len()].clone());
                turn += 1;
                let page = Page::new(Some(&limit.to_string()), cursor.as_deref()).unwrap();
                let (given, next) = page.of(list(now), &["name"]);
                prop_assert!(given.len() <= limit);
                seen.extend(given.iter().map(|one| text(&one["name"])));
                match next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            let all: std::collections::BTreeSet<_> = seen.iter().cloned().collect();
            prop_assert_eq!(all.len(), seen.len(), "twice");
            prop_assert!(stays.is_subset(&all));
        }

        #[test]
        fn no_cursor_makes_the_reader_panic(text in "\\PC{0,60}") {
            let _ = Page::new(None, Some(&text));
        }
    }
}
