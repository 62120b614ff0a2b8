//! A certificate chain and a key that somebody uploads: any text is refused or serves the name.

#![no_main]

use bastide_tls::{CustomSite, check_site};
use libfuzzer_sys::fuzz_target;
use time::OffsetDateTime;

const NAME: &str = "apps.example.com";

fuzz_target!(|texts: (&str, &str)| {
    let (chain, key) = texts;
    if check_site(NAME, chain, key, OffsetDateTime::UNIX_EPOCH).is_ok() {
        assert!(CustomSite::new().certificate(NAME, chain, key).is_ok());
    }
});
