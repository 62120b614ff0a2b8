//! Names that were given up stay locked for a while, so that nobody receives what was meant for who had them before.

use crate::{
    Result, Store, Write, now_s, parse,
    sql::{Row, across},
};
use bastide_types::CustomerId;

/// How long, in seconds: 180 days.
pub const LOCK_S: i64 = 180 * 86_400;

/// A custom domain.
pub(crate) const DOMAIN: &str = "domain";
/// A customer's name.
pub(crate) const CUSTOMER: &str = "customer";

/// A locked name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRow {
    /// `domain` or `customer`.
    pub kind: String,
    /// The name.
    pub label: String,
    /// Who gave it up, and may take it again.
    pub customer: CustomerId,
    /// Seconds since 1970.
    pub until: i64,
}

impl Store {
    /// Names that are locked now.
    pub async fn locks(&self) -> Result<Vec<LockRow>> {
        let rows =
            across("SELECT kind, label, customer, until FROM label_lock WHERE until > ? ORDER BY label")
                .bind(now_s())
                .fetch_all(&self.pool)
                .await?;
        let lock = |row: &Row| {
            Ok(LockRow {
                kind: row.try_get(0)?,
                label: row.try_get(1)?,
                customer: parse(row.try_get(2)?)?,
                until: row.try_get(3)?,
            })
        };
        rows.iter().map(lock).collect()
    }

    /// Lifts the locks of a name. False when there is none.
    pub async fn unlock(&self, write: &mut Write, label: &str) -> Result<bool> {
        let gone = across("DELETE FROM label_lock WHERE label = ?").bind(label).execute(&mut **write).await?;
        Ok(gone.rows_affected() > 0)
    }
}

/// Locks a name that its customer gave up.
pub(crate) async fn lock(write: &mut Write, kind: &str, label: &str, customer: CustomerId) -> Result<()> {
    let now = now_s();
    across("DELETE FROM label_lock WHERE until <= ?").bind(now).execute(&mut **write).await?;
    across(
        "INSERT INTO label_lock (kind, label, customer, until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (kind, label) DO UPDATE SET customer = ?3, until = ?4",
    )
    .bind(kind)
    .bind(label)
    .bind(customer.to_string())
    .bind(now + LOCK_S)
    .execute(&mut **write)
    .await?;
    Ok(())
}

/// Whether a name is locked for this customer.
pub(crate) async fn is_locked(
    write: &mut Write,
    kind: &str,
    label: &str,
    customer: CustomerId,
) -> Result<bool> {
    let row = across("SELECT 1 FROM label_lock WHERE kind = ? AND label = ? AND customer != ? AND until > ?")
        .bind(kind)
        .bind(label)
        .bind(customer.to_string())
        .bind(now_s())
        .fetch_optional(&mut **write)
        .await?;
    Ok(row.is_some())
}
