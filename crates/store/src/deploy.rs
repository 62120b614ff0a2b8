//! What should run, what serves, and the operations that change it.

use crate::{
    CustomerStore, Result, Store, Write, from_json, now_s, parse, raise_revision,
    sql::{Row, across},
    to_json,
};
use bastide_types::{
    AppId, CustomerId, Problem, ReplicaId, StageName, ZoneName,
    message::{LastEnd, ReplicaFacts, USAGE_WINDOW_S, Usage},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A replica that should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRow {
    /// Id.
    pub id: ReplicaId,
    /// App.
    pub app: AppId,
    /// Revision number.
    pub revision: u32,
    /// Zone.
    pub zone: ZoneName,
    /// Version of its app's settings with which it runs.
    pub settings: u32,
    /// Seconds since 1970 from which it drains, if it shall.
    pub drain_at: Option<i64>,
    /// What its agent said last: starting, ready, draining, failed.
    pub state: String,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// Whether its agent ever spoke of it.
    pub seen: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended last.
    pub last_end: Option<LastEnd>,
    /// What it uses, and since when that is known, in seconds since 1970.
    pub usage: Option<(Usage, i64)>,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRow {
    /// Customer.
    pub customer: CustomerId,
    /// Id.
    pub id: Uuid,
    /// `publish`, `promote`, `rollback`, `undeploy`, `rotate` or `settings`.
    pub kind: String,
    /// App.
    pub app: AppId,
    /// Stage.
    pub stage: StageName,
    /// Revision number.
    pub revision: u32,
    /// `running`, `finished`, `failed`.
    pub status: String,
    /// Why it failed.
    pub problem: Option<Problem>,
    /// Seconds since 1970 at which it began.
    pub at: i64,
    /// Seconds since 1970 after which it fails.
    pub deadline: i64,
}

/// An operation to begin.
pub struct NewOperation<'a> {
    /// `publish`, `promote`, `rollback`, `rotate` or `settings`.
    pub kind: &'a str,
    /// App.
    pub app: AppId,
    /// Stage.
    pub stage: &'a StageName,
    /// Revision number.
    pub revision: u32,
    /// Seconds since 1970 after which it fails.
    pub deadline: i64,
}

/// A step of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// Name.
    pub name: String,
    /// `running`, `finished`, `failed`.
    pub status: String,
    /// What happened.
    pub message: Option<String>,
}

impl Store {
    /// Operations that still run, of all customers.
    pub async fn running_operations(&self) -> Result<Vec<OperationRow>> {
        let rows = across("SELECT * FROM operation WHERE status = 'running' ORDER BY created")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(operation_row).collect()
    }
}

