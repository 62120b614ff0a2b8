//! Bans: those of a customer at its hosts, those of the operator organization everywhere.

use crate::{
    CustomerStore, Result, Write, parse, raise_revision,
    sql::{Row, across},
};
use bastide_types::{Ban, BanId, BannedNet};

/// A ban, with what only people need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanRow {
    /// Id.
    pub id: BanId,
    /// Who is banned.
    pub net: BannedNet,
    /// Why.
    pub reason: String,
    /// Subject of whoever banned it.
    pub by: String,
    /// Seconds since 1970 at which that was.
    pub since: i64,
    /// Seconds since 1970 at which it ends; never without.
    pub until: Option<i64>,
}

/// How many bans there are, those that have ended but were not given up yet among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanCount {
    /// Those of the customer.
    pub own: u64,
    /// Those of all customers.
    pub all: u64,
}

const COLUMNS: &str = "SELECT id, net, reason, banned_by, since, until FROM ban WHERE customer = ?";

impl CustomerStore<'_> {
    /// So many bans in force whose networks come after this one, in the order of their texts.
    pub async fn bans(&self, now: i64, after: &str, most: u32) -> Result<Vec<BanRow>> {
        let sql = format!("{COLUMNS} AND (until IS NULL OR until > ?) AND net > ? ORDER BY net LIMIT ?");
        let rows = self
            .query(sqlx::AssertSqlSafe(sql))
            .bind(self.customer.to_string())
            .bind(now)
            .bind(after)
            .bind(most)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(ban_row).collect()
    }

    /// The ban in force of exactly this network.
    pub async fn ban_in_force(&self, net: BannedNet, now: i64) -> Result<Option<BanRow>> {
        let sql = format!("{COLUMNS} AND (until IS NULL OR until > ?) AND net = ?");
        let row = self
            .query(sqlx::AssertSqlSafe(sql))
            .bind(self.customer.to_string())
            .bind(now)
            .bind(net.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(ban_row).transpose()
    }

    /// All bans as edges know them. Those that have ended are among them until they are given up: whoever makes a
    /// Snapshot of one revision makes the same.
    pub async fn bans_for_edges(&self) -> Result<Vec<Ban>> {
        let rows = self
            .query("SELECT net, until FROM ban WHERE customer = ? ORDER BY net")
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let until: Option<i64> = row.try_get(1)?;
                Ok(Ban { net: parse(row.try_get(0)?)?, until: until.map(i64::unsigned_abs) })
            })
            .collect()
    }

    /// The ban of exactly this network, as it is in a transaction.
    pub async fn ban_of(&self, write: &mut Write, net: BannedNet) -> Result<Option<BanRow>> {
        let row = self
            .query(sqlx::AssertSqlSafe(format!("{COLUMNS} AND net = ?")))
            .bind(self.customer.to_string())
            .bind(net.to_string())
            .fetch_optional(&mut **write)
            .await?;
        row.as_ref().map(ban_row).transpose()
    }

    /// Adds a ban, or replaces the one of the same network, which keeps its id; the Snapshot's revision rises.
    pub async fn set_ban(&self, write: &mut Write, ban: &BanRow) -> Result<()> {
        self.query(
            "INSERT INTO ban (customer, id, net, reason, banned_by, since, until) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (customer, net) DO UPDATE SET reason = ?4, banned_by = ?5, since = ?6, until = ?7",
        )
        .bind(self.customer.to_string())
        .bind(ban.id.to_string())
        .bind(ban.net.to_string())
        .bind(&ban.reason)
        .bind(&ban.by)
        .bind(ban.since)
        .bind(ban.until)
        .execute(&mut **write)
        .await?;
        raise_revision(write).await
    }

    /// Lifts a ban, and tells which it was; the Snapshot's revision rises.
    pub async fn lift_ban(&self, write: &mut Write, id: BanId) -> Result<Option<BanRow>> {
        let row = self
            .query(sqlx::AssertSqlSafe(format!("{COLUMNS} AND id = ?")))
            .bind(self.customer.to_string())
            .bind(id.to_string())
            .fetch_optional(&mut **write)
            .await?;
        let Some(row) = row else { return Ok(None) };
        self.query("DELETE FROM ban WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id.to_string())
            .execute(&mut **write)
            .await?;
        raise_revision(write).await?;
        Ok(Some(ban_row(&row)?))
    }

    /// Gives up bans that have ended; how many. Edges have let their sources in by their own clocks.
    pub async fn give_up_bans(&self, write: &mut Write, now: i64) -> Result<u64> {
        let done = self
            .query("DELETE FROM ban WHERE customer = ? AND until <= ?")
            .bind(self.customer.to_string())
            .bind(now)
            .execute(&mut **write)
            .await?;
        if done.rows_affected() > 0 {
            raise_revision(write).await?;
        }
        Ok(done.rows_affected())
    }

    /// How many bans there are, as it is in a transaction.
    pub async fn ban_count(&self, write: &mut Write) -> Result<BanCount> {
        let row = across("SELECT COUNT(*), COUNT(CASE WHEN customer = ? THEN 1 END) FROM ban")
            .bind(self.customer.to_string())
            .fetch_one(&mut **write)
            .await?;
        let count = |value: i64| u64::try_from(value).unwrap_or_default();
        Ok(BanCount { all: count(row.try_get(0)?), own: count(row.try_get(1)?) })
    }
}

fn ban_row(row: &Row) -> Result<BanRow> {
    Ok(BanRow {
        id: parse(row.try_get(0)?)?,
        net: parse(row.try_get(1)?)?,
        reason: row.try_get(2)?,
        by: row.try_get(3)?,
        since: row.try_get(4)?,
        until: row.try_get(5)?,
    })
}
