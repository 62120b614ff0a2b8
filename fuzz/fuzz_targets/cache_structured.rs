//! Structured fields: any bytes are read or refused, and never a panic; what was read is read the same when the
//! lines of the field are joined.

#![no_main]

use bastide_cache::sf::{dictionary, list};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = HeaderName::from_static("cdn-cache-control");
    let (mut lines, mut joined) = (HeaderMap::new(), HeaderMap::new());
    let values: Vec<_> =
        bytes.split(|b| *b == b'\n').take(16).filter(|line| HeaderValue::from_bytes(line).is_ok()).collect();
    for line in &values {
        lines.append(name.clone(), HeaderValue::from_bytes(line).expect("checked just now"));
    }
    if let Ok(value) = HeaderValue::from_bytes(&values.join(&b", "[..])) {
        joined.append(name.clone(), value);
        assert_eq!(dictionary(&lines, &name).filter(|_| !values.is_empty()), dictionary(&joined, &name).filter(|_| !values.is_empty()));
        assert_eq!(list(&lines, &name).filter(|_| !values.is_empty()), list(&joined, &name).filter(|_| !values.is_empty()));
    }
});
