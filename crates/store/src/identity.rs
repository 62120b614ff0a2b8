//! Issuers' keys, members, sessions, codes.

use crate::{
    CustomerStore, Result, SessionUse, Write, from_json, now_s, parse, raise_revision, taken, to_json,
};
use bastide_types::{AppId, StageName, UserId, snapshot::VerifyingKey};
use sqlx::{Row, sqlite::SqliteRow};

/// A signing key with its private half.
pub struct SigningKeyRow {
    /// Public half.
    pub public: VerifyingKey,
    /// PKCS #8.
    pub private: Vec<u8>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    /// Id.
    pub id: UserId,
    /// E-mail address, lower case.
    pub email: String,
    /// Name to show.
    pub name: String,
    /// `invited`, `active` or `inactive`.
    pub state: String,
    /// Organization roles.
    pub roles: Vec<String>,
    /// Argon2id hash, once a password was chosen.
    pub password: Option<String>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Id.
    pub id: String,
    /// Whose.
    pub member: UserId,
    /// Seconds since 1970 at which it ends.
    pub until: i64,
}

/// An authorization code, taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRow {
    /// Client.
    pub client: String,
    /// Redirect URI.
    pub redirect_uri: String,
    /// PKCE challenge.
    pub challenge: String,
    /// Resource asked for.
    pub resource: Option<String>,
    /// Who signed in.
    pub member: UserId,
    /// Id of the sign-in that it came from.
    pub parent: String,
    /// Stage of the issuer that was asked; empty for members.
    pub stage: String,
    /// Scopes that were given, with spaces between.
    pub scope: String,
    /// Value that the client binds the ID token to.
    pub nonce: Option<String>,
    /// Seconds since 1970 at which the member signed in.
    pub since: i64,
    /// Seconds since 1970 at which it ends.
    pub until: i64,
}

/// A session to begin.
pub struct NewSession<'a> {
    /// `provider`, `browser` or `program`.
    pub kind: &'a str,
    /// Hash of its secret, or of its first refresh token.
    pub hash: &'a [u8; 32],
    /// Session that it ends with.
    pub parent: Option<&'a str>,
    /// Whose.
    pub member: UserId,
    /// Seconds since 1970 at which it ends.
    pub until: i64,
}

/// What became of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeOutcome {
    /// It was good, once.
    Taken(CodeRow),
    /// It was taken before: what came of it has ended.
    Reused,
    /// It is not known, or too old.
    Unknown,
}

/// What became of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// It was good; its successor is stored.
    Rotated(SessionRow, SessionUse),
    /// It was used before: the session has ended.
    Reused,
    /// It is not known to this client and issuer, or its session has ended.
    Unknown,
}

