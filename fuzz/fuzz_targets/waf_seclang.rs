//! No bytes make the rule compiler panic, and what compiles runs over a request without panicking.
#![no_main]

use bastide_waf::{Connection, Files, RuleSet, Settings, Source};
use std::sync::Arc;

/// There are no other files.
struct Nothing;

impl Files for Nothing {
    fn read(&self, _: &str, path: &str) -> Result<Vec<u8>, String> {
        Err(format!("{path} is not there"))
    }
    fn expand(&self, _: &str, _: &str) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let source = Source { name: "fuzz.conf".into(), bytes: bytes.to_vec() };
    let Ok(set) = RuleSet::compile(&[source], &Nothing, &Settings::default()) else { return };
    let addr = ([127, 0, 0, 1], 4711).into();
    let connection = Connection { client: addr, server: addr, unique_id: "id".into(), now: 0 };
    let mut transaction = Arc::new(set).begin(connection);
    let headers = [(&b"Cookie"[..], &b"c=1; d=2"[..])];
    let target = b"/a/b.php?x=%3Cscript%3E&y=1%27%20or%201=1--";
    transaction.request_head(b"GET", target, b"HTTP/1.1", headers.into_iter());
    transaction.request_body(b"", true);
    transaction.response_head(200, b"HTTP/1.1", std::iter::empty());
    transaction.response_body(b"<html></html>", true);
    transaction.finish();
});
