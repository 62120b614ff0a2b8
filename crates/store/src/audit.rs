//! Who did what: append-only, each row chained to the one before it.

use crate::{CustomerStore, Result, Store, Write, now_s};
use aws_lc_rs::digest::{SHA256, digest};
use sqlx::Row;

/// A row of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Counts up.
    pub sequence: i64,
    /// Seconds since 1970.
    pub at: i64,
    /// Subject, or `system`.
    pub who: String,
    /// What happened, such as `member.login`.
    pub what: String,
    /// On what.
    pub detail: String,
}

impl CustomerStore<'_> {
    /// Adds a row, in the transaction of the change that it is about.
    pub async fn audit(&self, write: &mut Write, who: &str, what: &str, detail: &str) -> Result<()> {
        let last = sqlx::query("SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(&mut **write)
            .await?;
        let previous: Vec<u8> = match last {
            Some(row) => row.try_get(0)?,
            None => vec![0; 32],
        };
        let (customer, at) = (self.customer.to_string(), now_s());
        let hash = chained(&previous, &customer, at, who, what, detail);
        sqlx::query("INSERT INTO audit (customer, at, who, what, detail, previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(customer)
            .bind(at)
            .bind(who)
            .bind(what)
            .bind(detail)
            .bind(previous)
            .bind(hash)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// The newest rows of this customer.
    pub async fn audit_trail(&self, most: u32) -> Result<Vec<AuditRow>> {
        let rows = sqlx::query("SELECT sequence, at, who, what, detail FROM audit WHERE customer = ? ORDER BY sequence DESC LIMIT ?")
            .bind(self.customer.to_string())
            .bind(most)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(AuditRow {
                    sequence: row.try_get(0)?,
                    at: row.try_get(1)?,
                    who: row.try_get(2)?,
                    what: row.try_get(3)?,
                    detail: row.try_get(4)?,
                })
            })
            .collect()
    }
}

impl Store {
    /// Checks the whole chain; the sequence of the first row that does not fit, if any.
    pub async fn audit_break(&self) -> Result<Option<i64>> {
        let rows = sqlx::query(
            "SELECT sequence, customer, at, who, what, detail, previous, hash FROM audit ORDER BY sequence",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut last = vec![0; 32];
        for row in rows {
            let (customer, at, who, what, detail): (String, i64, String, String, String) =
                (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
            let (previous, hash): (Vec<u8>, Vec<u8>) = (row.try_get(6)?, row.try_get(7)?);
            if previous != last || hash != chained(&previous, &customer, at, &who, &what, &detail) {
                return Ok(Some(row.try_get(0)?));
            }
            last = hash;
        }
        Ok(None)
    }
}

fn chained(previous: &[u8], customer: &str, at: i64, who: &str, what: &str, detail: &str) -> Vec<u8> {
    let mut bytes = previous.to_vec();
    for part in [customer, &at.to_string(), who, what, detail] {
        // Lengths keep the parts apart.
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    digest(&SHA256, &bytes).as_ref().to_vec()
}
