//! Partial content: stored, used, completed (RFC 9111 §3.3, §3.4).

use crate::lab::{Fields, Lab, day, says};
use bastide_cache::{Action, Because, NotStored};

const TAG: (&str, &str) = ("etag", "\"a\"");
const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn part(
    lab: &mut Lab,
    range: &str,
    content_range: &str,
    fields: Fields<'_>,
    body: &'static str,
) -> Option<Result<(), NotStored>> {
    let mut all = vec![FRESH, ("content-range", content_range)];
    all.extend(fields);
    lab.get(&[("range", range)], &says(206, &all, body)).stored
}

fn check(lab: &mut Lab, range: &str, expected: Option<&str>) {
    let came = lab.alone(&[("range", range)]);
    assert_eq!(came.is_hit().then(|| came.text()).as_deref(), expected, "{range}");
    if expected.is_some() {
        assert_eq!(came.status(), 206);
    } else {
        assert_eq!(came.because(), Because::PartMissing);
    }
}

#[test]
fn a_part_answers_ranges_that_lie_wholly_within_it() {
    let mut lab = Lab::new();
    assert_eq!(part(&mut lab, "bytes=5-9", "bytes 5-9/10", &[], "56789"), Some(Ok(())));
    assert_eq!(lab.stored[0].status, 200);
    check(&mut lab, "bytes=5-9", Some("56789"));
    check(&mut lab, "bytes=-5", Some("56789"));
    check(&mut lab, "bytes=6-8", Some("678"));
    check(&mut lab, "bytes=6-", Some("6789"));
    check(&mut lab, "bytes=-1", Some("9"));
    check(&mut lab, "bytes=4-8", None);
    check(&mut lab, "bytes=0-1", None);
    check(&mut lab, "bytes=-6", None);
    assert_eq!(lab.alone(&[("range", "bytes=10-")]).status(), 416);
    assert_eq!(lab.alone(&[]).because(), Because::PartMissing, "never as a 200");
}

#[test]
fn parts_join_only_under_the_same_strong_validator_and_length() {
    let join = |first: Fields<'_>, second: Fields<'_>, total: &str| {
        let mut lab = Lab::new();
        part(&mut lab, "bytes=0-4", "bytes 0-4/10", first, "01234");
        part(&mut lab, "bytes=5-9", &format!("bytes 5-9/{total}"), second, "56789");
        assert_eq!(lab.stored.len(), 1);
        lab.stored[0].content.is_whole()
    };
    let (old, older) = (day(-600), day(-601));
    assert!(join(&[TAG], &[TAG], "10"));
    assert!(join(&[("last-modified", &old)], &[("last-modified", &old)], "10"));
    assert!(!join(&[TAG], &[TAG], "11"));
    assert!(!join(&[TAG], &[("etag", "\"b\"")], "10"));
    assert!(!join(&[("etag", "W/\"a\"")], &[("etag", "W/\"a\"")], "10"));
    assert!(!join(&[("last-modified", &old)], &[("last-modified", &older)], "10"));
    assert!(!join(&[TAG], &[], "10"));
    assert!(!join(&[], &[], "10"));
}

#[test]
fn new_fields_replace_stored_ones_where_parts_join() {
    let mut lab = Lab::new();
    part(&mut lab, "bytes=0-4", "bytes 0-4/10", &[TAG, ("a", "1"), ("b", "2")], "01234");
    part(&mut lab, "bytes=5-9", "bytes 5-9/10", &[TAG, ("a", "3")], "56789");
    let came = lab.alone(&[]);
    assert_eq!((came.status(), came.text()), (200, "0123456789".into()), "complete, it is an ordinary 200");
    let head = lab.stored[0].head.to_map();
    assert_eq!((&head["a"], &head["b"]), (&"3".parse().unwrap(), &"2".parse().unwrap()));
    assert!(!head.contains_key("content-range"));
}

