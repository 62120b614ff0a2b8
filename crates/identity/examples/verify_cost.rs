//! Prints what one token check costs, cold and cached, in µs; the cached one with 10,000 revoked sessions, subjects and
//! clients each.

use bastide_identity::{Claims, Expect, Revoked, SigningKey, TokenCache, mint, verify};
use bastide_types::{
    CustomerId,
    feed::{Entry, Feed, What},
    snapshot::Issuer,
};
use std::time::Instant;

const ROUNDS: u32 = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = SigningKey::generate()?;
    let issuer =
        Issuer { url: "https://issuer".into(), keys: vec![key.verifying_key().clone()], token_epoch: 0 };
    let customer = CustomerId::generate();
    let org = customer.to_string();
    let text = |text: &str| text.to_owned();
    let claims = Claims {
        iss: text("https://issuer"),
        sub: text("user"),
        aud: text("aud"),
        exp: 300,
        nbf: 0,
        iat: 0,
        jti: text("1"),
        sid: text("s"),
        org: org.clone(),
        stage: text("test"),
        client_id: text("cli"),
        epoch: 0,
        name: text("Ann"),
        roles: vec![text("admin")],
        acr: bastide_types::Acr::Password,
        auth_time: 1,
    };
    let token = mint(&key, &claims)?;
    let expect = Expect { audience: "aud", org: &org, stage: "test", life_max_s: 300 };
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        verify(&token, &issuer, &expect, 1)?;
    }
    println!("cold   {:.2} µs", begun.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    let cache = TokenCache::new(1000);
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        cache.verify(&token, &issuer, &expect, 1)?;
    }
    println!("cached {:.2} µs", begun.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    let revoked = revoked(customer);
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        revoked.check(&*cache.verify(&token, &issuer, &expect, 1)?)?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let at = |thousandths: usize| took[took.len() * thousandths / 1000].as_secs_f64() * 1e6;
    println!("cached, with revocation: median {:.2} µs, p99 {:.2} µs", at(500), at(990));
    Ok(())
}

/// 10,000 of each kind, of the customer whose token is checked.
fn revoked(customer: CustomerId) -> Revoked {
    let entries = (1..=30_000_u64).map(|number| {
        let what = [What::Session, What::Subject, What::Client][(number % 3) as usize];
        Entry { number, customer, what, id: format!("{number}"), until_s: u64::MAX, resource: None }
    });
    let feed = Feed { life: 1, at_s: 1, after: 0, last: 30_000, more: false, entries: entries.collect() };
    let mut revoked = Revoked::default();
    revoked.replace(&[feed], 1);
    revoked
}
