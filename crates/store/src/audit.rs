//! Who did what: append-only, each entry chained to the one before it, one chain for each customer.
//!
//! An entry is written in the transaction of the change that it is about, so there is none without the other. Where a
//! chain begins and ends is marked with a key that is not in the database: whoever can only write SQL cannot cut off
//! its end, nor make a chain anew.

use crate::{
    Connection, CustomerStore, Result, Store, StoreError, Write, now_s,
    origin::Origin,
    parse,
    sql::{Row, across},
};
use aws_lc_rs::digest::{SHA256, digest};
use bastide_types::{
    AuditEntry, AuditFault, AuditLine, AuditTip, CustomerId, Digest,
    audit::{self, DONE},
};
use std::fmt::Write as _;

/// Longest text of an entry's values, in bytes; of longer ones the beginning and the digest are kept.
const VALUE_BYTES_MAX: usize = 2048;
/// Entries that are read at once.
const PAGE: u32 = 500;

/// An entry to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewEntry<'a> {
    /// Subject, `system`, or `anonymous`.
    pub who: &'a str,
    /// What happened.
    pub what: &'a str,
    /// On what.
    pub detail: &'a str,
    /// The code of the refusal; `None`: it was done.
    pub refused: Option<&'a str>,
    /// What was there before.
    pub old: Option<&'a str>,
    /// What is there now.
    pub new: Option<&'a str>,
}

/// Which entries to read.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only entries of a smaller number.
    pub before: Option<u64>,
    /// Only those of this subject.
    pub who: Option<String>,
    /// Only those whose `what` begins so.
    pub what: Option<String>,
    /// Only refusals, or only what was done.
    pub refused: Option<bool>,
    /// Only from this second since 1970 on.
    pub since: Option<i64>,
    /// Only before this second since 1970.
    pub until: Option<i64>,
}

/// The ends of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    before: AuditTip,
    last: AuditTip,
}

/// The ends as they are, and whether their mark is the Platform's.
#[derive(Debug, Clone, Copy)]
struct Known {
    ends: Ends,
    vouched: bool,
}

/// A chain that was followed from its begin to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditVerdict {
    /// The last entry that was given up by age.
    pub before: AuditTip,
    /// The last entry.
    pub last: AuditTip,
}

