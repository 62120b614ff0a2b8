//! Keys of issuers, from the day they are published to the day nothing that they signed counts any more.
//!
//! Whoever only checks signatures reads public halves; a private half is opened to sign, one at a time.

use crate::{
    CustomerStore, Result, Store, StoreError, Write, now_s, parse, raise_revision,
    sql::{Row, across},
};
use bastide_types::{CustomerId, StageName, snapshot::VerifyingKey};
use std::collections::BTreeSet;

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// Access tokens: Ed25519.
    Access,
    /// ID tokens: RSA.
    Id,
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// It signs.
    Current,
    /// It is published, so that everybody knows it before it signs.
    Next,
    /// It signs no longer; what it signed still counts.
    Previous,
}

/// The public half of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// What it signs.
    pub kind: KeyKind,
    /// Id.
    pub kid: String,
    /// The 32 bytes of an Ed25519 key, or the modulus of an RSA key; base64url.
    pub public: String,
    /// Where it is in its life.
    pub state: KeyState,
    /// Seconds since 1970 at which it came there.
    pub since: i64,
}

/// The keys of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerKeys {
    /// Customer.
    pub customer: CustomerId,
    /// Stage; `None`: the members' issuer.
    pub stage: Option<StageName>,
    /// Its keys.
    pub keys: Vec<KeyRow>,
}

/// A key to store.
pub struct NewKey {
    /// What it signs.
    pub kind: KeyKind,
    /// Id.
    pub kid: String,
    /// Public half, as in [`KeyRow::public`].
    pub public: String,
    /// PKCS #8.
    pub private: Vec<u8>,
}

impl NewKey {
    /// A key for access tokens.
    pub fn access(public: &VerifyingKey, private: &[u8]) -> Self {
        Self {
            kind: KeyKind::Access,
            kid: public.kid.clone(),
            public: public.x.clone(),
            private: private.to_vec(),
        }
    }
}

impl KeyKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Id => "id",
        }
    }
}

impl KeyState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Previous => "previous",
        }
    }
}

/// Columns of a [`KeyRow`]; the key that signs comes first.
const COLUMNS: &str = "kind, kid, public, state, since";
const ORDER: &str =
    "ORDER BY customer, stage, kind, CASE state WHEN 'current' THEN 0 WHEN 'next' THEN 1 ELSE 2 END, kid";

impl Store {
    /// Public halves of the keys of all issuers.
    pub async fn issuers(&self) -> Result<Vec<IssuerKeys>> {
        let query = format!("SELECT {COLUMNS}, customer, stage FROM issuer_key {ORDER}");
        let rows = across(sqlx::AssertSqlSafe(query)).fetch_all(&self.pool).await?;
        let mut issuers: Vec<IssuerKeys> = Vec::new();
        for row in &rows {
            let (customer, stage) = (parse(row.try_get(5)?)?, stage_of(row.try_get(6)?)?);
            let key = key_row(row)?;
            match issuers.last_mut() {
                Some(last) if (last.customer, &last.stage) == (customer, &stage) => last.keys.push(key),
                _ => issuers.push(IssuerKeys { customer, stage, keys: vec![key] }),
            }
        }
        Ok(issuers)
    }

    /// Moves the keys of a database of before, which were sealed without their stage, and forgets where they were.
    pub(crate) async fn move_keys(&self) -> Result<()> {
        for (table, public, kind) in [("signing_key", "x", KeyKind::Access), ("id_key", "n", KeyKind::Id)] {
            let mut write = self.write().await?;
            let there = across("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?")
                .bind(table)
                .fetch_optional(&mut *write)
                .await?;
            if there.is_none() {
                continue;
            }
            let query = format!("SELECT customer, stage, kid, {public}, private FROM {table}");
            let rows = across(sqlx::AssertSqlSafe(query)).fetch_all(&mut *write).await?;
            let mut signing = BTreeSet::new();
            for row in &rows {
                let (customer, sealed): (CustomerId, Vec<u8>) = (parse(row.try_get(0)?)?, row.try_get(4)?);
                let (stage, kid): (String, String) = (row.try_get(1)?, row.try_get(2)?);
                let private = self.kek.open(&format!("{table}/{customer}/{kid}"), &sealed)?;
                let key = NewKey { kind, kid, public: row.try_get(3)?, private };
                // There was one of a kind; should there be more, what they signed counts.
                let is_first = signing.insert((customer.to_string(), stage.clone()));
                let state = if is_first { KeyState::Current } else { KeyState::Previous };
                let stage = stage_of(&stage)?;
                self.customer(customer).add_key(&mut write, stage.as_ref(), &key, state, now_s()).await?;
            }
            across(sqlx::AssertSqlSafe(format!("DROP TABLE {table}"))).execute(&mut *write).await?;
            write.commit().await?;
        }
        Ok(())
    }
}

