//! No head makes the parser panic, and one that passes has the same meaning when it is written anew.
#![no_main]

use bastide_proxy::{
    Limits, RawHead,
    h1::head::{end_of_head, parse, skip_empty_lines},
};
use bytes::Bytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let all = Bytes::copy_from_slice(bytes);
    RawHead::salvage(&all);
    let start = skip_empty_lines(&all);
    let Some(end) = end_of_head(&all[start..], 0) else { return };
    let Ok(head) = parse(&all.slice(start..start + end), &Limits::default()) else { return };
    let mut again = format!("{} {} {:?}\r\n", head.method, head.uri, head.version).into_bytes();
    for (name, value) in &head.headers {
        again.extend_from_slice(name.as_str().as_bytes());
        again.extend_from_slice(b": ");
        again.extend_from_slice(value.as_bytes());
        again.extend_from_slice(b"\r\n");
    }
    again.extend_from_slice(b"\r\n");
    let second = parse(&again.into(), &Limits::default()).expect("what passed once passes again");
    assert_eq!((head.method, head.uri, head.version), (second.method, second.uri, second.version));
    assert_eq!((head.headers, head.framing, head.keep_alive), (second.headers, second.framing, second.keep_alive));
});
