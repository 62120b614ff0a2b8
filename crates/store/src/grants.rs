//! What a session is for, and the refresh tokens that keep it alive.

use crate::{CustomerStore, RefreshOutcome, Result, SessionRow, Write, now_s, parse, sql::Row};
use bastide_types::{Acr, UserId};

/// What a session is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionUse {
    /// OAuth client; empty for a sign-in and for browsers.
    pub client: String,
    /// Stage of its issuer; empty for members.
    pub stage: String,
    /// Scopes, with spaces between.
    pub scope: String,
    /// Seconds since 1970 at which it began.
    pub since: i64,
    /// How well the sign-in behind it is secured.
    pub acr: Acr,
    /// Seconds since 1970 at which that was.
    pub auth_time: i64,
}

/// Who spends a refresh token.
#[derive(Debug, Clone, Copy)]
pub struct RefreshBy<'a> {
    /// OAuth client.
    pub client: &'a str,
    /// Stage of the issuer that is asked; empty for members.
    pub stage: &'a str,
    /// Seconds within which a spent token may come again because its answer was lost; never when `None`.
    pub retry_s: Option<i64>,
}

impl CustomerStore<'_> {
    /// Says what a new session is for.
    pub async fn describe_session(&self, write: &mut Write, id: &str, used: &SessionUse) -> Result<()> {
        self.query(
            "UPDATE session SET client = ?, stage = ?, scope = ?, since = ?, acr = ?, auth_time = ? WHERE customer = ? AND id = ?",
        )
        .bind(&used.client)
        .bind(&used.stage)
        .bind(&used.scope)
        .bind(used.since)
        .bind(used.acr.as_str())
        .bind(used.auth_time)
        .bind(self.customer.to_string())
        .bind(id)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// A session by its id, while it lives.
    pub async fn session_with_id(&self, id: &str) -> Result<Option<(SessionRow, SessionUse)>> {
        let row = self.query(
            "SELECT id, member, until, client, stage, scope, since, acr, auth_time FROM session WHERE customer = ? AND id = ? AND until > ?",
        )
        .bind(self.customer.to_string())
        .bind(id)
        .bind(now_s())
        .fetch_optional(&self.store.pool)
        .await?;
        row.as_ref().map(used_session).transpose()
    }

    /// The session that an unspent refresh token keeps alive.
    pub async fn session_of_refresh(&self, hash: &[u8; 32]) -> Result<Option<(SessionRow, SessionUse)>> {
        let row = self
            .query(
                "SELECT s.id, s.member, s.until, s.client, s.stage, s.scope, s.since, s.acr, s.auth_time
             FROM refresh r JOIN session s ON s.customer = r.customer AND s.id = r.session
             WHERE r.customer = ? AND r.hash = ? AND r.used = 0 AND s.until > ?",
            )
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(now_s())
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(used_session).transpose()
    }

    /// Ends the session of this id with the sign-in that it came from and all that came of it. Returns
    /// whose it was.
    pub async fn end_sign_in_of(&self, write: &mut Write, id: &str) -> Result<Option<UserId>> {
        let row = self
            .query("SELECT COALESCE(parent, id), member FROM session WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id)
            .fetch_optional(&mut **write)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let sign_in: String = row.try_get(0)?;
        self.delete_session(write, &sign_in).await?;
        Ok(Some(parse(row.try_get(1)?)?))
    }

    /// Ends all sessions of a client and revokes its tokens, also those that it got for itself.
    pub(crate) async fn end_sessions_of_client(&self, write: &mut Write, client: &str) -> Result<()> {
        // Nothing comes of a client's session: one entry is enough for all of them.
        self.query("DELETE FROM session WHERE customer = ? AND client = ?")
            .bind(self.customer.to_string())
            .bind(client)
            .execute(&mut **write)
            .await?;
        self.revoke_client(write, client).await
    }

    /// Stores a refresh token of a session.
    pub async fn add_refresh(&self, write: &mut Write, hash: &[u8; 32], session: &str) -> Result<()> {
        self.query("INSERT INTO refresh (customer, hash, session) VALUES (?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(session)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Spends a refresh token and stores its successor. One that was spent before ends the session, unless
    /// this is the retry that `by` allows and the first successor was never used. One of another client or
    /// issuer is unknown, and stays as it is.
    pub async fn rotate_refresh(
        &self,
        hash: &[u8; 32],
        successor: &[u8; 32],
        by: &RefreshBy<'_>,
    ) -> Result<RefreshOutcome> {
        let mut write = self.store.write().await?;
        let row = self.query(
            "SELECT s.id, s.member, s.until, s.client, s.stage, s.scope, s.since, s.acr, s.auth_time, r.used, r.used_at, r.successor
             FROM refresh r JOIN session s ON s.customer = r.customer AND s.id = r.session
             WHERE r.customer = ? AND r.hash = ? AND s.client = ? AND s.stage = ? AND s.until > ?",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(by.client)
        .bind(by.stage)
        .bind(now_s())
        .fetch_optional(&mut *write)
        .await?;
        let Some(row) = row else { return Ok(RefreshOutcome::Unknown) };
        let (session, used) = used_session(&row)?;
        let (spent, spent_at): (i64, i64) = (row.try_get(9)?, row.try_get(10)?);
        if spent != 0 {
            let first: Option<Vec<u8>> = row.try_get(11)?;
            let in_time = by.retry_s.is_some_and(|retry_s| now_s() - spent_at <= retry_s);
            if !(in_time && self.forget_unused(&mut write, &first.unwrap_or_default()).await?) {
                self.delete_session(&mut write, &session.id).await?;
                let why = "a refresh token was used twice";
                self.audit(&mut write, &session.member.to_string(), "session.ended", why).await?;
                write.commit().await?;
                return Ok(RefreshOutcome::Reused);
            }
        }
        self.query(
            "UPDATE refresh SET used = 1, successor = ?1, used_at = CASE used WHEN 0 THEN ?2 ELSE used_at END
             WHERE customer = ?3 AND hash = ?4",
        )
        .bind(&successor[..])
        .bind(now_s())
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .execute(&mut *write)
        .await?;
        self.add_refresh(&mut write, successor, &session.id).await?;
        write.commit().await?;
        Ok(RefreshOutcome::Rotated(session, used))
    }

    /// Forgets a successor that nobody used; false when somebody did.
    async fn forget_unused(&self, write: &mut Write, hash: &[u8]) -> Result<bool> {
        let done = self
            .query("DELETE FROM refresh WHERE customer = ? AND hash = ? AND used = 0")
            .bind(self.customer.to_string())
            .bind(hash)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}

fn used_session(row: &Row) -> Result<(SessionRow, SessionUse)> {
    let session = SessionRow { id: row.try_get(0)?, member: parse(row.try_get(1)?)?, until: row.try_get(2)? };
    let used = SessionUse {
        client: row.try_get(3)?,
        stage: row.try_get(4)?,
        scope: row.try_get(5)?,
        since: row.try_get(6)?,
        acr: parse(row.try_get(7)?)?,
        auth_time: row.try_get(8)?,
    };
    Ok((session, used))
}
