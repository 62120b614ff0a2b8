//! Asking the origin whether what is stored still holds (RFC 9111 §4.3), and what its answer changes (§3.2).

use crate::lab::{Fields, Lab, day, says};
use bastide_cache::{Action, Because, NotStored};
use http::Method;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[test]
fn stored_validators_are_sent() {
    let modified = day(-600);
    let check = |fields: Fields<'_>, asked: Fields<'_>, tag: Option<&str>, since: Option<&str>| {
        let mut lab = Lab::fill(fields, "x");
        let came = lab.wait(6000).get(asked, &says(200, &[], ""));
        assert_eq!(came.sent("if-none-match"), tag, "{fields:?} {asked:?}");
        assert_eq!(came.sent("if-modified-since"), since, "{fields:?} {asked:?}");
    };
    let (tagged, dated) = ([FRESH, ("etag", "\"a\"")], [FRESH, ("last-modified", &*modified)]);
    check(&tagged, &[], Some("\"a\""), None);
    check(&[FRESH, ("etag", "W/\"a\"")], &[], Some("W/\"a\""), None);
    check(&[FRESH, ("etag", "abc")], &[], Some("abc"), None);
    check(&dated, &[], None, Some(&modified));
    check(&[FRESH, ("etag", "\"a\""), ("last-modified", &modified)], &[], Some("\"a\""), Some(&modified));
    check(&tagged, &[("if-none-match", "\"b\", \"c\"")], Some("\"b\", \"c\", \"a\""), None);
    check(&tagged, &[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], Some("\"b\", \"a\""), None);
    check(&tagged, &[("if-none-match", "*")], Some("*"), None);
    check(&dated, &[("if-modified-since", &day(-5))], None, Some(&modified));
    check(&tagged, &[("if-modified-since", &day(-5))], Some("\"a\""), None);
    check(&[FRESH], &[], None, None);
}

#[test]
fn a_client_that_reloads_makes_us_validate() {
    let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\"")], "x");
    let came = lab.get(&[("cache-control", "no-cache")], &says(304, &[("etag", "\"a\"")], ""));
    assert_eq!((came.because(), came.text()), (Because::ClientReloads, "x".into()));
    assert_eq!(came.sent("if-none-match"), Some("\"a\""));
}

#[test]
fn every_field_of_a_304_replaces_the_stored_lines_of_its_name() {
    let mut lab = Lab::fill(
        &[
            ("cache-control", "max-age=1"),
            ("etag", "\"a\""),
            ("test", "1"),
            ("test", "2"),
            ("kept", "3"),
            ("content-type", "text/a"),
            ("content-foo", "1"),
            ("set-cookie2", "a"),
        ],
        "body",
    );
    let fields = [
        ("cache-control", "max-age=3600"),
        ("etag", "\"a\""),
        ("test", "4"),
        ("new", "5"),
        ("content-type", "text/b"),
        ("content-foo", "2"),
        ("content-length", "99"),
        ("content-range", "x"),
        ("connection", "bad"),
        ("bad", "1"),
        ("set-cookie2", "b"),
    ];
    let came = lab.wait(5).get(&[], &says(304, &fields, ""));
    assert_eq!((came.status(), came.text()), (200, "body".into()));
    let head = lab.stored[0].head.to_map();
    let check = |name: &str, expected: &[&str]| {
        assert_eq!(head.get_all(name).iter().collect::<Vec<_>>(), expected, "{name}");
    };
    check("test", &["4"]);
    check("kept", &["3"]);
    check("new", &["5"]);
    check("content-type", &["text/b"]);
    check("content-foo", &["2"]);
    check("set-cookie2", &["b"]);
    for absent in ["content-length", "content-range", "connection", "bad"] {
        check(absent, &[]);
    }
    lab.wait(3599);
    assert!(lab.hits(&[]), "the new lifetime counts");
}

