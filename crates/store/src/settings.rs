//! Settings and secrets of apps in stages.
//!
//! Their values are sealed for customer, stage, app and name. They have versions, so that replicas which a change is about
//! to replace keep what they began with; a value that no replica has any more is given up.

use crate::{CustomerStore, Result, Store, Write, now_s, parse, sql::Row};
use bastide_types::{AppId, Secret, StageName, settings::Values};
use std::{collections::BTreeMap, fmt::Write as _};

/// Versions for which changes are remembered.
const HISTORY: u32 = 500;

/// A setting as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// Name.
    pub name: String,
    /// Whether its value is never shown.
    pub secret: bool,
    /// What it is; `None` for secrets.
    pub value: Option<String>,
    /// Bytes of name and value.
    pub bytes: u64,
    /// Tells its values apart; the first letters are enough for people.
    pub fingerprint: String,
    /// Version from which on it holds.
    pub since: u32,
    /// Who set it.
    pub who: String,
    /// Seconds since 1970 at which that was.
    pub at: i64,
}

/// What to change.
#[derive(Debug, Default)]
pub struct SettingsChange<'a> {
    /// Values to set.
    pub set: BTreeMap<&'a str, &'a Secret>,
    /// Names to remove.
    pub unset: Vec<&'a str>,
    /// Whether what is set is secret.
    pub secret: bool,
    /// Who does it.
    pub who: &'a str,
}

const ROW: &str = "SELECT name, secret, value, bytes, fingerprint, since, who, at FROM setting
    WHERE customer = ? AND stage = ? AND app = ? AND until IS NULL ORDER BY name";

impl Store {
    /// Tells values of a name apart: the same for the same value, and of use to nobody who lacks the key.
    fn fingerprint(&self, place: &str, value: &Secret) -> String {
        let mark = self.kek.mark(place, value.expose().as_bytes());
        mark.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl CustomerStore<'_> {
    /// What is set for an app in a stage. Values of secrets are not opened.
    pub async fn settings(&self, stage: &StageName, app: AppId) -> Result<Vec<SettingRow>> {
        let rows = self
            .query(ROW)
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| self.setting_row(stage, app, row)).collect()
    }

    /// The same within a transaction.
    pub async fn settings_in(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
    ) -> Result<Vec<SettingRow>> {
        let rows = self
            .query(ROW)
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .fetch_all(&mut **write)
            .await?;
        rows.iter().map(|row| self.setting_row(stage, app, row)).collect()
    }

