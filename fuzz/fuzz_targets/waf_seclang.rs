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
    let connection = Connection { client: addr, server: addr, unique_id: "id".into() };
    let mut transaction = Arc::new(set).begin(connection);
    let headers = [(b"Cookie".to_vec(), b"c=1; d=2".to_vec())];
    transaction.request_head(b"GET", b"/a/b.php?x=%3Cscript%3E&y=1%27%20or%201=1--", b"HTTP/1.1", &headers);
    transaction.request_body(b"", true);
    transaction.response_head(200, b"HTTP/1.1", &[]);
    transaction.response_body(b"<html></html>");
    transaction.finish();
});
