//! What may be stored (RFC 9111 §3).

use crate::lab::{Fields, Lab, day, map, says};
use bastide_cache::{NotStored, Site};
use http::Method;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[track_caller]
fn check(asked: Fields<'_>, status: u16, fields: Fields<'_>, expected: Result<(), NotStored>) {
    let found = Lab::new().get(asked, &says(status, fields, "body")).stored;
    assert_eq!(found, Some(expected), "{asked:?} {status} {fields:?}");
}

#[track_caller]
fn stored(status: u16, fields: Fields<'_>) {
    check(&[], status, fields, Ok(()));
}

#[track_caller]
fn refused(status: u16, fields: Fields<'_>, why: NotStored) {
    check(&[], status, fields, Err(why));
}

#[test]
fn only_answers_to_a_get_are_stored() {
    for method in ["HEAD", "POST", "PUT", "OPTIONS", "FOO"] {
        let mut lab = Lab::new();
        let fields = [("cache-control", "public, max-age=60"), ("content-location", "/")];
        let came = lab.ask(&method.parse().unwrap(), &[], Some(&says(200, &fields, "x")));
        assert_eq!(came.stored, Some(Err(NotStored::Method)), "{method}");
    }
}

#[test]
fn any_final_status_with_explicit_freshness_is_stored() {
    for status in [
        200, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 451, 499, 500, 501,
        502, 503, 504, 599,
    ] {
        stored(status, &[FRESH]);
        stored(status, &[("expires", &day(60))]);
        stored(status, &[("cache-control", "s-maxage=60")]);
        stored(status, &[("cdn-cache-control", "max-age=60")]);
        stored(status, &[("cache-control", "public"), ("last-modified", &day(-6000))]);
    }
    refused(304, &[FRESH], NotStored::Status);
    refused(206, &[FRESH], NotStored::PartUnclear);
}

#[test]
fn without_explicit_freshness_only_some_statuses_are() {
    let old = day(-6000);
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        stored(status, &[("last-modified", &old)]);
        stored(status, &[("etag", "\"a\"")]);
    }
    for status in [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
        refused(status, &[("last-modified", &old)], NotStored::NoLifetime);
        refused(status, &[("etag", "\"a\"")], NotStored::NoLifetime);
    }
    refused(200, &[], NotStored::UselessAtOnce);
}

#[test]
fn no_store_in_either_message_stores_nothing() {
    refused(200, &[("cache-control", "max-age=60, No-Store")], NotStored::NoStore);
    refused(200, &[("cache-control", "max-age=60"), ("cache-control", "no-store")], NotStored::NoStore);
    check(&[("cache-control", "no-store")], 200, &[FRESH], Err(NotStored::ClientNoStore));
    let mut deaf = Lab { site: Site { heed_clients: false, ..Site::alone() }, ..Lab::new() };
    let came = deaf.get(&[("cache-control", "no-store")], &says(200, &[FRESH], ""));
    assert_eq!(came.stored, Some(Err(NotStored::ClientNoStore)), "this is no advice that a site may ignore");
}

#[test]
fn a_request_with_no_store_may_be_answered_from_what_was_stored_before() {
    assert!(Lab::fill(&[FRESH], "x").hits(&[("cache-control", "no-store")]));
}

#[test]
fn must_understand_beats_no_store_where_the_status_is_understood() {
    stored(200, &[("cache-control", "max-age=60, no-store, must-understand")]);
    stored(404, &[("cache-control", "max-age=60, no-store, must-understand")]);
    for status in [299, 599, 418] {
        refused(
            status,
            &[("cache-control", "max-age=60, no-store, must-understand")],
            NotStored::NotUnderstood,
        );
        refused(status, &[("cache-control", "max-age=60, must-understand")], NotStored::NotUnderstood);
    }
}

#[test]
fn private_is_for_one_user_and_private_fields_are_left_out() {
    refused(200, &[("cache-control", "private, max-age=60")], NotStored::Private);
    refused(200, &[("cache-control", "private=\"a b\", max-age=60")], NotStored::Private);
    let lab = Lab::fill(
        &[("cache-control", "max-age=60, private=\"A, b\""), ("a", "1"), ("b", "2"), ("c", "3")],
        "x",
    );
    let head = lab.stored[0].head.to_map();
    assert!(!head.contains_key("a") && !head.contains_key("b") && head.contains_key("c"));
}

#[test]
fn answers_to_credentials_are_stored_only_when_shared_explicitly() {
    let asked = [("authorization", "Basic x")];
    for control in ["max-age=60", "max-age=60, proxy-revalidate", "max-age=60, no-cache"] {
        check(&asked, 200, &[("cache-control", control), ("etag", "\"a\"")], Err(NotStored::Credentials));
    }
    for control in ["max-age=60, public", "s-maxage=60", "max-age=60, must-revalidate"] {
        check(&asked, 200, &[("cache-control", control)], Ok(()));
    }
    let targeted = |control| [("cdn-cache-control", control), ("cache-control", "public, max-age=60")];
    check(&asked, 200, &targeted("max-age=60"), Err(NotStored::Credentials));
    check(&asked, 200, &targeted("max-age=60, public"), Ok(()));
    let mut customer = Lab { site: Site::customer(), ..Lab::new() };
    let came = customer.get(&asked, &says(200, &[("cache-control", "public, max-age=60")], ""));
    assert_eq!(came.stored, Some(Err(NotStored::Credentials)));
}

