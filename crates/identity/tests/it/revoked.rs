//! What gateways know of revoked tokens.

use super::{NOW, claims};
use bastide_identity::{Claims, Revoked, TokenFault, Took};
use bastide_types::{
    CustomerId,
    feed::{Entry, Feed, What},
};
use proptest::prelude::*;
use uuid::Uuid;

fn customer(number: u8) -> CustomerId {
    CustomerId(Uuid::from_u128(u128::from(number)))
}

fn entry(number: u64, org: u8, what: What, id: &str) -> Entry {
    let id = if what == What::Customer { String::new() } else { id.to_owned() };
    Entry { number, customer: customer(org), what, id, until_s: NOW + 3600, resource: None }
}

fn part(after: u64, entries: Vec<Entry>) -> Feed {
    let last = entries.last().map_or(after, |entry| entry.number);
    Feed { life: 1, at_s: NOW, after, last, more: false, entries }
}

fn token(org: u8, epoch: u64, sid: &str, sub: &str, client_id: &str) -> Claims {
    let (sid, sub, client_id) = (sid.into(), sub.into(), client_id.into());
    Claims { org: customer(org).to_string(), epoch, sid, sub, client_id, ..claims() }
}

fn knowing(entries: Vec<Entry>) -> Revoked {
    let mut revoked = Revoked::default();
    revoked.replace(&[part(0, entries)], NOW);
    revoked
}

#[test]
fn each_kind_of_revocation_hits_its_tokens_and_no_others() {
    let good = |org, epoch| token(org, epoch, "s", "ann", "web");
    let check = |what: What, id: &str, hit: &[Claims], spared: &[Claims]| {
        let revoked = knowing(vec![entry(5, 1, what, id)]);
        for claims in hit {
            assert_eq!(revoked.check(claims), Err(TokenFault::Revoked), "{what:?} {claims:?}");
        }
        for claims in spared {
            assert_eq!(revoked.check(claims), Ok(()), "{what:?} {claims:?}");
        }
    };
    let other = token(1, 4, "t", "bob", "cli");
    // A session is dead for good; the others only for what was made before.
    check(What::Session, "s", &[good(1, 4), good(1, 9)], &[good(2, 4), other.clone()]);
    check(What::Subject, "ann", &[good(1, 4)], &[good(1, 5), good(2, 4), other.clone()]);
    check(What::Client, "web", &[good(1, 4)], &[good(1, 5), good(2, 4), other.clone()]);
    check(What::Customer, "", &[good(1, 4), other], &[good(1, 5), good(2, 4)]);
    check(What::Began, "s", &[], &[good(1, 4)]);
}

#[test]
fn a_hole_in_the_feed_is_noticed_and_what_comes_twice_is_not() {
    let mut revoked = Revoked::default();
    assert_eq!(revoked.take(&part(0, vec![]), NOW), Took::Missing, "nothing was asked for yet");
    revoked.replace(&[part(0, vec![entry(1, 1, What::Session, "a")])], NOW);
    assert_eq!(revoked.take(&part(1, vec![entry(3, 1, What::Session, "b")]), NOW), Took::Fits(true));
    assert_eq!(revoked.take(&part(1, vec![entry(3, 1, What::Session, "b")]), NOW), Took::Fits(false));
    assert_eq!(revoked.take(&part(5, vec![]), NOW), Took::Missing);
    assert_eq!(revoked.take(&Feed { life: 2, ..part(3, vec![]) }, NOW), Took::Missing);
    assert_eq!(revoked.position(), (1, 3));
    // What a restored backup says replaces what was known.
    revoked.replace(&[Feed { life: 2, ..part(0, vec![]) }], NOW);
    assert_eq!(revoked.position(), (2, 0));
    assert_eq!(revoked.check(&token(1, 0, "a", "ann", "web")), Ok(()));
}

#[test]
fn silence_is_noticed_and_only_the_newest_word_ends_it() {
    let mut revoked = Revoked::default();
    assert!(revoked.is_stale(15, NOW), "never heard");
    revoked.replace(&[part(0, vec![entry(7, 1, What::Session, "a")])], NOW);
    assert!(!revoked.is_stale(15, NOW + 15) && revoked.is_stale(15, NOW + 16));
    let at = |at_s, after| Feed { at_s, ..part(after, vec![]) };
    revoked.take(&at(NOW + 10, 6), NOW + 10);
    assert!(revoked.is_stale(15, NOW + 16), "a part that ends before what is known says nothing of the rest");
    revoked.take(&at(NOW + 99_999, 7), NOW + 10);
    assert!(revoked.is_stale(15, NOW + 26), "a clock that runs ahead keeps nothing fresh");
    revoked.take(&at(NOW + 20, 7), NOW + 20);
    assert!(!revoked.is_stale(15, NOW + 35));
    revoked.take(&Feed { more: true, ..part(7, vec![entry(8, 1, What::Session, "b")]) }, NOW + 40);
    assert!(revoked.is_stale(15, NOW + 40), "more is to come");
    assert!(!revoked.is_stale(u64::MAX, u64::MAX), "without a limit");
}

