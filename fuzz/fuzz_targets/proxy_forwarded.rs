//! No bytes make the reader of `Forwarded` panic; what it finds is the same when the field is split over lines.
#![no_main]

use bastide_proxy::forwarded::parse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(found) = parse(bytes) else { return };
    assert!(found.len() <= 32);
    assert_eq!(parse(&[bytes, b","].concat()), Some(found));
});
