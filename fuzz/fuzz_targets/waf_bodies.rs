//! No body makes a body parser panic, whatever it says it is. The first line is the content type.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut halves = bytes.splitn(2, |byte| *byte == b'\n');
    let (kind, body) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    bastide_waf::parse_bodies(kind, body);
    bastide_waf::parse_bodies(b"multipart/form-data; boundary=x", body);
});
