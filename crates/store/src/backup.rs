//! Backups: a copy of the database at one moment, and the new life that begins when one is put back.

use crate::{Result, Store, now_s, raise_revision, sql::across};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::path::Path;

/// Writes the database file `from`, as it is at one moment, into the new file `to`. Whoever uses it goes on reading and
/// writing meanwhile, and its schema is left as it is.
pub async fn copy_database(from: &Path, to: &Path) -> Result<()> {
    let options =
        SqliteConnectOptions::new().filename(from).create_if_missing(false).busy_timeout(crate::WRITE_WAIT);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let to = to.to_string_lossy().into_owned();
    sqlx::query("VACUUM INTO ?").bind(to).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

impl Store {
    /// Begins a new life of this control plane, on a database that was put back. Whatever the data plane and the agents
    /// heard in the life before, which went further than this database knows, comes before what they hear from now on:
    /// a later epoch, later generations of every stage, later numbers in the session feed. Sessions and grants that were
    /// ended after the copy would live again, so all of them end. Returns the epoch.
    pub async fn begin_next_life(&self) -> Result<u64> {
        let now = now_s();
        let mut write = self.write().await?;
        across("UPDATE meta SET value = CASE WHEN value < ?1 THEN ?1 ELSE value + 1 END WHERE key = 'epoch'")
            .bind(now)
            .execute(&mut *write)
            .await?;
        // Milliseconds count faster than anything that is numbered here.
        across("UPDATE stage SET generation = CASE WHEN generation < ?1 THEN ?1 ELSE generation + 1 END")
            .bind(now * 1000)
            .execute(&mut *write)
            .await?;
        let sequence = self.pool.feed_sequence();
        let row = across(AssertSqlSafe(format!("SELECT seq FROM {sequence} WHERE name = 'session_feed'")))
            .fetch_optional(&mut *write)
            .await?;
        let last: i64 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
        across(AssertSqlSafe(format!("DELETE FROM {sequence} WHERE name = 'session_feed'")))
            .execute(&mut *write)
            .await?;
        across(AssertSqlSafe(format!("INSERT INTO {sequence} (name, seq) VALUES ('session_feed', ?)")))
            .bind((last + 1).max(now * 1000))
            .execute(&mut *write)
            .await?;
        for table in ["lease", "code", "refresh", "half_sign_in", "break_glass"] {
            let delete = AssertSqlSafe(format!("DELETE FROM {table}"));
            across(delete).execute(&mut *write).await?;
        }
        for customer in self.customers().await? {
            self.customer(customer.id).end_everything(&mut write).await?;
        }
        raise_revision(&mut write).await?;
        write.commit().await?;
        Ok(self.version().await?.0)
    }
}