#[test]
fn what_no_token_can_be_of_is_forgotten() {
    let mut revoked = knowing(vec![
        entry(1, 1, What::Session, "a"),
        entry(2, 1, What::Subject, "b"),
        entry(3, 2, What::Customer, ""),
    ]);
    revoked.sweep(NOW + 3599);
    assert!(revoked.remembers_since(NOW) && !revoked.remembers_since(NOW - 101));
    assert_eq!(revoked.len(), 2);
    assert!(revoked.check(&token(2, 2, "s", "ann", "web")).is_err());
    revoked.sweep(NOW + 3600);
    assert!(revoked.is_empty());
}

#[test]
fn a_customer_that_revokes_without_end_fills_no_memory_and_harms_only_itself() {
    let mut revoked = Revoked::bounded(100);
    revoked.replace(&[part(0, vec![entry(1, 2, What::Session, "theirs")])], NOW);
    for number in 2..1000 {
        let session = format!("s{number}");
        revoked.take(&part(number - 1, vec![entry(number, 1, What::Session, &session)]), NOW);
        assert!(revoked.len() <= 100);
        assert!(revoked.check(&token(1, number - 1, &session, "ann", "web")).is_err());
    }
    assert!(revoked.check(&token(1, 1, "s2", "ann", "web")).is_err(), "the oldest, too");
    assert_eq!(revoked.check(&token(1, 999, "new", "ann", "web")), Ok(()));
    assert!(revoked.check(&token(2, 0, "theirs", "bob", "web")).is_err());
    assert_eq!(revoked.check(&token(2, 0, "other", "bob", "web")), Ok(()));
}

/// The plain meaning of entries, without any memory to save.
fn is_dead(entries: &[Entry], claims: &Claims) -> bool {
    entries.iter().filter(|entry| entry.customer.to_string() == claims.org).any(|entry| match entry.what {
        What::Began => false,
        What::Session => claims.sid == entry.id,
        What::Subject => claims.sub == entry.id && claims.epoch < entry.number,
        What::Client => claims.client_id == entry.id && claims.epoch < entry.number,
        What::Customer => claims.epoch < entry.number,
    })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let what =
        prop::sample::select(vec![What::Began, What::Session, What::Subject, What::Client, What::Customer]);
    let one = (1..4_u64, 0..2_u8, what, 0..4_u8);
    prop::collection::vec(one, 0..40).prop_map(|all| {
        let mut number = 0;
        let numbered = all.into_iter().map(|(step, org, what, id)| {
            number += step;
            entry(number, org, what, &format!("x{id}"))
        });
        numbered.collect()
    })
}

fn tokens(last: u64) -> impl Iterator<Item = Claims> {
    let ids = || (0..5_u8).map(|id| format!("x{id}"));
    (0..=last).flat_map(move |epoch| {
        (0..2).flat_map(move |org| {
            ids().flat_map(move |id| {
                [
                    token(org, epoch, &id, "n", "n"),
                    token(org, epoch, "n", &id, "n"),
                    token(org, epoch, "n", "n", &id),
                ]
            })
        })
    })
}

proptest! {
    #[test]
    fn however_the_feed_comes_what_is_known_means_what_was_said(
        all in entries(),
        cuts in prop::collection::vec(0..40_usize, 0..8),
        lost in prop::collection::vec(any::<bool>(), 9),
        max in 1..30_usize,
    ) {
        let last = all.last().map_or(0, |entry| entry.number);
        let mut revoked = Revoked::default();
        let mut small = Revoked::bounded(max);
        revoked.replace(&[part(0, vec![])], NOW);
        small.replace(&[part(0, vec![])], NOW);
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(all.len())).chain([all.len()]).collect();
        ends.sort_unstable();
        let mut begin = 0_usize;
        for (end, lost) in ends.into_iter().zip(lost) {
            let after = begin.checked_sub(1).map_or(0, |before| all[before].number);
            let sent = part(after, all[begin..end].to_vec());
            prop_assert!(sent.check().is_ok());
            begin = end;
            if lost {
                continue;
            }
            for one in [&mut revoked, &mut small] {
                if one.take(&sent, NOW) == Took::Missing {
                    let (_, known) = one.position();
                    let rest = all[..end].iter().filter(|entry| entry.number > known).cloned().collect();
                    prop_assert_ne!(one.take(&part(known, rest), NOW), Took::Missing);
                }
            }
        }
        for one in [&mut revoked, &mut small] {
            let known = one.position().1;
            let rest = all.iter().filter(|entry| entry.number > known).cloned().collect();
            prop_assert_ne!(one.take(&part(known, rest), NOW), Took::Missing);
        }
        prop_assert!(small.len() <= max);
        for claims in tokens(last) {
            let dead = is_dead(&all, &claims);
            // After a cut a session's own token is older than its end, as all tokens are in truth.
            let born_dead = all.iter().any(|e| e.what == What::Session && e.id == claims.sid && claims.epoch >= e.number);
            if !born_dead {
                prop_assert_eq!(revoked.check(&claims).is_err(), dead, "{:?}", claims);
                if dead {
                    prop_assert!(small.check(&claims).is_err());
                }
            }
            if claims.epoch >= last && !dead {
                prop_assert!(small.check(&claims).is_ok());
            }
        }
    }
}
