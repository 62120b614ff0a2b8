//! Public keys of clients, and which of the words signed with them have counted.

use crate::{
    ClientRow, CustomerStore, Result, Write,
    clients::grant_of,
    now_s,
    sql::{Row, across},
};
use std::collections::BTreeMap;

/// A public key of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKeyRow {
    /// Its id, which the client's words name.
    pub kid: String,
    /// The key, as a JWK.
    pub jwk: String,
    /// Seconds since 1970 at which it was given.
    pub since: i64,
}

/// What came of adding keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysAdded {
    /// All of them are there.
    Done,
    /// The client would have too many.
    TooMany,
    /// It has one of this id.
    Known,
}

impl CustomerStore<'_> {
    /// Keys of a client, by their ids.
    pub async fn client_keys(&self, client: &str) -> Result<Vec<ClientKeyRow>> {
        let rows = self
            .query("SELECT kid, jwk, since FROM client_key WHERE customer = ? AND client = ? ORDER BY kid")
            .bind(self.customer.to_string())
            .bind(client)
            .fetch_all(&self.store.pool)
            .await?;
        let read = |row: &Row| {
            Ok(ClientKeyRow { kid: row.try_get(0)?, jwk: row.try_get(1)?, since: row.try_get(2)? })
        };
        rows.iter().map(read).collect()
    }

    /// Keys of the clients after this one up to that one.
    pub async fn client_keys_between(
        &self,
        after: &str,
        last: &str,
    ) -> Result<BTreeMap<String, Vec<ClientKeyRow>>> {
        let rows = self
            .query(
                "SELECT kid, jwk, since, client FROM client_key
                 WHERE customer = ? AND client > ? AND client <= ? ORDER BY client, kid",
            )
            .bind(self.customer.to_string())
            .bind(after)
            .bind(last)
            .fetch_all(&self.store.pool)
            .await?;
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for row in rows {
            let key = ClientKeyRow { kid: row.try_get(0)?, jwk: row.try_get(1)?, since: row.try_get(2)? };
            all.entry(row.try_get(3)?).or_default().push(key);
        }
        Ok(all)
    }

    /// A client that is not suspended, if it has this key: the client, the grant of the key, which tokens carry in place
    /// of a session, and the key.
    pub async fn client_by_key(
        &self,
        client: &str,
        kid: &str,
    ) -> Result<Option<(ClientRow, String, String)>> {
        let row = self
            .query("SELECT id, jwk FROM client_key WHERE customer = ? AND client = ? AND kid = ?")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(kid)
            .fetch_optional(&self.store.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (grant, jwk) = (grant_of(client, row.try_get(0)?), row.try_get(1)?);
        let found = self.client_with_id(client).await?.filter(|found| !found.suspended);
        Ok(found.map(|found| (found, grant, jwk)))
    }

    /// Whether this is the grant of a key that a client has now.
    pub(crate) async fn has_key_grant(&self, client: &str, grant: &str) -> Result<bool> {
        let rows = self
            .query("SELECT id FROM client_key WHERE customer = ? AND client = ?")
            .bind(self.customer.to_string())
            .bind(client)
            .fetch_all(&self.store.pool)
            .await?;
        for row in &rows {
            if grant_of(client, row.try_get(0)?) == grant {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives a client more keys, so that it has at most `most`. Unless it is [`KeysAdded::Done`], the transaction is to
    /// be given up.
    pub async fn add_client_keys(
        &self,
        write: &mut Write,
        client: &str,
        keys: &[ClientKeyRow],
        most: usize,
    ) -> Result<KeysAdded> {
        let known = self
            .query("SELECT kid FROM client_key WHERE customer = ? AND client = ?")
            .bind(self.customer.to_string())
            .bind(client)
            .fetch_all(&mut **write)
            .await?;
        let known =
            known.iter().map(|row| row.try_get(0)).collect::<std::result::Result<Vec<String>, _>>()?;
        if keys.iter().any(|key| known.contains(&key.kid)) {
            return Ok(KeysAdded::Known);
        }
        if known.len() + keys.len() > most {
            return Ok(KeysAdded::TooMany);
        }
        for key in keys {
            self.query(
                "INSERT INTO client_key (customer, client, kid, id, jwk, since) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(self.customer.to_string())
            .bind(client)
            .bind(&key.kid)
            .bind(uuid::Uuid::now_v7().to_string())
            .bind(&key.jwk)
            .bind(key.since)
            .claim(write)
            .await?;
        }
        Ok(KeysAdded::Done)
    }

    /// Takes a key from a client and revokes the tokens that it got for itself by that key; false when there is none of
    /// this id.
    pub async fn remove_client_key(&self, write: &mut Write, client: &str, kid: &str) -> Result<bool> {
        let row = self
            .query("DELETE FROM client_key WHERE customer = ? AND client = ? AND kid = ? RETURNING id")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(kid)
            .fetch_optional(&mut **write)
            .await?;
        let Some(row) = row else { return Ok(false) };
        self.revoke_session(write, &grant_of(client, row.try_get(0)?)).await?;
        Ok(true)
    }

    /// Counts a word of a client; false when it counted before, at whichever replica.
    pub async fn take_client_assertion(
        &self,
        write: &mut Write,
        client: &str,
        hash: &[u8; 32],
        until: i64,
    ) -> Result<bool> {
        across("DELETE FROM client_assertion WHERE until <= ?").bind(now_s()).execute(&mut **write).await?;
        let done = self
            .query(
                "INSERT INTO client_assertion (customer, client, hash, until) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(self.customer.to_string())
            .bind(client)
            .bind(&hash[..])
            .bind(until)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
