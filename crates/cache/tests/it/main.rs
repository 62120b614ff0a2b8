//! The engine as the edge uses it.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

use bastide_cache::{
    Cache, CacheControl, Entry, Key, Limits, Site, may_store, policy::may_look_up, store::Found,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use proptest::prelude::*;
use std::time::{Duration, SystemTime};

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(k, v)| (HeaderName::from_bytes(k.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap()))
        .collect()
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn key(path: &str) -> Key {
    Key::new("https", "a", &path.parse::<Uri>().unwrap(), &["acme", "test"])
}

fn entry(asked: &[(&str, &str)], headers: &[(&str, &str)], body: &'static str) -> Option<Entry> {
    Entry::new(&map(asked), StatusCode::OK, map(headers), Bytes::from_static(body.as_bytes()), at(0), at(0))
}

fn look_up(cache: &Cache, path: &str, asked: &[(&str, &str)], now: u64) -> Option<Entry> {
    let asked = map(asked);
    match cache.look_up(&key(path), &asked, &CacheControl::read(&asked), at(now)) {
        Found::Fresh(entry) => Some(entry),
        Found::Stale | Found::Nothing => None,
    }
}

#[test]
fn a_fresh_response_is_found_until_it_is_stale() {
    let cache = Cache::new(Limits::default());
    assert!(cache.store(key("/x"), entry(&[], &[("cache-control", "max-age=60")], "x").unwrap(), 0));
    let found = look_up(&cache, "/x", &[], 59).unwrap();
    let answer = found.answer(&Method::GET, &HeaderMap::new(), at(59));
    assert_eq!(
        (&answer.body[..], &answer.headers["age"], answer.ttl_s),
        (&b"x"[..], &HeaderValue::from(59), 1)
    );
    assert!(look_up(&cache, "/x", &[], 60).is_none(), "max-age is reached");
    assert!(look_up(&cache, "/y", &[], 1).is_none());
    assert!(
        look_up(&cache, "/x", &[("cache-control", "max-age=5")], 10).is_none(),
        "the client wants it younger"
    );
}

#[test]
fn what_is_stale_at_once_is_no_entry() {
    assert!(entry(&[], &[("cache-control", "max-age=0")], "x").is_none());
    assert!(entry(&[], &[("cache-control", "max-age=60"), ("age", "60")], "x").is_none());
    assert!(entry(&[], &[("cache-control", "max-age=60"), ("vary", "accept, *")], "x").is_none());
}

#[test]
fn variants_are_kept_apart() {
    let cache = Cache::new(Limits::default());
    let stored = |language: &'static str| {
        entry(
            &[("accept-language", language)],
            &[("cache-control", "max-age=60"), ("vary", "Accept-Language")],
            language,
        )
        .unwrap()
    };
    cache.store(key("/"), stored("de"), 0);
    cache.store(key("/"), stored("en"), 0);
    assert_eq!(&look_up(&cache, "/", &[("accept-language", "de")], 1).unwrap().body[..], b"de");
    assert_eq!(&look_up(&cache, "/", &[("accept-language", "en")], 1).unwrap().body[..], b"en");
    assert!(look_up(&cache, "/", &[], 1).is_none());
}

#[test]
fn conditions_are_answered_from_the_store() {
    let entry = entry(
        &[],
        &[("cache-control", "max-age=60"), ("etag", "\"v1\""), ("content-type", "text/css")],
        "body",
    )
    .unwrap();
    let answer = entry.answer(&Method::GET, &map(&[("if-none-match", "W/\"v1\", \"v2\"")]), at(1));
    assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert!(answer.headers.contains_key("etag") && !answer.headers.contains_key("content-type"));
    let head = entry.answer(&Method::HEAD, &HeaderMap::new(), at(1));
    assert_eq!((head.body.len(), &head.headers["content-length"]), (0, &HeaderValue::from(4)));
}

