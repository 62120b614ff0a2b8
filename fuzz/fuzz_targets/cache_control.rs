//! `Cache-Control`, targeted fields, `Age` and dates of a response: any bytes make a stored response or a reason
//! why not, and never a panic; what the engine calls fresh has a lifetime beyond its age.

#![no_main]

use bastide_cache::{Ask, CacheControl, Exchange, Moment, Site, admit::admit};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use libfuzzer_sys::fuzz_target;

const FIELDS: [&str; 8] = [
    "cache-control",
    "cdn-cache-control",
    "age",
    "vary",
    "date",
    "expires",
    "last-modified",
    "cache-groups",
];

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for (line, name) in bytes.split(|b| *b == b'\n').take(64).zip(FIELDS.iter().cycle()) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let control = CacheControl::read(&headers);
    assert_eq!(control, CacheControl::read(&headers));
    let received = Moment { wall_ms: 1_800_000_000_000, steady_ms: 5 };
    let (asked, site) = (HeaderMap::new(), Site::alone());
    let ask = Ask::new(&Method::GET, &asked, &site);
    let exchange = Exchange { requested: received, received, if_range: false };
    let Ok(draft) = admit(&site, &ask, StatusCode::OK, &headers, exchange) else { return };
    let stored = draft.finish(Bytes::new(), None).expect("a whole response is no part");
    if stored.is_fresh(received) {
        assert!(stored.lifetime.seconds > stored.age_s(received));
    }
});
