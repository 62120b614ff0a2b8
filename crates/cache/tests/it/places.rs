//! The store: limits, shares, order, purges.

use crate::lab::{Fields, Lab, at, says};
use bastide_cache::{Cache, Key, Limits, NotStored, Purge, Scope, Space, Stored};
use proptest::prelude::*;
use std::sync::Arc;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn response(asked: Fields<'_>, fields: Fields<'_>, body: &'static str) -> Stored {
    let mut lab = Lab::new();
    let mut all = vec![FRESH];
    all.extend(fields);
    assert_eq!(lab.get(asked, &says(200, &all, body)).stored, Some(Ok(())));
    Stored::clone(&lab.stored[0])
}

fn sized(bytes: usize) -> Stored {
    let mut stored = response(&[], &[], "");
    stored.content = bastide_cache::stored::Content::Whole(vec![b'x'; bytes].into());
    stored
}

struct Place {
    cache: Cache,
    space: Arc<Space>,
}

impl Place {
    fn new(limits: Limits) -> Self {
        let cache = Cache::new(limits);
        let space = cache.space("acme", &["acme", "test", "shop"]);
        Self { cache, space }
    }

    fn key(target: &str) -> Key {
        Key::new(&Scope::new(&["acme", "test", "shop", "r1"]), "https", "a", target)
    }

    fn put(&self, target: &str, stored: Stored) -> Result<(), NotStored> {
        let key = Self::key(target);
        self.cache.store(&self.space, &key, stored, self.cache.begin(&key)).map(|_| ())
    }

    fn has(&self, target: &str) -> bool {
        self.cache.look_up(&Self::key(target)).is_some()
    }
}

fn small() -> Limits {
    const KIB: usize = 1024;
    Limits {
        bytes_max: 1024 * KIB,
        entry_bytes_max: 128 * KIB,
        customer_bytes_max: 1024 * KIB,
        variants_max: 4,
    }
}

#[test]
fn what_is_stored_is_found_and_shared() {
    let place = Place::new(small());
    place.put("/x", response(&[], &[], "body")).unwrap();
    let (one, two) =
        (place.cache.look_up(&Place::key("/x")).unwrap(), place.cache.look_up(&Place::key("/x")).unwrap());
    assert!(Arc::ptr_eq(&one.variants[0], &two.variants[0]), "a hit copies nothing");
    assert!(!place.has("/y"));
}

#[test]
fn the_store_stays_within_its_bytes() {
    let place = Place::new(small());
    for n in 0..500 {
        place.put(&format!("/{n}"), sized(8000)).unwrap();
        assert!(place.cache.figures().bytes <= small().bytes_max, "after {n}");
    }
    let figures = place.cache.figures();
    assert!((80..130).contains(&figures.addresses), "{figures:?}");
    assert_eq!((figures.stored, figures.evicted), (500, 500 - figures.addresses as u64));
    assert_eq!(place.put("/large", sized(130 * 1024)), Err(NotStored::TooLarge));
}

#[test]
fn everything_that_leaves_gives_its_bytes_back() {
    let place = Place::new(small());
    for n in 0..300 {
        place.put(&format!("/{}", n % 40), sized(n * 20)).unwrap();
        if n % 3 == 0 {
            place.cache.invalidate(&Place::key(&format!("/{}", n % 37)));
        }
    }
    for n in 0..40 {
        place.cache.invalidate(&Place::key(&format!("/{n}")));
    }
    assert_eq!(
        (place.cache.figures().bytes, place.space.share_bytes(), place.cache.figures().addresses),
        (0, 0, 0)
    );
}

#[test]
fn what_is_used_outlives_a_scan() {
    let place = Place::new(small());
    for n in 0..50 {
        place.put(&format!("/hot{n}"), sized(8000)).unwrap();
    }
    for round in 0..20 {
        for n in 0..50 {
            place.has(&format!("/hot{n}"));
        }
        for n in 0..100 {
            let target = format!("/scan{round}-{n}");
            assert!(!place.has(&target));
            place.put(&target, sized(8000)).unwrap();
        }
    }
    let left = (0..50).filter(|n| place.has(&format!("/hot{n}"))).count();
    assert!(left >= 48, "{left} of 50 are left after 2,000 responses that were asked for once");
}

