//! `Accept`: no value panics, and who does not name HTML gets no page.

#![no_main]

use bastide_types::Problem;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|accept: &str| {
    if Problem::wants_html(Some(accept)) {
        let lower = accept.to_ascii_lowercase();
        assert!(lower.contains("text/html") || lower.contains("application/xhtml+xml"));
    }
});