#[test]
fn a_whole_request_fetches_only_what_is_missing() {
    let check = |held: &[(&str, &'static str)], range: &str| {
        let mut lab = Lab::new();
        for (content_range, body) in held {
            part(&mut lab, "bytes=0-", content_range, &[TAG], body);
        }
        let came = lab.get(&[("if-none-match", "\"x\"")], &says(200, &[FRESH, TAG], "whole again"));
        assert_eq!(came.decision.action, Action::Complete(0));
        assert_eq!((came.sent("range"), came.sent("if-range")), (Some(range), Some("\"a\"")));
        assert_eq!(came.sent("if-none-match"), None);
        assert_eq!(lab.alone(&[]).text(), "whole again", "a 200 replaces everything");
    };
    check(&[("bytes 0-4/10", "01234")], "bytes=5-");
    check(&[("bytes 5-9/10", "56789")], "bytes=0-4");
    check(&[("bytes 2-3/10", "23")], "bytes=0-");
    check(&[("bytes 0-1/10", "01"), ("bytes 8-9/10", "89")], "bytes=2-7");
}

#[test]
fn what_was_missing_completes_the_response() {
    let mut lab = Lab::new();
    part(&mut lab, "bytes=0-4", "bytes 0-4/10", &[TAG], "01234");
    let gap = [FRESH, TAG, ("content-range", "bytes 5-9/10")];
    lab.get(&[], &says(206, &gap, "56789"));
    assert_eq!(lab.alone(&[]).text(), "0123456789");
}

#[test]
fn without_a_strong_validator_nothing_is_completed() {
    for fields in [&[][..], &[("etag", "W/\"a\"")], &[("last-modified", &*day(0))]] {
        let mut lab = Lab::new();
        part(&mut lab, "bytes=0-4", "bytes 0-4/10", fields, "01234");
        let came = lab.get(&[], &says(200, &[FRESH], "whole"));
        assert_eq!((came.decision.action, came.sent("range")), (Action::Forward, None), "{fields:?}");
    }
}

#[test]
fn a_stale_part_is_validated_only_for_ranges_that_it_holds() {
    let mut lab = Lab::new();
    part(&mut lab, "bytes=0-4", "bytes 0-4/10", &[TAG], "01234");
    lab.wait(61);
    let came = lab.get(&[("range", "bytes=1-2")], &says(304, &[TAG], ""));
    assert_eq!(came.sent("if-none-match"), Some("\"a\""));
    assert_eq!((came.status(), came.text()), (206, "12".into()));
    let came = lab
        .get(&[("range", "bytes=5-6")], &says(206, &[FRESH, TAG, ("content-range", "bytes 5-6/10")], "56"));
    assert_eq!(came.sent("if-none-match"), None);
    assert_eq!(came.sent("range"), Some("bytes=5-6"));
    check(&mut lab, "bytes=3-6", Some("3456"));
}

#[test]
fn a_part_that_is_not_clear_is_not_stored() {
    let refused = |content_range: &str, body| {
        let mut lab = Lab::new();
        assert_eq!(
            part(&mut lab, "bytes=0-", content_range, &[TAG], body),
            Some(Err(NotStored::PartUnclear)),
            "{content_range}"
        );
    };
    refused("bytes 0-4/*", "01234");
    refused("bytes 0-4", "01234");
    refused("bytes 0-4/10", "012345");
    refused("items 0-4/10", "01234");
    let mut lab = Lab::new();
    let several = says(206, &[FRESH, ("content-type", "multipart/byteranges; boundary=x")], "--x");
    assert_eq!(lab.get(&[("range", "bytes=0-1,3-4")], &several).stored, Some(Err(NotStored::PartUnclear)));
}

#[test]
fn a_part_shorter_than_it_says_counts_from_where_it_begins() {
    let mut lab = Lab::new();
    part(&mut lab, "bytes=-5", "bytes 4-9/10", &[], "01234");
    check(&mut lab, "bytes=6-8", Some("234"));
    check(&mut lab, "bytes=-1", None);
}

#[test]
fn a_part_that_was_asked_for_with_if_range_begins_nothing() {
    let mut lab = Lab::new();
    let asked = [("range", "bytes=5-9"), ("if-range", "\"a\"")];
    let says = says(206, &[FRESH, TAG, ("content-range", "bytes 5-9/10")], "56789");
    assert_eq!(
        lab.get(&asked, &says).stored,
        Some(Err(NotStored::PartUnclear)),
        "its head may lack fields of the whole"
    );
    part(&mut lab, "bytes=0-4", "bytes 0-4/10", &[TAG], "01234");
    assert_eq!(lab.get(&asked, &says).stored, Some(Ok(())));
    assert_eq!(lab.alone(&[]).text(), "0123456789");
}
