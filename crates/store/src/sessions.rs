//! Whose sessions there are, how long they may last, and when they were used.

use crate::{CustomerStore, Result, Write, now_s, sql::Row};
use bastide_types::UserId;

/// A session as its member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Id.
    pub id: String,
    /// `provider` (a sign-in), `browser` or `program`.
    pub kind: String,
    /// Sign-in that it ends with.
    pub parent: Option<String>,
    /// Client; empty for a sign-in and for browsers.
    pub client: String,
    /// Stage; empty for the Platform.
    pub stage: String,
    /// Seconds since 1970 at which the member signed in.
    pub since: i64,
    /// Seconds since 1970 at which it was last seen, to about a token's life.
    pub seen: i64,
    /// Seconds since 1970 at which it ends.
    pub until: i64,
}

/// How long browser sessions last, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// From the beginning.
    pub max_s: i64,
    /// From the last use.
    pub idle_s: i64,
}

impl CustomerStore<'_> {
    /// Sessions of a member that live, oldest first.
    pub async fn sessions_of(&self, member: UserId) -> Result<Vec<SessionInfo>> {
        let rows = self
            .query(
                "SELECT id, kind, parent, client, stage, since, seen, until FROM session
             WHERE customer = ? AND member = ? AND until > ? ORDER BY id",
            )
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .bind(now_s())
            .fetch_all(&self.store.pool)
            .await?;
        let read = |row: &Row| {
            Ok(SessionInfo {
                id: row.try_get(0)?,
                kind: row.try_get(1)?,
                parent: row.try_get(2)?,
                client: row.try_get(3)?,
                stage: row.try_get(4)?,
                since: row.try_get(5)?,
                seen: row.try_get(6)?,
                until: row.try_get(7)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Ends all sessions of a member and revokes their tokens.
    pub async fn end_sessions_of(&self, write: &mut Write, member: UserId) -> Result<()> {
        self.query("DELETE FROM session WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        self.revoke_member(write, member).await
    }

    /// Notes that a session is used, unless it was not for longer than `idle_s`: then it ends. `used` is the last use
    /// that a gateway knows of. Returns whether it goes on.
    pub async fn use_session(&self, id: &str, used: i64, idle_s: i64) -> Result<bool> {
        let now = now_s();
        let row = self
            .query("SELECT seen FROM session WHERE customer = ? AND id = ? AND until > ?")
            .bind(self.customer.to_string())
            .bind(id)
            .bind(now)
            .fetch_optional(&self.store.pool)
            .await?;
        let Some(row) = row else { return Ok(false) };
        let seen: i64 = row.try_get(0)?;
        if now - seen.max(used.min(now)) > idle_s {
            let mut write = self.store.write().await?;
            self.delete_session(&mut write, id).await?;
            write.commit().await?;
            return Ok(false);
        }
        // Once a minute is enough: many apps of one session ask at the same time.
        if now - seen >= 60 {
            self.query("UPDATE session SET seen = ?1 WHERE customer = ?2 AND id = ?3 AND seen < ?1")
                .bind(now)
                .bind(self.customer.to_string())
                .bind(id)
                .execute(&self.store.pool)
                .await?;
        }
        Ok(true)
    }

    /// How long browser sessions of a stage last, if that was decided (`stage` empty: those of the Platform).
    pub async fn session_limits(&self, stage: &str) -> Result<Option<SessionLimits>> {
        let row = self
            .query("SELECT max, idle FROM session_limits WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage)
            .fetch_optional(&self.store.pool)
            .await?;
        row.map(|row| Ok(SessionLimits { max_s: row.try_get(0)?, idle_s: row.try_get(1)? })).transpose()
    }

    /// Decides how long browser sessions of a stage last. Those that live end by it, too.
    pub async fn set_session_limits(
        &self,
        write: &mut Write,
        stage: &str,
        limits: SessionLimits,
    ) -> Result<()> {
        self.query(
            "INSERT INTO session_limits (customer, stage, max, idle) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (customer, stage) DO UPDATE SET max = ?3, idle = ?4",
        )
        .bind(self.customer.to_string())
        .bind(stage)
        .bind(limits.max_s)
        .bind(limits.idle_s)
        .execute(&mut **write)
        .await?;
        self.query(
            "UPDATE session SET until = since + ?1
             WHERE customer = ?2 AND kind = 'browser' AND stage = ?3 AND until > since + ?1",
        )
        .bind(limits.max_s)
        .bind(self.customer.to_string())
        .bind(stage)
        .execute(&mut **write)
        .await?;
        Ok(())
    }
}
