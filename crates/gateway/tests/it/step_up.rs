//! Parts that want a better sign-in than the one there is (RFC 9470).

use crate::{
    browser::{NAVIGATE, ORIGIN, session, sign_in},
    world::{Answer, SHOP, World, now_s},
};
use bastide_identity::verify_assertion;
use bastide_types::Acr;
use std::{collections::HashMap, sync::atomic::Ordering};

const CHALLENGE: &str =
    "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\", max_age=\"600\"";

fn vault() -> String {
    format!("{SHOP}/vault")
}

fn demand_challenge(refused: &Answer) {
    assert_eq!((refused.status, refused.code().as_str()), (401, "B-ID-0413"), "{}", refused.body);
    assert_eq!(refused.header("www-authenticate"), CHALLENGE);
}

#[tokio::test]
async fn a_part_that_wants_a_young_second_factor_says_so_to_programs() {
    let world = World::new().await;
    let now = now_s();
    let token = |acr: Acr, age_s: u64| {
        world.keys.shop_token(|claims| (claims.acr, claims.auth_time) = (acr, now - age_s))
    };
    demand_challenge(&world.get_as(&vault(), &token(Acr::Password, 0)).await);
    demand_challenge(&world.get_as(&vault(), &token(Acr::Client, 0)).await);
    demand_challenge(&world.get_as(&vault(), &token(Acr::Mfa, 3600)).await);
    // Elsewhere they are as good as any, and the refusals above have spoiled nothing.
    assert_eq!(world.get_as(&format!("{SHOP}/me"), &token(Acr::Password, 3600)).await.status, 200);
    // A passkey is worth more than is wanted.
    assert_eq!(world.get_as(&vault(), &token(Acr::Passkey, 60)).await.status, 200);
    let passed = world.get_as(&vault(), &token(Acr::Mfa, 60)).await;
    assert_eq!(passed.status, 200, "{}", passed.body);
    let said = &passed.got("x-bastide-assertion")[0];
    let said = verify_assertion(said, &world.keys_of_assertions(), SHOP, now_s()).unwrap();
    assert_eq!((said.acr, said.auth_time), (Acr::Mfa, now - 60));
    // Nobody at all is asked to sign in first.
    let nobody = world.get(&vault(), &[]).await;
    assert_eq!((nobody.code().as_str(), nobody.header("www-authenticate")), ("B-ID-0401", "Bearer"));
}

#[tokio::test]
async fn a_part_that_wants_a_young_passkey_takes_no_code_and_no_old_one() {
    let world = World::new().await;
    let now = now_s();
    let token = |acr: Acr, age_s: u64| {
        world.keys.shop_token(|claims| (claims.acr, claims.auth_time) = (acr, now - age_s))
    };
    let treasury = format!("{SHOP}/treasury");
    for (acr, age_s) in [(Acr::Password, 0), (Acr::Mfa, 0), (Acr::Passkey, 3600)] {
        let refused = world.get_as(&treasury, &token(acr, age_s)).await;
        assert_eq!((refused.status, refused.code().as_str()), (401, "B-ID-0413"), "{acr}: {}", refused.body);
        let wanted = CHALLENGE.replace("\"mfa\"", "\"passkey\"");
        assert_eq!(refused.header("www-authenticate"), wanted);
    }
    let passed = world.get_as(&treasury, &token(Acr::Passkey, 60)).await;
    assert_eq!(passed.status, 200, "{}", passed.body);
    let said = &passed.got("x-bastide-assertion")[0];
    let said = verify_assertion(said, &world.keys_of_assertions(), SHOP, now_s()).unwrap();
    assert_eq!((said.acr, said.auth_time), (Acr::Passkey, now - 60));
    // A browser is sent to show one.
    let cookie = format!("__Host-bst={}", session(&world).await);
    let redirect = world.get(&treasury, &[("cookie", &cookie), NAVIGATE]).await;
    assert!(redirect.header("location").ends_with("&acr_values=passkey&max_age=600"));
}

#[tokio::test]
async fn no_spelling_of_a_path_escapes_what_it_demands() {
    let world = World::new().await;
    let token = world.keys.shop_token(|_| {});
    for path in ["/vault/", "/%76ault", "/vault/x", "/vault%2fx", "/x/../vault", "/x%2f..%2fvault", "//vault"]
    {
        let answer = world.get_as(&format!("{SHOP}{path}"), &token).await;
        assert!([400, 401].contains(&answer.status), "{path}: {}", answer.status);
    }
}

#[tokio::test]
async fn a_browser_steps_up_and_comes_back_with_another_secret() {
    let world = World::new().await;
    let before = session(&world).await;
    let cookie = format!("__Host-bst={before}");
    // A script of the page hears what a program hears.
    let script = [("cookie", cookie.as_str()), ("accept", "*/*"), ("sec-fetch-mode", "cors")];
    demand_challenge(&world.get(&vault(), &script).await);
    let redirect = world.get(&format!("{}?x=1", vault()), &[("cookie", &cookie), NAVIGATE]).await;
    assert_eq!(redirect.status, 302, "{}", redirect.body);
    let asked = url::Url::parse(redirect.header("location")).unwrap();
    let asked: HashMap<_, _> = asked.query_pairs().into_owned().collect();
    assert_eq!((asked["acr_values"].as_str(), asked["max_age"].as_str()), ("mfa", "600"));
    assert_eq!(asked["resource"], SHOP);
    world.state.mfa.store(true, Ordering::SeqCst);
    let login = format!("__Host-bst-login={}; {cookie}", redirect.cookie("__Host-bst-login").unwrap());
    let back = world.get(&sign_in(&world, &redirect), &[NAVIGATE, ("cookie", &login)]).await;
    assert_eq!((back.status, back.header("location")), (302, "/shop/vault?x=1"));
    let after = back.cookie("__Host-bst").unwrap();
    assert_ne!(after, before);
    let cookie = format!("__Host-bst={after}");
    assert_eq!(world.get(&vault(), &[("cookie", &cookie)]).await.status, 200);
}

#[tokio::test]
async fn any_page_may_lead_to_a_better_sign_in() {
    let world = World::new().await;
    let page = format!("{ORIGIN}/.bastide/step-up?acr=mfa&max_age=600&to=/shop/me");
    let redirect = world.get(&page, &[NAVIGATE]).await;
    assert!(redirect.header("location").ends_with("&acr_values=mfa&max_age=600"));
    let login = format!("__Host-bst-login={}", redirect.cookie("__Host-bst-login").unwrap());
    let back = world.get(&sign_in(&world, &redirect), &[NAVIGATE, ("cookie", &login)]).await;
    assert_eq!(back.header("location"), "/shop/me");
    let elsewhere = world.get(&page.replace("/shop/me", "//evil"), &[NAVIGATE]).await;
    let login = format!("__Host-bst-login={}", elsewhere.cookie("__Host-bst-login").unwrap());
    let back = world.get(&sign_in(&world, &elsewhere), &[NAVIGATE, ("cookie", &login)]).await;
    assert_eq!(back.header("location"), "/");
}
