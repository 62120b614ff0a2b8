//! Entries of the audit trail and the chain that holds them together.
//!
//! Each customer has one chain. An entry's hash covers the hash before it, so whoever changes, removes or moves an entry
//! breaks the chain from there on. This crate does no cryptography: SHA-256 is handed in.

use crate::{CustomerId, Digest};
use serde::{Deserialize, Serialize};

/// What [`AuditEntry::outcome`] says of what was done. Anything else is the code of a refusal.
pub const DONE: &str = "done";

/// Who did what, where, when, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Counts up from 1 for each customer, without a hole.
    pub sequence: u64,
    /// Seconds since 1970.
    pub at: i64,
    /// Subject (the id of a member or client), `system`, or `anonymous`.
    pub who: String,
    /// What happened, such as `app.publish`; for refused requests method and path of the operation.
    pub what: String,
    /// On what.
    pub detail: String,
    /// Address of the network that it came from; empty when nobody asked from outside.
    pub address: String,
    /// Request that it belongs to; empty when nobody asked from outside.
    pub request: String,
    /// `done`, or the code of the refusal.
    pub outcome: String,
    /// What was there before.
    pub old: Option<String>,
    /// What is there now.
    pub new: Option<String>,
}

/// An entry in its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// Whose trail it is in.
    pub customer: CustomerId,
    /// The entry.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// Hash of the entry before; 64 zeros before the first.
    pub previous: Digest,
    /// Hash of this one.
    pub hash: Digest,
}

/// Where a chain ends: number and hash of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditTip {
    /// Number; 0 before the first entry.
    pub sequence: u64,
    /// Its hash.
    pub hash: Digest,
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// Entries are not there.
    #[error("entry {0} is missing")]
    Missing(u64),
    /// An entry is another than it was.
    #[error("entry {0} was changed")]
    Changed(u64),
    /// An entry does not follow the one before it: this one or an earlier one was made anew.
    #[error("entry {0} does not follow the one before it")]
    Unchained(u64),
    /// An entry of somebody else.
    #[error("entry {0} belongs to another customer")]
    Foreign(u64),
    /// The word about the chain's ends is not the Platform's.
    #[error("where the trail begins and ends was changed")]
    Ends,
}

impl AuditTip {
    /// Before the first entry.
    pub const START: Self = Self { sequence: 0, hash: Digest::from_sha256([0; 32]) };
}

impl std::fmt::Display for AuditTip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

impl std::str::FromStr for AuditTip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "a tip is the number of an entry, a colon and its hash, as `audit verify` prints it".to_owned()
        };
        let (sequence, hash) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self {
            sequence: sequence.parse().map_err(|_| wrong())?,
            hash: hash.parse().map_err(|_| wrong())?,
        })
    }
}

impl AuditEntry {
    /// The bytes whose SHA-256 is the hash of this entry: the hash before, then each value with its length before it.
    pub fn bytes(&self, customer: CustomerId, previous: &Digest) -> Vec<u8> {
        let mut bytes = previous.as_bytes().to_vec();
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        put(customer.to_string().as_bytes());
        put(&self.sequence.to_be_bytes());
        put(&self.at.to_be_bytes());
        for text in [&self.who, &self.what, &self.detail, &self.address, &self.request, &self.outcome] {
            put(text.as_bytes());
        }
        for value in [&self.old, &self.new] {
            // Nothing and an empty text are different.
            match value {
                None => put(&[0]),
                Some(text) => put(&[&[1], text.as_bytes()].concat()),
            }
        }
        bytes
    }
}

