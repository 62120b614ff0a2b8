//! Snapshots that make sense to their reader and lead where they should not.

use crate::world::{SHOP, World};
use bastide_types::{AccessRule, CustomerName, Snapshot, StageName};

const OTHER: &str = "https://other.apps.localhost:8443/shop/";

fn name(text: &str) -> CustomerName {
    CustomerName::new(text).unwrap()
}

/// The same world, later: the other customer has shut its shop.
fn later(world: &World, revision: u64) -> Snapshot {
    let mut snapshot = Snapshot { revision, ..world.snapshot() };
    let other = snapshot.customers.get_mut(&name("other")).unwrap();
    for app in other.stages.values_mut().flat_map(|stage| stage.apps.values_mut()) {
        app.routes.iter_mut().for_each(|route| route.access = AccessRule::Authenticated);
        app.routes.iter_mut().for_each(|route| (route.acr, route.max_age_s) = (None, None));
    }
    snapshot
}

async fn until(world: &World, url: &str, status: u16) {
    while world.get(url, &[]).await.status != status {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_stage_with_the_issuer_of_another_keeps_its_own_and_all_others_get_what_is_new() {
    let world = World::by_bus(3600).await;
    let shop = format!("{SHOP}/x");
    assert_eq!(world.get(&shop, &[]).await.status, 200);
    assert_eq!(world.get(OTHER, &[]).await.status, 503, "it is open, but has no replica");

    let mut bad = later(&world, 2);
    let theirs = bad.customers[&name("other")].stages[&StageName::production()].issuer.clone();
    let demo = bad.customers.get_mut(&name("demo")).unwrap();
    demo.stages.get_mut(&StageName::production()).unwrap().issuer = theirs;
    world.told().offer(&bad).await;
    until(&world, OTHER, 401).await;
    assert_eq!(world.get(&shop, &[]).await.status, 200);
    let own = world.keys.shop_token(|_| ());
    assert_eq!(world.get_as(&format!("{SHOP}/me"), &own).await.status, 200, "its own users still come in");
    let forged = bastide_identity::mint(&world.keys.others, &world.keys.shop()).unwrap();
    assert_eq!(world.get_as(&format!("{SHOP}/me"), &forged).await.status, 401, "and nobody else");
    let told = world.told().troubles().await;
    assert!(told[0].starts_with("customer demo: demo.apps.localhost does not lead to"), "{told:?}");
    world.end().await;
}

#[tokio::test]
async fn a_snapshot_that_changes_what_the_platforms_hosts_are_takes_nobody_with_it() {
    let world = World::by_bus(3600).await;
    let mut bad = later(&world, 2);
    for customer in bad.customers.values_mut() {
        customer.issuer.url = "https://elsewhere.example/identity".into();
    }
    world.told().offer(&bad).await;
    let told = world.told().troubles().await;
    assert!(told.iter().any(|told| told.starts_with("customer other: other.platform.localhost")), "{told:?}");
    let whoami = format!("{}/whoami", crate::world::API);
    assert_eq!(world.get_as(&whoami, &world.keys.member_token()).await.status, 200);
    assert_eq!(world.get(OTHER, &[]).await.status, 503, "it has what it had");
    world.end().await;
}