impl CustomerStore<'_> {
    /// Adds an entry about what was done, in the transaction of the change that it is about.
    pub async fn audit(&self, write: &mut Write, who: &str, what: &str, detail: &str) -> Result<()> {
        self.audit_entry(write, &NewEntry { who, what, detail, ..NewEntry::default() }).await
    }

    /// Adds an entry, in the transaction of what it is about.
    pub async fn audit_entry(&self, write: &mut Write, new: &NewEntry<'_>) -> Result<()> {
        let origin = Origin::now();
        let known = self.ends(write).await?;
        let entry = AuditEntry {
            sequence: known.ends.last.sequence + 1,
            at: now_s(),
            who: new.who.to_owned(),
            what: new.what.to_owned(),
            detail: shortened(new.detail),
            address: origin.address,
            request: origin.request,
            outcome: new.refused.unwrap_or(DONE).to_owned(),
            old: new.old.map(shortened),
            new: new.new.map(shortened),
        };
        self.append(write, known, entry).await
    }

    /// The newest entries.
    pub async fn audit_trail(&self, most: u32) -> Result<Vec<AuditEntry>> {
        self.audit_page(&AuditFilter::default(), most).await
    }

    /// The newest entries of those that the filter lets through.
    pub async fn audit_page(&self, filter: &AuditFilter, most: u32) -> Result<Vec<AuditEntry>> {
        let what = filter.what.as_deref().unwrap_or_default();
        let rows = self.query(
            "SELECT * FROM audit_entry WHERE customer = ?1 AND sequence < ?2 AND (?3 IS NULL OR who = ?3)
             AND substr(what, 1, length(?4)) = ?4 AND (?5 IS NULL OR CASE outcome WHEN 'done' THEN 0 ELSE 1 END = ?5) AND at >= ?6 AND at < ?7
             ORDER BY sequence DESC LIMIT ?8",
        )
        .bind(self.customer.to_string())
        .bind(filter.before.map_or(i64::MAX, signed))
        .bind(&filter.who)
        .bind(what)
        .bind(filter.refused)
        .bind(filter.since.unwrap_or(i64::MIN))
        .bind(filter.until.unwrap_or(i64::MAX))
        .bind(most)
        .fetch_all(&self.store.pool)
        .await?;
        rows.iter().map(|row| Ok(line(row)?.entry)).collect()
    }

    /// The oldest entries after this one, with their hashes.
    pub async fn audit_lines(&self, after: u64, most: u32) -> Result<Vec<AuditLine>> {
        let rows = self
            .query("SELECT * FROM audit_entry WHERE customer = ? AND sequence > ? ORDER BY sequence LIMIT ?")
            .bind(self.customer.to_string())
            .bind(signed(after))
            .bind(most)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(line).collect()
    }

    /// Follows the customer's chain from its begin to its end.
    pub async fn verify_audit(&self) -> Result<std::result::Result<AuditVerdict, AuditFault>> {
        // One snapshot of the database: entries that come meanwhile do not count.
        let mut read = self.store.pool.snapshot().await?;
        let Known { ends, vouched } = self.ends(&mut read).await?;
        let mut tip = ends.before;
        loop {
            let rows = self
                .query(
                    "SELECT * FROM audit_entry WHERE customer = ? AND sequence > ? ORDER BY sequence LIMIT ?",
                )
                .bind(self.customer.to_string())
                .bind(signed(tip.sequence))
                .bind(PAGE)
                .fetch_all(&mut read)
                .await?;
            if rows.is_empty() {
                break;
            }
            let lines = rows.iter().map(line).collect::<Result<Vec<_>>>()?;
            tip = match audit::follow(self.customer, tip, &lines, sha256) {
                Ok(tip) => tip,
                Err(fault) => return Ok(Err(fault)),
            };
        }
        Ok(match tip.sequence {
            _ if !vouched => Err(AuditFault::Ends),
            at if at < ends.last.sequence => Err(AuditFault::Missing(at + 1)),
            _ if tip != ends.last => Err(AuditFault::Unchained(tip.sequence)),
            _ => Ok(AuditVerdict { before: ends.before, last: ends.last }),
        })
    }

    /// Gives up entries that are older than `at`; how many. The trail says so itself.
    pub async fn give_up_audit(&self, write: &mut Write, at: i64) -> Result<u64> {
        let known = self.ends(write).await?;
        let ends = known.ends;
        // A begin of the chain: clocks may have been set back in between.
        let row = self.query(
            "SELECT COALESCE(MIN(sequence), ?2 + 1) - 1 FROM audit_entry WHERE customer = ?1 AND at >= ?3",
        )
        .bind(self.customer.to_string())
        .bind(signed(ends.last.sequence))
        .bind(at)
        .fetch_one(&mut **write)
        .await?;
        let to: i64 = row.try_get(0)?;
        let to = to.unsigned_abs();
        if to <= ends.before.sequence {
            return Ok(0);
        }
        let row = self
            .query("SELECT * FROM audit_entry WHERE customer = ? AND sequence = ?")
            .bind(self.customer.to_string())
            .bind(signed(to))
            .fetch_optional(&mut **write)
            .await?;
        // Somebody was at it: what is left stays as proof.
        let Some(row) = row else { return Ok(0) };
        let gone = to - ends.before.sequence;
        let before = AuditTip { sequence: to, hash: line(&row)?.hash };
        self.set_ends(write, Known { ends: Ends { before, ..ends }, ..known }).await?;
        self.query("DELETE FROM audit_entry WHERE customer = ? AND sequence <= ?")
            .bind(self.customer.to_string())
            .bind(signed(to))
            .execute(&mut **write)
            .await?;
        self.audit(write, "system", "audit.given-up", &format!("{gone} entries by age, up to {before}"))
            .await?;
        Ok(gone)
    }

    async fn append(&self, write: &mut Write, known: Known, entry: AuditEntry) -> Result<()> {
        let previous = known.ends.last.hash;
        let hash = Digest::from_sha256(sha256(&entry.bytes(self.customer, &previous)));
        let last = AuditTip { sequence: entry.sequence, hash };
        self.query(
            "INSERT INTO audit_entry (customer, sequence, at, who, what, detail, address, request, outcome, old, new,
             previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(signed(entry.sequence))
        .bind(entry.at)
        .bind(entry.who)
        .bind(entry.what)
        .bind(entry.detail)
        .bind(entry.address)
        .bind(entry.request)
        .bind(entry.outcome)
        .bind(entry.old)
        .bind(entry.new)
        .bind(previous.as_bytes().as_slice())
        .bind(hash.as_bytes().as_slice())
        .execute(&mut **write)
        .await?;
        self.set_ends(write, Known { ends: Ends { last, ..known.ends }, ..known }).await
    }

    /// Where the chain begins and ends. What somebody else wrote stops nobody's work: the chain goes on from what is
    /// there, but never gets a good mark again, so that verifying says so.
    async fn ends(&self, sql: &mut Connection) -> Result<Known> {
        let row = self
            .query("SELECT before, before_hash, last, last_hash, mark FROM audit_ends WHERE customer = ?")
            .bind(self.customer.to_string())
            .fetch_optional(&mut *sql)
            .await?;
        if let Some(row) = row {
            let before = tip(row.try_get(0)?, row.try_get(1)?)?;
            let ends = Ends { before, last: tip(row.try_get(2)?, row.try_get(3)?)? };
            let mark: Vec<u8> = row.try_get(4)?;
            let vouched = self.store.kek.is_mark_of(&place(self.customer), &ends.bytes(), &mark);
            return Ok(Known { ends, vouched });
        }
        let row = self
            .query("SELECT sequence, hash FROM audit_entry WHERE customer = ? ORDER BY sequence DESC LIMIT 1")
            .bind(self.customer.to_string())
            .fetch_optional(sql)
            .await?;
        Ok(match row {
            Some(row) => {
                let last = tip(row.try_get(0)?, row.try_get(1)?)?;
                Known { ends: Ends { before: AuditTip::START, last }, vouched: false }
            }
            None => Known { ends: Ends { before: AuditTip::START, last: AuditTip::START }, vouched: true },
        })
    }

    async fn set_ends(&self, write: &mut Write, known: Known) -> Result<()> {
        let ends = known.ends;
        let mark = known.vouched.then(|| self.store.kek.mark(&place(self.customer), &ends.bytes()));
        self.query(
            "INSERT INTO audit_ends (customer, before, before_hash, last, last_hash, mark) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (customer) DO UPDATE SET before = ?2, before_hash = ?3, last = ?4, last_hash = ?5, mark = ?6",
        )
        .bind(self.customer.to_string())
        .bind(signed(ends.before.sequence))
        .bind(ends.before.hash.as_bytes().as_slice())
        .bind(signed(ends.last.sequence))
        .bind(ends.last.hash.as_bytes().as_slice())
        .bind(mark.unwrap_or_default())
        .execute(&mut **write)
        .await?;
        Ok(())
    }
}