impl CustomerStore<'_> {
    /// Begins an operation with its replicas; the stage's generation rises.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`] while another one of this app and stage runs.
    pub async fn begin_operation(
        &self,
        write: &mut Write,
        new: &NewOperation<'_>,
        zones: &[ZoneName],
    ) -> Result<Uuid> {
        let id = Uuid::now_v7();
        self.query(
            "INSERT INTO operation (customer, id, kind, app, stage, revision, status, created, deadline)
             VALUES (?, ?, ?, ?, ?, ?, 'running', ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(id.to_string())
        .bind(new.kind)
        .bind(new.app.to_string())
        .bind(new.stage.as_str())
        .bind(new.revision)
        .bind(now_s())
        .bind(new.deadline)
        .claim(write)
        .await?;
        let settings = self.settings_version_in(write, new.stage, new.app).await?;
        self.add_replicas(write, new.stage, new.app, (new.revision, settings), zones).await?;
        self.raise_generation(write, new.stage).await?;
        // When the revision serves already, its new replicas are in the Snapshot from now on.
        raise_revision(write).await?;
        Ok(id)
    }

    /// Raises the generation of a stage's desired state.
    pub async fn raise_generation(&self, write: &mut Write, stage: &StageName) -> Result<()> {
        self.query("UPDATE stage SET generation = generation + 1 WHERE customer = ? AND name = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Adds a step, or changes the one of this name.
    pub async fn set_step(
        &self,
        write: &mut Write,
        operation: Uuid,
        name: &str,
        status: &str,
        message: &str,
    ) -> Result<()> {
        let changed = self
            .query(
                "UPDATE step SET status = ?, message = ? WHERE customer = ? AND operation = ? AND name = ?",
            )
            .bind(status)
            .bind(message)
            .bind(self.customer.to_string())
            .bind(operation.to_string())
            .bind(name)
            .execute(&mut **write)
            .await?;
        if changed.rows_affected() == 0 {
            self.query(
                "INSERT INTO step (customer, operation, position, name, status, message)
                 VALUES (?1, ?2, (SELECT COUNT(*) FROM step WHERE customer = ?1 AND operation = ?2), ?3, ?4, ?5)",
            )
            .bind(self.customer.to_string())
            .bind(operation.to_string())
            .bind(name)
            .bind(status)
            .bind(message)
            .execute(&mut **write)
            .await?;
        }
        Ok(())
    }

    /// An operation with its steps.
    pub async fn operation(&self, id: Uuid) -> Result<Option<(OperationRow, Vec<StepRow>)>> {
        let row = self
            .query("SELECT * FROM operation WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let steps = self.query(
            "SELECT name, status, message FROM step WHERE customer = ? AND operation = ? ORDER BY position",
        )
        .bind(self.customer.to_string())
        .bind(id.to_string())
        .fetch_all(&self.store.pool)
        .await?;
        let steps = steps.iter().map(|row| {
            Ok(StepRow { name: row.try_get(0)?, status: row.try_get(1)?, message: row.try_get(2)? })
        });
        Ok(Some((operation_row(&row)?, steps.collect::<Result<_>>()?)))
    }

    /// Ends an operation. False when it ended before: then the caller changes nothing else either.
    pub async fn end_operation(
        &self,
        write: &mut Write,
        id: Uuid,
        problem: Option<&Problem>,
    ) -> Result<bool> {
        let ended = self.query("UPDATE operation SET status = ?, problem = ? WHERE customer = ? AND id = ? AND status = 'running'")
            .bind(if problem.is_some() { "failed" } else { "finished" })
            .bind(problem.map(to_json).transpose()?)
            .bind(self.customer.to_string())
            .bind(id.to_string())
            .execute(&mut **write)
            .await?;
        Ok(ended.rows_affected() == 1)
    }

    /// Replicas of a stage.
    pub async fn replicas(&self, stage: &StageName) -> Result<Vec<ReplicaRow>> {
        let rows = self
            .query("SELECT * FROM replica WHERE customer = ? AND stage = ? ORDER BY id")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(replica_row).collect()
    }

    /// Writes down what an agent said about its replicas. True when the state of one changed; what they use and
    /// how often they were started again is written down too, but changes nothing for anybody else.
    pub async fn record_facts(&self, stage: &StageName, facts: &ReplicaFacts) -> Result<bool> {
        let known = self.replicas(stage).await?;
        let said: BTreeMap<_, _> = facts.replicas.iter().map(|fact| (fact.id, fact)).collect();
        let mut changes = Vec::new();
        for before in &known {
            let mut now = before.clone();
            match said.get(&before.id) {
                Some(fact) => {
                    now.state = to_json(&fact.state)?.trim_matches('"').to_owned();
                    now.reason = fact.reason.clone();
                    (now.restarts, now.last_end) = (fact.restarts, fact.last_end.clone());
                    // Agents repeat all that they know every few seconds; once in a window is enough.
                    let old = before.usage.is_none_or(|(_, at)| now_s() - at >= USAGE_WINDOW_S.cast_signed());
                    if old || before.usage.map(|(usage, _)| usage) != fact.usage {
                        now.usage = fact.usage.map(|usage| (usage, now_s()));
                    }
                    now.seen = true;
                }
                // Spoken of before and not any more: it is gone.
                None if before.seen => {
                    (now.state, now.reason, now.usage) = ("gone".to_owned(), None, None);
                }
                None => continue,
            }
            if now != *before {
                changes.push((before, now));
            }
        }
        if changes.is_empty() {
            return Ok(false);
        }
        let mut write = self.store.write().await?;
        let mut news = false;
        for (before, now) in changes {
            news |= (&before.state, &before.reason, before.seen) != (&now.state, &now.reason, now.seen);
            self.query(
                "UPDATE replica SET state = ?, reason = ?, seen = ?, restarts = ?, last_end = ?, cpu_millis = ?,
                 memory_bytes = ?, used_at = ? WHERE customer = ? AND stage = ? AND id = ?",
            )
            .bind(now.state)
            .bind(now.reason)
            .bind(now.seen)
            .bind(now.restarts)
            .bind(now.last_end.as_ref().map(to_json).transpose()?)
            .bind(now.usage.map(|(usage, _)| usage.cpu_millis))
            .bind(now.usage.map(|(usage, _)| i64::try_from(usage.memory_bytes).unwrap_or(i64::MAX)))
            .bind(now.usage.map(|(_, at)| at))
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(now.id.to_string())
            .execute(&mut *write)
            .await?;
        }
        write.commit().await?;
        Ok(news)
    }

    /// Which revision of each app serves in a stage.
    pub async fn serving(&self, stage: &StageName) -> Result<BTreeMap<AppId, u32>> {
        let rows = self
            .query("SELECT app, revision FROM serving WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?))).collect()
    }

    /// Makes a revision serve; all other replicas of the app drain from `drain_at` on. The stage's generation
    /// rises: its other apps call the new revision.
    pub async fn serve(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        revision: u32,
        keep: &[ReplicaId],
        drain_at: i64,
    ) -> Result<()> {
        let replicas = self.replicas_in(write, stage).await?;
        let kept = replicas.iter().filter(|replica| replica.app == app && keep.contains(&replica.id));
        let settings = kept.map(|replica| replica.settings).max().unwrap_or(0);
        self.query(
            "INSERT INTO serving (customer, stage, app, revision, settings) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (customer, stage, app) DO UPDATE SET revision = ?4, settings = ?5",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(revision)
        .bind(settings)
        .execute(&mut **write)
        .await?;
        self.note_served(write, stage, app, Some((revision, settings))).await?;
        for replica in replicas {
            if replica.app == app && !keep.contains(&replica.id) && replica.drain_at.is_none() {
                self.drain(write, stage, replica.id, drain_at).await?;
            }
        }
        self.raise_generation(write, stage).await?;
        raise_revision(write).await
    }

    async fn replicas_in(&self, write: &mut Write, stage: &StageName) -> Result<Vec<ReplicaRow>> {
        let rows = self
            .query("SELECT * FROM replica WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&mut **write)
            .await?;
        rows.iter().map(replica_row).collect()
    }

    /// Lets a replica drain from `at` on.
    pub async fn drain(&self, write: &mut Write, stage: &StageName, id: ReplicaId, at: i64) -> Result<()> {
        self.query("UPDATE replica SET drain_at = ? WHERE customer = ? AND stage = ? AND id = ?")
            .bind(at)
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(id.to_string())
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Forgets a replica that is gone.
    pub async fn forget_replica(&self, write: &mut Write, stage: &StageName, id: ReplicaId) -> Result<()> {
        self.query("DELETE FROM replica WHERE customer = ? AND stage = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(id.to_string())
            .execute(&mut **write)
            .await?;
        Ok(())
    }
}

pub(crate) fn operation_row(row: &Row) -> Result<OperationRow> {
    let problem: Option<String> = row.try_get("problem")?;
    Ok(OperationRow {
        customer: parse(row.try_get("customer")?)?,
        id: parse(row.try_get("id")?)?,
        kind: row.try_get("kind")?,
        app: parse(row.try_get("app")?)?,
        stage: parse(row.try_get("stage")?)?,
        revision: row.try_get("revision")?,
        status: row.try_get("status")?,
        problem: problem.as_deref().map(from_json).transpose()?,
        at: row.try_get("created")?,
        deadline: row.try_get("deadline")?,
    })
}

fn replica_row(row: &Row) -> Result<ReplicaRow> {
    let seen: i64 = row.try_get("seen")?;
    let last_end: Option<String> = row.try_get("last_end")?;
    let cpu_millis: Option<u32> = row.try_get("cpu_millis")?;
    let memory_bytes: Option<i64> = row.try_get("memory_bytes")?;
    let used_at: Option<i64> = row.try_get("used_at")?;
    Ok(ReplicaRow {
        id: parse(row.try_get("id")?)?,
        app: parse(row.try_get("app")?)?,
        revision: row.try_get("revision")?,
        zone: parse(row.try_get("zone")?)?,
        settings: row.try_get("settings")?,
        drain_at: row.try_get("drain_at")?,
        state: row.try_get("state")?,
        reason: row.try_get("reason")?,
        seen: seen != 0,
        restarts: row.try_get("restarts")?,
        last_end: last_end.as_deref().map(from_json).transpose()?,
        usage: match (cpu_millis, memory_bytes, used_at) {
            (Some(cpu_millis), Some(memory_bytes), Some(at)) => {
                let memory_bytes = u64::try_from(memory_bytes).unwrap_or_default();
                Some((Usage { cpu_millis, memory_bytes }, at))
            }
            _ => None,
        },
    })
}
