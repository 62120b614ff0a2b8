//! `Vary` and the fields that it names: a request is its own variant, and a spelling is its own spelling; what is refused
//! is no coding for a client.

#![no_main]

use bastide_cache::{
    coding::{Coding, chosen},
    vary::{Variant, normal},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|b| *b == b'\n');
    let (mut asked, mut response) = (HeaderMap::new(), HeaderMap::new());
    if let Some(Ok(vary)) = lines.next().map(HeaderValue::from_bytes) {
        response.insert(header::VARY, vary);
    }
    let names = [header::ACCEPT, header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING, HeaderName::from_static("foo")];
    for (line, name) in lines.take(16).zip(names.iter().cycle()) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            asked.append(name.clone(), value);
        }
    }
    if let Some(variant) = Variant::of(&asked, &response) {
        assert!(variant.matches(&asked));
    }
    for name in &names {
        if let Some(Ok(once)) = normal(name, &asked).map(|value| HeaderValue::from_bytes(&value)) {
            let again: HeaderMap = [(name.clone(), once.clone())].into_iter().collect();
            assert_eq!(normal(name, &again).as_deref(), Some(once.as_bytes()));
        }
    }
    let _ = chosen(&asked);
    asked.append(header::ACCEPT_ENCODING, HeaderValue::from_static("zstd;q=0"));
    assert_ne!(chosen(&asked), Some(Coding::Zstd));
});
