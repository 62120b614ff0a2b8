//! How many replicas, and where.

use bastide_balancer::scale::{
    Advice, Candidate, DOWN_AFTER_S, Decision, EVERY_S, Observed, decide, place, shed,
};
use bastide_types::{
    ReplicaId, ZoneName,
    manifest::{Resources, Scale},
    message::Usage,
};
use proptest::prelude::*;

fn usage(cpu_percent: u32, memory_percent: u32) -> Option<Usage> {
    let resources = Resources::default();
    Some(Usage {
        cpu_millis: resources.cpu_millis * cpu_percent / 100,
        memory_bytes: u64::from(resources.memory_mb) * 1024 * 1024 * u64::from(memory_percent) / 100,
    })
}

fn scale(text: &str) -> Scale {
    let scale: Scale = serde_json::from_str(text).unwrap();
    scale.check().unwrap();
    scale
}

fn look(scale: Scale, replicas: &[Option<Usage>], left: u32, advice: &mut Advice, now_s: i64) -> Decision {
    decide(&Observed { scale, resources: Resources::default(), replicas, left }, advice, now_s)
}

/// What comes of one look by somebody who has looked for long.
fn once(text: &str, replicas: &[Option<Usage>]) -> u32 {
    let mut advice = vec![(1, 0)];
    look(scale(text), replicas, 100, &mut advice, 1).replicas
}

#[test]
fn the_average_use_is_brought_to_the_target() {
    const WIDE: &str = r#"{"min":1,"max":16,"cpu_percent":50}"#;
    let check = |replicas: &[Option<Usage>], expected: u32| {
        assert_eq!(once(WIDE, replicas), expected, "{replicas:?}");
    };
    check(&[usage(100, 0); 2], 4);
    check(&[usage(75, 0); 2], 3);
    check(&[usage(80, 0), usage(60, 0)], 3);
    check(&[usage(51, 0); 4], 4);
    check(&[usage(55, 0); 4], 4);
    check(&[usage(56, 0); 4], 5);
    check(&[usage(45, 0); 4], 4);
    check(&[usage(44, 0); 4], 4);
    check(&[usage(25, 0); 4], 2);
    check(&[usage(26, 0); 4], 3);
    check(&[usage(0, 0); 4], 1);
    check(&[usage(100, 0); 12], 16);
    // The kind of use that needs most decides.
    let both = r#"{"min":1,"max":16,"cpu_percent":50,"memory_percent":80}"#;
    assert_eq!(once(both, &[usage(10, 80); 4]), 4);
    assert_eq!(once(both, &[usage(100, 10); 4]), 8);
    assert_eq!(once(both, &[usage(10, 10); 4]), 1);
}

