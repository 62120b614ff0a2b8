//! The life of revisions: what is said about them, which served where, and whether they are what was published.

use crate::{
    CustomerStore, OperationRow, ReplicaRow, Result, Store, Write, now_s, parse, raise_revision, sql::across,
};
use bastide_types::{AppId, CustomerId, Digest, StageName};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A revision that served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedRow {
    /// Counts up for each app and stage.
    pub turn: u32,
    /// Its number; `None`: the app was taken out of the stage.
    pub revision: Option<u32>,
    /// Version of the app's settings with which it began to.
    pub settings: u32,
    /// Seconds since 1970 from which on.
    pub at: i64,
}

impl CustomerStore<'_> {
    /// Which revisions of an app served in a stage, the newest first.
    pub async fn served(&self, stage: &StageName, app: AppId, most: u32) -> Result<Vec<ServedRow>> {
        let rows = self
            .query(
                "SELECT turn, revision, settings, at FROM served WHERE customer = ? AND stage = ? AND app = ?
             ORDER BY turn DESC LIMIT ?",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .bind(most)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let (turn, revision) = (row.try_get(0)?, row.try_get(1)?);
                Ok(ServedRow { turn, revision, settings: row.try_get(2)?, at: row.try_get(3)? })
            })
            .collect()
    }

    /// Which revision of an app serves in each stage.
    pub async fn serving_of(&self, app: AppId) -> Result<BTreeMap<StageName, u32>> {
        let rows = self
            .query("SELECT stage, revision FROM serving WHERE customer = ? AND app = ?")
            .bind(self.customer.to_string())
            .bind(app.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?))).collect()
    }

    /// Writes down what serves from now on: revision, and version of the settings.
    pub(crate) async fn note_served(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        what: Option<(u32, u32)>,
    ) -> Result<()> {
        self.query(
            "INSERT INTO served (customer, stage, app, turn, revision, at, settings) SELECT ?1, ?2, ?3,
             (SELECT COALESCE(MAX(turn), 0) + 1 FROM served WHERE customer = ?1 AND stage = ?2 AND app = ?3), ?4, ?5, ?6",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(what.map(|(revision, _)| revision))
        .bind(now_s())
        .bind(what.map_or(0, |(_, settings)| settings))
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Begins to take an app out of a stage: it serves no more, and its replicas drain from `drain_at` on.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`] while another operation of this app and stage runs.
    pub async fn begin_undeploy(
        &self,
        write: &mut Write,
        stage: &StageName,
        (app, revision): (AppId, u32),
        (drain_at, deadline): (i64, i64),
    ) -> Result<Uuid> {
        let id = Uuid::now_v7();
        self.query(
            "INSERT INTO operation (customer, id, kind, app, stage, revision, status, created, deadline)
             VALUES (?, ?, 'undeploy', ?, ?, ?, 'running', ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(id.to_string())
        .bind(app.to_string())
        .bind(stage.as_str())
        .bind(revision)
        .bind(now_s())
        .bind(deadline)
        .claim(write)
        .await?;
        self.query("DELETE FROM serving WHERE customer = ? AND stage = ? AND app = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .execute(&mut **write)
            .await?;
        self.query(
            "UPDATE replica SET drain_at = ? WHERE customer = ? AND stage = ? AND app = ? AND drain_at IS NULL",
        )
        .bind(drain_at)
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .execute(&mut **write)
        .await?;
        self.note_served(write, stage, app, None).await?;
        self.raise_generation(write, stage).await?;
        raise_revision(write).await?;
        Ok(id)
    }

    /// Whether an operation of this app runs in this stage.
    pub async fn is_deploying(&self, stage: &StageName, app: AppId) -> Result<bool> {
        let row = self
            .query(
                "SELECT 1 FROM operation WHERE customer = ? AND app = ? AND stage = ? AND status = 'running'",
            )
            .bind(self.customer.to_string())
            .bind(app.to_string())
            .bind(stage.as_str())
            .fetch_optional(&self.store.pool)
            .await?;
        Ok(row.is_some())
    }

    /// The newest operations; of one app, if it is named.
    pub async fn operations(&self, app: Option<AppId>, most: u32) -> Result<Vec<OperationRow>> {
        let rows = self.query(
            "SELECT * FROM operation WHERE customer = ?1 AND (?2 IS NULL OR app = ?2) ORDER BY id DESC LIMIT ?3",
        )
        .bind(self.customer.to_string())
        .bind(app.map(|app| app.to_string()))
        .bind(most)
        .fetch_all(&self.store.pool)
        .await?;
        rows.iter().map(crate::deploy::operation_row).collect()
    }

    /// Gives up operations that ended and began before `at`; how many.
    pub async fn give_up_operations(&self, write: &mut Write, at: i64) -> Result<u64> {
        let old = "customer = ?1 AND status != 'running' AND created < ?2";
        let steps = format!(
            "DELETE FROM step WHERE customer = ?1 AND operation IN (SELECT id FROM operation WHERE {old})"
        );
        let mut gone = 0;
        for query in [steps, format!("DELETE FROM operation WHERE {old}")] {
            let done = self
                .query(sqlx::AssertSqlSafe(query))
                .bind(self.customer.to_string())
                .bind(at)
                .execute(&mut **write)
                .await?;
            gone = done.rows_affected();
        }
        Ok(gone)
    }

    /// Gives up revisions that were published before `at`; how many. What serves, runs or is being deployed stays, and so do the
    /// newest `newest` of each app and whatever served in a stage in its last `turns` turns.
    pub async fn give_up_revisions(
        &self,
        write: &mut Write,
        at: i64,
        (newest, turns): (u32, u32),
    ) -> Result<u64> {
        let done = self
            .query(
                "DELETE FROM revision WHERE customer = ?1 AND created < ?2
                 AND number + ?3 <= (SELECT MAX(of_app.number) FROM revision of_app
                     WHERE of_app.customer = revision.customer AND of_app.app = revision.app)
                 AND NOT EXISTS (SELECT 1 FROM serving WHERE serving.customer = revision.customer
                     AND serving.app = revision.app AND serving.revision = revision.number)
                 AND NOT EXISTS (SELECT 1 FROM replica WHERE replica.customer = revision.customer
                     AND replica.app = revision.app AND replica.revision = revision.number)
                 AND NOT EXISTS (SELECT 1 FROM operation WHERE operation.customer = revision.customer
                     AND operation.app = revision.app AND operation.revision = revision.number
                     AND operation.status = 'running')
                 AND NOT EXISTS (SELECT 1 FROM served WHERE served.customer = revision.customer
                     AND served.app = revision.app AND served.revision = revision.number
                     AND served.turn + ?4 > (SELECT MAX(of_stage.turn) FROM served of_stage
                         WHERE of_stage.customer = served.customer AND of_stage.stage = served.stage
                         AND of_stage.app = served.app))",
            )
            .bind(self.customer.to_string())
            .bind(at)
            .bind(newest)
            .bind(turns)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected())
    }

    /// Gives a revision the version by which it is known in the last stage.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`] when another revision of the app has it.
    pub async fn set_version(&self, write: &mut Write, app: AppId, number: u32, version: &str) -> Result<()> {
        self.query(
            "UPDATE revision SET version = ? WHERE customer = ? AND app = ? AND number = ? AND version IS NULL",
        )
        .bind(version)
        .bind(self.customer.to_string())
        .bind(app.to_string())
        .bind(number)
        .claim(write)
.await?;
        Ok(())
    }
}

