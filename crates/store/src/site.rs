//! How the hosts of stages behave by themselves.

use crate::{CustomerStore, Result, Write, from_json, parse, raise_revision, sql::across, to_json};
use bastide_types::{SiteDocument, SiteSettings, StageName};
use std::collections::BTreeMap;

/// How many bytes settings take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteBytes {
    /// Those of the customer.
    pub own: u64,
    /// Those of all customers.
    pub all: u64,
}

impl CustomerStore<'_> {
    /// The settings of a stage, as they are in a transaction; the default when none were made.
    pub async fn site(&self, write: &mut Write, stage: &StageName) -> Result<SiteSettings> {
        let row = self
            .query("SELECT settings FROM stage_site WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_optional(&mut **write)
            .await?;
        row.map_or_else(|| Ok(SiteSettings::default()), |row| from_json(row.try_get(0)?))
    }

    /// The settings of all stages that have any, not read yet. One that is no JSON at all is left out, and said.
    pub async fn site_documents(&self) -> Result<BTreeMap<StageName, SiteDocument>> {
        let rows = self
            .query("SELECT stage, settings FROM stage_site WHERE customer = ?")
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        let mut documents = BTreeMap::new();
        for row in &rows {
            let stage: StageName = parse(row.try_get(0)?)?;
            if let Some(document) = SiteDocument::from_json(row.try_get(1)?) {
                documents.insert(stage, document);
            } else {
                tracing::error!(customer = %self.customer, %stage, "the settings of a site are damaged and left out");
            }
        }
        Ok(documents)
    }

    /// Replaces the settings of a stage, which must exist; the Snapshot's revision rises.
    pub async fn set_site(
        &self,
        write: &mut Write,
        stage: &StageName,
        settings: &SiteSettings,
    ) -> Result<()> {
        let query = if settings.is_empty() {
            self.query("DELETE FROM stage_site WHERE customer = ?1 AND stage = ?2")
        } else {
            self.query(
                "INSERT INTO stage_site (customer, stage, settings) VALUES (?1, ?2, ?3)
                 ON CONFLICT (customer, stage) DO UPDATE SET settings = ?3",
            )
        };
        let query = query.bind(self.customer.to_string()).bind(stage.as_str());
        let query = if settings.is_empty() { query } else { query.bind(to_json(settings)?) };
        query.execute(&mut **write).await?;
        raise_revision(write).await
    }

    /// How many bytes settings take, as it is in a transaction.
    pub async fn site_bytes(&self, write: &mut Write) -> Result<SiteBytes> {
        let row = across(
            "SELECT COALESCE(SUM(OCTET_LENGTH(settings)), 0),
                    COALESCE(SUM(CASE WHEN customer = ? THEN OCTET_LENGTH(settings) END), 0)
             FROM stage_site",
        )
        .bind(self.customer.to_string())
        .fetch_one(&mut **write)
        .await?;
        let count = |value: i64| u64::try_from(value).unwrap_or_default();
        Ok(SiteBytes { all: count(row.try_get(0)?), own: count(row.try_get(1)?) })
    }
}
