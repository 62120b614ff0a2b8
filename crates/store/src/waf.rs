//! Layers of the WAF's policies.

use crate::{
    CustomerStore, Result, Store, StoreError, Write, from_json, parse, raise_revision, sql::across, to_json,
};
use bastide_types::{
    AppId, StageName,
    waf::{LayerBy, WafLayer},
};

/// A level that belongs to no customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfficeLevel {
    /// Every site.
    Office,
    /// Hosts of the Platform.
    Platform,
}

/// What was said about a stage or one of its apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WafLayerRow {
    /// The app; the stage without.
    pub app: Option<AppId>,
    /// Who said it.
    pub by: LayerBy,
    /// What.
    pub layer: WafLayer,
}

impl OfficeLevel {
    const fn name(self) -> &'static str {
        match self {
            Self::Office => "office",
            Self::Platform => "platform",
        }
    }
}

const fn name_of(by: LayerBy) -> &'static str {
    match by {
        LayerBy::Office => "office",
        LayerBy::Customer => "customer",
    }
}

impl Store {
    /// What the office says at a level; nothing when it never said anything.
    pub async fn waf_office(&self, level: OfficeLevel) -> Result<WafLayer> {
        let row = across("SELECT layer FROM waf_office WHERE level = ?")
            .bind(level.name())
            .fetch_optional(&self.pool)
            .await?;
        row.map_or_else(|| Ok(WafLayer::default()), |row| from_json(row.try_get(0)?))
    }

    /// Replaces it; the Snapshot's revision rises.
    pub async fn set_waf_office(
        &self,
        write: &mut Write,
        level: OfficeLevel,
        layer: &WafLayer,
    ) -> Result<()> {
        across(
            "INSERT INTO waf_office (level, layer) VALUES (?1, ?2) ON CONFLICT (level) DO UPDATE SET layer = ?2",
        )
        .bind(level.name())
        .bind(to_json(layer)?)
        .execute(&mut **write)
        .await?;
        raise_revision(write).await
    }
}

impl CustomerStore<'_> {
    /// What was said about a stage and its apps.
    pub async fn waf_layers(&self, stage: &StageName) -> Result<Vec<WafLayerRow>> {
        let rows = self
            .query("SELECT app, said_by, layer FROM waf_layer WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let (app, by): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
                let app = if app.is_empty() { None } else { Some(parse(app)?) };
                let by = match by {
                    "office" => LayerBy::Office,
                    "customer" => LayerBy::Customer,
                    other => return Err(StoreError::Damaged(other.into())),
                };
                Ok(WafLayerRow { app, by, layer: from_json(row.try_get(2)?)? })
            })
            .collect()
    }

    /// Replaces what one of both says about a stage, or about an app in it; the Snapshot's revision rises.
    pub async fn set_waf_layer(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: Option<AppId>,
        by: LayerBy,
        layer: &WafLayer,
    ) -> Result<()> {
        let app = app.map(|app| app.to_string()).unwrap_or_default();
        let query = if layer.is_empty() {
            self.query(
                "DELETE FROM waf_layer WHERE customer = ?1 AND stage = ?2 AND app = ?3 AND said_by = ?4",
            )
        } else {
            self.query(
                "INSERT INTO waf_layer (customer, stage, app, said_by, layer) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (customer, stage, app, said_by) DO UPDATE SET layer = ?5",
            )
        };
        let query = query.bind(self.customer.to_string()).bind(stage.as_str()).bind(app).bind(name_of(by));
        let query = if layer.is_empty() { query } else { query.bind(to_json(layer)?) };
        query.execute(&mut **write).await?;
        raise_revision(write).await
    }
}
