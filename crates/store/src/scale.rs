//! How many replicas apps have in each stage, and how many a customer may have.

use crate::{CustomerStore, Result, Write, from_json, parse, to_json};
use bastide_types::{AppId, ReplicaId, StageName, ZoneName, manifest::Scale};
use std::collections::BTreeMap;

/// What the scaler knows of an app in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScalingRow {
    /// When it looks again, in seconds since 1970.
    pub look_at: i64,
    /// What it advised lately: seconds since 1970, and replicas.
    pub advice: Vec<(i64, u32)>,
    /// Why there are as many replicas as there are.
    pub why: String,
}

impl CustomerStore<'_> {
    /// What is said for the apps of a stage.
    pub async fn stage_scales(&self, stage: &StageName) -> Result<BTreeMap<AppId, Scale>> {
        let rows = self
            .query("SELECT app, scale FROM stage_scale WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, from_json(row.try_get(1)?)?))).collect()
    }

    /// Scale of an app in a stage that was set there, instead of the manifest's.
    pub async fn stage_scale(&self, stage: &StageName, app: AppId) -> Result<Option<Scale>> {
        let row = self
            .query("SELECT scale FROM stage_scale WHERE customer = ? AND stage = ? AND app = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        row.map(|row| from_json(row.try_get(0)?)).transpose()
    }

    /// Sets it, or goes back to the manifest's; the scaler looks at once.
    pub async fn set_stage_scale(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        scale: Option<&Scale>,
    ) -> Result<()> {
        let query = match scale {
            Some(scale) => self
                .query(
                    "INSERT INTO stage_scale (customer, stage, app, scale) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (customer, stage, app) DO UPDATE SET scale = ?4",
                )
                .bind(self.customer.to_string())
                .bind(stage.as_str())
                .bind(app.to_string())
                .bind(to_json(scale)?),
            None => self
                .query("DELETE FROM stage_scale WHERE customer = ? AND stage = ? AND app = ?")
                .bind(self.customer.to_string())
                .bind(stage.as_str())
                .bind(app.to_string()),
        };
        query.execute(&mut **write).await?;
        self.forget_scaling(write, stage, app).await
    }

    /// What the scaler knows of the apps of a stage.
    pub async fn scaling(&self, stage: &StageName) -> Result<BTreeMap<AppId, ScalingRow>> {
        let rows = self
            .query("SELECT app, look_at, advice, why FROM scaling WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let advice = from_json(row.try_get(2)?)?;
                let known = ScalingRow { look_at: row.try_get(1)?, advice, why: row.try_get(3)? };
                Ok((parse(row.try_get(0)?)?, known))
            })
            .collect()
    }

    /// Keeps what the scaler knows of an app.
    pub async fn keep_scaling(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        known: &ScalingRow,
    ) -> Result<()> {
        self.query(
            "INSERT INTO scaling (customer, stage, app, look_at, advice, why) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (customer, stage, app) DO UPDATE SET look_at = ?4, advice = ?5, why = ?6",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(known.look_at)
        .bind(to_json(&known.advice)?)
        .bind(&known.why)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Forgets it: the scaler looks at once, and begins anew.
    pub async fn forget_scaling(&self, write: &mut Write, stage: &StageName, app: AppId) -> Result<()> {
        self.query("DELETE FROM scaling WHERE customer = ? AND stage = ? AND app = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Adds replicas of a revision with a version of the app's settings, one in each of these zones.
    pub async fn add_replicas(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        (revision, settings): (u32, u32),
        zones: &[ZoneName],
    ) -> Result<()> {
        for zone in zones {
            self.query(
                "INSERT INTO replica (customer, stage, id, app, revision, zone, settings)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(ReplicaId::generate().to_string())
            .bind(app.to_string())
            .bind(revision)
            .bind(zone.as_str())
            .bind(settings)
            .execute(&mut **write)
            .await?;
        }
        Ok(())
    }

    /// Replicas that each app has in each stage. While one revision replaces another, the larger of the two counts:
    /// both are there only for a while.
    pub async fn replica_counts(&self) -> Result<BTreeMap<(StageName, AppId), u32>> {
        let rows = self
            .query(
                "SELECT stage, app, MAX(replicas) FROM (
                 SELECT stage, app, revision, COUNT(*) AS replicas FROM replica
                 WHERE customer = ? AND drain_at IS NULL GROUP BY stage, app, revision
             ) AS counted GROUP BY stage, app",
            )
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| Ok(((parse(row.try_get(0)?)?, parse(row.try_get(1)?)?), row.try_get(2)?)))
            .collect()
    }

    /// Most replicas that the customer may have, when somebody said so.
    pub async fn quota(&self) -> Result<Option<u32>> {
        let row = self
            .query("SELECT replicas FROM quota WHERE customer = ?")
            .bind(self.customer.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// Says so.
    pub async fn set_quota(&self, write: &mut Write, replicas: u32) -> Result<()> {
        self.query(
            "INSERT INTO quota (customer, replicas) VALUES (?1, ?2) ON CONFLICT (customer) DO UPDATE SET replicas = ?2",
        )
        .bind(self.customer.to_string())
        .bind(replicas)
        .execute(&mut **write)
        .await?;
        Ok(())
    }
}
