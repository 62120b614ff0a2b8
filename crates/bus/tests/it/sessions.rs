//! The session feed, from the Platform to gateways.

use crate::house::*;
use bastide_bus::sessions::{FeedReader, follow};
use bastide_types::{
    CustomerId,
    feed::{Entry, Feed, What},
};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a reader knows: life, last number, numbers of the entries.
type Known = (u64, u64, Vec<u64>);

struct Reader(watch::Sender<Known>);

impl FeedReader for Reader {
    fn position(&self) -> (u64, u64) {
        let known = self.0.borrow();
        (known.0, known.1)
    }
    fn take(&mut self, part: Feed) -> bool {
        let (life, last, _) = *self.0.borrow();
        if part.life != life || part.after > last {
            return false;
        }
        self.0.send_modify(|known| {
            known.2.extend(part.entries.iter().map(|entry| entry.number).filter(|number| *number > last));
            known.1 = last.max(part.last);
        });
        true
    }
    fn replace(&mut self, parts: Vec<Feed>) {
        let numbers = parts.iter().flat_map(|part| part.entries.iter().map(|entry| entry.number)).collect();
        let last = parts.last().unwrap();
        self.0.send_replace((last.life, last.last, numbers));
    }
}

fn feed(life: u64, after: u64, last: u64) -> Feed {
    let entry = |number| Entry {
        number,
        customer: CustomerId::generate(),
        what: What::Session,
        id: "s".into(),
        until_s: 9,
        resource: None,
    };
    Feed { life, at_s: now_s(), after, last, more: false, entries: (after + 1..=last).map(entry).collect() }
}

#[tokio::test]
async fn a_gateway_hears_the_feed_and_asks_for_what_it_missed() {
    let mut house = House::new();
    let fake = Arc::new(Fake::default());
    let (pkcs8, stranger) = (bastide_bus::SigningKey::generate().unwrap(), signing_key());
    let own = || bastide_bus::SigningKey::from_pkcs8(&pkcs8).unwrap();
    let platform = house.platform(&fake).await;
    let has = |life, last| *fake.feed.lock().unwrap() = Some((own(), feed(life, 0, last)));
    has(1, 5);
    let gateway = house.edge("gateway-a").await;
    let (sender, mut known) = watch::channel(Known::default());
    follow(&gateway, own().verify_key(), Reader(sender), CancellationToken::new());
    let reaches = async |known: &mut watch::Receiver<Known>, life, numbers: &[u64]| {
        let last = numbers.last().copied().unwrap_or(0);
        until(known, |(l, n, all)| (*l, *n) == (life, last) && all == numbers).await;
    };
    reaches(&mut known, 1, &[1, 2, 3, 4, 5]).await;

    let tell = async |key: &bastide_bus::SigningKey, part: &Feed| {
        platform.bus.tell_sessions(&key.sign(part).unwrap()).await.unwrap();
    };
    let own = own();
    tell(&own, &feed(1, 5, 6)).await;
    reaches(&mut known, 1, &[1, 2, 3, 4, 5, 6]).await;
    // A forged one and a broken one change nothing; the next one shows that they were passed over.
    tell(&stranger, &feed(1, 6, 9)).await;
    tell(&own, &Feed { last: 3, ..feed(1, 6, 9) }).await;
    tell(&own, &feed(1, 6, 7)).await;
    reaches(&mut known, 1, &[1, 2, 3, 4, 5, 6, 7]).await;
    // A part is lost: the next one shows the hole.
    has(1, 9);
    tell(&own, &feed(1, 8, 9)).await;
    reaches(&mut known, 1, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    // A heartbeat tells of what is missing, too.
    has(1, 10);
    tell(&own, &feed(1, 10, 10)).await;
    reaches(&mut known, 1, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).await;
    // A restored backup knows less, and then more again.
    has(2, 3);
    tell(&own, &feed(2, 3, 3)).await;
    reaches(&mut known, 2, &[1, 2, 3]).await;

    // While the broker was away.
    house.kill();
    has(2, 4);
    house.start();
    reaches(&mut known, 2, &[1, 2, 3, 4]).await;
    assert_eq!(gateway.counters().violations, 0);
}

#[tokio::test]
async fn nobody_but_the_platform_tells_sessions_and_no_stage_asks_for_them() {
    let house = House::new();
    let platform = house.platform(&Arc::new(Fake::default())).await;
    let (_, agent) = house.stage(&platform).await;
    let edge = house.edge("edge").await;
    let query = bastide_types::feed::FeedQuery { life: 0, after: 0 };
    let denied =
        agent.request::<_, bastide_types::message::Signed>("platform.session.feed", &query, LONG).await;
    assert!(denied.is_err(), "{denied:?}");
    for bus in [&agent, &edge] {
        let before = bus.counters().violations;
        bus.publish("hint.sessions", &query).await.unwrap();
        while bus.counters().violations == before {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}