#[test]
fn what_is_not_known_never_makes_it_worse() {
    const WIDE: &str = r#"{"min":1,"max":16,"cpu_percent":50}"#;
    assert_eq!(once(WIDE, &[None, None, None]), 3);
    // Two of four are busy; were the others idle, four would do.
    assert_eq!(once(WIDE, &[usage(100, 0), usage(100, 0), None, None]), 4);
    assert_eq!(once(WIDE, &[usage(100, 0), usage(100, 0), usage(100, 0), None]), 6);
    // One of two is idle; were the other at its target, one would not do.
    assert_eq!(once(WIDE, &[usage(0, 0), None]), 1);
    assert_eq!(once(WIDE, &[usage(20, 0), None]), 2);
    assert_eq!(once(r#"{"replicas":3}"#, &[usage(100, 100); 3]), 3);
}

#[test]
fn up_goes_at_once_and_down_waits_five_minutes() {
    let (wide, mut advice) = (scale(r#"{"min":2,"max":8,"cpu_percent":50}"#), Advice::new());
    let mut now = 1000;
    let busy = look(wide, &[usage(100, 0); 2], 100, &mut advice, now);
    assert_eq!((busy.replicas, busy.why.as_str()), (4, "cpu 100 %, target 50 %"));
    // The burst is over at once; the replicas stay until nobody asked for them in five minutes.
    let mut fewer_at = None;
    while fewer_at.is_none() {
        now += EVERY_S;
        let idle = look(wide, &[usage(0, 0); 4], 100, &mut advice, now);
        if idle.replicas < 4 {
            assert_eq!(idle.replicas, 2);
            fewer_at = Some(now);
        } else {
            assert!(idle.why.contains("fewer only after 300 s"), "{}", idle.why);
        }
    }
    assert_eq!(fewer_at, Some(1000 + DOWN_AFTER_S + EVERY_S));
    // A first look takes nothing away either.
    assert_eq!(look(wide, &[usage(0, 0); 4], 100, &mut Advice::new(), now).replicas, 4);
}

#[test]
fn what_people_ask_for_holds_at_once_and_the_quota_holds_always() {
    let mut advice = Advice::new();
    let fixed = |number: u32| scale(&format!(r#"{{"replicas":{number}}}"#));
    assert_eq!(look(fixed(5), &[None; 2], 100, &mut advice, 1).replicas, 5);
    assert_eq!(look(fixed(1), &[usage(90, 0); 5], 100, &mut advice, 2).replicas, 1);
    let short = look(fixed(5), &[None; 2], 1, &mut advice, 3);
    assert_eq!((short.replicas, short.why.contains("quota")), (3, true));
    let wide = scale(r#"{"min":2,"max":8,"cpu_percent":50}"#);
    let short = look(wide, &[usage(100, 0); 2], 1, &mut Advice::new(), 1);
    assert_eq!((short.replicas, short.why.contains("quota")), (3, true));
    assert_eq!(look(wide, &[usage(100, 0); 2], 0, &mut Advice::new(), 1).replicas, 2);
}

fn zone(name: &str) -> ZoneName {
    ZoneName::new(name).unwrap()
}

#[test]
fn replicas_go_where_fewest_are_and_leave_where_most_are() {
    let (a, b, c) = (zone("a"), zone("b"), zone("c"));
    let zones = [a.clone(), b.clone()];
    assert_eq!(place(&zones, &[], 3), [a.clone(), b.clone(), a.clone()]);
    assert_eq!(place(&zones, std::slice::from_ref(&a), 2), [b.clone(), a.clone()]);
    assert_eq!(place(&zones, &[c.clone(), c.clone()], 1), [a.clone()]);
    assert_eq!(place(&[], &[], 3), []);
    let one =
        |zone: &ZoneName, ready: bool| Candidate { id: ReplicaId::generate(), zone: zone.clone(), ready };
    let there = [one(&a, true), one(&a, true), one(&b, true), one(&b, false), one(&c, true)];
    let ids = |at: &[usize]| at.iter().map(|at| there[*at].id).collect::<Vec<_>>();
    // The zone that is gone, then the one that is not ready, then the fuller zone's newest.
    assert_eq!(shed(&zones, &there, 3), ids(&[4, 3, 1]));
    assert_eq!(shed(&zones, &there, 9).len(), 5);
}

fn usages() -> impl Strategy<Value = Vec<Option<Usage>>> {
    let one = proptest::option::weighted(0.9, (0_u32..4000, 0_u64..1 << 32));
    let one = one.prop_map(|one| one.map(|(cpu_millis, memory_bytes)| Usage { cpu_millis, memory_bytes }));
    proptest::collection::vec(one, 1..16)
}

fn scales() -> impl Strategy<Value = Scale> {
    (1_u32..=16, 0_u32..16, proptest::option::of(1_u32..=100), proptest::option::of(1_u32..=100)).prop_map(
        |(min, more, cpu_percent, memory_percent)| Scale {
            replicas: None,
            min: Some(min),
            max: Some((min + more).min(16)),
            cpu_percent,
            memory_percent,
        },
    )
}

proptest! {
    #[test]
    fn the_number_stays_within_what_is_allowed(scale in scales(), replicas in usages(), left in 0_u32..20, age in 0_i64..600) {
        let mut advice = vec![(1000 - age, 9)];
        let decision = look(scale, &replicas, left, &mut advice, 1000);
        let current = u32::try_from(replicas.len()).unwrap();
        prop_assert!(decision.replicas <= current + left);
        prop_assert!(decision.replicas <= *scale.range().end());
        prop_assert!(decision.replicas >= (*scale.range().start()).min(current + left));
        prop_assert!(advice.len() <= 3);
    }

    #[test]
    fn more_use_never_asks_for_fewer(scale in scales(), replicas in usages(), more in 0_u32..2000, at in any::<prop::sample::Index>()) {
        let mut busier = replicas.clone();
        let at = at.index(busier.len());
        busier[at] = busier[at].map(|usage| Usage { cpu_millis: usage.cpu_millis + more, memory_bytes: usage.memory_bytes + u64::from(more) * 100_000 });
        let count = |replicas: &[Option<Usage>]| look(scale, replicas, 100, &mut vec![(1, 0)], 1).replicas;
        prop_assert!(count(&busier) >= count(&replicas));
    }

    /// Any course of use: whenever there are fewer, no look of the last five minutes had asked for more than that.
    #[test]
    fn there_are_never_fewer_than_was_asked_for_lately(scale in scales(), course in proptest::collection::vec((0_u32..3000, 1_i64..40), 1..80)) {
        let (mut advice, mut now, mut current) = (Advice::new(), 10_000, *scale.range().start());
        let mut asked: Vec<(i64, u32)> = Vec::new();
        for (cpu_millis, pause) in course {
            now += pause;
            let replicas = vec![Some(Usage { cpu_millis, memory_bytes: 0 }); current as usize];
            // What this look alone would say.
            let alone = look(scale, &replicas, 100, &mut vec![(now, 0)], now).replicas;
            asked.push((now, alone));
            let next = look(scale, &replicas, 100, &mut advice, now).replicas;
            prop_assert!(alone <= current || next == alone, "up at once");
            if next < current {
                let lately = asked.iter().filter(|(at, _)| *at >= now - DOWN_AFTER_S).map(|(_, asked)| *asked).max();
                prop_assert_eq!(Some(next), lately);
            }
            current = next;
        }
    }

    /// However an app grows and shrinks, its zones never differ by more than one.
    #[test]
    fn zones_stay_even(steps in proptest::collection::vec((any::<bool>(), 1_u32..6, any::<u64>()), 1..40), count in 1_usize..5) {
        let zones: Vec<ZoneName> = (0..count).map(|at| zone(&char::from(b'a' + u8::try_from(at).unwrap()).to_string())).collect();
        let mut there: Vec<Candidate> = Vec::new();
        for (grow, by, ready) in steps {
            if grow {
                let now: Vec<_> = there.iter().map(|one| one.zone.clone()).collect();
                let placed = place(&zones, &now, by);
                prop_assert_eq!(placed.len(), by as usize);
                there.extend(placed.into_iter().map(|zone| Candidate { id: ReplicaId::generate(), zone, ready: true }));
            } else {
                let gone = shed(&zones, &there, by);
                prop_assert_eq!(gone.len(), there.len().min(by as usize));
                there.retain(|one| !gone.contains(&one.id));
            }
            for (at, one) in there.iter_mut().enumerate() {
                one.ready = ready >> (at % 64) & 1 == 0;
            }
            let full = |zone: &ZoneName| there.iter().filter(|one| one.zone == *zone).count();
            let counts: Vec<_> = zones.iter().map(full).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
        }
    }
}
