//! What answers from the store look like (RFC 9111 §4, RFC 9110 §13, §14, §15).

use crate::lab::{Fields, Lab, day, map};
use bastide_cache::{Ask, Reply};
use http::Method;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn lab() -> Lab {
    Lab::fill(
        &[
            FRESH,
            ("etag", "\"a\""),
            ("last-modified", &day(-600)),
            ("content-type", "text/x"),
            ("content-range", "odd"),
            ("vary", "foo"),
            ("content-location", "/here"),
            ("expires", &day(50)),
            ("x", "1"),
            ("cdn-cache-control", "max-age=60"),
        ],
        "0123456789A",
    )
}

fn ask(lab: &mut Lab, asked: Fields<'_>) -> Reply {
    lab.alone(asked).reply.unwrap()
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.concat()).unwrap()
}

fn names(reply: &Reply) -> Vec<&str> {
    let mut names: Vec<_> = reply.fields.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_whole_answer_is_the_stored_head_and_one_age() {
    let mut lab = Lab::fill(&[FRESH, ("age", "5"), ("x", "1")], "body");
    let reply = lab.wait(7).alone(&[]).reply.unwrap();
    assert!(reply.head_as_stored);
    assert_eq!(
        (names(&reply), &reply.fields["age"], &*text(&reply)),
        (vec!["age"], &"12".parse().unwrap(), "body")
    );
}

#[test]
fn an_age_that_does_not_fit_is_said_as_large_as_it_is() {
    let mut lab = Lab::fill(
        &[("cache-control", "max-age=60, stale-while-revalidate=9999999999"), ("age", "99999999999")],
        "x",
    );
    let reply = lab.wait(9).alone(&[("cache-control", "max-stale")]).reply.unwrap();
    assert_eq!(reply.fields["age"], "2147483657");
}

#[test]
fn a_304_carries_what_a_client_needs_to_go_on() {
    let reply = ask(&mut lab(), &[("if-none-match", "\"a\"")]);
    assert_eq!(reply.status, 304);
    assert_eq!(
        names(&reply),
        ["age", "cache-control", "cdn-cache-control", "content-location", "date", "etag", "expires", "vary"]
    );
    assert!(reply.body.is_empty() && reply.length.is_none());
    let mut untagged = Lab::fill(&[FRESH, ("last-modified", &day(-600)), ("x", "1")], "x");
    let reply = ask(&mut untagged, &[("if-modified-since", &day(-600))]);
    assert_eq!(
        (reply.status.as_u16(), names(&reply)),
        (304, vec!["age", "cache-control", "date", "last-modified"])
    );
}

#[test]
fn conditions_count_only_for_a_stored_200() {
    let mut lab = Lab::new();
    lab.get(&[], &crate::lab::says(404, &[FRESH, ("etag", "\"a\"")], "gone"));
    assert_eq!(ask(&mut lab, &[("if-none-match", "\"a\"")]).status, 404);
    assert_eq!(ask(&mut lab, &[("range", "bytes=0-1")]).status, 404);
}

#[test]
fn ranges_are_cut_out_of_a_whole_response() {
    let check = |range: &str, status: u16, content_range: &str, body: &str| {
        let reply = ask(&mut lab(), &[("range", range)]);
        assert_eq!((reply.status.as_u16(), &*text(&reply)), (status, body), "{range}");
        let found = reply.fields.get("content-range").map(|value| value.to_str().unwrap());
        assert_eq!(found.unwrap_or_default(), content_range, "{range}");
    };
    check("bytes=0-1", 206, "bytes 0-1/11", "01");
    check("bytes=1-", 206, "bytes 1-10/11", "123456789A");
    check("bytes=-1", 206, "bytes 10-10/11", "A");
    check("bytes=5-99999999999999999999999", 206, "bytes 5-10/11", "56789A");
    check("bytes=0-3,2-5", 206, "bytes 0-5/11", "012345");
    check("bytes=11-", 416, "bytes */11", "");
    check("bytes=-0", 416, "bytes */11", "");
    for ignored in ["items=0-1", "bytes=5-2", "bytes=x", "bytes=0-1,y"] {
        check(ignored, 200, "", "0123456789A");
    }
    let many = format!("bytes={}", (0..17).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(","));
    check(&many, 200, "", "0123456789A");
}

#[test]
fn a_206_has_all_fields_unless_if_range_was_used() {
    let all = ask(&mut lab(), &[("range", "bytes=0-1")]);
    assert_eq!(
        (&all.fields["x"], &all.fields["content-type"]),
        (&"1".parse().unwrap(), &"text/x".parse().unwrap())
    );
    assert_eq!(all.fields.get_all("content-range").iter().count(), 1);
    let few = ask(&mut lab(), &[("range", "bytes=0-1"), ("if-range", "\"a\"")]);
    assert_eq!(few.status, 206);
    assert_eq!(
        names(&few),
        [
            "age",
            "cache-control",
            "cdn-cache-control",
            "content-location",
            "content-range",
            "date",
            "etag",
            "expires",
            "vary"
        ]
    );
}

#[test]
fn if_range_that_is_not_met_means_the_whole() {
    for (validator, status) in
        [("\"a\"", 206), ("\"b\"", 200), ("W/\"a\"", 200), (&*day(-600), 206), (&*day(-599), 200)]
    {
        let reply = ask(&mut lab(), &[("range", "bytes=0-1"), ("if-range", validator)]);
        assert_eq!(reply.status.as_u16(), status, "{validator}");
    }
}

#[test]
fn conditions_come_before_ranges() {
    assert_eq!(ask(&mut lab(), &[("range", "bytes=0-1"), ("if-none-match", "\"a\"")]).status, 304);
    assert_eq!(ask(&mut lab(), &[("range", "bytes=0-1"), ("if-none-match", "\"b\"")]).status, 206);
}

#[test]
fn several_ranges_are_several_parts() {
    let reply = ask(&mut lab(), &[("range", "bytes=0-1, -1, 99-")]);
    assert_eq!(reply.status, 206);
    assert_eq!(reply.fields["content-type"], "multipart/byteranges; boundary=BOUNDARY");
    assert!(!reply.fields.contains_key("content-range"), "each part has its own, the head none");
    let expected = "--BOUNDARY\r\ncontent-type: text/x\r\ncontent-range: bytes 0-1/11\r\n\r\n01\
                    \r\n--BOUNDARY\r\ncontent-type: text/x\r\ncontent-range: bytes 10-10/11\r\n\r\nA\r\n--BOUNDARY--\r\n";
    assert_eq!(text(&reply), expected);
    let one = ask(&mut lab(), &[("range", "bytes=0-1, 99-")]);
    assert_eq!(
        (one.fields.contains_key("content-range"), text(&one)),
        (true, "01".into()),
        "one part alone is never multipart"
    );
}

#[test]
fn an_answer_without_content_states_no_length() {
    let mut lab = Lab::new();
    lab.get(&[], &crate::lab::says(204, &[FRESH], ""));
    let headers = map(&[]);
    let reply = lab.reply(0, None, &Ask::new(&Method::HEAD, &headers, &lab.site), false);
    assert_eq!((reply.status.as_u16(), reply.length), (204, None));
}

#[test]
fn what_was_just_validated_states_no_age() {
    let lab = lab();
    let headers = map(&[]);
    let ask = Ask::new(&Method::GET, &headers, &lab.site);
    assert!(lab.reply(0, None, &ask, false).fields.contains_key("age"));
    assert!(!lab.reply(0, None, &ask, true).fields.contains_key("age"));
}
