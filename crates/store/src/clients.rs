//! Registered clients and their secrets.

use crate::{
    CustomerStore, Result, Store, Write, from_json, now_s, parse,
    sql::{Row, across},
    to_json,
};
use bastide_types::CustomerId;
use std::collections::BTreeMap;

/// A client that an administrator registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRow {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `public`, `confidential`, `service` or `device`.
    pub kind: String,
    /// Where answers may go, exactly.
    pub redirect_uris: Vec<String>,
    /// Where a browser may go after sign-out, exactly.
    pub post_logout_redirect_uris: Vec<String>,
    /// Organization roles: those of a service, and for others the most that a member's token carries.
    pub roles: Vec<String>,
    /// Whether it may do nothing at the moment.
    pub suspended: bool,
    /// Where it hears that a session of its users has ended.
    pub backchannel_logout_uri: Option<String>,
}

impl ClientRow {
    /// An API client.
    pub fn service(id: &str, roles: Vec<String>) -> Self {
        Self {
            id: id.to_owned(),
            name: id.to_owned(),
            kind: "service".to_owned(),
            redirect_uris: Vec::new(),
            post_logout_redirect_uris: Vec::new(),
            roles,
            suspended: false,
            backchannel_logout_uri: None,
        }
    }
}

/// A secret of a client, without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSecretRow {
    /// Id.
    pub id: String,
    /// Seconds since 1970 at which it ends.
    pub until: Option<i64>,
}

const COLUMNS: &str =
    "id, name, kind, redirect_uris, post_logout_redirect_uris, roles, suspended, backchannel_logout_uri";

impl Store {
    /// Secrets of clients that end before a time and whose administrators were not told: customer, client, id, end.
    pub async fn secrets_ending(&self, before: i64) -> Result<Vec<(CustomerId, String, String, i64)>> {
        let rows = across(
            "SELECT customer, client, id, until FROM client_secret WHERE until > ? AND until <= ? AND reminded = 0 LIMIT 100",
        )
        .bind(now_s())
        .bind(before)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)))
            .collect()
    }
}

