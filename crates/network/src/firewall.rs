//! Firewall rules of the namespace that the calling thread is in, by the program `nft`.
//!
//! What was loaded is read back. The kernel numbers its rule changes; while that number stays, the rules are
//! those that were read last, and `nft` need not be asked again.

use crate::{Error, Result, netlink, program};
use bastide_isolation::{normalise, rules::Ruleset, set_update, transaction, undo};
use nix::sys::socket::SockProtocol;
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

/// nfnetlink: message `NFT_MSG_GETGEN` (16) of nf_tables (10), answered by `NFT_MSG_NEWGEN` (15).
fn generation() -> io::Result<u32> {
    const HEAD: usize = 16 + 4;
    let socket = netlink::open(SockProtocol::NetlinkNetFilter)?;
    let mut question = [0; HEAD];
    question[..4].copy_from_slice(&(HEAD as u32).to_ne_bytes());
    question[4..6].copy_from_slice(&0x0a10_u16.to_ne_bytes());
    question[6..8].copy_from_slice(&1_u16.to_ne_bytes());
    netlink::send(&socket, &question)?;
    let mut answer = [0; 512];
    let count = netlink::receive(&socket, &mut answer)?;
    let answer = &answer[..count];
    if answer.len() < HEAD || answer[4..6] != 0x0a0f_u16.to_ne_bytes() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    attribute(&answer[HEAD..], 1)
        .and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?)))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The value of the first attribute of this kind.
fn attribute(mut rest: &[u8], kind: u16) -> Option<&[u8]> {
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_broken_ones_are_not() {
        let mut bytes = vec![6, 0, 2, 0, 7, 8, 0, 0];
        bytes.extend([8, 0, 1, 0, 0, 0, 0, 9]);
        assert_eq!(attribute(&bytes, 1), Some(&[0, 0, 0, 9][..]));
        assert_eq!(attribute(&bytes, 2), Some(&[7, 8][..]));
        assert_eq!(attribute(&bytes, 3), None);
        assert_eq!(attribute(&[3, 0, 1, 0], 1), None);
        assert_eq!(attribute(&[200, 0, 1, 0, 1], 1), None);
    }
}
