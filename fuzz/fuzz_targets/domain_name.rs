//! A custom domain as somebody writes it: any text is one in its only spelling, or refused.

#![no_main]

use bastide_types::DomainName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(name) = DomainName::new(text) else { return };
    assert_eq!(DomainName::new(name.as_str()), Ok(name.clone()));
    assert!(name.as_str().is_ascii() && name.record().len() <= 253);
});