#[test]
fn lifetime_and_age_are_counted_anew_from_the_304() {
    let check = |fields: Fields<'_>, age: u64, date: &str| {
        let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\""), ("age", "30"), ("date", &day(-40))], "x");
        let mut all = vec![("etag", "\"a\"")];
        all.extend(fields);
        lab.wait(100).get(&[], &says(304, &all, ""));
        assert_eq!(lab.stored[0].age_s(lab.now), age, "{fields:?}");
        assert_eq!(lab.stored[0].head.get(&http::header::DATE).unwrap(), date);
    };
    check(&[], 0, &day(100));
    check(&[("age", "7"), ("date", &day(100))], 7, &day(100));
    check(&[("date", &day(90))], 10, &day(90));
    check(&[("date", "foo")], 0, &day(100));
}

#[test]
fn a_304_with_a_strong_tag_updates_all_that_have_it_and_else_none() {
    let mut lab = Lab::new();
    let asked = [("a", "1"), ("b", "1")];
    let reload = [("a", "1"), ("b", "1"), ("cache-control", "no-cache")];
    for (on, tag) in [("a", "\"same\""), ("b", "\"same\""), ("a, b", "\"other\"")] {
        lab.get(&reload, &says(200, &[FRESH, ("vary", on), ("etag", tag)], on.len().to_string().leak()));
    }
    lab.wait(61).get(&asked, &says(304, &[("etag", "\"same\""), ("x", "new")], ""));
    let updated: Vec<_> = lab.stored.iter().map(|stored| stored.head.to_map().contains_key("x")).collect();
    assert_eq!(updated, [true, true, false]);
    let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\"")], "x");
    let came = lab.wait(61).get(&[], &says(304, &[("etag", "\"b\"")], ""));
    assert!(came.reply.is_none(), "it means nothing that we have: ask again");
}

#[test]
fn a_304_with_a_weak_tag_or_a_date_updates_the_newest_that_matches() {
    let modified = day(-600);
    let check = |own: (&str, &str), said: (&str, &str), expected: [bool; 2]| {
        let mut lab = Lab::new();
        let reload = [("a", "1"), ("b", "1"), ("cache-control", "no-cache")];
        for (on, date) in [("a", day(-9)), ("b", day(-5))] {
            lab.get(&reload, &says(200, &[FRESH, ("vary", on), ("date", &date), own], "x"));
        }
        lab.wait(6000).get(&reload[..2], &says(304, &[said, ("x", "new")], ""));
        let updated: Vec<_> =
            lab.stored.iter().map(|stored| stored.head.to_map().contains_key("x")).collect();
        assert_eq!(updated, expected, "{own:?} {said:?}");
    };
    check(("etag", "W/\"a\""), ("etag", "W/\"a\""), [false, true]);
    check(("etag", "\"a\""), ("etag", "W/\"a\""), [false, true]);
    check(("etag", "W/\"b\""), ("etag", "W/\"a\""), [false, false]);
    check(("last-modified", &modified), ("last-modified", &modified), [false, true]);
    check(("last-modified", &modified), ("last-modified", &day(-1)), [false, false]);
}

#[test]
fn a_304_without_validators_lets_us_use_what_it_means_but_changes_nothing() {
    let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\"")], "x");
    let came = lab.wait(61).get(&[], &says(304, &[("x", "new")], ""));
    assert_eq!((came.status(), came.text()), (200, "x".into()));
    assert!(!lab.stored[0].head.to_map().contains_key("x") && !lab.hits(&[]));
}

#[test]
fn a_304_that_forbids_storing_is_answered_and_then_forgotten() {
    for control in ["no-store", "private"] {
        let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\"")], "x");
        let came = lab.wait(61).get(&[], &says(304, &[("etag", "\"a\""), ("cache-control", control)], ""));
        assert_eq!(came.text(), "x");
        assert_eq!(came.reply.unwrap().fields["cache-control"], control);
        assert!(!lab.hits(&[]), "{control}");
    }
}

#[test]
fn a_304_may_change_what_the_response_varies_on() {
    let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\"")], "x");
    let asked = [("foo", "1")];
    lab.wait(61).get(&asked, &says(304, &[("etag", "\"a\""), ("vary", "foo")], ""));
    lab.stored.retain(|stored| !stored.variant.is_empty());
    assert!(lab.hits(&asked) && !lab.hits(&[("foo", "2")]) && !lab.hits(&[]));
}

