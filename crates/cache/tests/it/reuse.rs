//! When a stored response may be used again (RFC 9111 §4, §4.2, §5.2.1).

use crate::lab::{Fields, Lab, day, says};
use bastide_cache::{Action, Because, Forward, Moment, Site};
use http::Method;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[track_caller]
fn check(fields: Fields<'_>, asked: Fields<'_>, after: u64, expected: Because) {
    let mut lab = Lab::fill(fields, "x");
    let came = lab.wait(after).get(asked, &says(200, &[], "new"));
    assert_eq!(came.because(), expected, "{fields:?} {asked:?} after {after} s");
    let hits = [Because::Fresh, Because::ClientTakesStale, Because::WhileRevalidating].contains(&expected);
    assert_eq!(came.is_hit(), hits);
}

#[test]
fn a_response_is_fresh_while_its_lifetime_is_greater_than_its_age() {
    check(&[FRESH], &[], 0, Because::Fresh);
    check(&[FRESH], &[], 59, Because::Fresh);
    check(&[FRESH], &[], 60, Because::Stale);
    check(&[("cache-control", "max-age=0"), ("etag", "\"a\"")], &[], 0, Because::Stale);
    check(&[FRESH, ("age", "50")], &[], 9, Because::Fresh);
    check(&[FRESH, ("age", "50")], &[], 10, Because::Stale);
    check(&[FRESH, ("age", "90")], &[], 0, Because::Stale);
    check(&[FRESH, ("date", &day(-50))], &[], 10, Because::Stale);
    check(&[FRESH, ("date", &day(5000))], &[], 59, Because::Fresh);
    check(&[("expires", &day(60)), ("date", &day(0))], &[], 59, Because::Fresh);
    check(&[("expires", &day(60)), ("date", &day(0))], &[], 60, Because::Stale);
    check(&[("expires", &day(10)), ("date", &day(-10)), ("age", "25")], &[], 0, Because::Stale);
    check(&[("expires", &day(20)), ("date", &day(10)), ("age", "15")], &[], 0, Because::Stale);
    check(&[("last-modified", &day(-600))], &[], 59, Because::Fresh);
    check(&[("last-modified", &day(-600))], &[], 60, Because::Stale);
}

#[test]
fn the_time_that_the_exchange_took_counts_as_age() {
    let mut lab = Lab { delay_s: 10, ..Lab::new() };
    lab.get(&[], &says(200, &[FRESH, ("age", "5")], "x"));
    assert_eq!(lab.stored[0].age_s(lab.now), 15);
    lab.wait(44);
    assert!(lab.hits(&[]));
    lab.wait(1);
    assert!(!lab.hits(&[]));
}

#[test]
fn a_clock_that_is_set_makes_nothing_younger_or_older() {
    let mut lab = Lab::fill(&[FRESH], "x");
    lab.wait(30);
    for wall_ms in [0, u64::MAX] {
        lab.now = Moment { wall_ms, ..lab.now };
        assert!(lab.hits(&[]));
        assert_eq!(lab.stored[0].age_s(lab.now), 30);
    }
}

#[test]
fn a_targeted_field_governs_alone() {
    let targeted = |targeted, plain| [("cdn-cache-control", targeted), ("cache-control", plain)];
    check(&targeted("max-age=60", "max-age=1"), &[], 30, Because::Fresh);
    check(&targeted("max-age=1", "max-age=60"), &[], 30, Because::Stale);
    check(&targeted("max-age=60", "no-store"), &[], 30, Because::Fresh);
    check(&targeted("MaX-aGe=1", "max-age=60"), &[], 30, Because::Fresh);
    check(&[("cdn-cache-control", "max-age=60"), ("expires", &day(-60))], &[], 30, Because::Fresh);
    for refused in ["private", "no-store", "no-cache", "max-age=\"60\""] {
        let mut lab = Lab::new();
        lab.get(
            &[],
            &says(
                200,
                &[("cdn-cache-control", refused), ("cache-control", "max-age=60"), ("expires", &day(60))],
                "x",
            ),
        );
        assert!(!lab.hits(&[]), "{refused}");
    }
}

#[test]
fn clients_may_ask_for_younger_and_fresher_answers() {
    let ask = |control| [("cache-control", control)];
    check(&[FRESH], &ask("max-age=30"), 30, Because::Fresh);
    check(&[FRESH], &ask("max-age=30"), 31, Because::ClientWantsYounger);
    check(&[FRESH], &ask("max-age=0"), 1, Because::ClientWantsYounger);
    check(&[FRESH, ("age", "40")], &ask("max-age=30"), 0, Because::ClientWantsYounger);
    check(&[FRESH], &ask("min-fresh=30"), 30, Because::Fresh);
    check(&[FRESH], &ask("min-fresh=30"), 31, Because::ClientWantsFresher);
    check(&[FRESH], &ask("min-fresh=99999999999"), 0, Because::ClientWantsFresher);
    check(&[FRESH], &ask("no-cache"), 1, Because::ClientReloads);
    check(&[FRESH], &[("pragma", "no-cache")], 1, Because::ClientReloads);
    check(&[FRESH], &[("pragma", "no-cache"), ("cache-control", "x")], 1, Because::Fresh);
}

