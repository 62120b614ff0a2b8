//! What must hold whatever anybody sends.

use crate::lab::{Fields, Lab, day, says};
use bastide_cache::{Because, NotStored, Site, why};
use http::Method;
use proptest::prelude::*;

/// Directives and values as an origin or a client might send them, right and wrong.
fn control() -> impl Strategy<Value = String> {
    let directive = prop_oneof![
        Just("no-store"),
        Just("no-cache"),
        Just("private"),
        Just("public"),
        Just("must-revalidate"),
        Just("proxy-revalidate"),
        Just("must-understand"),
        Just("max-age=0"),
        Just("max-age=10"),
        Just("max-age=99999999999"),
        Just("max-age=x"),
        Just("s-maxage=20"),
        Just("stale-while-revalidate=30"),
        Just("stale-if-error=40"),
        Just("max-stale"),
        Just("max-stale=50"),
        Just("min-fresh=5"),
        Just("only-if-cached"),
        Just("no-cache=\"a\""),
        Just("private=\"b\""),
        Just("foo=\"no-store\""),
        Just(""),
    ];
    proptest::collection::vec(directive, 0..4).prop_map(|list| list.join(", "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_stale_is_served_without_permission(
        response in control(), asked in control(), age in 0_u64..30, date in -30_i64..30, wait in 0_u64..200, fails: bool,
        status in prop_oneof![Just(200_u16), Just(404), Just(503)],
    ) {
        let mut lab = Lab { site: Site { stale_when_disconnected_s: None, ..Site::alone() }, ..Lab::new() };
        lab.get(&[], &says(status, &[("cache-control", &response), ("age", &age.to_string()), ("date", &day(date)), ("etag", "\"a\"")], "x"));
        lab.wait(wait);
        let asked_fields = [("cache-control", &*asked)];
        let came = if fails { lab.alone(&asked_fields) } else { lab.get(&asked_fields, &says(200, &[("cache-control", "no-store")], "new")) };
        let Some(reply) = came.reply else { return Ok(()) };
        let stored = &lab.stored[0];
        prop_assert_eq!(&reply.fields["age"], &stored.age_s(lab.now).to_string());
        prop_assert!(stored.age_s(lab.now) >= age + wait);
        for forbidden in ["no-store", "private"] {
            let understood = response.contains("must-understand") && forbidden == "no-store";
            prop_assert!(understood || !response.split(", ").any(|word| word == forbidden));
        }
        if stored.left_ms(lab.now) <= 0 {
            for forbidden in ["no-cache", "must-revalidate", "proxy-revalidate", "s-maxage=20"] {
                prop_assert!(!response.split(", ").any(|word| word == forbidden), "{} / {}", response, asked);
            }
            let allowed = response.contains("stale-") || asked.contains("max-stale") || asked.contains("stale-if-error");
            prop_assert!(allowed);
            let late = stored.left_ms(lab.now).unsigned_abs() / 1000;
            prop_assert!(asked.split(", ").any(|word| word == "max-stale") || late <= 50);
        }
        prop_assert!(!asked.split(", ").any(|word| word == "no-cache"));
    }

    #[test]
    fn a_304_changes_a_response_in_the_same_way_however_often_it_comes(fields in proptest::collection::vec(("[a-c]", "[0-9]{0,3}"), 0..6), control in control()) {
        let mut lab = Lab::fill(&[("cache-control", "max-age=60"), ("etag", "\"t\""), ("a", "x"), ("b", "y")], "body");
        let mut said: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        said.extend([("etag", "\"t\""), ("cache-control", &control)]);
        let update = says(304, &said, "");
        let reload = [("cache-control", "no-cache")];
        lab.get(&reload, &update);
        let once = lab.stored[0].clone();
        lab.get(&reload, &update);
        prop_assert_eq!(&once.head, &lab.stored[0].head);
        prop_assert_eq!(&once.lifetime, &lab.stored[0].lifetime);
        prop_assert_eq!(once.content.slice(0, 3).unwrap(), "body");
    }

    #[test]
    fn no_fields_make_the_engine_panic(
        response in proptest::collection::vec(("(cache-control|cdn-cache-control|age|date|expires|last-modified|etag|vary|content-range|cache-groups|connection|content-length|set-cookie)", "[ -~]{0,24}"), 0..8),
        asked in proptest::collection::vec(("(cache-control|pragma|range|if-range|if-none-match|if-modified-since|authorization|accept|accept-language|accept-encoding|cookie)", "[ -~]{0,24}"), 0..6),
        status in 200_u16..600, again in 200_u16..600, wait: u32, head: bool, delay: u16,
    ) {
        let method = if head { Method::HEAD } else { Method::GET };
        let response: Vec<_> = response.iter().map(|(name, value)| (&**name, &**value)).collect();
        let asked: Vec<_> = asked.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut lab = Lab { delay_s: u64::from(delay), ..Lab::new() };
        let fields: Fields<'_> = &response;
        lab.get(&[], &says(status, fields, "0123456789"));
        lab.get(&asked, &says(status, fields, "0123456789"));
        lab.wait(u64::from(wait)).ask(&method, &asked, Some(&says(again, fields, "body")));
        lab.ask(&method, &asked, None);
        lab.get(&asked, &says(304, fields, ""));
        for stored in &lab.stored {
            prop_assert!(stored.weight() > 0);
        }
    }
}

#[test]
fn every_ground_has_a_text_and_a_section() {
    let sections: Vec<_> = Because::ALL.map(|because| (because.text(), because.section())).into();
    let refusals: Vec<_> = NotStored::ALL.map(|why| (why.text(), why.section())).into();
    for (text, section) in sections.into_iter().chain(refusals) {
        assert!(
            text.len() > 10
                && (section.starts_with("RFC ")
                    || section.starts_with("site")
                    || section.starts_with("limits")),
            "{text} {section}"
        );
    }
    let distinct: std::collections::HashSet<_> = Because::ALL.into_iter().collect();
    assert_eq!(distinct.len(), Because::ALL.len());
    let distinct: std::collections::HashSet<_> = why::NotStored::ALL.into_iter().collect();
    assert_eq!(distinct.len(), NotStored::ALL.len());
}