impl Store {
    /// Moves entries of the one chain of before into the chains of their customers.
    pub(crate) async fn move_audit(&self) -> Result<()> {
        let mut write = self.write().await?;
        let rows = across(
            "SELECT sequence, customer, at, who, what, detail, previous, hash FROM audit ORDER BY sequence",
        )
        .fetch_all(&mut *write)
        .await?;
        if rows.is_empty() {
            return Ok(());
        }
        let broken = former_break(&rows)?;
        let mut customers = std::collections::BTreeSet::new();
        for row in &rows {
            let customer: CustomerId = parse(row.try_get(1)?)?;
            let own = self.customer(customer);
            let known = own.ends(&mut write).await?;
            let entry = AuditEntry {
                sequence: known.ends.last.sequence + 1,
                at: row.try_get(2)?,
                who: row.try_get(3)?,
                what: row.try_get(4)?,
                detail: row.try_get(5)?,
                address: String::new(),
                request: String::new(),
                outcome: DONE.to_owned(),
                old: None,
                new: None,
            };
            own.append(&mut write, known, entry).await?;
            customers.insert(customer);
        }
        let how = match broken {
            None => "entries of a former version were chained anew; their former chain was whole".to_owned(),
            Some(at) => format!(
                "entries of a former version were chained anew; their former chain was broken at its entry {at}"
            ),
        };
        for customer in customers {
            self.customer(customer).audit(&mut write, "system", "audit.moved", &how).await?;
        }
        across("DELETE FROM audit").execute(&mut *write).await?;
        Ok(write.commit().await?)
    }
}