#[test]
fn clients_may_take_stale_answers_unless_that_is_forbidden() {
    let ask = |control| [("cache-control", control)];
    check(&[FRESH], &ask("max-stale=30"), 90, Because::ClientTakesStale);
    check(&[FRESH], &ask("max-stale=30"), 91, Because::Stale);
    check(&[FRESH], &ask("max-stale"), 9_000_000, Because::ClientTakesStale);
    check(&[FRESH], &ask("max-stale=x"), 61, Because::Stale);
    check(&[FRESH], &ask("max-stale, min-fresh=5"), 61, Because::Stale);
    check(
        &[("cache-control", "max-age=1500"), ("age", "2000")],
        &ask("max-stale=1000"),
        0,
        Because::ClientTakesStale,
    );
    for forbidden in ["must-revalidate", "proxy-revalidate", "s-maxage=60"] {
        let control = format!("max-age=60, {forbidden}");
        check(&[("cache-control", &control)], &ask("max-stale"), 61, Because::Stale);
    }
    check(
        &[("cache-control", "max-age=60, no-cache"), ("etag", "\"a\"")],
        &ask("max-stale"),
        1,
        Because::NoCache,
    );
}

#[test]
fn a_site_may_ignore_what_clients_ask_for() {
    let mut lab = Lab::fill(&[FRESH], "x");
    lab.site.heed_clients = false;
    for control in ["no-cache", "max-age=0", "min-fresh=600", "only-if-cached"] {
        assert!(lab.hits(&[("cache-control", control)]), "{control}");
    }
    lab.wait(61);
    assert!(!lab.hits(&[("cache-control", "max-stale")]));
}

#[test]
fn only_if_cached_never_reaches_the_origin() {
    let only = [("cache-control", "only-if-cached")];
    let refused = |lab: &mut Lab| {
        let came = lab.alone(&only);
        (came.decision.action, came.decision.because, came.sent.is_none())
    };
    let no = (Action::Refuse, Because::OnlyIfCached, true);
    assert_eq!(refused(&mut Lab::new()), no);
    assert_eq!(refused(Lab::fill(&[FRESH], "x").wait(61)), no);
    assert_eq!(refused(&mut Lab::fill(&[FRESH], "x")), (Action::Hit(0), Because::Fresh, true));
    let mut stale = Lab::fill(&[("cache-control", "max-age=1, stale-while-revalidate=60")], "x");
    assert_eq!(
        refused(stale.wait(5)),
        (Action::Hit(0), Because::WhileRevalidating, true),
        "not even to refresh"
    );
    let mut other = Lab::fill(&[FRESH], "x");
    assert_eq!(other.ask(&Method::POST, &only, Some(&says(200, &[], ""))).because(), Because::Method);
}

#[test]
fn no_cache_is_validated_before_every_use() {
    let tagged = |control| [("cache-control", control), ("etag", "\"a\"")];
    check(&tagged("no-cache"), &[], 0, Because::NoCache);
    check(&tagged("max-age=60, No-Cache"), &[], 0, Because::NoCache);
    check(&tagged("max-age=60, no-cache, stale-while-revalidate=60"), &[], 70, Because::NoCache);
    check(&tagged("max-age=60, no-cache=\"set-cookie\""), &[], 1, Because::Fresh);
}

#[test]
fn fields_that_no_cache_names_are_not_used_again_without_asking() {
    let mut lab = Lab::fill(
        &[
            ("cache-control", "no-cache=\"a, b\""),
            ("cache-control", "max-age=60"),
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("etag", "\"t\""),
        ],
        "x",
    );
    let came = lab.alone(&[]);
    let head = lab.stored[0].head.to_map();
    assert!(came.is_hit() && head.contains_key("c") && !head.contains_key("a") && !head.contains_key("b"));
    let came = lab.get(&[("cache-control", "no-cache")], &says(304, &[("etag", "\"t\""), ("a", "4")], ""));
    assert_eq!(came.reply.unwrap().fields["a"], "4", "whoever asked gets what the origin said just now");
    assert!(!lab.stored[0].head.to_map().contains_key("a"));
}

#[test]
fn credentials_are_answered_only_from_what_is_shared_explicitly() {
    let asked = [("authorization", "x")];
    check(&[FRESH], &asked, 1, Because::Credentials);
    check(&[("cache-control", "max-age=60, public")], &asked, 1, Because::Fresh);
    check(&[("cache-control", "s-maxage=60")], &asked, 1, Because::Fresh);
    check(&[("cache-control", "max-age=60, must-revalidate")], &asked, 1, Because::Fresh);
}

#[test]
fn conditions_against_lost_updates_are_the_origins() {
    check(&[FRESH, ("etag", "\"a\"")], &[("if-match", "\"a\"")], 1, Because::OriginsCondition);
    check(&[FRESH], &[("if-unmodified-since", &day(0))], 1, Because::OriginsCondition);
}

#[test]
fn cache_status_says_the_most_specific_word() {
    let word = |lab: &mut Lab, asked: Fields<'_>| lab.get(asked, &says(200, &[], "")).decision.forward();
    assert_eq!(word(&mut Lab::new(), &[]), Forward::UriMiss);
    let vary = [FRESH, ("vary", "foo")];
    assert_eq!(word(&mut Lab::fill(&vary, "x"), &[("foo", "1")]), Forward::VaryMiss);
    assert_eq!(word(Lab::fill(&[FRESH], "x").wait(61), &[]), Forward::Stale);
    assert_eq!(word(&mut Lab::fill(&[FRESH], "x"), &[("cache-control", "no-cache")]), Forward::Request);
    let mut post = Lab::fill(&[FRESH], "x");
    let came = post.ask(&Method::POST, &[], Some(&says(200, &[], "")));
    assert_eq!(came.decision.forward(), Forward::Method);
}

#[test]
fn a_site_may_guess_no_lifetime() {
    let mut lab = Lab { site: Site { guess_lifetime: false, ..Site::alone() }, ..Lab::new() };
    lab.get(&[], &says(200, &[("last-modified", &day(-6000))], "x"));
    assert!(!lab.hits(&[]));
}
