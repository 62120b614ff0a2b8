//! The session feed: what gateways are told about sessions that began and what was revoked.
//!
//! The Platform numbers entries in the order in which they happened. A token carries the number that was the last
//! one when it was made (its `epoch`), so "made before" is a comparison of numbers and needs no clock.

use crate::CustomerId;
use serde::{Deserialize, Serialize};

/// Entries of one message.
pub const ENTRIES_MAX: usize = 1000;
/// Longest id of an entry, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Longest address of an app, in bytes.
pub const RESOURCE_BYTES_MAX: usize = 512;

/// How long a revocation is told, in seconds: longer than any access token lives.
pub const REVOKED_FOR_S: u64 = 3700;

/// A part of the feed, without a hole: everything after one number up to another. Without entries it is a
/// heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Which life of the control plane numbered this.
    pub life: u64,
    /// Seconds since 1970 at which the Platform said this.
    pub at_s: u64,
    /// The part begins after this number.
    pub after: u64,
    /// The part ends with this number.
    pub last: u64,
    /// Whether there is more after `last`.
    pub more: bool,
    /// Entries, by number.
    pub entries: Vec<Entry>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// Whose.
    pub customer: CustomerId,
    /// What it is.
    pub what: What,
    /// Of whom: a session, subject or client; the hash of a session's secret when it began; else empty.
    pub id: String,
    /// Seconds since 1970 after which nobody needs to know it any more.
    pub until_s: u64,
    /// Address of the app that a session began for, if for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A browser session began.
    Began,
    /// A session or a client's grant ended.
    Session,
    /// Tokens of this subject that were made before count no longer.
    Subject,
    /// Tokens that this client got before count no longer.
    Client,
    /// No token of the customer that was made before counts any longer.
    Customer,
}

/// Asks for the feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FeedQuery {
    /// Which life the asker knows, if any.
    pub life: u64,
    /// The last number that it knows.
    pub after: u64,
}

impl Feed {
    /// Says what is wrong with a part that was read, if anything: numbers out of order, or more than there may be.
    ///
    /// # Errors
    /// Words for the log.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.entries.len() > ENTRIES_MAX {
            return Err("too many entries");
        }
        if self.last < self.after || self.more && self.last == self.after {
            return Err("it ends before it begins");
        }
        let mut before = self.after;
        for entry in &self.entries {
            if entry.number <= before || entry.number > self.last {
                return Err("a number is out of order");
            }
            before = entry.number;
            let resource = entry.resource.as_ref().map_or(0, String::len);
            if entry.id.len() > ID_BYTES_MAX || resource > RESOURCE_BYTES_MAX {
                return Err("an entry is too long");
            }
            if entry.id.is_empty() != (entry.what == What::Customer) {
                return Err("an entry is of nobody");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(after: u64, last: u64, numbers: &[u64]) -> Feed {
        let entry = |number: &u64| Entry {
            number: *number,
            customer: CustomerId::generate(),
            what: What::Session,
            id: "s".into(),
            until_s: 9,
            resource: None,
        };
        Feed { life: 1, at_s: 1, after, last, more: false, entries: numbers.iter().map(entry).collect() }
    }

    #[test]
    fn only_a_part_in_order_and_within_limits_is_taken() {
        assert!(part(0, 0, &[]).check().is_ok());
        assert!(part(3, 9, &[4, 7, 9]).check().is_ok());
        assert!(part(3, 9, &[]).check().is_ok(), "what expired leaves holes in the numbers");
        for wrong in [part(3, 2, &[]), part(3, 9, &[3]), part(3, 9, &[10]), part(3, 9, &[5, 5])] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        assert!(Feed { more: true, ..part(3, 3, &[]) }.check().is_err(), "it would be asked for without end");
        let mut long = part(0, 1, &[1]);
        long.entries[0].id = "x".repeat(ID_BYTES_MAX + 1);
        assert!(long.check().is_err());
        let mut nobody = part(0, 1, &[1]);
        nobody.entries[0].id = String::new();
        assert!(nobody.check().is_err());
        let numbers: Vec<u64> = (1..=ENTRIES_MAX as u64 + 1).collect();
        assert!(part(0, u64::MAX, &numbers).check().is_err());
    }
}