impl CustomerStore<'_> {
    /// Notes that administrators were told of the end of a secret.
    pub async fn note_reminded(&self, write: &mut Write, client: &str, secret: &str) -> Result<()> {
        self.query("UPDATE client_secret SET reminded = 1 WHERE customer = ? AND client = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(secret)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Registers a client.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`] when the id is.
    pub async fn add_client(&self, write: &mut Write, client: &ClientRow) -> Result<()> {
        self.query(
            "INSERT INTO client (customer, id, name, kind, redirect_uris, post_logout_redirect_uris, roles, suspended, backchannel_logout_uri)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(&client.id)
        .bind(&client.name)
        .bind(&client.kind)
        .bind(to_json(&client.redirect_uris)?)
        .bind(to_json(&client.post_logout_redirect_uris)?)
        .bind(to_json(&client.roles)?)
        .bind(client.suspended)
        .bind(&client.backchannel_logout_uri)
        .claim(write)
.await?;
        Ok(())
    }

    /// Registers a service with this one secret; of an existing one, roles and secrets are replaced, unless this
    /// secret is its only one already.
    pub async fn put_client(&self, write: &mut Write, client: &ClientRow, hash: &[u8; 32]) -> Result<()> {
        let known = self
            .query("UPDATE client SET roles = ? WHERE customer = ? AND id = ?")
            .bind(to_json(&client.roles)?)
            .bind(self.customer.to_string())
            .bind(&client.id)
            .execute(&mut **write)
            .await?;
        if known.rows_affected() == 0 {
            self.add_client(write, client).await?;
        }
        let secrets = self
            .query("SELECT id, hash FROM client_secret WHERE customer = ? AND client = ?")
            .bind(self.customer.to_string())
            .bind(&client.id)
            .fetch_all(&mut **write)
            .await?;
        if let [only] = &secrets[..]
            && only.try_get::<&[u8], _>(1)? == hash
        {
            return Ok(());
        }
        for secret in &secrets {
            self.remove_client_secret(write, &client.id, secret.try_get(0)?).await?;
        }
        self.insert_secret(write, &client.id, &uuid::Uuid::now_v7().to_string(), hash, None).await
    }

    /// All clients.
    pub async fn clients(&self) -> Result<Vec<ClientRow>> {
        let query = format!("SELECT {COLUMNS} FROM client WHERE customer = ? ORDER BY id");
        let rows = self
            .query(sqlx::AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(client_row).collect()
    }

    /// At most so many clients whose ids come after this one.
    pub async fn clients_after(&self, after: &str, most: u32) -> Result<Vec<ClientRow>> {
        let query = format!("SELECT {COLUMNS} FROM client WHERE customer = ? AND id > ? ORDER BY id LIMIT ?");
        let rows = self
            .query(sqlx::AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .bind(after)
            .bind(most)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(client_row).collect()
    }

    /// Secrets that have not ended, of the clients after this one up to that one.
    pub async fn client_secrets_between(
        &self,
        after: &str,
        last: &str,
    ) -> Result<BTreeMap<String, Vec<ClientSecretRow>>> {
        let rows = self
            .query(
                "SELECT client, id, until FROM client_secret WHERE customer = ? AND client > ? AND client <= ?
                 AND (until IS NULL OR until > ?) ORDER BY client, id",
            )
            .bind(self.customer.to_string())
            .bind(after)
            .bind(last)
            .bind(now_s())
            .fetch_all(&self.store.pool)
            .await?;
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for row in rows {
            let secret = ClientSecretRow { id: row.try_get(1)?, until: row.try_get(2)? };
            all.entry(row.try_get(0)?).or_default().push(secret);
        }
        Ok(all)
    }

    /// A client by id.
    pub async fn client_with_id(&self, id: &str) -> Result<Option<ClientRow>> {
        let query = format!("SELECT {COLUMNS} FROM client WHERE customer = ? AND id = ?");
        let row = self
            .query(sqlx::AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .bind(id)
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(client_row).transpose()
    }

    /// A client that is not suspended, if the hash is that of one of its secrets; and the grant of that secret, which
    /// tokens carry in place of a session.
    pub async fn client(&self, id: &str, hash: &[u8; 32]) -> Result<Option<(ClientRow, String)>> {
        let good = self.query(
            "SELECT id FROM client_secret WHERE customer = ? AND client = ? AND hash = ? AND (until IS NULL OR until > ?)",
        )
        .bind(self.customer.to_string())
        .bind(id)
        .bind(&hash[..])
        .bind(now_s())
        .fetch_optional(&self.store.pool)
        .await?;
        let Some(good) = good else { return Ok(None) };
        let grant = grant_of(id, good.try_get(0)?);
        let client = self.client_with_id(id).await?.filter(|client| !client.suspended);
        Ok(client.map(|client| (client, grant)))
    }

    /// Whether this is the grant of a secret or key that a client has now.
    pub async fn has_grant(&self, client: &str, grant: &str) -> Result<bool> {
        let secrets = self.client_secrets(client).await?;
        let of_secret = secrets.iter().any(|secret| grant_of(client, &secret.id) == grant);
        Ok(of_secret || self.has_key_grant(client, grant).await?)
    }

    /// Secrets of a client that have not ended.
    pub async fn client_secrets(&self, id: &str) -> Result<Vec<ClientSecretRow>> {
        let rows = self.query(
            "SELECT id, until FROM client_secret WHERE customer = ? AND client = ? AND (until IS NULL OR until > ?) ORDER BY id",
        )
        .bind(self.customer.to_string())
        .bind(id)
        .bind(now_s())
        .fetch_all(&self.store.pool)
        .await?;
        rows.iter().map(|row| Ok(ClientSecretRow { id: row.try_get(0)?, until: row.try_get(1)? })).collect()
    }

    /// Adds a secret to a client; returns its id. `None` when it has `most` already.
    pub async fn add_client_secret(
        &self,
        write: &mut Write,
        client: &str,
        hash: &[u8; 32],
        until: Option<i64>,
        most: i64,
    ) -> Result<Option<String>> {
        self.query("DELETE FROM client_secret WHERE customer = ? AND client = ? AND until <= ?")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        let row = self
            .query("SELECT COUNT(*) FROM client_secret WHERE customer = ? AND client = ?")
            .bind(self.customer.to_string())
            .bind(client)
            .fetch_one(&mut **write)
            .await?;
        if row.try_get::<i64, _>(0)? >= most {
            return Ok(None);
        }
        let id = uuid::Uuid::now_v7().to_string();
        self.insert_secret(write, client, &id, hash, until).await?;
        Ok(Some(id))
    }

    async fn insert_secret(
        &self,
        write: &mut Write,
        client: &str,
        id: &str,
        hash: &[u8; 32],
        until: Option<i64>,
    ) -> Result<()> {
        self.query("INSERT INTO client_secret (customer, client, id, hash, until) VALUES (?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(id)
            .bind(&hash[..])
            .bind(until)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Takes a secret from a client and revokes the tokens that it got for itself by that secret; false when there
    /// is none of this id.
    pub async fn remove_client_secret(&self, write: &mut Write, client: &str, id: &str) -> Result<bool> {
        let done = self
            .query("DELETE FROM client_secret WHERE customer = ? AND client = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(id)
            .execute(&mut **write)
            .await?;
        let was_there = done.rows_affected() == 1;
        if was_there {
            self.revoke_session(write, &grant_of(client, id)).await?;
        }
        Ok(was_there)
    }

    /// Suspends a client, which ends its sessions, or lets it work again; false when there is none.
    pub async fn suspend_client(&self, write: &mut Write, id: &str, suspended: bool) -> Result<bool> {
        let done = self
            .query("UPDATE client SET suspended = ? WHERE customer = ? AND id = ?")
            .bind(suspended)
            .bind(self.customer.to_string())
            .bind(id)
            .execute(&mut **write)
            .await?;
        let is_there = done.rows_affected() == 1;
        if suspended && is_there {
            self.end_sessions_of_client(write, id).await?;
        }
        Ok(is_there)
    }

    /// Removes a client and ends its sessions; false when there is none.
    pub async fn remove_client(&self, write: &mut Write, id: &str) -> Result<bool> {
        let done = self
            .query("DELETE FROM client WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id)
            .execute(&mut **write)
            .await?;
        let was_there = done.rows_affected() == 1;
        if was_there {
            self.end_sessions_of_client(write, id).await?;
        }
        Ok(was_there)
    }
}

/// The grant by which a client gets tokens for itself: that of one of its secrets or keys.
pub(crate) fn grant_of(client: &str, secret: &str) -> String {
    format!("{client}.{secret}")
}

fn client_row(row: &Row) -> Result<ClientRow> {
    Ok(ClientRow {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        kind: row.try_get(2)?,
        redirect_uris: from_json(row.try_get(3)?)?,
        post_logout_redirect_uris: from_json(row.try_get(4)?)?,
        roles: from_json(row.try_get(5)?)?,
        suspended: row.try_get::<i64, _>(6)? != 0,
        backchannel_logout_uri: row.try_get(7)?,
    })
}
