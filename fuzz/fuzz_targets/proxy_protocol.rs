//! No bytes make the reader of PROXY headers panic, and none is read from a part of one.
#![no_main]

use bastide_proxy::proxy_protocol::parse;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parse(bytes);
    let rest = &bytes[..bytes.len().min(4096)];
    let length = (rest.len() as u16).to_be_bytes();
    let whole = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], rest].concat();
    if parse(&whole).is_ok() {
        assert!(parse(&whole[..whole.len() - 1]).is_err());
    }
});
