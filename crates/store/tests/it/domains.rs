//! Custom domains: whose they are, what is told about them, what is locked after them.

use super::World;
use bastide_store::{CLAIM_LIFE_S, DomainState, LOCK_S, NewCertificate, StoreError, now_s};
use bastide_types::{AppName, CustomerId, CustomerName, DomainName, Secret, StageName};

fn name() -> DomainName {
    DomainName::new("apps.example.com").unwrap()
}

async fn claim(world: &World, customer: CustomerId) -> Result<(), StoreError> {
    let mut write = world.store.write().await.unwrap();
    let shop = AppName::new("shop").unwrap();
    let own = world.store.customer(customer);
    own.claim_domain(&mut write, &name(), &StageName::production(), Some(&shop)).await?;
    write.commit().await.unwrap();
    Ok(())
}

async fn validate(world: &World, customer: CustomerId) -> Result<(), StoreError> {
    let mut write = world.store.write().await.unwrap();
    world.store.customer(customer).validate_domain(&mut write, &name()).await?;
    write.commit().await.unwrap();
    Ok(())
}

async fn remove(world: &World, customer: CustomerId) -> bool {
    let mut write = world.store.write().await.unwrap();
    let gone = world.store.customer(customer).remove_domain(&mut write, &name()).await.unwrap();
    write.commit().await.unwrap();
    gone
}

async fn state(world: &World, customer: CustomerId, later: i64) -> DomainState {
    world.store.customer(customer).domain(&name()).await.unwrap().unwrap().state(now_s() + later)
}

async fn put(world: &World, customer: CustomerId, key: &str) {
    let mut write = world.store.write().await.unwrap();
    let new = NewCertificate {
        source: "uploaded",
        chain: "CHAIN",
        key: &Secret::new(key),
        not_after: now_s() + 1000,
    };
    world.store.customer(customer).put_certificate(&mut write, &name(), &new).await.unwrap();
    write.commit().await.unwrap();
}

/// Seals for one edge what is not sealed, as the Platform does.
async fn seal(world: &World, edge: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for key in world.store.keys_unsealed(edge).await.unwrap() {
        let mut write = world.store.write().await.unwrap();
        let sealed = format!("sealed {}", key.key.expose());
        let own = world.store.customer(key.customer);
        own.put_sealed_key(&mut write, &key, edge, sealed.as_bytes()).await.unwrap();
        write.commit().await.unwrap();
        keys.push(key.key.expose().to_owned());
    }
    keys
}

#[tokio::test]
async fn a_pending_claim_blocks_nobody_and_the_first_that_is_proven_wins() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    claim(&world, acme).await.unwrap();
    claim(&world, beta).await.unwrap();
    assert!(matches!(claim(&world, acme).await, Err(StoreError::Taken)), "once per customer");
    let token = async |customer| world.store.customer(customer).domain(&name()).await.unwrap().unwrap().token;
    assert_ne!(token(acme).await, token(beta).await);
    assert!(token(acme).await.len() >= 32);
    assert_eq!(state(&world, acme, 0).await, DomainState::PendingValidation);
    let before = world.revision().await;
    assert!(world.store.customer(beta).served_domains().await.unwrap().is_empty());
    validate(&world, beta).await.unwrap();
    assert!(world.revision().await > before, "the data plane hears of it");
    assert!(matches!(validate(&world, acme).await, Err(StoreError::Taken)));
    let served = world.store.customer(beta).served_domains().await.unwrap();
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].app, Some(AppName::new("shop").unwrap()));
    assert!(world.store.customer(acme).served_domains().await.unwrap().is_empty());
    assert_eq!(world.store.domain_owner(&name()).await.unwrap().unwrap().customer, beta);
}

#[tokio::test]
async fn two_replicas_prove_the_same_domain_for_two_customers_and_one_of_them_gets_it() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    claim(&world, acme).await.unwrap();
    claim(&world, beta).await.unwrap();
    let (one, two) = tokio::join!(validate(&world, acme), validate(&world, beta));
    assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1, "{one:?} {two:?}");
}

#[tokio::test]
async fn a_claim_lives_72_hours_and_may_be_made_again() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    claim(&world, acme).await.unwrap();
    assert_eq!(state(&world, acme, CLAIM_LIFE_S - 5).await, DomainState::PendingValidation);
    assert_eq!(state(&world, acme, CLAIM_LIFE_S).await, DomainState::Expired);
    let mut sql = world.sql().await;
    sql.run(&format!("UPDATE domain SET created = created - {CLAIM_LIFE_S}")).await.unwrap();
    claim(&world, acme).await.unwrap();
    assert_eq!(state(&world, acme, 0).await, DomainState::PendingValidation);
}