#[test]
fn what_is_not_for_everybody_is_not_stored() {
    let check = |site, asked: &[(&str, &str)], headers: &[(&str, &str)], expected| {
        assert_eq!(
            may_store(site, &Method::GET, &map(asked), StatusCode::OK, &map(headers)),
            expected,
            "{asked:?} {headers:?}"
        );
    };
    let fresh = ("cache-control", "max-age=60");
    check(Site::Customer, &[], &[fresh], true);
    for control in ["no-store", "private", "no-cache", "private=\"x\", max-age=60"] {
        check(Site::StandAlone, &[], &[("cache-control", control)], false);
    }
    check(Site::Customer, &[], &[("cache-control", "public, max-age=60"), ("set-cookie", "a=b")], false);
    check(Site::StandAlone, &[], &[("cache-control", "public, max-age=60"), ("set-cookie", "a=b")], true);
    check(Site::StandAlone, &[("authorization", "x")], &[fresh], false);
    check(Site::StandAlone, &[("authorization", "x")], &[("cache-control", "s-maxage=60")], true);
    check(Site::Customer, &[("authorization", "x")], &[("cache-control", "s-maxage=60")], false);
    check(Site::StandAlone, &[("cache-control", "no-store")], &[fresh], false);
    let post = may_store(Site::StandAlone, &Method::POST, &HeaderMap::new(), StatusCode::OK, &map(&[fresh]));
    assert!(!post && !may_look_up(&Method::POST, &HeaderMap::new(), &CacheControl::default()));
}

#[test]
fn the_store_stays_within_its_bytes_and_forgets_the_oldest_use() {
    let cache = Cache::new(Limits { bytes_max: 16 * 4096, entry_bytes_max: 4096, variants_max: 4 });
    let big = || {
        Entry::new(
            &HeaderMap::new(),
            StatusCode::OK,
            map(&[("cache-control", "max-age=60")]),
            vec![0; 1000].into(),
            at(0),
            at(0),
        )
        .unwrap()
    };
    for n in 0..200 {
        cache.store(key(&format!("/{n}")), big(), 0);
    }
    let left = (0..200).filter(|n| look_up(&cache, &format!("/{n}"), &[], 1).is_some()).count();
    assert!((1..=48).contains(&left), "{left}");
    let huge = Entry::new(
        &HeaderMap::new(),
        StatusCode::OK,
        map(&[("cache-control", "max-age=60")]),
        vec![0; 5000].into(),
        at(0),
        at(0),
    )
    .unwrap();
    assert!(!cache.store(key("/huge"), huge, 0));
}

#[test]
fn a_purge_forgets_what_is_stored_and_what_is_on_its_way() {
    let cache = Cache::new(Limits::default());
    let fresh = || entry(&[], &[("cache-control", "max-age=60")], "x").unwrap();
    let begun = cache.generation();
    cache.store(key("/x"), fresh(), begun);
    cache.purge_all();
    assert!(look_up(&cache, "/x", &[], 1).is_none());
    assert!(!cache.store(key("/x"), fresh(), begun));
}

#[test]
fn an_age_too_large_to_count_is_old_and_not_new() {
    for age in ["99999999999999999999999", "4294967296", "60, 1"] {
        assert!(entry(&[], &[("cache-control", "max-age=60"), ("age", age)], "x").is_none(), "{age}");
    }
    for age in ["-1", "1.5", "x", ""] {
        assert!(entry(&[], &[("cache-control", "max-age=60"), ("age", age)], "x").is_some(), "{age}");
    }
}

#[test]
fn two_values_that_are_no_text_are_two_variants() {
    let asked = |byte: u8| {
        let mut asked = HeaderMap::new();
        asked.insert("accept-language", HeaderValue::from_bytes(&[byte]).unwrap());
        asked
    };
    let headers = map(&[("cache-control", "max-age=60"), ("vary", "accept-language")]);
    let entry = Entry::new(&asked(0xfe), StatusCode::OK, headers, Bytes::new(), at(0), at(0)).unwrap();
    assert!(entry.matches(&asked(0xfe)) && !entry.matches(&asked(0xff)));
    assert!(!entry.matches(&map(&[("accept-language", "")])) && !entry.matches(&HeaderMap::new()));
}