/// Where the chain of before is broken, if it is.
fn former_break(rows: &[Row]) -> Result<Option<i64>> {
    let mut last = vec![0; 32];
    for row in rows {
        let at: i64 = row.try_get(2)?;
        let mut bytes: Vec<u8> = row.try_get(6)?;
        let (previous, hash): (Vec<u8>, Vec<u8>) = (bytes.clone(), row.try_get(7)?);
        let texts: [String; 5] =
            [row.try_get(1)?, at.to_string(), row.try_get(3)?, row.try_get(4)?, row.try_get(5)?];
        for part in texts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        if previous != last || hash != sha256(&bytes) {
            return Ok(Some(row.try_get(0)?));
        }
        last = hash;
    }
    Ok(None)
}

impl Ends {
    fn bytes(self) -> Vec<u8> {
        format!("{} {}", self.before, self.last).into_bytes()
    }
}

fn place(customer: CustomerId) -> String {
    format!("audit_ends/{customer}")
}

fn tip(sequence: i64, hash: Vec<u8>) -> Result<AuditTip> {
    Ok(AuditTip { sequence: sequence.unsigned_abs(), hash: hash_of(hash)? })
}

fn hash_of(bytes: Vec<u8>) -> Result<Digest> {
    let bytes = bytes.try_into().map_err(|_| StoreError::Damaged("a hash of the audit trail".into()))?;
    Ok(Digest::from_sha256(bytes))
}

fn line(row: &Row) -> Result<AuditLine> {
    let sequence: i64 = row.try_get("sequence")?;
    Ok(AuditLine {
        customer: parse(row.try_get("customer")?)?,
        entry: AuditEntry {
            sequence: sequence.unsigned_abs(),
            at: row.try_get("at")?,
            who: row.try_get("who")?,
            what: row.try_get("what")?,
            detail: row.try_get("detail")?,
            address: row.try_get("address")?,
            request: row.try_get("request")?,
            outcome: row.try_get("outcome")?,
            old: row.try_get("old")?,
            new: row.try_get("new")?,
        },
        previous: hash_of(row.try_get("previous")?)?,
        hash: hash_of(row.try_get("hash")?)?,
    })
}

fn shortened(text: &str) -> String {
    // PostgreSQL keeps no zero characters, and what is hashed is what is kept.
    let text = &*text.replace('\0', "\u{fffd}");
    if text.len() <= VALUE_BYTES_MAX {
        return text.to_owned();
    }
    let mut short = text[..text.floor_char_boundary(VALUE_BYTES_MAX)].to_owned();
    let whole = Digest::from_sha256(sha256(text.as_bytes()));
    let _ = write!(short, "… ({} bytes, {whole})", text.len());
    short
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_keep_their_begin_and_their_digest() {
        assert_eq!(shortened("short"), "short");
        let long = "é".repeat(2000);
        let short = shortened(&long);
        assert!(
            short.starts_with("ééé") && short.contains("… (4000 bytes, sha256:") && short.len() < 2200,
            "{short}"
        );
    }
}
