//! `Range` and `Content-Range`: parts lie within the length, apart from each other, and nothing overflows.

#![no_main]

use bastide_cache::range::{ContentRange, Ranges, Resolved};
use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (length, bytes) = input;
    let mut headers = HeaderMap::new();
    for name in [header::RANGE, header::CONTENT_RANGE] {
        if let Ok(value) = HeaderValue::from_bytes(bytes) {
            headers.insert(name, value);
        }
    }
    if let Some(range) = ContentRange::read(&headers) {
        assert!(range.length() > 0 && range.last < range.total);
    }
    if let Some(Resolved::Parts(parts)) = Ranges::read(&headers).map(|ranges| ranges.resolve(length)) {
        for (at, (first, last)) in parts.iter().enumerate() {
            assert!(first <= last && *last < length);
            assert!(parts[at + 1..].iter().all(|other| other.1 < *first || other.0 > *last));
        }
    }
});
