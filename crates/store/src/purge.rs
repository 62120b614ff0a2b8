//! Purges of what edges store.

use crate::{CustomerStore, Result, Write, from_json, parse, raise_revision, to_json};
use bastide_types::{AppId, Purge, Purges, StageName};
use std::collections::BTreeMap;

/// Purges of a stage that are kept, and for how long. Edges that were away for longer forget more than they must.
const KEPT: i64 = 200;
const KEPT_MS: i64 = 60 * 60 * 1000;

/// Purges of a stage, by app; those for all apps are with each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StagePurges {
    before: u64,
    all: Vec<(u64, Purge)>,
    apps: BTreeMap<AppId, Vec<(u64, Purge)>>,
}

impl StagePurges {
    /// The purges of one app.
    pub fn of(&self, app: AppId) -> Purges {
        let own = self.apps.get(&app).into_iter().flatten();
        let mut list: Vec<_> = self.all.iter().chain(own).cloned().collect();
        list.sort_by_key(|(number, _)| *number);
        Purges { before: self.before, list }
    }
}

impl CustomerStore<'_> {
    /// Adds a purge for one app of a stage, or for all; the Snapshot's revision rises. Gives its number.
    pub async fn purge(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: Option<AppId>,
        purge: &Purge,
    ) -> Result<u64> {
        let now = now_ms();
        let row = self
            .query(
                "SELECT (SELECT MAX(number) FROM purge WHERE customer = ?1 AND stage = ?2),
                        (SELECT before FROM purged WHERE customer = ?1 AND stage = ?2)",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_one(&mut **write)
            .await?;
        let (last, before): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let number = now.max(last.max(before).unwrap_or(0) + 1);
        self.query("INSERT INTO purge (customer, stage, number, app, purge) VALUES (?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(number)
            .bind(app.map(|app| app.to_string()))
            .bind(to_json(purge)?)
            .execute(&mut **write)
            .await?;
        // What is old, or more than can be kept, is remembered only as "everything up to here".
        let row = self.query(
            "SELECT MAX(number) FROM purge WHERE customer = ?1 AND stage = ?2 AND (number < ?3 OR number NOT IN
             (SELECT number FROM purge WHERE customer = ?1 AND stage = ?2 ORDER BY number DESC LIMIT ?4))",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(now - KEPT_MS)
        .bind(KEPT)
        .fetch_one(&mut **write)
        .await?;
        if let Some(before) = row.try_get::<Option<i64>, _>(0)? {
            self.query("DELETE FROM purge WHERE customer = ? AND stage = ? AND number <= ?")
                .bind(self.customer.to_string())
                .bind(stage.as_str())
                .bind(before)
                .execute(&mut **write)
                .await?;
            self.query(
                "INSERT INTO purged (customer, stage, before) VALUES (?1, ?2, ?3)
                 ON CONFLICT (customer, stage) DO UPDATE SET before = ?3",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(before)
            .execute(&mut **write)
            .await?;
        }
        raise_revision(write).await?;
        Ok(u64::try_from(number).unwrap_or_default())
    }

    /// The purges of a stage that are kept.
    pub async fn purges(&self, stage: &StageName) -> Result<StagePurges> {
        let mut found = StagePurges::default();
        let row = self
            .query("SELECT before FROM purged WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_optional(&self.store.pool)
            .await?;
        let before: i64 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
        found.before = u64::try_from(before).unwrap_or_default();
        let rows = self
            .query("SELECT number, app, purge FROM purge WHERE customer = ? AND stage = ? ORDER BY number")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        for row in rows {
            let number = u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default();
            let purge = from_json(row.try_get(2)?)?;
            match row.try_get::<Option<&str>, _>(1)? {
                Some(app) => found.apps.entry(parse(app)?).or_default().push((number, purge)),
                None => found.all.push((number, purge)),
            }
        }
        Ok(found)
    }

    /// How many purges the customer asked for within the last minute.
    pub async fn recent_purges(&self, write: &mut Write) -> Result<u64> {
        let row = self
            .query("SELECT COUNT(*) FROM purge WHERE customer = ? AND number > ?")
            .bind(self.customer.to_string())
            .bind(now_ms() - 60_000)
            .fetch_one(&mut **write)
            .await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }
}

fn now_ms() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
