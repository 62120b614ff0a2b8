//! The sign-in that the operator of the machine makes for an administrator.

use super::{
    identity::{Browser, EMAIL, World, cli, filled},
    second::signed_in,
};
use axum::http::Method;
use bastide_identity::opaque;
use bastide_platform::identity::{BREAK_GLASS_LIFE_S, BreakGlassFault, break_glass};
use bastide_store::now_s;
use bastide_types::{CustomerName, Domains};

async fn link(world: &World, email: Option<&str>) -> Result<String, BreakGlassFault> {
    let acme = CustomerName::new("acme").unwrap();
    let made = break_glass(&world.store, &Domains::default(), &acme, email, "operator (test)").await?;
    assert_eq!(made.email, EMAIL);
    let path = made.link.expose().strip_prefix("https://acme.platform.localhost:8443").unwrap().to_owned();
    Ok(path)
}

#[tokio::test]
async fn a_link_signs_an_administrator_in_once_and_both_trails_say_so() {
    // With a second factor that is lost, and demanded.
    let world = World::with_factor().await;
    let path = link(&world, None).await.unwrap();
    let mut browser = Browser::default();
    for _ in 0..2 {
        let page = world.browse(&mut browser, Method::GET, &path, "").await;
        assert!(page.status == 200 && page.body.contains(EMAIL), "looking uses nothing up: {}", page.body);
    }
    let page = world.browse(&mut browser, Method::GET, &path, "").await;
    let form = filled(&page.body, &[]);
    let foreign = world.browse(&mut Browser::default(), Method::POST, &path, &form).await;
    assert_eq!(foreign.status, 403, "from its own page only");
    let done = world.browse(&mut browser, Method::POST, &path, &form).await;
    assert!(done.status == 303 && signed_in(&browser), "{}", done.body);
    let code = world.browse(&mut browser, Method::GET, &format!("/identity/authorize?{}", cli()), "").await;
    assert_eq!(world.redeem(&code.redirected("code").unwrap(), &[]).await.status, 200);
    let again = world.browse(&mut browser, Method::POST, &path, &form).await;
    assert_eq!(again.status, 410);
    let office = world.store.customer_named(&CustomerName::operator()).await.unwrap().unwrap().id;
    for (customer, detail) in [(world.acme, EMAIL.to_owned()), (office, format!("acme: {EMAIL}"))] {
        let trail = world.store.customer(customer).audit_trail(20).await.unwrap();
        for what in ["break-glass.made", "break-glass.used"] {
            assert!(trail.iter().any(|row| row.what == what && row.detail == detail), "{what} {detail}");
        }
    }
}

#[tokio::test]
async fn a_link_ends_after_a_quarter_of_an_hour_with_a_newer_one_and_with_the_role() {
    let world = World::with_ann().await;
    let own = world.store.customer(world.acme);
    let ann = own.member_with_email(EMAIL).await.unwrap().unwrap();
    let status = async |path: &str| world.browse(&mut Browser::default(), Method::GET, path, "").await.status;
    let first = link(&world, None).await.unwrap();
    let second = link(&world, Some(" Ann@Example.com ")).await.unwrap();
    assert_eq!((status(&first).await.as_u16(), status(&second).await.as_u16()), (410, 200));
    let foreign = world.send("beta.platform.localhost:8443", Method::GET, &second, "", &[]).await;
    assert_eq!(foreign.status, 410, "of another customer");
    assert_eq!(BREAK_GLASS_LIFE_S, 900);
    let mut write = world.store.write().await.unwrap();
    own.add_break_glass(&mut write, &opaque::hash("late"), ann.id, now_s()).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(status("/identity/break-glass/late").await, 410);
    let third = link(&world, None).await.unwrap();
    let mut write = world.store.write().await.unwrap();
    own.set_member_roles(&mut write, ann.id, &["developer".into()]).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(status(&third).await, 410);
    assert!(matches!(link(&world, None).await, Err(BreakGlassFault::Member(_))));
    assert!(matches!(link(&world, Some("nobody@example.com")).await, Err(BreakGlassFault::Member(_))));
}
