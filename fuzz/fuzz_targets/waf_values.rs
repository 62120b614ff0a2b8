//! No value makes a transformation or a test for injections panic, and a transformation that says it
//! changes nothing does so.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bastide_waf::transform_all(bytes);
    bastide_waf::injections(bytes);
});
