//! Registered clients, their secrets, and the keys that sign ID tokens.

use crate::{CustomerStore, Result, StoreError, Write, from_json, now_s, taken, to_json};
use bastide_types::StageName;
use sqlx::{Row, sqlite::SqliteRow};

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

/// A key that signs ID tokens, with its private half.
pub struct IdKeyRow {
    /// Id.
    pub kid: String,
    /// Modulus, base64url.
    pub n: String,
    /// PKCS #8.
    pub private: Vec<u8>,
}

const COLUMNS: &str = "id, name, kind, redirect_uris, post_logout_redirect_uris, roles, suspended";

impl CustomerStore<'_> {
    /// Registers a client.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the id is.
    pub async fn add_client(&self, write: &mut Write, client: &ClientRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO client (customer, id, name, kind, redirect_uris, post_logout_redirect_uris, roles, suspended)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(&client.id)
        .bind(&client.name)
        .bind(&client.kind)
        .bind(to_json(&client.redirect_uris)?)
        .bind(to_json(&client.post_logout_redirect_uris)?)
        .bind(to_json(&client.roles)?)
        .bind(client.suspended)
        .execute(&mut **write)
        .await
        .map_err(taken)?;
        Ok(())
    }

    /// Registers a service with this one secret; of an existing one, roles and secrets are replaced.
    pub async fn put_client(&self, write: &mut Write, client: &ClientRow, hash: &[u8; 32]) -> Result<()> {
        let known = sqlx::query("UPDATE client SET roles = ? WHERE customer = ? AND id = ?")
            .bind(to_json(&client.roles)?)
            .bind(self.customer.to_string())
            .bind(&client.id)
            .execute(&mut **write)
            .await?;
        if known.rows_affected() == 0 {
            self.add_client(write, client).await?;
        }
        sqlx::query("DELETE FROM client_secret WHERE customer = ? AND client = ?")
            .bind(self.customer.to_string())
            .bind(&client.id)
            .execute(&mut **write)
            .await?;
        self.insert_secret(write, &client.id, "first", hash, None).await
    }

    /// All clients.
    pub async fn clients(&self) -> Result<Vec<ClientRow>> {
        let query = format!("SELECT {COLUMNS} FROM client WHERE customer = ? ORDER BY id");
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(client_row).collect()
    }

    /// A client by id.
    pub async fn client_with_id(&self, id: &str) -> Result<Option<ClientRow>> {
        let query = format!("SELECT {COLUMNS} FROM client WHERE customer = ? AND id = ?");
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .bind(id)
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(client_row).transpose()
    }

    /// A client that is not suspended, if the hash is that of one of its secrets.
    pub async fn client(&self, id: &str, hash: &[u8; 32]) -> Result<Option<ClientRow>> {
        let good = sqlx::query(
            "SELECT 1 FROM client_secret WHERE customer = ? AND client = ? AND hash = ? AND (until IS NULL OR until > ?)",
        )
        .bind(self.customer.to_string())
        .bind(id)
        .bind(&hash[..])
        .bind(now_s())
        .fetch_optional(&self.store.pool)
        .await?;
        if good.is_none() {
            return Ok(None);
        }
        Ok(self.client_with_id(id).await?.filter(|client| !client.suspended))
    }

    /// Secrets of a client that have not ended.
    pub async fn client_secrets(&self, id: &str) -> Result<Vec<ClientSecretRow>> {
        let rows = sqlx::query(
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
        sqlx::query("DELETE FROM client_secret WHERE customer = ? AND client = ? AND until <= ?")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        let row = sqlx::query("SELECT COUNT(*) FROM client_secret WHERE customer = ? AND client = ?")
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
        sqlx::query("INSERT INTO client_secret (customer, client, id, hash, until) VALUES (?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(id)
            .bind(&hash[..])
            .bind(until)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Takes a secret from a client; false when there is none of this id.
    pub async fn remove_client_secret(&self, write: &mut Write, client: &str, id: &str) -> Result<bool> {
        let done = sqlx::query("DELETE FROM client_secret WHERE customer = ? AND client = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(id)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Suspends a client, which ends its sessions, or lets it work again; false when there is none.
    pub async fn suspend_client(&self, write: &mut Write, id: &str, suspended: bool) -> Result<bool> {
        let done = sqlx::query("UPDATE client SET suspended = ? WHERE customer = ? AND id = ?")
            .bind(suspended)
            .bind(self.customer.to_string())
            .bind(id)
            .execute(&mut **write)
            .await?;
        if suspended {
            self.end_sessions_of_client(write, id).await?;
        }
        Ok(done.rows_affected() == 1)
    }

    /// Removes a client and ends its sessions; false when there is none.
    pub async fn remove_client(&self, write: &mut Write, id: &str) -> Result<bool> {
        self.end_sessions_of_client(write, id).await?;
        let done = sqlx::query("DELETE FROM client WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Keys that sign the ID tokens of an issuer (`None`: of members).
    pub async fn id_keys(&self, stage: Option<&StageName>) -> Result<Vec<IdKeyRow>> {
        let rows =
            sqlx::query("SELECT kid, n, private FROM id_key WHERE customer = ? AND stage = ? ORDER BY kid")
                .bind(self.customer.to_string())
                .bind(stage.map_or("", StageName::as_str))
                .fetch_all(&self.store.pool)
                .await?;
        rows.iter()
            .map(|row| {
                let kid: String = row.try_get(0)?;
                let sealed: Vec<u8> = row.try_get(2)?;
                let private = self.store.kek.open(&self.id_key_place(&kid), &sealed)?;
                Ok(IdKeyRow { kid, n: row.try_get(1)?, private })
            })
            .collect()
    }

    /// Stores the first key of an issuer's ID tokens, unless another was quicker.
    pub async fn begin_id_key(&self, stage: Option<&StageName>, key: &IdKeyRow) -> Result<()> {
        let sealed = self.store.kek.seal(&self.id_key_place(&key.kid), &key.private)?;
        sqlx::query(
            "INSERT INTO id_key (customer, stage, kid, n, private) SELECT ?1, ?2, ?3, ?4, ?5
             WHERE NOT EXISTS (SELECT 1 FROM id_key WHERE customer = ?1 AND stage = ?2)",
        )
        .bind(self.customer.to_string())
        .bind(stage.map_or("", StageName::as_str))
        .bind(&key.kid)
        .bind(&key.n)
        .bind(sealed)
        .execute(&self.store.pool)
        .await
        .map_err(StoreError::from)?;
        Ok(())
    }

    fn id_key_place(&self, kid: &str) -> String {
        format!("id_key/{}/{kid}", self.customer)
    }
}

fn client_row(row: &SqliteRow) -> Result<ClientRow> {
    Ok(ClientRow {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        kind: row.try_get(2)?,
        redirect_uris: from_json(row.try_get(3)?)?,
        post_logout_redirect_uris: from_json(row.try_get(4)?)?,
        roles: from_json(row.try_get(5)?)?,
        suspended: row.try_get::<i64, _>(6)? != 0,
    })
}
