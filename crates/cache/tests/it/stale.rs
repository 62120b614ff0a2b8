//! Stale answers (RFC 9111 §4.2.4, RFC 5861).

use crate::lab::{Fields, Lab, says};
use bastide_cache::{Action, Because, Site};

const ERROR: &str = "max-age=60, stale-if-error=30";

#[track_caller]
fn fails(
    fields: Fields<'_>,
    asked: Fields<'_>,
    status: Option<u16>,
    after: u64,
    site: Site,
) -> Option<Because> {
    let mut lab = Lab::fill(fields, "x");
    lab.site = site;
    lab.wait(after);
    let came = match status {
        Some(status) => lab.get(asked, &says(status, &[], "error")),
        None => lab.alone(asked),
    };
    assert!(came.sent.is_some(), "the origin was asked");
    came.reply.is_some().then(|| {
        assert_eq!(came.text(), "x");
        came.because()
    })
}

fn strict() -> Site {
    Site { stale_when_disconnected_s: None, ..Site::alone() }
}

#[test]
fn while_revalidating_a_stale_response_answers_at_once_and_is_refreshed() {
    let mut lab = Lab::fill(&[("cache-control", "max-age=60, stale-while-revalidate=30")], "x");
    let mut check = |wait, asked: Fields<'_>, action, because| {
        let came = lab.wait(wait).get(asked, &says(503, &[], ""));
        assert_eq!((came.decision.action, came.because()), (action, because));
    };
    check(59, &[], Action::Hit(0), Because::Fresh);
    check(1, &[], Action::HitAndRefresh(0), Because::WhileRevalidating);
    check(30, &[], Action::HitAndRefresh(0), Because::WhileRevalidating);
    check(0, &[("cache-control", "no-cache")], Action::Forward, Because::ClientReloads);
    check(0, &[("cache-control", "max-age=10")], Action::Forward, Because::Stale);
    check(1, &[], Action::Forward, Because::Stale);
}

#[test]
fn a_stale_answer_carries_its_true_age_and_a_negative_ttl() {
    let mut lab = Lab::fill(&[("cache-control", "max-age=60, stale-while-revalidate=30"), ("age", "5")], "x");
    let came = lab.wait(70).alone(&[]);
    assert_eq!(came.reply.unwrap().fields["age"], "75");
    assert_eq!(lab.stored[0].ttl_s(lab.now), -15);
}

#[test]
fn if_error_a_stale_response_stands_in_for_these_failures() {
    for status in [500, 502, 503, 504] {
        let found = fails(&[("cache-control", ERROR)], &[], Some(status), 90, strict());
        assert_eq!(found, Some(Because::IfError), "{status}");
    }
    assert_eq!(fails(&[("cache-control", ERROR)], &[], None, 90, strict()), Some(Because::IfError));
    for status in [501, 505, 599] {
        assert_eq!(fails(&[("cache-control", ERROR)], &[], Some(status), 90, strict()), None, "{status}");
    }
    assert_eq!(fails(&[("cache-control", ERROR)], &[], Some(503), 91, strict()), None, "its time is over");
    assert_eq!(
        fails(&[("cache-control", "max-age=60")], &[], Some(503), 61, Site::alone()),
        None,
        "nothing allows it"
    );
}

#[test]
fn the_request_may_allow_it_too() {
    let asked = [("cache-control", "stale-if-error=30")];
    assert_eq!(
        fails(&[("cache-control", "max-age=60")], &asked, Some(503), 90, strict()),
        Some(Because::IfError)
    );
    assert_eq!(fails(&[("cache-control", "max-age=60")], &asked, Some(503), 91, strict()), None);
}

#[test]
fn a_client_that_wants_better_is_not_given_a_stale_answer() {
    for control in ["no-cache", "max-age=50", "min-fresh=5"] {
        let found =
            fails(&[("cache-control", ERROR)], &[("cache-control", control)], Some(503), 70, Site::alone());
        assert_eq!(found, None, "{control}");
    }
    assert_eq!(fails(&[("cache-control", ERROR)], &[("authorization", "x")], None, 70, Site::alone()), None);
}

#[test]
fn disconnected_the_site_decides_within_its_time() {
    let plain = [("cache-control", "max-age=60")];
    let day = 24 * 60 * 60;
    assert_eq!(fails(&plain, &[], None, 61, Site::alone()), Some(Because::Disconnected));
    assert_eq!(fails(&plain, &[], None, 60 + day, Site::alone()), Some(Because::Disconnected));
    assert_eq!(fails(&plain, &[], None, 61 + day, Site::alone()), None);
    assert_eq!(fails(&plain, &[], None, 61, Site::customer()), None);
}

#[test]
fn stale_is_forbidden_even_when_disconnected() {
    for forbidden in ["must-revalidate", "proxy-revalidate", "s-maxage=2", "no-cache"] {
        let control = format!("max-age=2, {forbidden}, stale-if-error=600, stale-while-revalidate=600");
        let fields = [("cache-control", &*control), ("etag", "\"a\"")];
        for status in [None, Some(503)] {
            assert_eq!(fails(&fields, &[], status, 5, Site::alone()), None, "{forbidden} {status:?}");
        }
        let mut lab = Lab::fill(&fields, "x");
        let came = lab.wait(5).alone(&[("cache-control", "max-stale=600")]);
        assert!(came.reply.is_none(), "{forbidden}");
        let chosen = came.decision.chosen.unwrap();
        assert!(lab.stored[chosen].forbids_stale(), "the answer is 504");
    }
}

#[test]
fn a_site_may_let_an_explicit_extension_count_beside_s_maxage() {
    let site = Site { extensions_beat_s_maxage: true, ..Site::alone() };
    let mut lab = Lab { site: site.clone(), ..Lab::new() };
    lab.get(&[], &says(200, &[("cache-control", "s-maxage=60, stale-while-revalidate=30")], "x"));
    assert_eq!(lab.wait(70).alone(&[]).because(), Because::WhileRevalidating);
    let mut lab = Lab { site, ..Lab::new() };
    lab.get(&[], &says(200, &[("cache-control", "s-maxage=60")], "x"));
    assert!(lab.wait(70).alone(&[]).reply.is_none());
    let clean =
        [("cdn-cache-control", "max-age=60, stale-while-revalidate=30"), ("cache-control", "s-maxage=1")];
    assert_eq!(Lab::fill(&clean, "x").wait(70).alone(&[]).because(), Because::WhileRevalidating);
}

#[test]
fn a_client_with_no_cache_or_a_response_in_doubt_never_gets_stale() {
    let mut lab = Lab::fill(&[("cache-control", ERROR), ("etag", "\"a\"")], "x");
    lab.stored[0] = std::sync::Arc::new(lab.stored[0].in_doubt());
    assert!(lab.alone(&[]).reply.is_none());
}