#[test]
fn answers_that_set_a_cookie_are_stored_only_when_shared_explicitly() {
    let cookie = ("set-cookie", "a=b");
    refused(200, &[FRESH, cookie], NotStored::Cookie);
    refused(200, &[("cache-control", "max-age=60, must-revalidate"), cookie], NotStored::Cookie);
    stored(200, &[("cache-control", "max-age=60, public"), cookie]);
    stored(200, &[("cache-control", "s-maxage=60"), cookie]);
    stored(200, &[FRESH, ("cdn-cache-control", "max-age=60"), cookie]);
    let lab = Lab::fill(&[("cache-control", "max-age=60, no-cache=\"set-cookie\""), cookie], "x");
    assert!(!lab.stored[0].head.to_map().contains_key("set-cookie"), "the cookie itself is not stored then");
    let mut customer = Lab { site: Site::customer(), ..Lab::new() };
    let came = customer.get(&[], &says(200, &[("cache-control", "public, max-age=60"), cookie], ""));
    assert_eq!(came.stored, Some(Err(NotStored::Cookie)));
}

#[test]
fn unknown_fields_are_kept_and_those_of_a_connection_are_not() {
    let lab = Lab::fill(
        &[
            FRESH,
            ("connection", "a, B"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("content-foo", "4"),
            ("x-y", "5"),
            ("keep-alive", "x"),
            ("proxy-connection", "x"),
            ("te", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "x"),
            ("proxy-authenticate", "x"),
            ("proxy-authentication-info", "x"),
            ("proxy-authorization", "x"),
            ("age", "5"),
            ("content-length", "4"),
        ],
        "body",
    );
    let head = lab.stored[0].head.to_map();
    let names: Vec<_> = head.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["cache-control", "c", "content-foo", "x-y", "date"]);
}

#[test]
fn a_response_without_a_valid_date_gets_the_time_of_receipt() {
    for fields in [&[FRESH][..], &[FRESH, ("date", "foo")], &[FRESH, ("date", &day(-1)), ("date", &day(-1))]]
    {
        let mut lab = Lab { delay_s: 3, ..Lab::new() };
        lab.get(&[], &says(200, fields, "x"));
        assert_eq!(lab.stored[0].head.get(&http::header::DATE).unwrap(), &day(3), "{fields:?}");
    }
    let lab = Lab::fill(&[FRESH, ("date", &day(-7))], "x");
    assert_eq!(
        lab.stored[0].head.get(&http::header::DATE).unwrap(),
        &day(-7),
        "a valid one is never rewritten"
    );
}

#[test]
fn what_is_stale_at_once_is_stored_only_where_it_can_be_of_use() {
    for useless in [
        &[("cache-control", "max-age=0")][..],
        &[("cache-control", "max-age=x")],
        &[("expires", "0")],
        &[("cache-control", "no-cache")],
        &[("cache-control", "no-cache, max-age=60")],
        &[("cache-control", "public")],
    ] {
        refused(200, useless, NotStored::UselessAtOnce);
    }
    stored(200, &[("cache-control", "max-age=0"), ("etag", "\"a\"")]);
    stored(200, &[("cache-control", "no-cache"), ("last-modified", &day(-5))]);
    stored(200, &[("cache-control", "max-age=0, stale-if-error=60")]);
    stored(200, &[("cache-control", "max-age=60"), ("age", "90")]);
}

#[test]
fn vary_on_everything_is_not_stored() {
    for vary in ["*", "Accept, *", "a b"] {
        refused(200, &[FRESH, ("vary", vary)], NotStored::VariesOnAll);
    }
}

#[test]
fn pragma_and_warning_of_a_response_mean_nothing() {
    stored(200, &[FRESH, ("pragma", "no-cache"), ("warning", "110 - stale")]);
}

#[test]
fn cache_groups_are_kept_with_the_response() {
    let many: Vec<_> = (0..32).map(|n| format!("\"{n:032}\"")).collect();
    let lab = Lab::fill(&[FRESH, ("cache-groups", &many.join(", "))], "x");
    assert_eq!(lab.stored[0].groups.len(), 32);
    let lab =
        Lab::fill(&[FRESH, ("cache-groups", "\"A\", token, \"a\""), ("cache-groups", "\"b\";x=1")], "x");
    assert_eq!(lab.stored[0].groups, ["A", "a", "b"]);
    let lab = Lab::fill(&[FRESH, ("cache-groups", "\"a")], "x");
    assert!(lab.stored[0].groups.is_empty(), "what cannot be read names no group");
}

#[test]
fn a_body_that_broke_off_is_never_a_whole_response() {
    use bastide_cache::{Ask, Exchange, admit::admit};
    use bytes::Bytes;
    let cut = |fields: Fields<'_>, length| {
        let (site, headers) = (Site::alone(), map(&[]));
        let ask = Ask::new(&Method::GET, &headers, &site);
        let exchange =
            Exchange { requested: crate::lab::at(0), received: crate::lab::at(0), if_range: false };
        let draft = admit(&site, &ask, http::StatusCode::OK, &map(fields), exchange).unwrap();
        draft.cut_off(Bytes::from_static(b"01234"), length, None)
    };
    let tagged = [FRESH, ("etag", "\"a\"")];
    assert_eq!(cut(&[FRESH], Some(10)).unwrap_err(), NotStored::Incomplete);
    assert_eq!(cut(&[FRESH, ("etag", "W/\"a\"")], Some(10)).unwrap_err(), NotStored::Incomplete);
    assert_eq!(cut(&tagged, None).unwrap_err(), NotStored::Incomplete);
    let part = cut(&tagged, Some(10)).unwrap();
    assert!(!part.content.is_whole());
    assert_eq!((part.content.length(), part.content.held()), (10, 5));
}
