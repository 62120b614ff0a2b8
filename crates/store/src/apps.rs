//! Apps and their revisions.

use crate::{CustomerStore, Result, Write, from_json, now_s, parse, taken, to_json};
use bastide_types::{AppId, AppName, Digest, Manifest};
use sqlx::{Row, sqlite::SqliteRow};

/// An app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRow {
    /// Id.
    pub id: AppId,
    /// Name.
    pub name: AppName,
}

/// A revision of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRow {
    /// App.
    pub app: AppId,
    /// Number, counting up per app.
    pub number: u32,
    /// Digest over image and manifest.
    pub digest: Digest,
    /// OCI manifest of its image.
    pub image: Digest,
    /// How it runs.
    pub manifest: Manifest,
    /// All blobs of its image, the OCI manifest among them.
    pub blobs: Vec<Digest>,
}

impl CustomerStore<'_> {
    /// All apps.
    pub async fn apps(&self) -> Result<Vec<AppRow>> {
        let rows = sqlx::query("SELECT id, name FROM app WHERE customer = ? ORDER BY name")
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| Ok(AppRow { id: parse(row.try_get(0)?)?, name: parse(row.try_get(1)?)? }))
            .collect()
    }

    /// An app by name.
    pub async fn app_named(&self, name: &AppName) -> Result<Option<AppRow>> {
        let row = sqlx::query("SELECT id FROM app WHERE customer = ? AND name = ?")
            .bind(self.customer.to_string())
            .bind(name.as_str())
            .fetch_optional(&self.store.pool)
            .await?;
        row.map(|row| Ok(AppRow { id: parse(row.try_get(0)?)?, name: name.clone() })).transpose()
    }

    /// The app of this name; created when there is none.
    pub async fn ensure_app(&self, write: &mut Write, name: &AppName) -> Result<AppId> {
        sqlx::query("INSERT OR IGNORE INTO app (customer, id, name) VALUES (?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(AppId::generate().to_string())
            .bind(name.as_str())
            .execute(&mut **write)
            .await?;
        let row = sqlx::query("SELECT id FROM app WHERE customer = ? AND name = ?")
            .bind(self.customer.to_string())
            .bind(name.as_str())
            .fetch_one(&mut **write)
            .await?;
        parse(row.try_get(0)?)
    }

    /// Adds a revision; its number is the next one.
    pub async fn add_revision(&self, write: &mut Write, revision: &RevisionRow) -> Result<u32> {
        let row = sqlx::query(
            "INSERT INTO revision (customer, app, number, digest, image, manifest, blobs, created)
             VALUES (?1, ?2, (SELECT COALESCE(MAX(number), 0) + 1 FROM revision WHERE customer = ?1 AND app = ?2), ?3, ?4, ?5, ?6, ?7)
             RETURNING number",
        )
        .bind(self.customer.to_string())
        .bind(revision.app.to_string())
        .bind(revision.digest.to_string())
        .bind(revision.image.to_string())
        .bind(to_json(&revision.manifest)?)
        .bind(to_json(&revision.blobs)?)
        .bind(now_s())
        .fetch_one(&mut **write)
        .await
        .map_err(taken)?;
        Ok(row.try_get(0)?)
    }

    /// A revision by number.
    pub async fn revision(&self, app: AppId, number: u32) -> Result<Option<RevisionRow>> {
        let row = sqlx::query("SELECT app, number, digest, image, manifest, blobs FROM revision WHERE customer = ? AND app = ? AND number = ?")
            .bind(self.customer.to_string())
            .bind(app.to_string())
            .bind(number)
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(revision_row).transpose()
    }

    /// All revisions of all apps.
    pub async fn revisions(&self) -> Result<Vec<RevisionRow>> {
        let rows = sqlx::query(
            "SELECT app, number, digest, image, manifest, blobs FROM revision WHERE customer = ?",
        )
        .bind(self.customer.to_string())
        .fetch_all(&self.store.pool)
        .await?;
        rows.iter().map(revision_row).collect()
    }
}

fn revision_row(row: &SqliteRow) -> Result<RevisionRow> {
    Ok(RevisionRow {
        app: parse(row.try_get(0)?)?,
        number: row.try_get(1)?,
        digest: parse(row.try_get(2)?)?,
        image: parse(row.try_get(3)?)?,
        manifest: from_json(row.try_get(4)?)?,
        blobs: from_json(row.try_get(5)?)?,
    })
}