#[test]
fn a_customer_cannot_push_another_below_an_equal_part() {
    let cache = Cache::new(small());
    let put = |customer: &str, n: usize| {
        let space = cache.space(customer, &[customer, "production", "app"]);
        let key = Key::new(&Scope::new(&[customer]), "https", "a", &format!("/{n}"));
        // Asked for often: nobody's answers are worth more than another's.
        (0..5).for_each(|_| drop(cache.look_up(&key)));
        cache.store(&space, &key, sized(8000), cache.begin(&key)).unwrap();
        space
    };
    let quiet = (0..35).fold(None, |_, n| Some(put("quiet", n))).unwrap();
    let before = quiet.share_bytes();
    let middle = (0..60).fold(None, |_, n| Some(put("middle", n))).unwrap();
    let loud = (0..2000).fold(None, |_, n| Some(put("loud", n))).unwrap();
    assert_eq!(quiet.share_bytes(), before, "its share is less than a third");
    let third = small().bytes_max / 3;
    assert!(middle.share_bytes() > third - 20_000 && loud.share_bytes() > third - 20_000);
}

#[test]
fn a_customers_share_has_a_limit_of_its_own() {
    let limits = Limits { customer_bytes_max: 256 * 1024, ..small() };
    let place = Place::new(limits);
    for n in 0..100 {
        place.put(&format!("/{n}"), sized(8000)).unwrap();
    }
    assert!(place.space.share_bytes() <= limits.customer_bytes_max);
    assert!(place.cache.figures().addresses > 25);
}

#[test]
fn variants_of_an_address_are_limited_and_the_least_used_leaves() {
    let place = Place::new(small());
    let variant = |n: usize| response(&[("user-agent", &n.to_string())], &[("vary", "user-agent")], "x");
    for n in 0..4 {
        place.put("/", variant(n)).unwrap();
    }
    let slot = place.cache.look_up(&Place::key("/")).unwrap();
    for used in [0, 1, 3] {
        place.cache.touch(&slot, used, at(5));
    }
    place.put("/", variant(9)).unwrap();
    let slot = place.cache.look_up(&Place::key("/")).unwrap();
    let has = |n: usize| {
        slot.variants
            .iter()
            .any(|stored| stored.variant.matches(&crate::lab::map(&[("user-agent", &n.to_string())])))
    };
    assert_eq!((slot.variants.len(), [0, 1, 2, 3, 9].map(has)), (4, [true, true, false, true, true]));
}

#[test]
fn an_older_response_never_replaces_a_newer_one() {
    let place = Place::new(small());
    let dated = |offset, body| response(&[], &[("date", &crate::lab::day(offset))], body);
    place.put("/", dated(-5, "new")).unwrap();
    assert_eq!(place.put("/", dated(-6, "old")), Err(NotStored::Older));
    place.put("/", dated(-5, "newer")).unwrap();
    let slot = place.cache.look_up(&Place::key("/")).unwrap();
    assert_eq!(slot.variants[0].content.slice(0, 4).unwrap(), "newer");
}

#[test]
fn a_fetch_that_began_before_an_invalidation_is_not_stored() {
    let place = Place::new(small());
    let key = Place::key("/x");
    let ticket = place.cache.begin(&key);
    place.cache.invalidate(&key);
    let stored = place.cache.store(&place.space, &key, response(&[], &[], "x"), ticket);
    assert_eq!(stored.unwrap_err(), NotStored::Overtaken);
    place.put("/x", response(&[], &[], "x")).unwrap();
    place.cache.invalidate(&key);
    assert!(!place.has("/x"));
}

