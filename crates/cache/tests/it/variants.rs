//! Variants of one address (RFC 9111 §4.1).

use crate::lab::{Fields, Lab, day, says};
use bastide_cache::Because;

fn varies(on: &str) -> [(&str, &str); 2] {
    [("cache-control", "max-age=60"), ("vary", on)]
}

#[test]
fn each_variant_answers_its_own_requests() {
    let mut lab = Lab::new();
    lab.get(&[("foo", "1")], &says(200, &varies("Foo"), "one"));
    lab.get(&[("foo", "2")], &says(200, &varies("Foo"), "two"));
    assert_eq!(lab.alone(&[("foo", "1"), ("other", "x")]).text(), "one");
    assert_eq!(lab.alone(&[("foo", "2")]).text(), "two");
    for asked in [&[("foo", "3")][..], &[], &[("foo", "")]] {
        assert_eq!(lab.alone(asked).because(), Because::NoVariant, "{asked:?}");
    }
}

#[test]
fn a_new_response_replaces_only_its_own_variant() {
    let mut lab = Lab::new();
    for (foo, body) in [("1", "old"), ("2", "two"), ("1", "new")] {
        let came = lab.get(&[("foo", foo), ("cache-control", "no-cache")], &says(200, &varies("foo"), body));
        assert_eq!(came.stored, Some(Ok(())));
    }
    assert_eq!(lab.stored.len(), 2);
    assert_eq!(lab.alone(&[("foo", "1")]).text(), "new");
    assert_eq!(lab.alone(&[("foo", "2")]).text(), "two");
}

#[test]
fn variants_of_one_address_may_vary_on_different_fields() {
    let mut lab = Lab::new();
    lab.get(&[("a", "1")], &says(200, &varies("a"), "by a"));
    lab.get(&[("a", "2"), ("b", "1")], &says(200, &varies("a, b"), "by both"));
    assert_eq!(lab.alone(&[("a", "1"), ("b", "9")]).text(), "by a");
    assert_eq!(lab.alone(&[("a", "2"), ("b", "1")]).text(), "by both");
    assert!(!lab.hits(&[("a", "2")]));
}

#[test]
fn of_several_that_match_one_that_varies_is_taken_then_the_newest() {
    let mut lab = Lab::new();
    let dated = |on: Option<&'static str>, date: &str, body| {
        let date = date.to_owned();
        let mut fields = vec![("cache-control", "max-age=600"), ("date", &*date)];
        fields.extend(on.map(|on| ("vary", on)));
        says(200, &fields, body)
    };
    let asked = [("a", "1"), ("b", "1")];
    let reload = [("a", "1"), ("b", "1"), ("cache-control", "no-cache")];
    lab.get(&asked, &dated(None, &day(0), "for all"));
    lab.get(&reload, &dated(Some("a"), &day(-20), "by a"));
    assert_eq!(lab.alone(&asked).text(), "by a");
    lab.get(&reload, &dated(Some("b"), &day(-10), "by b"));
    assert_eq!(lab.alone(&asked).text(), "by b");
    lab.get(&reload, &dated(Some("a"), &day(-5), "by a again"));
    assert_eq!(lab.alone(&asked).text(), "by a again");
}

#[test]
fn an_origin_that_begins_to_vary_is_heard_at_once() {
    let mut lab = Lab::fill(&[("cache-control", "max-age=60")], "for all");
    let german = [("accept-language", "de"), ("cache-control", "no-cache")];
    lab.get(&german, &says(200, &varies("accept-language"), "de"));
    assert_eq!(lab.alone(&[("accept-language", "de")]).text(), "de");
}

#[test]
fn without_a_variant_the_tags_of_all_are_asked_about_and_one_is_named() {
    let mut lab = Lab::new();
    let tagged = |tag: &str, body| says(200, &[varies("foo")[0], varies("foo")[1], ("etag", tag)], body);
    lab.get(&[("foo", "1")], &tagged("\"one\"", "one"));
    lab.get(&[("foo", "2")], &tagged("\"two\"", "two"));
    lab.get(&[("foo", "3")], &tagged("W/\"weak\"", "weak"));
    let came = lab.get(
        &[("foo", "4"), ("if-none-match", "\"own\"")],
        &says(304, &[("etag", "\"two\""), ("vary", "foo"), ("x", "new")], ""),
    );
    assert_eq!(came.sent("if-none-match"), Some("\"own\", \"one\", \"two\""));
    assert_eq!((came.status(), came.text()), (200, "two".into()));
    assert_eq!(came.reply.as_ref().unwrap().fields["x"], "new");
    assert_eq!(lab.alone(&[("foo", "4")]).text(), "two", "it is known from now on");
    assert_eq!(lab.alone(&[("foo", "2")]).text(), "two");
}

#[test]
fn a_variant_that_the_client_cannot_read_is_not_named() {
    let mut lab = Lab::new();
    let fields = [
        ("cache-control", "max-age=60"),
        ("vary", "accept-encoding"),
        ("etag", "\"same\""),
        ("content-encoding", "gzip"),
    ];
    lab.get(&[("accept-encoding", "gzip")], &says(200, &fields, "zipped"));
    let asked = |coding: &'static str, expected: Option<&str>, lab: &mut Lab| {
        let came = lab.get(&[("accept-encoding", coding)], &says(200, &[], ""));
        assert_eq!(came.sent("if-none-match"), expected, "{coding}");
    };
    asked("br", None, &mut lab);
    asked("gzip;q=0, br", None, &mut lab);
    asked("GZIP;q=0.5, br", Some("\"same\""), &mut lab);
}

#[test]
fn the_spelling_of_negotiation_fields_does_not_count() {
    let check = |name: &'static str, one: &'static str, other: &'static str, expected: bool| {
        let mut lab = Lab::new();
        lab.get(&[(name, one)], &says(200, &varies(name), "x"));
        let asked: Fields<'_> = &[(name, other)];
        assert_eq!(lab.hits(asked), expected, "{name}: {one} / {other}");
    };
    check("accept-encoding", "gzip, br", "br,GZIP", true);
    check("accept-encoding", "gzip, br", "gzip", false);
    check("accept-language", "en, de", "eN,   De", true);
    check("accept-language", "en, de", "de, en", false);
    check("accept", "text/html;q=1.0, */*;q=0.10", "*/*;q=0.1,text/html", true);
    check("foo", "1,2", " 1, 2 ", true);
    check("foo", "1", "1 ", true);
    check("foo", "a", "A", false);
}

#[test]
fn lines_of_a_request_field_are_one_value() {
    let mut lab = Lab::new();
    lab.get(&[("foo", "1, 2")], &says(200, &varies("foo"), "x"));
    assert!(lab.hits(&[("foo", "1"), ("foo", "2")]));
    assert!(!lab.hits(&[("foo", "2"), ("foo", "1")]));
}
