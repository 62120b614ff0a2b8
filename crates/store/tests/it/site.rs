//! How sites behave by themselves: kept by customer and stage, counted, read one by one.

use super::World;
use bastide_store::SiteBytes;
use bastide_types::{CustomerId, SiteDocument, SiteSettings, StageName};

fn settings(page: &str) -> SiteSettings {
    SiteDocument::from_json(&serde_json::json!({ "pages": { "404": page } }).to_string())
        .unwrap()
        .read()
        .unwrap()
}

async fn set(world: &World, customer: CustomerId, stage: &StageName, settings: &SiteSettings) {
    let mut write = world.store.write().await.unwrap();
    world.store.customer(customer).set_site(&mut write, stage, settings).await.unwrap();
    write.commit().await.unwrap();
}

async fn get(world: &World, customer: CustomerId, stage: &StageName) -> SiteSettings {
    let mut write = world.store.write().await.unwrap();
    world.store.customer(customer).site(&mut write, stage).await.unwrap()
}

async fn bytes(world: &World, customer: CustomerId) -> SiteBytes {
    let mut write = world.store.write().await.unwrap();
    world.store.customer(customer).site_bytes(&mut write).await.unwrap()
}

#[tokio::test]
async fn settings_belong_to_a_customer_and_a_stage_and_raise_the_revision() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let (test, production) = (StageName::test(), StageName::production());
    let before = world.revision().await;
    set(&world, acme, &test, &settings("acme")).await;
    assert!(world.revision().await > before);
    assert_eq!(get(&world, acme, &test).await, settings("acme"));
    for (customer, stage) in [(acme, &production), (beta, &test)] {
        assert!(get(&world, customer, stage).await.is_empty());
    }
    let documents = world.store.customer(acme).site_documents().await.unwrap();
    assert_eq!(documents[&test].read(), Ok(settings("acme")));
    assert!(world.store.customer(beta).site_documents().await.unwrap().is_empty());
    set(&world, acme, &test, &settings("newer")).await;
    assert_eq!(get(&world, acme, &test).await, settings("newer"));
    set(&world, acme, &test, &SiteSettings::default()).await;
    assert!(world.store.customer(acme).site_documents().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_settings_take_is_counted_in_bytes_by_customer_and_in_all() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    assert_eq!(bytes(&world, acme).await, SiteBytes { own: 0, all: 0 });
    set(&world, acme, &StageName::test(), &settings("é")).await;
    set(&world, acme, &StageName::production(), &settings("é")).await;
    set(&world, beta, &StageName::test(), &settings("é")).await;
    let one = r#"{"pages":{"404":"é"}}"#.len() as u64;
    assert_eq!(bytes(&world, acme).await, SiteBytes { own: 2 * one, all: 3 * one });
    assert_eq!(bytes(&world, beta).await, SiteBytes { own: one, all: 3 * one });
}

#[tokio::test]
async fn a_damaged_row_takes_no_other_stage_with_it() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    set(&world, acme, &StageName::test(), &settings("a")).await;
    set(&world, acme, &StageName::production(), &settings("b")).await;
    let mut sql = world.sql().await;
    sql.run("UPDATE stage_site SET settings = '{' WHERE stage = 'test'").await.unwrap();
    let documents = world.store.customer(acme).site_documents().await.unwrap();
    assert_eq!(documents.keys().collect::<Vec<_>>(), [&StageName::production()]);
}
