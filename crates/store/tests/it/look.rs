//! How an organization looks: title and logo, each by itself, seen by nobody else.

use super::World;
use bastide_store::{Logo, Look};
use bastide_types::{
    CustomerName, Digest,
    picture::{Picture, PictureKind},
};

async fn seen(world: &World, name: &str) -> Look {
    let name = CustomerName::new(name).unwrap();
    // As another process sees it.
    world.again().await.customer_that_looks(&name).await.unwrap().unwrap().1
}

#[tokio::test]
async fn title_and_logo_are_set_and_taken_away_each_by_itself() {
    let world = World::new().await;
    let (acme, _) = (world.customer("acme").await, world.customer("beta").await);
    assert_eq!(seen(&world, "acme").await, Look::default());
    let picture = Picture { kind: PictureKind::Webp, width: 64, height: 48 };
    let logo = Logo { picture, digest: Digest::from_sha256([7; 32]) };
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    own.set_logo(&mut write, Some((&logo, b"bytes"))).await.unwrap();
    own.set_title(&mut write, Some("Acme & Söhne")).await.unwrap();
    let both = Look { title: Some("Acme & Söhne".into()), logo: Some(logo) };
    assert_eq!(own.look(&mut write).await.unwrap(), both);
    write.commit().await.unwrap();
    assert_eq!(seen(&world, "acme").await, both);
    assert_eq!(seen(&world, "beta").await, Look::default());
    assert_eq!(own.logo(&logo.digest).await.unwrap(), Some((picture, b"bytes".to_vec())));
    assert_eq!(own.logo(&Digest::from_sha256([8; 32])).await.unwrap(), None);
    let mut write = world.store.write().await.unwrap();
    own.set_logo(&mut write, None).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(seen(&world, "acme").await, Look { logo: None, ..both });
    assert_eq!(own.logo(&logo.digest).await.unwrap(), None);
    let mut write = world.store.write().await.unwrap();
    own.set_title(&mut write, None).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(seen(&world, "acme").await, Look::default());
    let nobody = CustomerName::new("nobody").unwrap();
    assert!(world.store.customer_that_looks(&nobody).await.unwrap().is_none());
}

#[tokio::test]
async fn a_logo_belongs_to_its_organization() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let picture = Picture { kind: PictureKind::Png, width: 1, height: 1 };
    let logo = Logo { picture, digest: Digest::from_sha256([7; 32]) };
    let mut write = world.store.write().await.unwrap();
    world.store.customer(acme).set_logo(&mut write, Some((&logo, b"bytes"))).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(world.store.customer(beta).logo(&logo.digest).await.unwrap(), None);
}
