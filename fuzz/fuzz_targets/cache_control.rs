//! `Cache-Control`, `Age`, `Vary` and dates of a response: any bytes make an entry, or none, and never a
//! panic; what the engine calls fresh has a lifetime beyond its age.

#![no_main]

use bastide_cache::{CacheControl, Entry};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, SystemTime};

const FIELDS: [&str; 6] = ["cache-control", "age", "vary", "date", "expires", "last-modified"];

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for (line, name) in bytes.split(|b| *b == b'\n').take(64).zip(FIELDS.iter().cycle()) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let control = CacheControl::read(&headers);
    assert_eq!(control, CacheControl::read(&headers));
    let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let entry = Entry::new(&headers, StatusCode::OK, headers.clone(), Bytes::new(), received, received);
    if let Some(entry) = entry {
        let answer = entry.answer(&Method::GET, &HeaderMap::new(), received);
        assert!(entry.is_fresh(&CacheControl::default(), received));
        assert!(answer.headers.contains_key("age"));
    }
});
