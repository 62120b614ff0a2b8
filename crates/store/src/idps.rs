//! Providers of identity outside, whom they have sent, and who is on the way.

use crate::{
    CustomerStore, Result, Write, now_s, parse,
    sql::{Row, across},
};
use bastide_types::UserId;

/// A provider of identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdpRow {
    /// Whose users it knows; empty for members.
    pub stage: String,
    /// Id.
    pub id: String,
    /// What was decided about it, as JSON.
    pub config: String,
    /// Our secret there.
    pub secret: Option<String>,
    /// Our private key there, PKCS #8.
    pub private: Option<Vec<u8>>,
}

/// A browser on its way to a provider and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdpLogin {
    /// Whose users the provider knows; empty for members.
    pub stage: String,
    /// The provider.
    pub idp: String,
    /// Stage of the issuer that was asked; empty for members.
    pub issuer: String,
    /// Hash of the cookie of the browser.
    pub browser: [u8; 32],
    /// PKCE verifier.
    pub verifier: String,
    /// Value that binds the ID token to the request.
    pub nonce: String,
    /// The request that goes on afterwards.
    pub request: String,
    /// Seconds since 1970 at which it ends.
    pub until: i64,
}

impl CustomerStore<'_> {
    /// Providers of a stage's users, or of the members (`stage` empty).
    pub async fn idps(&self, stage: &str) -> Result<Vec<IdpRow>> {
        let rows = self.query(
            "SELECT stage, id, config, secret, private FROM idp WHERE customer = ? AND stage = ? ORDER BY id",
        )
        .bind(self.customer.to_string())
        .bind(stage)
        .fetch_all(&self.store.pool)
        .await?;
        rows.iter().map(|row| self.idp_row(row)).collect()
    }

    /// A provider.
    pub async fn idp(&self, stage: &str, id: &str) -> Result<Option<IdpRow>> {
        Ok(self.idps(stage).await?.into_iter().find(|row| row.id == id))
    }

    fn idp_row(&self, row: &Row) -> Result<IdpRow> {
        let (stage, id): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let open = |what: &str, sealed: Option<Vec<u8>>| {
            let place = self.idp_place(what, &stage, &id);
            sealed.map(|sealed| self.store.kek.open(&place, &sealed)).transpose()
        };
        let secret = open("secret", row.try_get(3)?)?;
        let secret = secret.map(|secret| String::from_utf8_lossy(&secret).into_owned());
        let private = open("private", row.try_get(4)?)?;
        Ok(IdpRow { config: row.try_get(2)?, secret, private, stage, id })
    }

    fn idp_place(&self, what: &str, stage: &str, id: &str) -> String {
        format!("idp_{what}/{}/{stage}/{id}", self.customer)
    }

    /// Adds a provider.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`] when there is one of this id.
    pub async fn add_idp(&self, write: &mut Write, idp: &IdpRow) -> Result<()> {
        let (secret, private) = self.sealed_idp(idp)?;
        self.query(
            "INSERT INTO idp (customer, stage, id, config, secret, private) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(&idp.stage)
        .bind(&idp.id)
        .bind(&idp.config)
        .bind(secret)
        .bind(private)
        .claim(write)
        .await?;
        Ok(())
    }

    /// Replaces what was decided about a provider, its secret and key; false when there is none of this id.
    pub async fn change_idp(&self, write: &mut Write, idp: &IdpRow) -> Result<bool> {
        let (secret, private) = self.sealed_idp(idp)?;
        let done = self.query(
            "UPDATE idp SET config = ?, secret = ?, private = ? WHERE customer = ? AND stage = ? AND id = ?",
        )
        .bind(&idp.config)
        .bind(secret)
        .bind(private)
        .bind(self.customer.to_string())
        .bind(&idp.stage)
        .bind(&idp.id)
        .execute(&mut **write)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    fn sealed_idp(&self, idp: &IdpRow) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>)> {
        let seal = |what: &str, value: Option<&[u8]>| {
            let place = self.idp_place(what, &idp.stage, &idp.id);
            value.map(|value| self.store.kek.seal(&place, value)).transpose()
        };
        let secret = seal("secret", idp.secret.as_deref().map(str::as_bytes))?;
        Ok((secret, seal("private", idp.private.as_deref())?))
    }

    /// Removes a provider. Whom it sent stays, and the sign-ins that came from it end; false when there is none.
    pub async fn remove_idp(&self, write: &mut Write, stage: &str, id: &str) -> Result<bool> {
        self.end_idp_sessions(write, stage, id, None, None).await?;
        let done = self
            .query("DELETE FROM idp WHERE customer = ? AND stage = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(stage)
            .bind(id)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Remembers a browser that goes to a provider.
    pub async fn add_idp_login(&self, write: &mut Write, hash: &[u8; 32], login: &IdpLogin) -> Result<()> {
        across("DELETE FROM idp_login WHERE until <= ?").bind(now_s()).execute(&mut **write).await?;
        self.query(
            "INSERT INTO idp_login (customer, hash, stage, idp, issuer, browser, verifier, nonce, request, until)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(&login.stage)
        .bind(&login.idp)
        .bind(&login.issuer)
        .bind(&login.browser[..])
        .bind(&login.verifier)
        .bind(&login.nonce)
        .bind(&login.request)
        .bind(login.until)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Takes what is remembered of a browser that comes back: once.
    pub async fn take_idp_login(&self, write: &mut Write, hash: &[u8; 32]) -> Result<Option<IdpLogin>> {
        let row = self
            .query(
                "DELETE FROM idp_login WHERE customer = ? AND hash = ? AND until > ?
             RETURNING stage, idp, issuer, browser, verifier, nonce, request, until",
            )
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(now_s())
            .fetch_optional(&mut **write)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let browser: Vec<u8> = row.try_get(3)?;
        Ok(Some(IdpLogin {
            stage: row.try_get(0)?,
            idp: row.try_get(1)?,
            issuer: row.try_get(2)?,
            browser: browser.try_into().unwrap_or([0; 32]),
            verifier: row.try_get(4)?,
            nonce: row.try_get(5)?,
            request: row.try_get(6)?,
            until: row.try_get(7)?,
        }))
    }

    /// Who somebody of a provider is here.
    pub async fn idp_link(&self, stage: &str, idp: &str, subject: &str) -> Result<Option<UserId>> {
        let row = self
            .query("SELECT member FROM idp_link WHERE customer = ? AND stage = ? AND idp = ? AND subject = ?")
            .bind(self.customer.to_string())
            .bind(stage)
            .bind(idp)
            .bind(subject)
            .fetch_optional(&self.store.pool)
            .await?;
        row.map(|row| parse(row.try_get(0)?)).transpose()
    }

    /// Notes who somebody of a provider is here.
    pub async fn link_idp(
        &self,
        write: &mut Write,
        stage: &str,
        idp: &str,
        subject: &str,
        member: UserId,
    ) -> Result<()> {
        self.query("INSERT INTO idp_link (customer, stage, idp, subject, member) VALUES (?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(stage)
            .bind(idp)
            .bind(subject)
            .bind(member.to_string())
            .claim(write)
            .await?;
        Ok(())
    }

    /// Accepts an invitation for whoever a provider has proven to have the address: the account is active, without a
    /// password.
    pub async fn activate(&self, write: &mut Write, member: UserId) -> Result<bool> {
        let done = self.query(
            "UPDATE member SET state = 'active', verified = 1 WHERE customer = ? AND id = ? AND state = 'invited'",
        )
        .bind(self.customer.to_string())
        .bind(member.to_string())
        .execute(&mut **write)
        .await?;
        self.query("DELETE FROM invitation WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes that a sign-in came from a provider.
    pub async fn note_idp_session(
        &self,
        write: &mut Write,
        session: &str,
        (stage, idp): (&str, &str),
        subject: &str,
        sid: Option<&str>,
    ) -> Result<()> {
        self.query(
            "INSERT INTO idp_session (customer, session, stage, idp, subject, sid) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(session)
        .bind(stage)
        .bind(idp)
        .bind(subject)
        .bind(sid)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Ends the sign-ins that came from a provider: all, of one subject, or of one of its sessions. How many there were.
    pub async fn end_idp_sessions(
        &self,
        write: &mut Write,
        stage: &str,
        idp: &str,
        subject: Option<&str>,
        sid: Option<&str>,
    ) -> Result<usize> {
        let rows = self
            .query(
                "SELECT session FROM idp_session WHERE customer = ?1 AND stage = ?2 AND idp = ?3
             AND (?4 IS NULL OR subject = ?4) AND (?5 IS NULL OR sid = ?5)",
            )
            .bind(self.customer.to_string())
            .bind(stage)
            .bind(idp)
            .bind(subject)
            .bind(sid)
            .fetch_all(&mut **write)
            .await?;
        for row in &rows {
            self.delete_session(write, row.try_get(0)?).await?;
        }
        Ok(rows.len())
    }

    /// Counts a logout token; false when it counted before.
    pub async fn take_idp_logout(&self, write: &mut Write, hash: &[u8; 32], until: i64) -> Result<bool> {
        across("DELETE FROM idp_logout WHERE until <= ?").bind(now_s()).execute(&mut **write).await?;
        let done = self
            .query("INSERT INTO idp_logout (customer, hash, until) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(until)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
