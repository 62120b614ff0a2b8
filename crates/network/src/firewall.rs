//! Firewall rules of the namespace that the calling thread is in, by the program `nft`.
//!
//! What was loaded is read back. The kernel numbers its rule changes; while that number stays, the rules are
//! those that were read last, and `nft` need not be asked again.

use crate::{Error, Result, nfnetlink, program};
use bastide_isolation::{normalise, rules::Ruleset, set_update, transaction, undo};
use serde_json::{Value, json};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest run of `nft`. It takes milliseconds; a machine under water may need seconds.
const LIMIT: Duration = Duration::from_mins(1);

/// What was read last, and its number.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    generation: u32,
    rules: Ruleset,
}

/// The program, and the name of the namespace for what it says.
pub(crate) struct Firewall<'a> {
    pub(crate) nft: &'a Path,
    pub(crate) namespace: &'a str,
    /// Whether other tables have no place here.
    pub(crate) alone: bool,
}

pub(crate) fn program() -> Result<PathBuf> {
    program::find("nft").ok_or(Error::NoNft)
}

impl Firewall<'_> {
    /// Sees to it that the kernel has these rules: nothing to do, a change of sets, or the whole table.
    /// Whether anything was done.
    pub(crate) fn ensure(&self, rules: &Ruleset, known: &mut Option<Known>) -> Result<bool> {
        let current = known.take().filter(|known| self.generation().is_ok_and(|now| now == known.generation));
        if let Some(current) = current {
            if current.rules == *rules {
                *known = Some(current);
                return Ok(false);
            }
            if let Some(update) = set_update(&current.rules, rules) {
                // When it does not work, the whole table is loaded, and that tells what is wrong.
                if let Ok(read) = self.load(&update).and_then(|()| self.read_back(rules)) {
                    *known = Some(read);
                    return Ok(true);
                }
            }
        } else if let Ok(read) = self.read_back(rules) {
            *known = Some(read);
            return Ok(false);
        }
        let mut steps = transaction(rules);
        if let (true, Some(all)) = (self.alone, steps["nftables"].as_array_mut()) {
            for (family, table) in self.tables()? {
                if (family.as_str(), table.as_str()) != ("inet", rules.table.as_str()) {
                    all.push(json!({ "delete": { "table": { "family": family, "name": table } } }));
                }
            }
        }
        self.load(&steps)?;
        *known = Some(self.read_back(rules)?);
        Ok(true)
    }

    /// Takes a table away, whether it is there or not.
    pub(crate) fn remove(&self, table: &str) -> Result<()> {
        self.load(&undo(table))
    }

    /// A table as nft lists it; `None` when it is not there.
    pub(crate) fn list(&self, table: &str) -> Result<Option<Value>> {
        if !self.tables()?.iter().any(|(family, name)| family == "inet" && name == table) {
            return Ok(None);
        }
        self.ask(&["list", "table", "inet", table]).map(Some)
    }

    /// Family and name of all tables.
    pub(crate) fn tables(&self) -> Result<Vec<(String, String)>> {
        let listing = self.ask(&["list", "tables"])?;
        let all = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(all
            .iter()
            .filter_map(|one| Some((text(&one["table"]["family"])?, text(&one["table"]["name"])?)))
            .collect())
    }

    /// Reads the rules and compares them with these.
    fn read_back(&self, rules: &Ruleset) -> Result<Known> {
        let differs = || Error::ReadBack(self.namespace.to_owned());
        let generation = self.generation()?;
        let listing = if self.alone {
            self.ask(&["list", "ruleset"])?
        } else {
            self.list(&rules.table)?.ok_or_else(differs)?
        };
        let all = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
        let foreign = all
            .iter()
            .filter_map(|one| one.get("table"))
            .any(|table| table["family"] != "inet" || table["name"] != rules.table.as_str());
        if foreign || normalise(&listing, &rules.table) != normalise(&transaction(rules), &rules.table) {
            tracing::debug!(namespace = self.namespace, %listing, "other rules than planned");
            return Err(differs());
        }
        Ok(Known { generation, rules: rules.clone() })
    }

    fn ask(&self, words: &[&str]) -> Result<Value> {
        let mut args = vec!["--json"];
        args.extend(words);
        let out = self.run(&args, &[])?;
        serde_json::from_slice(&out).map_err(|error| self.failed(&error.to_string()))
    }

    fn load(&self, steps: &Value) -> Result<()> {
        self.run(&["--json", "--file", "-"], steps.to_string().as_bytes()).map(|_| ())
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        match program::run(self.nft, args, input, LIMIT) {
            Ok(said) if said.success => Ok(said.out),
            Ok(said) => Err(self.failed(&said.err)),
            Err(error) => Err(self.failed(&error.to_string())),
        }
    }

    fn failed(&self, said: &str) -> Error {
        Error::Firewall { namespace: self.namespace.to_owned(), said: said.chars().take(2000).collect() }
    }

    /// The number of the last change of rules in this namespace.
    fn generation(&self) -> Result<u32> {
        generation().map_err(Error::of(format!("ask for the rules' number in {}", self.namespace)))
    }
}

/// `NFT_MSG_GETGEN` (16), of whose answer `NFTA_GEN_ID` (1) is the number.
fn generation() -> io::Result<u32> {
    let answer = nfnetlink::ask(nfnetlink::RULES, 16)?;
    let number = nfnetlink::attribute(&answer, 1).and_then(nfnetlink::number);
    number.map(|number| number as u32).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