    /// Bytes of names and values of all apps of a stage but this one.
    pub async fn settings_bytes_of_others(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
    ) -> Result<u64> {
        let rows = self
            .query(
                "SELECT bytes FROM setting WHERE customer = ? AND stage = ? AND app != ? AND until IS NULL",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .fetch_all(&mut **write)
            .await?;
        let bytes = rows.iter().map(|row| Ok(row.try_get::<i64, _>(0)?.unsigned_abs()));
        Ok(bytes.collect::<Result<Vec<_>>>()?.into_iter().sum())
    }

    /// The newest version; 0 when nothing was ever set.
    pub async fn settings_version(&self, stage: &StageName, app: AppId) -> Result<u32> {
        let row = self
            .query("SELECT version FROM settings_version WHERE customer = ? AND stage = ? AND app = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }

    pub(crate) async fn settings_version_in(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
    ) -> Result<u32> {
        let row = self
            .query("SELECT version FROM settings_version WHERE customer = ? AND stage = ? AND app = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .fetch_optional(&mut **write)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }

    /// With which version each app of a stage serves.
    pub async fn settings_serving(&self, stage: &StageName) -> Result<BTreeMap<AppId, u32>> {
        let rows = self
            .query("SELECT app, settings FROM serving WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?))).collect()
    }

    /// The values of a version, secrets too: for the replicas alone.
    pub async fn settings_at(&self, stage: &StageName, app: AppId, version: u32) -> Result<Values> {
        let rows = self
            .query(
                "SELECT name, value FROM setting WHERE customer = ?1 AND stage = ?2 AND app = ?3 AND since <= ?4
                 AND (until IS NULL OR until > ?4) AND value IS NOT NULL",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .bind(version)
            .fetch_all(&self.store.pool)
            .await?;
        let open = |row: &Row| {
            let (name, sealed): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
            let value = self.store.kek.open(&self.setting_place(stage, app, &name), &sealed)?;
            Ok((name, Secret::new(String::from_utf8_lossy(&value))))
        };
        rows.iter().map(open).collect()
    }

    /// Names of what was changed after a version, as far as that is remembered.
    pub async fn settings_changed_since(
        &self,
        stage: &StageName,
        app: AppId,
        version: u32,
    ) -> Result<Vec<String>> {
        let rows = self
            .query(
                "SELECT DISTINCT name FROM setting WHERE customer = ?1 AND stage = ?2 AND app = ?3
                 AND (since > ?4 OR until > ?4) ORDER BY name",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .bind(version)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Sets and removes; the version that comes of it. Call it with what really changes.
    pub async fn change_settings(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        change: &SettingsChange<'_>,
    ) -> Result<u32> {
        let version = self.settings_version_in(write, stage, app).await? + 1;
        self.query(
            "INSERT INTO settings_version (customer, stage, app, version) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (customer, stage, app) DO UPDATE SET version = ?4",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(version)
        .execute(&mut **write)
        .await?;
        for name in change.set.keys().copied().chain(change.unset.iter().copied()) {
            self.query(
                "UPDATE setting SET until = ? WHERE customer = ? AND stage = ? AND app = ? AND name = ?
                 AND until IS NULL",
            )
            .bind(version)
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .bind(name)
            .execute(&mut **write)
            .await?;
        }
        for (name, value) in &change.set {
            let place = self.setting_place(stage, app, name);
            let bytes = i64::try_from(name.len() + value.expose().len()).unwrap_or(i64::MAX);
            self.query(
                "INSERT INTO setting (customer, stage, app, name, since, secret, value, bytes, fingerprint, who, at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .bind(*name)
            .bind(version)
            .bind(change.secret)
            .bind(self.store.kek.seal(&place, value.expose().as_bytes())?)
            .bind(bytes)
            .bind(self.store.fingerprint(&place, value))
            .bind(change.who)
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        }
        self.give_up_settings(write, stage).await?;
        self.query("DELETE FROM setting WHERE customer = ? AND stage = ? AND app = ? AND value IS NULL AND until < ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .bind(version.saturating_sub(HISTORY))
            .execute(&mut **write)
            .await?;
        Ok(version)
    }

    /// Gives up values of a stage that were replaced and that no replica has any more; how many.
    pub async fn give_up_settings(&self, write: &mut Write, stage: &StageName) -> Result<u64> {
        let done = self
            .query(
                "UPDATE setting SET value = NULL WHERE customer = ?1 AND stage = ?2 AND until IS NOT NULL
                 AND value IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM replica WHERE replica.customer = setting.customer
                     AND replica.stage = setting.stage AND replica.app = setting.app
                     AND replica.settings >= setting.since AND replica.settings < setting.until)
                 AND NOT EXISTS (SELECT 1 FROM serving WHERE serving.customer = setting.customer
                     AND serving.stage = setting.stage AND serving.app = setting.app
                     AND serving.settings >= setting.since AND serving.settings < setting.until)",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected())
    }

    /// The fingerprint that a value would have.
    pub fn setting_fingerprint(&self, stage: &StageName, app: AppId, name: &str, value: &Secret) -> String {
        self.store.fingerprint(&self.setting_place(stage, app, name), value)
    }

    fn setting_row(&self, stage: &StageName, app: AppId, row: &Row) -> Result<SettingRow> {
        let name: String = row.try_get("name")?;
        let secret = row.try_get::<i64, _>("secret")? != 0;
        let value = if secret {
            None
        } else {
            let sealed: Vec<u8> = row.try_get("value")?;
            let value = self.store.kek.open(&self.setting_place(stage, app, &name), &sealed)?;
            Some(String::from_utf8_lossy(&value).into_owned())
        };
        Ok(SettingRow {
            secret,
            value,
            bytes: row.try_get::<i64, _>("bytes")?.unsigned_abs(),
            fingerprint: row.try_get("fingerprint")?,
            since: row.try_get("since")?,
            who: row.try_get("who")?,
            at: row.try_get("at")?,
            name,
        })
    }

    fn setting_place(&self, stage: &StageName, app: AppId, name: &str) -> String {
        format!("setting/{}/{stage}/{app}/{name}", self.customer)
    }
}
