//! Apps and their revisions.

use crate::{
    CustomerStore, Result, Store, Write, from_json,
    lifecycle::{mark_place, marked},
    now_s, parse,
    sql::Row,
    to_json,
};
use bastide_types::{AppId, AppName, Digest, Manifest, StageName};
use sqlx::AssertSqlSafe;
use std::collections::BTreeMap;

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
    /// What its publisher says about it.
    pub message: String,
    /// Who published it.
    pub by: String,
    /// Seconds since 1970.
    pub at: i64,
    /// What it is called in the last stage, once it came there.
    pub version: Option<String>,
    /// Whether it is what the Platform published: nobody changed its row since.
    pub vouched: bool,
}

/// Columns of a [`RevisionRow`].
const REVISION: &str =
    "customer, app, number, digest, image, manifest, blobs, message, published_by, created, version, mark";

impl RevisionRow {
    /// A revision that has no number yet.
    pub fn new(app: AppId, digest: Digest, image: Digest, manifest: Manifest, blobs: Vec<Digest>) -> Self {
        let (message, by, at) = (String::new(), String::new(), now_s());
        Self { app, number: 0, digest, image, manifest, blobs, message, by, at, version: None, vouched: true }
    }
}

impl CustomerStore<'_> {
    /// All apps.
    pub async fn apps(&self) -> Result<Vec<AppRow>> {
        let rows = self
            .query("SELECT id, name FROM app WHERE customer = ? ORDER BY name")
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| Ok(AppRow { id: parse(row.try_get(0)?)?, name: parse(row.try_get(1)?)? }))
            .collect()
    }

    /// An app by name.
    pub async fn app_named(&self, name: &AppName) -> Result<Option<AppRow>> {
        let row = self
            .query("SELECT id FROM app WHERE customer = ? AND name = ?")
            .bind(self.customer.to_string())
            .bind(name.as_str())
            .fetch_optional(&self.store.pool)
            .await?;
        row.map(|row| Ok(AppRow { id: parse(row.try_get(0)?)?, name: name.clone() })).transpose()
    }

    /// The app of this name; created when there is none.
    pub async fn ensure_app(&self, write: &mut Write, name: &AppName) -> Result<AppId> {
        self.query("INSERT INTO app (customer, id, name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(self.customer.to_string())
            .bind(AppId::generate().to_string())
            .bind(name.as_str())
            .execute(&mut **write)
            .await?;
        let row = self
            .query("SELECT id FROM app WHERE customer = ? AND name = ?")
            .bind(self.customer.to_string())
            .bind(name.as_str())
            .fetch_one(&mut **write)
            .await?;
        parse(row.try_get(0)?)
    }

    /// Adds a revision, with the Platform's mark; its number is the next one.
    pub async fn add_revision(&self, write: &mut Write, revision: &RevisionRow) -> Result<u32> {
        let (customer, app) = (self.customer.to_string(), revision.app.to_string());
        let row = self
            .query("SELECT COALESCE(MAX(number), 0) + 1 FROM revision WHERE customer = ? AND app = ?")
            .bind(&customer)
            .bind(&app)
            .fetch_one(&mut **write)
            .await?;
        let number: u32 = row.try_get(0)?;
        let parts = [
            revision.digest.to_string(),
            revision.image.to_string(),
            to_json(&revision.manifest)?,
            to_json(&revision.blobs)?,
        ];
        let mark = self.store.kek.mark(&mark_place(&customer, &app, number), &marked(&parts));
        let [digest, image, manifest, blobs] = parts;
        self.query(
            "INSERT INTO revision (customer, app, number, digest, image, manifest, blobs, created, message,
             published_by, mark) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(customer)
        .bind(app)
        .bind(number)
        .bind(digest)
        .bind(image)
        .bind(manifest)
        .bind(blobs)
        .bind(revision.at)
        .bind(&revision.message)
        .bind(&revision.by)
        .bind(mark)
        .claim(write)
        .await?;
        Ok(number)
    }

    /// A revision by number.
    pub async fn revision(&self, app: AppId, number: u32) -> Result<Option<RevisionRow>> {
        let query = format!("SELECT {REVISION} FROM revision WHERE customer = ? AND app = ? AND number = ?");
        let row = self
            .query(AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .bind(app.to_string())
            .bind(number)
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(|row| self.store.revision_row(row)).transpose()
    }

    /// The revisions that serve or have replicas somewhere.
    pub async fn revisions_in_use(&self) -> Result<Vec<RevisionRow>> {
        let query = format!(
            "SELECT {REVISION} FROM revision WHERE customer = ?1 AND (app, number) IN (
                 SELECT app, revision FROM serving WHERE customer = ?1
                 UNION SELECT app, revision FROM replica WHERE customer = ?1)"
        );
        let rows = self
            .query(AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| self.store.revision_row(row)).collect()
    }

    /// All revisions of all apps.
    pub async fn revisions(&self) -> Result<Vec<RevisionRow>> {
        let query = format!("SELECT {REVISION} FROM revision WHERE customer = ?");
        let rows = self
            .query(AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| self.store.revision_row(row)).collect()
    }

    /// Revisions of the replicas of a stage, by app and number.
    pub async fn revisions_in(&self, stage: &StageName) -> Result<BTreeMap<(AppId, u32), RevisionRow>> {
        let query = format!(
            "SELECT {REVISION} FROM revision WHERE customer = ?1 AND EXISTS (SELECT 1 FROM replica
             WHERE replica.customer = ?1 AND replica.stage = ?2 AND replica.app = revision.app
             AND replica.revision = revision.number)"
        );
        let rows = self
            .query(AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        let rows = rows.iter().map(|row| self.store.revision_row(row));
        rows.map(|row| row.map(|row| ((row.app, row.number), row))).collect()
    }

    /// The newest revisions of an app.
    pub async fn revisions_of(&self, app: AppId, most: u32) -> Result<Vec<RevisionRow>> {
        let query = format!(
            "SELECT {REVISION} FROM revision WHERE customer = ? AND app = ? ORDER BY number DESC LIMIT ?"
        );
        let rows = self
            .query(AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .bind(app.to_string())
            .bind(most)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| self.store.revision_row(row)).collect()
    }

    /// All versions of an app.
    pub async fn versions(&self, app: AppId) -> Result<Vec<String>> {
        let rows = self
            .query("SELECT version FROM revision WHERE customer = ? AND app = ? AND version IS NOT NULL")
            .bind(self.customer.to_string())
            .bind(app.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

impl Store {
    fn revision_row(&self, row: &Row) -> Result<RevisionRow> {
        let (customer, app, number): (String, String, u32) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let parts: [String; 4] = [row.try_get(3)?, row.try_get(4)?, row.try_get(5)?, row.try_get(6)?];
        let mark: Option<Vec<u8>> = row.try_get(11)?;
        let place = mark_place(&customer, &app, number);
        let vouched = self.kek.is_mark_of(&place, &marked(&parts), &mark.unwrap_or_default());
        Ok(RevisionRow {
            app: parse(&app)?,
            number,
            digest: parse(&parts[0])?,
            image: parse(&parts[1])?,
            manifest: from_json(&parts[2])?,
            blobs: from_json(&parts[3])?,
            message: row.try_get(7)?,
            by: row.try_get(8)?,
            at: row.try_get(9)?,
            version: row.try_get(10)?,
            vouched,
        })
    }
}
