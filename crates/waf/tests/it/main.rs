//! The engine over our own rules and over Debian's CRS.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod crs;
mod fixtures;
mod prose;
mod rules;

use bastide_waf::{Connection, Files, RuleSet, Settings, Source, Transaction, Verdict};
use std::sync::Arc;

/// Files in memory.
struct Memory(Vec<(&'static str, &'static str)>);

impl Files for Memory {
    fn read(&self, _: &str, path: &str) -> Result<Vec<u8>, String> {
        let found = self.0.iter().find(|(name, _)| *name == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| format!("{path} is not there"))
    }
    fn expand(&self, _: &str, glob: &str) -> Result<Vec<String>, String> {
        Ok(self.0.iter().filter(|(name, _)| *name == glob).map(|(name, _)| (*name).to_owned()).collect())
    }
}

fn begin(set: &Arc<RuleSet>) -> Transaction {
    let addr = ([127, 0, 0, 1], 4711).into();
    set.begin(Connection { client: addr, server: addr, unique_id: "id".into(), now: 0 })
}

fn fields<'f>(list: &'f [(&str, &str)]) -> impl Iterator<Item = (&'f [u8], &'f [u8])> {
    list.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

fn source(text: &str) -> Source {
    Source { name: "test.conf".into(), bytes: text.as_bytes().to_vec() }
}

fn load(text: &str) -> Arc<RuleSet> {
    let files = Memory(vec![("words.data", "# words\nevil\nbad word\n")]);
    match RuleSet::compile(&[source(text)], &files, &Settings::default()) {
        Ok(set) => Arc::new(set),
        Err(error) => panic!("{error}"),
    }
}

/// Runs a GET through both request phases.
fn get(set: &Arc<RuleSet>, target: &str, headers: &[(&str, &str)]) -> (Verdict, Vec<u32>) {
    run(set, "GET", target, headers, b"")
}

fn run(
    set: &Arc<RuleSet>,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (Verdict, Vec<u32>) {
    let mut transaction = begin(set);
    let mut verdict =
        transaction.request_head(method.as_bytes(), target.as_bytes(), b"HTTP/1.1", fields(headers));
    if verdict == Verdict::Pass {
        verdict = transaction.request_body(body, true);
    }
    let ids = transaction.finish().matches.iter().map(|found| found.id).collect();
    (verdict, ids)
}
