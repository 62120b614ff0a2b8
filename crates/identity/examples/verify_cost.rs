//! Prints what one token check costs, cold and cached, in µs.

use bastide_identity::{Claims, Expect, SigningKey, TokenCache, mint, verify};
use bastide_types::snapshot::Issuer;
use std::time::Instant;

const ROUNDS: u32 = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = SigningKey::generate()?;
    let issuer =
        Issuer { url: "https://issuer".into(), keys: vec![key.verifying_key().clone()], token_epoch: 0 };
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
        org: text("org"),
        stage: text("test"),
        client_id: text("cli"),
        epoch: 0,
        name: text("Ann"),
        roles: vec![text("admin")],
    };
    let token = mint(&key, &claims)?;
    let expect = Expect { audience: "aud", org: "org", stage: "test", life_max_s: 300 };
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
    Ok(())
}
