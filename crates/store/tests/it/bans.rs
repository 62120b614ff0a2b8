//! Bans: of one organization each, replaced by their network, given up when they have ended.

use super::World;
use bastide_store::{BanCount, BanRow};
use bastide_types::{Ban, BanId, CustomerId};

fn row(net: &str, until: Option<i64>) -> BanRow {
    let (net, reason, by) = (net.parse().unwrap(), "floods".to_owned(), "ann".to_owned());
    BanRow { id: BanId::generate(), net, reason, by, since: 100, until }
}

async fn set(world: &World, customer: CustomerId, row: &BanRow) {
    let mut write = world.store.write().await.unwrap();
    world.store.customer(customer).set_ban(&mut write, row).await.unwrap();
    write.commit().await.unwrap();
}

async fn nets(world: &World, customer: CustomerId, now: i64) -> Vec<String> {
    let rows = world.store.customer(customer).bans(now, "", 100).await.unwrap();
    rows.into_iter().map(|row| row.net.to_string()).collect()
}

#[tokio::test]
async fn a_ban_belongs_to_one_organization_and_raises_the_revision() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let before = world.revision().await;
    let (one, two) = (row("203.0.113.0/24", Some(500)), row("2001:db8::/48", None));
    set(&world, acme, &one).await;
    set(&world, acme, &two).await;
    assert!(world.revision().await > before);
    // Another process sees the same.
    let again = world.again().await;
    let own = again.customer(acme);
    assert_eq!(own.bans(100, "", 100).await.unwrap(), [two.clone(), one.clone()]);
    assert_eq!(own.bans(100, "2001:db8::/48", 100).await.unwrap(), [one.clone()], "a page after the first");
    assert_eq!(own.bans(100, "", 1).await.unwrap(), [two.clone()]);
    assert_eq!(own.ban_in_force(one.net, 499).await.unwrap().as_ref(), Some(&one));
    assert_eq!(own.ban_in_force(one.net, 500).await.unwrap(), None);
    let edges = own.bans_for_edges().await.unwrap();
    assert_eq!(edges, [Ban { net: two.net, until: None }, Ban { net: one.net, until: Some(500) }]);
    // Nobody else has it, sees it or lifts it.
    let foreign = again.customer(beta);
    assert!(foreign.bans(100, "", 100).await.unwrap().is_empty());
    assert!(foreign.bans_for_edges().await.unwrap().is_empty());
    let mut write = again.write().await.unwrap();
    assert_eq!(foreign.ban_of(&mut write, one.net).await.unwrap(), None);
    assert_eq!(foreign.lift_ban(&mut write, one.id).await.unwrap(), None);
    assert_eq!(foreign.ban_count(&mut write).await.unwrap(), BanCount { own: 0, all: 2 });
    assert_eq!(own.ban_count(&mut write).await.unwrap(), BanCount { own: 2, all: 2 });
    let before = world.revision().await;
    assert_eq!(own.lift_ban(&mut write, one.id).await.unwrap().as_ref(), Some(&one));
    write.commit().await.unwrap();
    assert!(world.revision().await > before);
    assert_eq!(nets(&world, acme, 100).await, ["2001:db8::/48"]);
}

#[tokio::test]
async fn a_second_ban_of_a_network_replaces_the_first_and_keeps_its_id() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let first = row("203.0.113.7", Some(500));
    set(&world, acme, &first).await;
    let second = BanRow { reason: "again".into(), by: "bob".into(), until: None, ..row("203.0.113.7", None) };
    set(&world, acme, &second).await;
    let found = world.store.customer(acme).bans(1000, "", 100).await.unwrap();
    assert_eq!(found, [BanRow { id: first.id, ..second }]);
}

#[tokio::test]
async fn bans_that_have_ended_are_given_up_and_the_revision_rises_once_for_it() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    for (customer, net, until) in [
        (acme, "203.0.113.1", Some(200)),
        (acme, "203.0.113.2", Some(300)),
        (acme, "203.0.113.3", None),
        (beta, "203.0.113.1", Some(200)),
    ] {
        set(&world, customer, &row(net, until)).await;
    }
    let give_up = async |now| {
        let mut write = world.store.write().await.unwrap();
        let gone = world.store.customer(acme).give_up_bans(&mut write, now).await.unwrap();
        write.commit().await.unwrap();
        gone
    };
    let before = world.revision().await;
    assert_eq!((give_up(199).await, world.revision().await), (0, before), "nothing has ended");
    assert_eq!(world.store.customer(acme).bans_for_edges().await.unwrap().len(), 3);
    assert_eq!(give_up(200).await, 1);
    assert!(world.revision().await > before);
    assert_eq!(nets(&world, acme, 0).await, ["203.0.113.2/32", "203.0.113.3/32"]);
    assert_eq!(nets(&world, beta, 0).await, ["203.0.113.1/32"], "of this customer only");
    assert_eq!(nets(&world, acme, 300).await, ["203.0.113.3/32"], "what has ended is not listed");
}