#[test]
fn purges_mean_what_is_stored_and_what_is_on_its_way() {
    let grouped = || response(&[], &[("cache-groups", "\"red\", \"blue\"")], "x");
    let check = |purge: Purge, left: [bool; 4]| {
        let place = Place::new(small());
        let targets = ["/a", "/a?q=1", "/dir/b", "/group"];
        let late = Place::key("/dir/late");
        let ticket = place.cache.begin(&late);
        for target in &targets[..3] {
            place.put(target, response(&[], &[], "x")).unwrap();
        }
        place.put("/group", grouped()).unwrap();
        place.cache.purge(&place.space, purge.clone());
        assert_eq!(targets.map(|target| place.has(target)), left, "{purge:?}");
        // A second look finds the same, and what is stored afterwards stays.
        assert_eq!(targets.map(|target| place.has(target)), left, "{purge:?}");
        for target in targets {
            place.put(target, grouped()).unwrap();
            assert!(place.has(target), "{purge:?} {target}");
        }
        let _ = place.cache.store(&place.space, &late, grouped(), ticket);
        let is_meant = matches!(&purge, Purge::All)
            || matches!(&purge, Purge::Prefix(p) if "/dir/late".starts_with(p))
            || matches!(&purge, Purge::Group(g) if g == "blue");
        assert_eq!(place.has("/dir/late"), !is_meant, "{purge:?}");
    };
    check(Purge::All, [false; 4]);
    check(Purge::Url("/a".into()), [false, true, true, true]);
    check(Purge::Url("/a?q=1".into()), [true, false, true, true]);
    check(Purge::Prefix("/dir/".into()), [true, true, false, true]);
    check(Purge::Prefix("/".into()), [false; 4]);
    check(Purge::Group("blue".into()), [true, true, true, false]);
    check(Purge::Group("Blue".into()), [true; 4]);
}

#[test]
fn a_purge_of_one_app_leaves_the_others_alone() {
    let place = Place::new(small());
    place.put("/x", response(&[], &[], "x")).unwrap();
    let other = place.cache.space("acme", &["acme", "test", "other"]);
    place.cache.purge(&other, Purge::All);
    assert!(place.has("/x"));
    let same = place.cache.space("acme", &["acme", "test", "shop"]);
    place.cache.purge(&same, Purge::All);
    assert!(!place.has("/x"), "the same names are the same space");
}

#[test]
fn only_the_purged_variant_leaves() {
    let place = Place::new(small());
    let variant =
        |foo: &str, group: &str| response(&[("foo", foo)], &[("vary", "foo"), ("cache-groups", group)], "x");
    place.put("/", variant("1", "\"red\"")).unwrap();
    place.put("/", variant("2", "\"blue\"")).unwrap();
    place.cache.purge(&place.space, Purge::Group("red".into()));
    let slot = place.cache.look_up(&Place::key("/")).unwrap();
    assert_eq!((slot.variants.len(), slot.variants[0].groups.clone()), (1, vec!["blue".to_owned()]));
}

#[test]
fn very_many_purges_become_one_of_everything() {
    let place = Place::new(small());
    place.put("/x", response(&[], &[], "x")).unwrap();
    for n in 0..4096 {
        place.cache.purge(&place.space, Purge::Url(format!("/other{n}")));
    }
    assert!(place.has("/x"));
    place.cache.purge(&place.space, Purge::Url("/one-more".into()));
    assert!(!place.has("/x"), "it only costs a miss");
    place.put("/x", response(&[], &[], "x")).unwrap();
    for n in 0..257 {
        place.cache.purge(&place.space, Purge::Prefix(format!("/p{n}/")));
    }
    assert!(!place.has("/x"));
}

#[test]
fn purges_of_the_control_plane_are_applied_once_and_in_any_number() {
    let place = Place::new(small());
    let url = |path: &str| Purge::Url(path.into());
    place.put("/a", response(&[], &[], "x")).unwrap();
    place.cache.apply_purges(&place.space, &[(7, url("/a"))], 0);
    assert!(!place.has("/a"));
    place.put("/a", response(&[], &[], "x")).unwrap();
    place.put("/b", response(&[], &[], "x")).unwrap();
    place.cache.apply_purges(&place.space, &[(7, url("/a")), (9, url("/b"))], 5);
    assert!(place.has("/a") && !place.has("/b"), "what was applied is not applied again");
    place.cache.apply_purges(&place.space, &[(20, url("/c"))], 8);
    assert!(place.has("/a"), "all that is not listed any more had been seen");
    place.cache.apply_purges(&place.space, &[(40, url("/c"))], 30);
    assert!(!place.has("/a"), "some purges were missed: everything goes");
}