#[tokio::test]
async fn what_was_given_up_is_locked_for_others_for_180_days() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    claim(&world, acme).await.unwrap();
    assert!(remove(&world, acme).await && !remove(&world, acme).await);
    claim(&world, beta).await.unwrap();
    validate(&world, beta).await.unwrap();
    assert!(world.store.locks().await.unwrap().is_empty(), "a claim that was never proven locks nothing");
    assert!(remove(&world, beta).await);
    let locks = world.store.locks().await.unwrap();
    assert_eq!((locks.len(), locks[0].label.as_str(), locks[0].customer), (1, "apps.example.com", beta));
    assert!((locks[0].until - now_s() - LOCK_S).abs() < 60);
    claim(&world, acme).await.unwrap();
    assert!(matches!(validate(&world, acme).await, Err(StoreError::Taken)));
    claim(&world, beta).await.unwrap();
    validate(&world, beta).await.unwrap();
    assert!(remove(&world, beta).await);
    let mut write = world.store.write().await.unwrap();
    assert!(world.store.unlock(&mut write, "apps.example.com").await.unwrap());
    assert!(!world.store.unlock(&mut write, "apps.example.com").await.unwrap());
    write.commit().await.unwrap();
    validate(&world, acme).await.unwrap();
}

#[tokio::test]
async fn a_locked_name_makes_no_customer() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let mut sql = world.sql().await;
    let locked = "INSERT INTO label_lock (kind, label, customer, until) VALUES ('customer', 'gone'";
    sql.run(&format!("{locked}, '{acme}', {})", now_s() + 60)).await.unwrap();
    let create = async || {
        let mut write = world.store.write().await.unwrap();
        let gone = CustomerName::new("gone").unwrap();
        world.store.create_customer(&mut write, CustomerId::generate(), &gone).await
    };
    assert!(matches!(create().await, Err(StoreError::Taken)));
    sql.run(&format!("UPDATE label_lock SET until = {}", now_s())).await.unwrap();
    create().await.unwrap();
}

#[tokio::test]
async fn keys_rest_sealed_and_each_edge_gets_its_own() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    claim(&world, acme).await.unwrap();
    validate(&world, acme).await.unwrap();
    assert_eq!(state(&world, acme, 0).await, DomainState::PendingCertificate);
    put(&world, acme, "FIRST KEY").await;
    assert_eq!(state(&world, acme, 0).await, DomainState::Issued);
    assert_eq!(state(&world, acme, 1000).await, DomainState::Expired);
    let mut sql = world.sql().await;
    let at_rest = sql.find_bytes("SELECT key FROM domain_certificate").await;
    assert!(!at_rest.windows(9).any(|part| part == b"FIRST KEY"));
    assert_eq!(seal(&world, "one").await, ["FIRST KEY"]);
    assert_eq!(seal(&world, "two").await, ["FIRST KEY"]);
    assert!(seal(&world, "one").await.is_empty(), "it has it");
    let keys = async || {
        let served = world.store.customer(acme).served_domains().await.unwrap();
        served[0].certificate.clone().unwrap().1
    };
    assert_eq!(keys().await.len(), 2);
    put(&world, acme, "SECOND KEY").await;
    assert!(keys().await.is_empty(), "keys of the certificate before are not told");
    assert_eq!(seal(&world, "one").await, ["SECOND KEY"]);
    assert_eq!(keys().await["one"], b"sealed SECOND KEY");
    let known = ["one".to_owned()];
    assert!(world.store.has_other_edges(&known).await.unwrap());
    let mut write = world.store.write().await.unwrap();
    world.store.forget_edges(&mut write, &known).await.unwrap();
    write.commit().await.unwrap();
    assert!(!world.store.has_other_edges(&known).await.unwrap());
    assert_eq!(keys().await.len(), 1);
}

#[tokio::test]
async fn a_domain_that_is_lost_serves_no_more_and_locks_nothing() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    claim(&world, acme).await.unwrap();
    validate(&world, acme).await.unwrap();
    put(&world, acme, "KEY").await;
    seal(&world, "one").await;
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    own.set_default_domain(&mut write, &StageName::production(), Some(&name())).await.unwrap();
    write.commit().await.unwrap();
    assert!(own.default_domain(&StageName::production()).await.unwrap().is_some());
    let mut write = world.store.write().await.unwrap();
    own.lose_domain(&mut write, &name(), "gone").await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(state(&world, acme, 0).await, DomainState::Failed);
    assert!(own.served_domains().await.unwrap().is_empty());
    assert!(own.default_domain(&StageName::production()).await.unwrap().is_none());
    assert!(world.store.keys_unsealed("one").await.unwrap().is_empty());
    claim(&world, beta).await.unwrap();
    validate(&world, beta).await.unwrap();
    claim(&world, acme).await.unwrap();
    assert_eq!(state(&world, acme, 0).await, DomainState::PendingValidation);
}