impl CustomerStore<'_> {
    /// Adds a key to the issuer of `stage` (`None`: of members).
    pub async fn add_signing_key(
        &self,
        write: &mut Write,
        stage: Option<&StageName>,
        public: &VerifyingKey,
        private: &[u8],
    ) -> Result<()> {
        let sealed = self.store.kek.seal(&self.key_place(&public.kid), private)?;
        sqlx::query("INSERT INTO signing_key (customer, stage, kid, x, private) VALUES (?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(stage.map_or("", StageName::as_str))
            .bind(&public.kid)
            .bind(&public.x)
            .bind(sealed)
            .execute(&mut **write)
            .await?;
        raise_revision(write).await
    }

    /// Keys of an issuer.
    pub async fn signing_keys(&self, stage: Option<&StageName>) -> Result<Vec<SigningKeyRow>> {
        let rows = sqlx::query("SELECT kid, x, private FROM signing_key WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.map_or("", StageName::as_str))
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let public = VerifyingKey { kid: row.try_get(0)?, x: row.try_get(1)? };
                let sealed: Vec<u8> = row.try_get(2)?;
                let private = self.store.kek.open(&self.key_place(&public.kid), &sealed)?;
                Ok(SigningKeyRow { public, private })
            })
            .collect()
    }

    fn key_place(&self, kid: &str) -> String {
        format!("signing_key/{}/{kid}", self.customer)
    }

    /// Adds an invited member.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`] when the address is a member's already.
    pub async fn add_member(&self, write: &mut Write, member: &MemberRow) -> Result<()> {
        sqlx::query("INSERT INTO member (customer, id, email, name, state, roles, password) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(member.id.to_string())
            .bind(&member.email)
            .bind(&member.name)
            .bind(&member.state)
            .bind(to_json(&member.roles)?)
            .bind(&member.password)
            .execute(&mut **write)
            .await
            .map_err(taken)?;
        Ok(())
    }

    /// Adds an invited member, or changes one who has not accepted yet; earlier links of that one stop
    /// working. `None` when the address belongs to somebody who accepted.
    pub async fn renew_invited(&self, write: &mut Write, member: &MemberRow) -> Result<Option<UserId>> {
        let row = sqlx::query(
            "INSERT INTO member (customer, id, email, name, state, roles) VALUES (?, ?, ?, ?, 'invited', ?)
             ON CONFLICT (customer, email) DO UPDATE SET name = excluded.name, roles = excluded.roles
             WHERE member.state = 'invited' RETURNING id",
        )
        .bind(self.customer.to_string())
        .bind(member.id.to_string())
        .bind(&member.email)
        .bind(&member.name)
        .bind(to_json(&member.roles)?)
        .fetch_optional(&mut **write)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let id: UserId = parse(row.try_get(0)?)?;
        sqlx::query("DELETE FROM invitation WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(id.to_string())
            .execute(&mut **write)
            .await?;
        Ok(Some(id))
    }

    /// All members.
    pub async fn members(&self) -> Result<Vec<MemberRow>> {
        let rows = sqlx::query("SELECT * FROM member WHERE customer = ? ORDER BY email")
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(member_row).collect()
    }

    /// A member by id.
    pub async fn member(&self, id: UserId) -> Result<Option<MemberRow>> {
        let row = sqlx::query("SELECT * FROM member WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(member_row).transpose()
    }

    /// A member by address.
    pub async fn member_with_email(&self, email: &str) -> Result<Option<MemberRow>> {
        let row = sqlx::query("SELECT * FROM member WHERE customer = ? AND email = ?")
            .bind(self.customer.to_string())
            .bind(email)
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(member_row).transpose()
    }

    /// Stores an invitation by its hash.
    pub async fn add_invitation(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        member: UserId,
        until: i64,
    ) -> Result<()> {
        sqlx::query("INSERT INTO invitation (customer, hash, member, until) VALUES (?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(member.to_string())
            .bind(until)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Who an invitation is for, while it is good.
    pub async fn invitation(&self, hash: &[u8; 32]) -> Result<Option<UserId>> {
        let row = sqlx::query(
            "SELECT member FROM invitation WHERE customer = ? AND hash = ? AND used = 0 AND until > ?",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(now_s())
        .fetch_optional(&self.store.pool)
        .await?;
        row.map(|row| parse(row.try_get(0)?)).transpose()
    }

    /// Uses an invitation: the member gets this password and becomes active. `None` when it was not good
    /// any more.
    pub async fn accept_invitation(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        password: &str,
    ) -> Result<Option<UserId>> {
        let row = sqlx::query(
            "UPDATE invitation SET used = 1 WHERE customer = ? AND hash = ? AND used = 0 AND until > ? RETURNING member",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(now_s())
        .fetch_optional(&mut **write)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let member: UserId = parse(row.try_get(0)?)?;
        sqlx::query("UPDATE member SET password = ?, state = 'active' WHERE customer = ? AND id = ?")
            .bind(password)
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        Ok(Some(member))
    }

    /// Counts a try to sign in as if it failed, unless the address is locked: then `Err` holds the seconds
    /// to wait. A success takes the count back. The write lock is held from the look to the count, so that
    /// parallel guesses cannot pass the limit.
    pub async fn count_login(&self, email: &str, free_tries: i64) -> Result<std::result::Result<(), i64>> {
        let now = now_s();
        let mut write = self.store.write().await?;
        let row = sqlx::query("SELECT failures, until FROM login_counter WHERE customer = ? AND email = ?")
            .bind(self.customer.to_string())
            .bind(email)
            .fetch_optional(&mut *write)
            .await?;
        let (failures, until): (i64, i64) = match row {
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
            None => (0, 0),
        };
        if until > now {
            return Ok(Err(until - now));
        }
        let failures = failures + 1;
        // After the free tries: 2, 4, 8 … 300 s.
        let wait = if failures >= free_tries {
            1_i64.checked_shl((failures - free_tries + 1).min(9) as u32).unwrap_or(300).min(300)
        } else {
            0
        };
        sqlx::query(
            "INSERT INTO login_counter (customer, email, failures, until, touched) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (customer, email) DO UPDATE SET failures = ?3, until = ?4, touched = ?5",
        )
        .bind(self.customer.to_string())
        .bind(email)
        .bind(failures)
        .bind(now + wait)
        .bind(now)
        .execute(&mut *write)
        .await?;
        // Addresses that nobody tried for a day are forgotten: the table stays small.
        sqlx::query("DELETE FROM login_counter WHERE touched < ?")
            .bind(now - 86_400)
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(Ok(()))
    }

    /// Forgets the failures of an address after a success.
    pub async fn reset_login(&self, write: &mut Write, email: &str) -> Result<()> {
        sqlx::query("DELETE FROM login_counter WHERE customer = ? AND email = ?")
            .bind(self.customer.to_string())
            .bind(email)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Begins a session; returns its id.
    pub async fn add_session(&self, write: &mut Write, new: &NewSession<'_>) -> Result<String> {
        let id = uuid::Uuid::now_v7().to_string();
        sqlx::query("DELETE FROM session WHERE customer = ? AND until < ?")
            .bind(self.customer.to_string())
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        sqlx::query(
            "INSERT INTO session (customer, id, kind, hash, parent, member, until, since) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(&id)
        .bind(new.kind)
        .bind(&new.hash[..])
        .bind(new.parent)
        .bind(new.member.to_string())
        .bind(new.until)
        .bind(now_s())
        .execute(&mut **write)
        .await?;
        Ok(id)
    }

    /// A session of this kind by the hash of its secret, while it lives.
    pub async fn session(&self, kind: &str, hash: &[u8; 32]) -> Result<Option<SessionRow>> {
        let row = sqlx::query("SELECT id, member, until FROM session WHERE customer = ? AND kind = ? AND hash = ? AND until > ?")
            .bind(self.customer.to_string())
            .bind(kind)
            .bind(&hash[..])
            .bind(now_s())
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(session_row).transpose()
    }

    /// Ends the session of this secret with all that came of the same sign-in in browsers. Returns whose
    /// it was.
    pub async fn end_session(&self, write: &mut Write, hash: &[u8; 32]) -> Result<Option<UserId>> {
        let row = sqlx::query(
            "DELETE FROM session WHERE customer = ?1 AND id = (
                 SELECT COALESCE(parent, id) FROM session WHERE customer = ?1 AND hash = ?2) RETURNING member",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .fetch_optional(&mut **write)
        .await?;
        row.map(|row| parse(row.try_get(0)?)).transpose()
    }

    /// Stores an authorization code.
    pub async fn add_code(&self, write: &mut Write, hash: &[u8; 32], code: &CodeRow) -> Result<()> {
        // Kept for an hour after their end, so that a second use is noticed.
        sqlx::query("DELETE FROM code WHERE customer = ? AND until < ?")
            .bind(self.customer.to_string())
            .bind(now_s() - 3600)
            .execute(&mut **write)
            .await?;
        sqlx::query("INSERT INTO code (customer, hash, client, redirect_uri, challenge, resource, member, parent, until, stage, scope, nonce, since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(&code.client)
            .bind(&code.redirect_uri)
            .bind(&code.challenge)
            .bind(&code.resource)
            .bind(code.member.to_string())
            .bind(&code.parent)
            .bind(code.until)
            .bind(&code.stage)
            .bind(&code.scope)
            .bind(&code.nonce)
            .bind(code.since)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Takes a code: the second time it ends what came of the first.
    pub async fn take_code(&self, write: &mut Write, hash: &[u8; 32]) -> Result<CodeOutcome> {
        let row = sqlx::query(
            "UPDATE code SET taken = taken + 1 WHERE customer = ? AND hash = ?
             RETURNING client, redirect_uri, challenge, resource, member, parent, taken, session, until, stage, scope, nonce, since",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .fetch_optional(&mut **write)
        .await?;
        let Some(row) = row else { return Ok(CodeOutcome::Unknown) };
        let (taken, session, until): (i64, Option<String>, i64) =
            (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
        if taken > 1 {
            let member: String = row.try_get(4)?;
            self.delete_session(write, session.as_deref().unwrap_or_default()).await?;
            self.audit(write, &member, "session.ended", "a code was used twice").await?;
            return Ok(CodeOutcome::Reused);
        }
        if until <= now_s() {
            return Ok(CodeOutcome::Unknown);
        }
        Ok(CodeOutcome::Taken(CodeRow {
            client: row.try_get(0)?,
            redirect_uri: row.try_get(1)?,
            challenge: row.try_get(2)?,
            resource: row.try_get(3)?,
            member: parse(row.try_get(4)?)?,
            parent: row.try_get(5)?,
            stage: row.try_get(9)?,
            scope: row.try_get(10)?,
            nonce: row.try_get(11)?,
            since: row.try_get(12)?,
            until,
        }))
    }

    /// Remembers which session came of a code; false when the code was used again meanwhile.
    pub async fn code_became(&self, write: &mut Write, hash: &[u8; 32], session: &str) -> Result<bool> {
        let done = sqlx::query("UPDATE code SET session = ? WHERE customer = ? AND hash = ? AND taken = 1")
            .bind(session)
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// When the session of this id ends, in seconds since 1970.
    pub async fn session_until(&self, write: &mut Write, id: &str) -> Result<Option<i64>> {
        let row = sqlx::query("SELECT until FROM session WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id)
            .fetch_optional(&mut **write)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Ends the session of this id with all that came of it.
    pub async fn delete_session(&self, write: &mut Write, id: &str) -> Result<()> {
        sqlx::query("DELETE FROM session WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Gives a member a role of an app in a stage.
    pub async fn grant_app_role(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        role: &str,
        member: UserId,
    ) -> Result<()> {
        sqlx::query(
            "INSERT OR IGNORE INTO app_role (customer, stage, app, role, member) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(role)
        .bind(member.to_string())
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// App roles of one member for one app in one stage.
    pub async fn app_roles_of(&self, stage: &StageName, app: AppId, member: UserId) -> Result<Vec<String>> {
        let rows = sqlx::query(
            "SELECT role FROM app_role WHERE customer = ? AND stage = ? AND app = ? AND member = ? ORDER BY role",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(member.to_string())
        .fetch_all(&self.store.pool)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Roles of an app: stage, role, member.
    pub async fn app_roles(&self, app: AppId) -> Result<Vec<(StageName, String, UserId)>> {
        let rows = sqlx::query(
            "SELECT stage, role, member FROM app_role WHERE customer = ? AND app = ? ORDER BY stage, role",
        )
        .bind(self.customer.to_string())
        .bind(app.to_string())
        .fetch_all(&self.store.pool)
        .await?;
        rows.iter()
            .map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?, parse(row.try_get(2)?)?)))
            .collect()
    }
}

fn member_row(row: &SqliteRow) -> Result<MemberRow> {
    Ok(MemberRow {
        id: parse(row.try_get("id")?)?,
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        state: row.try_get("state")?,
        roles: from_json(row.try_get("roles")?)?,
        password: row.try_get("password")?,
    })
}

fn session_row(row: &SqliteRow) -> Result<SessionRow> {
    Ok(SessionRow { id: row.try_get(0)?, member: parse(row.try_get(1)?)?, until: row.try_get(2)? })
}