impl CustomerStore<'_> {
    /// Adds a key to the issuer of `stage` (`None`: of members).
    ///
    /// # Errors
    /// [`StoreError::Taken`] when it has a key in this state already and the state is not `previous`.
    pub async fn add_key(
        &self,
        write: &mut Write,
        stage: Option<&StageName>,
        key: &NewKey,
        state: KeyState,
        now: i64,
    ) -> Result<()> {
        let sealed = self.store.kek.seal(&self.key_place(stage, key.kind, &key.kid), &key.private)?;
        self.query(
            "INSERT INTO issuer_key (customer, stage, kind, kid, public, private, state, since)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(text(stage))
        .bind(key.kind.as_str())
        .bind(&key.kid)
        .bind(&key.public)
        .bind(sealed)
        .bind(state.as_str())
        .bind(now)
        .claim(write)
        .await?;
        told(write, key.kind).await
    }

    /// Public halves of an issuer's keys of one kind; the one that signs comes first.
    pub async fn public_keys(&self, stage: Option<&StageName>, kind: KeyKind) -> Result<Vec<KeyRow>> {
        let query =
            format!("SELECT {COLUMNS} FROM issuer_key WHERE customer = ? AND stage = ? AND kind = ? {ORDER}");
        let rows = self
            .query(sqlx::AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .bind(text(stage))
            .bind(kind.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(key_row).collect()
    }

    /// Public halves of an issuer's keys for access tokens, in the form of the Snapshot.
    pub async fn verifying_keys(&self, stage: Option<&StageName>) -> Result<Vec<VerifyingKey>> {
        let keys = self.public_keys(stage, KeyKind::Access).await?;
        Ok(keys.into_iter().map(|key| VerifyingKey { kid: key.kid, x: key.public }).collect())
    }

    /// The private half (PKCS #8) of the key that signs now; `None` when the issuer has none of this kind.
    pub async fn signing_key(&self, stage: Option<&StageName>, kind: KeyKind) -> Result<Option<Vec<u8>>> {
        let row = self
            .query(
                "SELECT kid, private FROM issuer_key
             WHERE customer = ? AND stage = ? AND kind = ? AND state = 'current'",
            )
            .bind(self.customer.to_string())
            .bind(text(stage))
            .bind(kind.as_str())
            .fetch_optional(&self.store.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (kid, sealed): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Some(self.store.kek.open(&self.key_place(stage, kind, &kid), &sealed)?))
    }

    /// Lets the next key sign, if it was published before `published`; what the current one signed still counts.
    /// False when there is no such next key.
    pub async fn rotate_key(
        &self,
        write: &mut Write,
        stage: Option<&StageName>,
        kind: KeyKind,
        published: i64,
        now: i64,
    ) -> Result<bool> {
        let next = self
            .query(
                "SELECT kid FROM issuer_key
             WHERE customer = ? AND stage = ? AND kind = ? AND state = 'next' AND since <= ?",
            )
            .bind(self.customer.to_string())
            .bind(text(stage))
            .bind(kind.as_str())
            .bind(published)
            .fetch_optional(&mut **write)
            .await?;
        if next.is_none() {
            return Ok(false);
        }
        for (from, to) in [("current", "previous"), ("next", "current")] {
            self.query(
                "UPDATE issuer_key SET state = ?, since = ?
                 WHERE customer = ? AND stage = ? AND kind = ? AND state = ?",
            )
            .bind(to)
            .bind(now)
            .bind(self.customer.to_string())
            .bind(text(stage))
            .bind(kind.as_str())
            .bind(from)
            .execute(&mut **write)
            .await?;
        }
        told(write, kind).await?;
        Ok(true)
    }

    /// Forgets a key.
    pub async fn remove_key(
        &self,
        write: &mut Write,
        stage: Option<&StageName>,
        kind: KeyKind,
        kid: &str,
    ) -> Result<()> {
        self.query("DELETE FROM issuer_key WHERE customer = ? AND stage = ? AND kind = ? AND kid = ?")
            .bind(self.customer.to_string())
            .bind(text(stage))
            .bind(kind.as_str())
            .bind(kid)
            .execute(&mut **write)
            .await?;
        told(write, kind).await
    }

    /// Forgets all keys of an issuer. Whatever they signed counts no longer.
    pub async fn remove_keys(&self, write: &mut Write, stage: Option<&StageName>) -> Result<()> {
        self.query("DELETE FROM issuer_key WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(text(stage))
            .execute(&mut **write)
            .await?;
        raise_revision(write).await
    }

    /// Where a private half lies: at another customer, stage or kind, or under another id, it does not open.
    fn key_place(&self, stage: Option<&StageName>, kind: KeyKind, kid: &str) -> String {
        format!("issuer_key/{}/{}/{}/{kid}", self.customer, text(stage), kind.as_str())
    }
}

/// Gateways check access tokens only.
async fn told(write: &mut Write, kind: KeyKind) -> Result<()> {
    if kind == KeyKind::Access { raise_revision(write).await } else { Ok(()) }
}

fn text(stage: Option<&StageName>) -> &str {
    stage.map_or("", StageName::as_str)
}

fn stage_of(text: &str) -> Result<Option<StageName>> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn key_row(row: &Row) -> Result<KeyRow> {
    let (kind, state): (String, String) = (row.try_get(0)?, row.try_get(3)?);
    let damaged = |what: &str| StoreError::Damaged(what.chars().take(80).collect());
    Ok(KeyRow {
        kind: match kind.as_str() {
            "access" => KeyKind::Access,
            "id" => KeyKind::Id,
            other => return Err(damaged(other)),
        },
        kid: row.try_get(1)?,
        public: row.try_get(2)?,
        state: match state.as_str() {
            "current" => KeyState::Current,
            "next" => KeyState::Next,
            "previous" => KeyState::Previous,
            other => return Err(damaged(other)),
        },
        since: row.try_get(4)?,
    })
}