#[test]
fn an_update_takes_the_place_of_exactly_what_it_updates() {
    let place = Place::new(small());
    let variant = |foo: &str, body| response(&[("foo", foo)], &[("vary", "foo")], body);
    place.put("/", variant("1", "one")).unwrap();
    place.put("/", variant("2", "two")).unwrap();
    let key = Place::key("/");
    let old = place.cache.look_up(&key).unwrap().variants[0].clone();
    assert!(place.cache.update(&key, &old, Some(variant("1", "neu"))).is_some());
    assert!(place.cache.update(&key, &old, Some(variant("1", "lost"))).is_none(), "it is not there any more");
    let slot = place.cache.look_up(&key).unwrap();
    let texts: Vec<_> = slot.variants.iter().map(|stored| stored.content.slice(0, 2).unwrap()).collect();
    assert_eq!(texts, ["neu", "two"]);
    assert!(place.cache.update(&key, &slot.variants[0], None).is_none());
    assert_eq!(place.cache.look_up(&key).unwrap().variants.len(), 1);
}

#[test]
fn answers_that_are_not_for_others_are_remembered_for_a_while() {
    let place = Place::new(small());
    place.cache.mark_unshared(&Place::key("/x"), at(0), 10);
    let is = |target: &str, now| place.cache.is_unshared(&Place::key(target), at(now));
    assert!(is("/x", 9) && !is("/x", 10) && !is("/y", 1));
}

#[test]
fn customer_stage_app_and_revision_keep_responses_apart() {
    let place = Place::new(small());
    let own = ["acme", "test", "shop", "r1"];
    let key = |parts: &[&str]| Key::new(&Scope::new(parts), "https", "acme.apps.localhost", "/shop/");
    place
        .cache
        .store(&place.space, &key(&own), response(&[], &[], "x"), place.cache.begin(&key(&own)))
        .unwrap();
    assert!(place.cache.look_up(&key(&own)).is_some());
    for at in 0..4 {
        let mut other = own;
        other[at] = "other";
        assert!(place.cache.look_up(&key(&other)).is_none(), "{other:?}");
    }
    for other in
        [&["acm", "etest", "shop", "r1"][..], &["acme", "test", "shop"], &["acme", "test", "shop", "r1", ""]]
    {
        assert!(place.cache.look_up(&key(other)).is_none(), "{other:?}");
    }
}

#[test]
fn many_threads_leave_the_store_in_order() {
    let place = Place::new(Limits { bytes_max: 200 * 1024, customer_bytes_max: 200 * 1024, ..small() });
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let place = &place;
            scope.spawn(move || {
                for n in 0..1500_usize {
                    let target = format!("/{}", (n * 7 + thread * 13) % 60);
                    match (n + thread) % 5 {
                        0 => place.cache.invalidate(&Place::key(&target)),
                        1 => place.cache.purge(&place.space, Purge::Url(target)),
                        2 => drop(place.has(&target)),
                        _ => drop(place.put(&target, sized(n % 9000))),
                    }
                }
            });
        }
    });
    assert!(place.cache.figures().bytes <= 200 * 1024);
    for n in 0..60 {
        place.cache.invalidate(&Place::key(&format!("/{n}")));
    }
    assert_eq!(
        (place.cache.figures().bytes, place.space.share_bytes(), place.cache.figures().addresses),
        (0, 0, 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_order_of_calls_breaks_the_books(calls in proptest::collection::vec((0_u8..6, 0_u8..12, 0_usize..12_000), 1..200)) {
        let place = Place::new(Limits { bytes_max: 64 * 1024, customer_bytes_max: 64 * 1024, entry_bytes_max: 16 * 1024, variants_max: 2 });
        for (call, target, size) in calls {
            let target = format!("/{target}");
            match call {
                0 => place.cache.invalidate(&Place::key(&target)),
                1 => place.cache.purge(&place.space, Purge::Url(target)),
                2 => place.cache.purge(&place.space, Purge::All),
                3 => { place.has(&target); }
                _ => { let _ = place.put(&target, sized(size)); }
            }
            prop_assert!(place.cache.figures().bytes <= 64 * 1024);
            prop_assert_eq!(place.cache.figures().bytes, place.space.share_bytes());
        }
        for target in 0..12 {
            place.cache.invalidate(&Place::key(&format!("/{target}")));
        }
        prop_assert_eq!(place.cache.figures().bytes, 0);
    }
}