#[test]
fn an_origin_that_begins_to_vary_is_heard_at_once() {
    let cache = Cache::new(Limits::default());
    let fresh = ("cache-control", "max-age=60");
    cache.store(key("/"), entry(&[], &[fresh], "for all").unwrap(), 0);
    let german = [("accept-language", "de")];
    cache.store(key("/"), entry(&german, &[fresh, ("vary", "accept-language")], "de").unwrap(), 0);
    assert_eq!(&look_up(&cache, "/", &german, 1).unwrap().body[..], b"de");
}

#[test]
fn pragma_counts_only_without_cache_control() {
    let check = |asked: &[(&str, &str)], expected| {
        let asked = map(asked);
        let control = CacheControl::read(&asked);
        assert_eq!(may_look_up(&Method::GET, &asked, &control), expected, "{asked:?}");
    };
    check(&[("pragma", "No-Cache")], false);
    check(&[("pragma", "no-cache"), ("cache-control", "max-age=5")], true);
    check(&[("pragma", "other")], true);
}

#[test]
fn an_answer_without_content_states_no_length() {
    let headers = map(&[("cache-control", "max-age=60")]);
    let entry = Entry::new(&HeaderMap::new(), StatusCode::NO_CONTENT, headers, Bytes::new(), at(0), at(0));
    let answer = entry.unwrap().answer(&Method::GET, &HeaderMap::new(), at(1));
    assert!(!answer.headers.contains_key("content-length"));
}

#[test]
fn customer_stage_app_and_revision_keep_entries_apart() {
    let cache = Cache::new(Limits::default());
    let uri = "/shop/".parse::<Uri>().unwrap();
    let scoped = |scopes: [&str; 4]| Key::new("https", "acme.apps.localhost", &uri, &scopes);
    let own = ["acme", "test", "shop", "r1"];
    cache.store(scoped(own), entry(&[], &[("cache-control", "max-age=60")], "x").unwrap(), 0);
    let is_found = |scopes| {
        let asked = HeaderMap::new();
        matches!(cache.look_up(&scoped(scopes), &asked, &CacheControl::default(), at(1)), Found::Fresh(_))
    };
    assert!(is_found(own));
    for place in 0..4 {
        let mut other = own;
        other[place] = "other";
        assert!(!is_found(other), "{other:?}");
    }
    assert!(!is_found(["acm", "etest", "shop", "r1"]), "lengths keep neighbours apart");
}

proptest! {
    #[test]
    fn nothing_stale_is_ever_served(lifetime in 0_u64..100, age in 0_u64..100, delay in 0_u64..10, waited in 0_u64..200) {
        let headers = map(&[("cache-control", &format!("max-age={lifetime}")), ("age", &age.to_string())]);
        let entry = Entry::new(&HeaderMap::new(), StatusCode::OK, headers, Bytes::new(), at(0), at(delay));
        let is_fresh = lifetime > age + delay + waited;
        let served = entry.is_some_and(|entry| entry.is_fresh(&CacheControl::default(), at(delay + waited)));
        prop_assert_eq!(served, is_fresh);
    }

    #[test]
    fn no_fields_of_any_kind_make_an_entry_panic(
        control in "[ -~]{0,30}", age in "[ -~]{0,12}", date in "[ -~]{0,30}", vary in "[ -~]{0,20}"
    ) {
        let mut headers = HeaderMap::new();
        for (name, text) in [("cache-control", control), ("age", age), ("date", date.clone()), ("expires", date), ("vary", vary)] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&text).unwrap());
        }
        if let Some(entry) = Entry::new(&HeaderMap::new(), StatusCode::OK, headers, Bytes::new(), at(0), at(0)) {
            entry.answer(&Method::GET, &HeaderMap::new(), at(u64::from(u32::MAX)));
        }
    }
}