impl OperationRow {
    /// Of these replicas those that this operation made: ids grow with time.
    pub fn made<'r>(&self, all: &'r [ReplicaRow]) -> Vec<&'r ReplicaRow> {
        let made = |row: &&ReplicaRow| {
            row.app == self.app
                && row.revision == self.revision
                && row.id.0 > self.id
                && row.drain_at.is_none()
        };
        all.iter().filter(made).collect()
    }
}

impl Store {
    /// The content of all revisions of all customers.
    pub async fn content_named(&self) -> Result<BTreeSet<Digest>> {
        let rows = across("SELECT DISTINCT blobs FROM revision").fetch_all(&self.pool).await?;
        let mut named = BTreeSet::new();
        for row in rows {
            let blobs: Vec<Digest> = crate::from_json(row.try_get(0)?)?;
            named.extend(blobs);
        }
        Ok(named)
    }

    /// Revisions of a former version get their marks, once.
    pub(crate) async fn mark_revisions(&self) -> Result<()> {
        let mut write = self.write().await?;
        let noted =
            across("INSERT INTO meta (key, value) VALUES ('revisions_marked', 1) ON CONFLICT DO NOTHING")
                .execute(&mut *write)
                .await?;
        if noted.rows_affected() == 1 {
            let rows = across("SELECT customer, app, number, digest, image, manifest, blobs FROM revision")
                .fetch_all(&mut *write)
                .await?;
            for row in rows {
                let customer: CustomerId = parse(row.try_get(0)?)?;
                let (app, number): (String, u32) = (row.try_get(1)?, row.try_get(2)?);
                let parts: [String; 4] = [row.try_get(3)?, row.try_get(4)?, row.try_get(5)?, row.try_get(6)?];
                let mark = self.kek.mark(&mark_place(&customer.to_string(), &app, number), &marked(&parts));
                across("UPDATE revision SET mark = ? WHERE customer = ? AND app = ? AND number = ?")
                    .bind(mark)
                    .bind(customer.to_string())
                    .bind(app)
                    .bind(number)
                    .execute(&mut *write)
                    .await?;
            }
        }
        Ok(write.commit().await?)
    }
}

/// Where the mark of a revision holds.
pub(crate) fn mark_place(customer: &str, app: &str, number: u32) -> String {
    format!("revision/{customer}/{app}/{number}")
}

/// What the mark of a revision is over: digest, image, manifest and blobs as they are stored.
pub(crate) fn marked(parts: &[String; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}