/// Follows a chain from `before` on; the last entry that it met.
///
/// # Errors
/// The first entry that does not fit.
pub fn follow<'a>(
    customer: CustomerId,
    before: AuditTip,
    lines: impl IntoIterator<Item = &'a AuditLine>,
    sha256: impl Fn(&[u8]) -> [u8; 32],
) -> Result<AuditTip, AuditFault> {
    let mut tip = before;
    for line in lines {
        let at = line.entry.sequence;
        if at > tip.sequence + 1 {
            return Err(AuditFault::Missing(tip.sequence + 1));
        }
        if at <= tip.sequence || line.previous != tip.hash {
            return Err(AuditFault::Unchained(at));
        }
        if line.customer != customer {
            return Err(AuditFault::Foreign(at));
        }
        if line.hash != Digest::from_sha256(sha256(&line.entry.bytes(customer, &line.previous))) {
            return Err(AuditFault::Changed(at));
        }
        tip = AuditTip { sequence: at, hash: line.hash };
    }
    Ok(tip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tells different bytes apart; no hash for anything but tests.
    fn sum(bytes: &[u8]) -> [u8; 32] {
        let mut sum = [7_u8; 32];
        for (at, byte) in bytes.iter().enumerate() {
            let place = at % 32;
            sum[place] = sum[place].wrapping_mul(31).wrapping_add(*byte).wrapping_add((at / 32) as u8);
        }
        sum
    }

    fn chain(customer: CustomerId, details: &[String]) -> Vec<AuditLine> {
        let mut tip = AuditTip::START;
        let mut lines = Vec::new();
        for detail in details {
            let entry = AuditEntry {
                sequence: tip.sequence + 1,
                at: 1_790_000_000,
                who: "ann".into(),
                what: "app.publish".into(),
                detail: detail.clone(),
                address: String::new(),
                request: String::new(),
                outcome: DONE.into(),
                old: None,
                new: Some(String::new()),
            };
            let hash = Digest::from_sha256(sum(&entry.bytes(customer, &tip.hash)));
            lines.push(AuditLine { customer, previous: tip.hash, hash, entry });
            tip = AuditTip { sequence: tip.sequence + 1, hash };
        }
        lines
    }

    proptest! {
        #[test]
        fn whatever_is_changed_removed_or_moved_is_found(details in prop::collection::vec(".{0,12}", 3..12), at in 0_usize..64, way in 0..6) {
            let customer = CustomerId::generate();
            let good = chain(customer, &details);
            prop_assert_eq!(follow(customer, AuditTip::START, &good, sum).unwrap().sequence, details.len() as u64);
            let at = at % (details.len() - 1);
            let number = at as u64 + 1;
            let mut bad = good.clone();
            let expected = match way {
                0 => { bad[at].entry.who = "bob".into(); AuditFault::Changed(number) }
                1 => { bad[at].entry.old = Some(String::new()); AuditFault::Changed(number) }
                2 => { bad.remove(at); AuditFault::Missing(number) }
                3 => { bad.swap(at, at + 1); AuditFault::Missing(number) }
                4 => { bad[at].customer = CustomerId::generate(); AuditFault::Foreign(number) }
                _ => {
                    // Made anew with a hash of its own: the next one no longer follows.
                    bad[at].entry.who = "bob".into();
                    bad[at].hash = Digest::from_sha256(sum(&bad[at].entry.bytes(customer, &bad[at].previous)));
                    AuditFault::Unchained(number + 1)
                }
            };
            prop_assert_eq!(follow(customer, AuditTip::START, &bad, sum).unwrap_err(), expected);
        }

        #[test]
        fn values_do_not_run_into_each_other(one in ".{0,6}", two in ".{0,6}", three in ".{0,6}", four in ".{0,6}") {
            let customer = CustomerId::generate();
            let entry = |who: &str, what: &str| AuditEntry {
                who: who.into(),
                what: what.into(),
                ..chain(customer, &[String::new()])[0].entry.clone()
            };
            let same = (&one, &two) == (&three, &four);
            let zero = AuditTip::START.hash;
            prop_assert_eq!(entry(&one, &two).bytes(customer, &zero) == entry(&three, &four).bytes(customer, &zero), same);
        }
    }

    #[test]
    fn a_tip_reads_back_as_written() {
        let tip = AuditTip { sequence: 12, hash: Digest::from_sha256([3; 32]) };
        assert_eq!(tip.to_string().parse::<AuditTip>().unwrap(), tip);
        for text in ["", "12", "12:sha256:00", "x:y", ":"] {
            assert!(text.parse::<AuditTip>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_reads_back_as_written() {
        let line = chain(CustomerId::generate(), &["x".into()]).remove(0);
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<AuditLine>(&text).unwrap(), line);
    }
}
