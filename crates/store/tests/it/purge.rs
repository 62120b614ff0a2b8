//! Purges as the Snapshot and the API ask for them.

use super::{World, begin, publish, shop};
use bastide_types::{AppId, Purge, StageName};

async fn purge(
    world: &World,
    customer: bastide_types::CustomerId,
    stage: &StageName,
    app: Option<AppId>,
    purge: Purge,
) -> u64 {
    let own = world.store.customer(customer);
    let mut write = world.store.write().await.unwrap();
    let number = own.purge(&mut write, stage, app, &purge).await.unwrap();
    write.commit().await.unwrap();
    number
}

#[tokio::test]
async fn purges_are_for_an_app_of_a_stage_or_for_all_and_raise_the_revision() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let app = publish(&world.store, acme, &shop()).await.app;
    let stage = StageName::development();
    let before = world.revision().await;
    let one = purge(&world, acme, &stage, Some(app), Purge::Url("/shop/x".into())).await;
    let two = purge(&world, acme, &stage, None, Purge::All).await;
    assert!(two > one && world.revision().await > before);
    let found = world.store.customer(acme).purges(&stage).await.unwrap();
    assert_eq!(found.of(app).list, [(one, Purge::Url("/shop/x".into())), (two, Purge::All)]);
    assert_eq!(found.of(AppId::generate()).list, [(two, Purge::All)]);
    assert!(world.store.customer(acme).purges(&StageName::test()).await.unwrap().of(app).is_empty());
    assert!(world.store.customer(beta).purges(&stage).await.unwrap().of(app).is_empty());
    let mut write = world.store.write().await.unwrap();
    assert_eq!(world.store.customer(acme).recent_purges(&mut write).await.unwrap(), 2);
    assert_eq!(world.store.customer(beta).recent_purges(&mut write).await.unwrap(), 0);
}

#[tokio::test]
async fn old_purges_and_too_many_become_a_number() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let revision = publish(&world.store, acme, &shop()).await;
    begin(&world.store, acme, &revision).await.unwrap();
    let (app, stage) = (revision.app, StageName::development());
    let first = purge(&world, acme, &stage, Some(app), Purge::Url("/shop/0".into())).await;
    let mut sql = world.sql().await;
    sql.run("UPDATE purge SET number = number - 3600001").await.unwrap();
    let second = purge(&world, acme, &stage, Some(app), Purge::Url("/shop/1".into())).await;
    let own = world.store.customer(acme);
    let purges = own.purges(&stage).await.unwrap().of(app);
    assert_eq!((purges.before, purges.list.len()), (first - 3_600_001, 1));
    for n in 0..205 {
        purge(&world, acme, &stage, Some(app), Purge::Url(format!("/shop/{n}"))).await;
    }
    let purges = own.purges(&stage).await.unwrap().of(app);
    assert_eq!(purges.list.len(), 200);
    assert!(purges.before >= second && purges.list.iter().all(|(number, _)| *number > purges.before));
    assert!(purges.list.windows(2).all(|pair| pair[0].0 < pair[1].0), "numbers grow");
}