#[test]
fn the_clients_own_condition_is_answered_from_the_updated_response() {
    let update = says(304, &[("etag", "\"a\""), ("cache-control", "max-age=9")], "");
    let check = |asked: Fields<'_>, status: u16| {
        let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\""), ("last-modified", &day(-600))], "x");
        let came = lab.wait(61).get(asked, &update);
        assert_eq!(came.status(), status, "{asked:?}");
        assert_eq!(came.reply.unwrap().fields["cache-control"], "max-age=9");
    };
    check(&[("if-none-match", "\"a\"")], 304);
    check(&[("if-none-match", "W/\"a\"")], 304);
    check(&[("if-none-match", "\"b\"")], 200);
    check(&[("if-modified-since", &day(-600))], 304);
    check(&[("if-modified-since", &day(-601))], 200);
}

#[test]
fn a_304_to_the_clients_own_condition_alone_passes_on() {
    let asked = [("if-none-match", "\"own\"")];
    let mut empty = Lab::new();
    let came = empty.get(&asked, &says(304, &[("etag", "\"own\"")], ""));
    assert_eq!((came.stored, empty.stored.len()), (Some(Err(NotStored::Status)), 0));
    let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\"")], "x");
    let came = lab.wait(61).get(&asked, &says(304, &[("etag", "\"own\"")], ""));
    assert_eq!(came.sent("if-none-match"), Some("\"own\", \"a\""));
    assert!(came.reply.is_none() && !lab.hits(&[]));
}

#[test]
fn any_other_answer_to_a_validation_replaces() {
    for status in [200, 404, 410, 301] {
        let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\"")], "old");
        let came = lab.wait(61).get(&[], &says(status, &[FRESH], "new"));
        assert_eq!(came.stored, Some(Ok(())));
        let came = lab.alone(&[]);
        assert_eq!((came.status(), came.text()), (status, "new".into()));
    }
}

#[test]
fn a_head_is_answered_from_a_stored_get() {
    let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\""), ("x", "1")], "body");
    let came = lab.ask(&Method::HEAD, &[("range", "bytes=0-1")], None);
    let reply = came.reply.unwrap();
    assert_eq!((reply.status.as_u16(), reply.length, reply.body.len()), (200, Some(4), 0));
    assert!(reply.head_as_stored);
    let came = lab.ask(&Method::HEAD, &[("if-none-match", "\"a\"")], None);
    assert_eq!((came.status(), came.reply.unwrap().length), (304, None));
}

#[test]
fn a_head_that_agrees_updates_and_one_that_does_not_makes_doubtful() {
    let check = |fields: Fields<'_>, expected: bool| {
        let mut lab = Lab::fill(
            &[("cache-control", "max-age=2"), ("etag", "\"a\""), ("last-modified", &day(-600)), ("a", "1")],
            "body",
        );
        let mut all = vec![("cache-control", "max-age=600"), ("a", "2")];
        all.extend(fields);
        let came = lab.wait(5).ask(&Method::HEAD, &[], Some(&says(200, &all, "")));
        assert_eq!(came.stored, Some(Err(NotStored::Method)), "a HEAD never makes a stored GET");
        assert_eq!(lab.hits(&[]), expected, "{fields:?}");
        assert_eq!(lab.stored[0].head.get(&"a".parse().unwrap()).unwrap(), if expected { "2" } else { "1" });
    };
    check(&[], true);
    check(&[("etag", "\"a\""), ("last-modified", &day(-600)), ("content-length", "4")], true);
    check(&[("etag", "\"b\"")], false);
    check(&[("last-modified", &day(-601))], false);
    check(&[("content-length", "5")], false);
}

#[test]
fn a_doubtful_response_is_validated_even_while_it_is_fresh() {
    let mut lab = Lab::fill(&[FRESH, ("etag", "\"a\"")], "body");
    lab.wait(1).ask(
        &Method::HEAD,
        &[("cache-control", "no-cache")],
        Some(&says(200, &[("etag", "\"b\"")], "")),
    );
    let came = lab.get(&[], &says(304, &[("etag", "\"a\"")], ""));
    assert_eq!((came.because(), came.decision.action), (Because::Doubted, Action::Validate(0)));
    assert!(lab.hits(&[]), "the origin said that it holds");
}
