//! Members, sessions, codes.

use crate::{CustomerStore, Result, SessionUse, Write, from_json, now_s, parse, sql::Row, to_json};
use bastide_types::{Acr, AppId, StageName, UserId};

/// A member, or an end user of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    /// Id.
    pub id: UserId,
    /// The stage whose end user it is; empty for members.
    pub stage: String,
    /// E-mail address, lower case.
    pub email: String,
    /// Name to show.
    pub name: String,
    /// `invited`, `active` or `inactive`.
    pub state: String,
    /// Organization roles; end users have none.
    pub roles: Vec<String>,
    /// Argon2id hash, once a password was chosen.
    pub password: Option<String>,
    /// Whether mail has proven the address.
    pub verified: bool,
}

impl MemberRow {
    /// Somebody who is invited to a stage, or to the organization (`stage` empty).
    pub fn invited(stage: &str, email: &str, name: &str, roles: Vec<String>) -> Self {
        Self {
            id: UserId::generate(),
            stage: stage.to_owned(),
            email: email.to_owned(),
            name: name.to_owned(),
            state: "invited".to_owned(),
            roles,
            password: None,
            verified: false,
        }
    }
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
    /// How well that is secured.
    pub acr: Acr,
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
    /// Adds an invited member.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`] when the address is a member's already.
    pub async fn add_member(&self, write: &mut Write, member: &MemberRow) -> Result<()> {
        self.query("INSERT INTO member (customer, id, stage, email, name, state, roles, password, verified) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(member.id.to_string())
            .bind(&member.stage)
            .bind(&member.email)
            .bind(&member.name)
            .bind(&member.state)
            .bind(to_json(&member.roles)?)
            .bind(&member.password)
            .bind(member.verified)
            .claim(write)
.await?;
        Ok(())
    }

    /// Adds an invited member, or changes one who has not accepted yet; earlier links of that one stop
    /// working. `None` when the address belongs to somebody who accepted.
    pub async fn renew_invited(&self, write: &mut Write, member: &MemberRow) -> Result<Option<UserId>> {
        let row = self.query(
            "INSERT INTO member (customer, id, stage, email, name, state, roles) VALUES (?, ?, ?, ?, ?, 'invited', ?)
             ON CONFLICT (customer, stage, email) DO UPDATE SET name = excluded.name, roles = excluded.roles
             WHERE member.state = 'invited' RETURNING id",
        )
        .bind(self.customer.to_string())
        .bind(member.id.to_string())
        .bind(&member.stage)
        .bind(&member.email)
        .bind(&member.name)
        .bind(to_json(&member.roles)?)
        .fetch_optional(&mut **write)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let id: UserId = parse(row.try_get(0)?)?;
        self.query("DELETE FROM invitation WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(id.to_string())
            .execute(&mut **write)
            .await?;
        Ok(Some(id))
    }

    /// All members.
    pub async fn members(&self) -> Result<Vec<MemberRow>> {
        let rows = self
            .query("SELECT * FROM member WHERE customer = ? AND stage = '' ORDER BY email")
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(member_row).collect()
    }

    /// At most so many members whose addresses come after this one.
    pub async fn members_after(&self, after: &str, most: u32) -> Result<Vec<MemberRow>> {
        let rows = self
            .query(
                "SELECT * FROM member WHERE customer = ? AND stage = '' AND email > ? ORDER BY email LIMIT ?",
            )
            .bind(self.customer.to_string())
            .bind(after)
            .bind(most)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(member_row).collect()
    }

    /// A member or an end user by id.
    pub async fn member(&self, id: UserId) -> Result<Option<MemberRow>> {
        let row = self
            .query("SELECT * FROM member WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(member_row).transpose()
    }

    /// A member by address.
    pub async fn member_with_email(&self, email: &str) -> Result<Option<MemberRow>> {
        self.user_with_email("", email).await
    }

    /// Stores an invitation by its hash.
    pub async fn add_invitation(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        member: UserId,
        until: i64,
    ) -> Result<()> {
        self.add_invitation_by(write, hash, member, until, false).await
    }

    /// The same; with `mailed`, it goes by mail: whoever has it has the address.
    pub async fn add_invitation_by(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        member: UserId,
        until: i64,
        mailed: bool,
    ) -> Result<()> {
        self.query("INSERT INTO invitation (customer, hash, member, until, mailed) VALUES (?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(member.to_string())
            .bind(until)
            .bind(mailed)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Who an invitation is for, while it is good, and until when that is, in seconds since 1970.
    pub async fn invitation(&self, hash: &[u8; 32]) -> Result<Option<(UserId, i64)>> {
        let row = self.query(
            "SELECT member, until FROM invitation WHERE customer = ? AND hash = ? AND used = 0 AND until > ?",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(now_s())
        .fetch_optional(&self.store.pool)
        .await?;
        row.map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?))).transpose()
    }

    /// Uses an invitation: the member gets this password and becomes active. `None` when it was not good
    /// any more.
    pub async fn accept_invitation(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        password: &str,
    ) -> Result<Option<UserId>> {
        let row = self.query(
            "UPDATE invitation SET used = 1 WHERE customer = ? AND hash = ? AND used = 0 AND until > ? RETURNING member, mailed",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(now_s())
        .fetch_optional(&mut **write)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let (member, mailed): (UserId, bool) = (parse(row.try_get(0)?)?, row.try_get(1)?);
        self.query("UPDATE member SET password = ?, state = 'active', verified = CASE WHEN ? = 1 THEN 1 ELSE verified END WHERE customer = ? AND id = ?")
            .bind(password)
            .bind(mailed)
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        Ok(Some(member))
    }

    /// Begins a session; returns its id.
    pub async fn add_session(&self, write: &mut Write, new: &NewSession<'_>) -> Result<String> {
        let id = uuid::Uuid::now_v7().to_string();
        self.forget_expired(write).await?;
        self.query(
            "INSERT INTO session (customer, id, kind, hash, parent, member, until, since, seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
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

    /// Forgets sessions whose time is over. What came of a sign-in and may live longer goes on alone.
    async fn forget_expired(&self, write: &mut Write) -> Result<()> {
        self.query(
            "UPDATE session SET parent = NULL WHERE customer = ?1 AND until >= ?2
             AND parent IN (SELECT id FROM session WHERE customer = ?1 AND until < ?2)",
        )
        .bind(self.customer.to_string())
        .bind(now_s())
        .execute(&mut **write)
        .await?;
        self.query("DELETE FROM session WHERE customer = ? AND until < ?")
            .bind(self.customer.to_string())
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// A session of this kind by the hash of its secret, while it lives.
    pub async fn session(&self, kind: &str, hash: &[u8; 32]) -> Result<Option<SessionRow>> {
        let row = self.query("SELECT id, member, until FROM session WHERE customer = ? AND kind = ? AND hash = ? AND until > ?")
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
        let row = self
            .query(
                "SELECT COALESCE(parent, id), member FROM session
                 WHERE customer = ?1 AND (hash = ?2 OR former = ?2 AND former_until > ?3)",
            )
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(now_s())
            .fetch_optional(&mut **write)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let sign_in: String = row.try_get(0)?;
        self.delete_session(write, &sign_in).await?;
        Ok(Some(parse(row.try_get(1)?)?))
    }

    /// Stores an authorization code.
    pub async fn add_code(&self, write: &mut Write, hash: &[u8; 32], code: &CodeRow) -> Result<()> {
        // Kept for an hour after their end, so that a second use is noticed.
        self.query("DELETE FROM code WHERE customer = ? AND until < ?")
            .bind(self.customer.to_string())
            .bind(now_s() - 3600)
            .execute(&mut **write)
            .await?;
        self.query("INSERT INTO code (customer, hash, client, redirect_uri, challenge, resource, member, parent, until, stage, scope, nonce, since, acr) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
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
            .bind(code.acr.as_str())
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Takes a code: the second time it ends what came of the first.
    pub async fn take_code(&self, write: &mut Write, hash: &[u8; 32]) -> Result<CodeOutcome> {
        let row = self.query(
            "UPDATE code SET taken = taken + 1 WHERE customer = ? AND hash = ?
             RETURNING client, redirect_uri, challenge, resource, member, parent, taken, session, until, stage, scope, nonce, since, acr",
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
            acr: parse(row.try_get(13)?)?,
            until,
        }))
    }

    /// Remembers which session came of a code; false when the code was used again meanwhile.
    pub async fn code_became(&self, write: &mut Write, hash: &[u8; 32], session: &str) -> Result<bool> {
        let done = self
            .query("UPDATE code SET session = ? WHERE customer = ? AND hash = ? AND taken = 1")
            .bind(session)
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// When the session of this id ends, in seconds since 1970.
    pub async fn session_until(&self, write: &mut Write, id: &str) -> Result<Option<i64>> {
        let row = self
            .query("SELECT until FROM session WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id)
            .fetch_optional(&mut **write)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Ends the session of this id with all that came of it, and revokes their tokens.
    pub async fn delete_session(&self, write: &mut Write, id: &str) -> Result<()> {
        let ended = self
            .query("SELECT id FROM session WHERE customer = ?1 AND (id = ?2 OR parent = ?2)")
            .bind(self.customer.to_string())
            .bind(id)
            .fetch_all(&mut **write)
            .await?;
        for row in ended {
            self.revoke_session(write, row.try_get(0)?).await?;
        }
        self.query("DELETE FROM session WHERE customer = ? AND id = ?")
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
        let done = self.query(
            "INSERT INTO app_role (customer, stage, app, role, member) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(role)
        .bind(member.to_string())
        .execute(&mut **write)
        .await?;
        if done.rows_affected() == 1 { self.revoke_member(write, member).await } else { Ok(()) }
    }

    /// Takes a role from a member and revokes the tokens that may name it; false when the member had it not.
    pub async fn revoke_app_role(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        role: &str,
        member: UserId,
    ) -> Result<bool> {
        let done = self.query(
            "DELETE FROM app_role WHERE customer = ? AND stage = ? AND app = ? AND role = ? AND member = ?",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(role)
        .bind(member.to_string())
        .execute(&mut **write)
        .await?;
        let had = done.rows_affected() == 1;
        if had {
            self.revoke_member(write, member).await?;
        }
        Ok(had)
    }

    /// Gives a member other organization roles and revokes the tokens with the former ones; false when there is no
    /// such member.
    pub async fn set_member_roles(
        &self,
        write: &mut Write,
        member: UserId,
        roles: &[String],
    ) -> Result<bool> {
        let done = self
            .query("UPDATE member SET roles = ? WHERE customer = ? AND id = ?")
            .bind(to_json(&roles)?)
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        self.revoke_member(write, member).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Organization roles of each active member other than this one, as the transaction sees them.
    pub async fn roles_of_others(&self, write: &mut Write, member: UserId) -> Result<Vec<Vec<String>>> {
        let rows = self
            .query(
                "SELECT roles FROM member WHERE customer = ? AND stage = '' AND id != ? AND state = 'active'",
            )
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .fetch_all(&mut **write)
            .await?;
        rows.iter().map(|row| from_json(row.try_get(0)?)).collect()
    }

    /// Suspends a member, which ends their sessions and revokes their tokens, or lets them sign in again; false when
    /// there is no member who accepted an invitation.
    pub async fn suspend_member(&self, write: &mut Write, member: UserId, suspended: bool) -> Result<bool> {
        let done = self
            .query("UPDATE member SET state = ? WHERE customer = ? AND id = ? AND state != 'invited'")
            .bind(if suspended { "inactive" } else { "active" })
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        if suspended {
            self.end_sessions_of(write, member).await?;
        }
        Ok(done.rows_affected() == 1)
    }

    /// App roles of one member or end user for one app in one stage: given to that user, or to a group of it.
    pub async fn app_roles_of(&self, stage: &StageName, app: AppId, member: UserId) -> Result<Vec<String>> {
        let rows = self
            .query(
                "SELECT role FROM app_role WHERE customer = ?1 AND stage = ?2 AND app = ?3 AND member = ?4
             UNION SELECT r.role FROM group_user u
                   JOIN group_role r ON r.customer = u.customer AND r.stage = u.stage AND r.name = u.name
                   WHERE u.customer = ?1 AND u.stage = ?2 AND r.app = ?3 AND u.member = ?4
             ORDER BY 1",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .bind(member.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Roles of an app that somebody has: stage, role, member or end user.
    pub async fn app_roles(&self, app: AppId) -> Result<Vec<(StageName, String, MemberRow)>> {
        let rows = self
            .query(
                "SELECT r.stage AS place, r.role AS given, m.* FROM app_role r
             JOIN member m ON m.customer = r.customer AND m.id = r.member
             WHERE r.customer = ? AND r.app = ? ORDER BY r.stage, r.role, m.email",
            )
            .bind(self.customer.to_string())
            .bind(app.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((parse(row.try_get("place")?)?, row.try_get("given")?, member_row(row)?)))
            .collect()
    }
}

pub(crate) fn member_row(row: &Row) -> Result<MemberRow> {
    Ok(MemberRow {
        id: parse(row.try_get("id")?)?,
        stage: row.try_get("stage")?,
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        state: row.try_get("state")?,
        roles: from_json(row.try_get("roles")?)?,
        password: row.try_get("password")?,
        verified: row.try_get("verified")?,
    })
}

pub(crate) fn session_row(row: &Row) -> Result<SessionRow> {
    Ok(SessionRow { id: row.try_get(0)?, member: parse(row.try_get(1)?)?, until: row.try_get(2)? })
}
