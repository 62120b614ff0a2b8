//! The session feed: what gateways are told about sessions, written in the transaction in which it happens.

use crate::{
    CustomerStore, Result, Store, StoreError, Write, from_json, now_s, parse, raise_revision,
    sql::{Row, across},
};
use bastide_types::{
    UserId,
    feed::{ENTRIES_MAX, Entry, Feed, ID_BYTES_MAX, RESOURCE_BYTES_MAX, REVOKED_FOR_S, What},
};
use sqlx::AssertSqlSafe;
use std::sync::atomic::Ordering;

/// How long it is told that a session began, in seconds.
const BEGAN_FOR_S: i64 = 60;

impl Store {
    /// The last number of the feed. A token that is made after this was read knows all that happened up to it.
    pub async fn token_epoch(&self) -> Result<u64> {
        let sequence = self.pool.feed_sequence();
        let query = format!("SELECT seq FROM {sequence} WHERE name = 'session_feed'");
        let row = across(AssertSqlSafe(query)).fetch_optional(&self.pool).await?;
        let last: i64 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
        Ok(last.unsigned_abs())
    }

    /// The part of the feed after a number that an asker of this life knows; else its beginning.
    pub async fn session_feed(&self, life: u64, after: u64) -> Result<Feed> {
        let (own, _, _) = self.version().await?;
        // In this order: what comes meanwhile is after `last`, and told next time.
        let last = self.token_epoch().await?;
        let after = if life == own && after <= last { after } else { 0 };
        let rows = across(
            "SELECT number, customer, what, id, until, resource FROM session_feed
             WHERE number > ? AND number <= ? AND until > ? ORDER BY number LIMIT ?",
        )
        .bind(after.cast_signed())
        .bind(last.cast_signed())
        .bind(now_s())
        .bind(i64::try_from(ENTRIES_MAX).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await?;
        let entries = rows.iter().map(entry).collect::<Result<Vec<_>>>()?;
        let more = entries.len() == ENTRIES_MAX && entries.last().is_some_and(|entry| entry.number < last);
        let last = entries.last().filter(|_| more).map_or(last, |entry| entry.number);
        Ok(Feed { life: own, at_s: now_s().unsigned_abs(), after, last, more, entries })
    }

    /// How often this process wrote into the feed, or was about to. Whoever finds it unchanged at the end of some work
    /// has nothing to tell.
    pub fn feed_writes(&self) -> u64 {
        self.feed_writes.load(Ordering::SeqCst)
    }
}

impl CustomerStore<'_> {
    /// Says that a browser session began.
    pub async fn session_began(&self, write: &mut Write, hash: &str, resource: Option<&str>) -> Result<()> {
        let resource = resource.filter(|resource| resource.len() <= RESOURCE_BYTES_MAX);
        self.say(write, What::Began, hash, BEGAN_FOR_S, resource).await.map(drop)
    }

    /// Revokes the tokens of a session or of a client's grant.
    pub(crate) async fn revoke_session(&self, write: &mut Write, id: &str) -> Result<()> {
        self.say(write, What::Session, id, REVOKED_FOR_S.cast_signed(), None).await.map(drop)
    }

    /// Revokes all tokens of a member that were made before. Sessions go on and get new ones, and browsers another
    /// secret.
    pub async fn revoke_member(&self, write: &mut Write, member: UserId) -> Result<()> {
        self.outdate_secrets(write, member).await?;
        self.say(write, What::Subject, &member.to_string(), REVOKED_FOR_S.cast_signed(), None).await.map(drop)
    }

    /// Revokes all tokens that a client got before.
    pub(crate) async fn revoke_client(&self, write: &mut Write, client: &str) -> Result<()> {
        self.say(write, What::Client, client, REVOKED_FOR_S.cast_signed(), None).await.map(drop)
    }

    /// Ends every session of the customer and revokes every token that was made before.
    pub async fn end_everything(&self, write: &mut Write) -> Result<()> {
        self.query("DELETE FROM session WHERE customer = ?")
            .bind(self.customer.to_string())
            .execute(&mut **write)
            .await?;
        self.revoke_everybody(write).await
    }

    /// Revokes every token of the customer that was made before. Sessions go on and get new ones, and browsers another
    /// secret.
    pub(crate) async fn revoke_everybody(&self, write: &mut Write) -> Result<()> {
        self.outdate_all_secrets(write).await?;
        let number = self.say(write, What::Customer, "", REVOKED_FOR_S.cast_signed(), None).await?;
        self.query("UPDATE customer SET token_epoch = ? WHERE id = ?")
            .bind(number)
            .bind(self.customer.to_string())
            .execute(&mut **write)
            .await?;
        raise_revision(write).await
    }

    /// The epoch of which tokens must at least be.
    pub async fn token_floor(&self) -> Result<u64> {
        let row = self
            .query("SELECT token_epoch FROM customer WHERE id = ?")
            .bind(self.customer.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        let floor: i64 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
        Ok(floor.unsigned_abs())
    }

    /// The epoch of which a token of this subject, got by this client, must at least be.
    pub async fn token_cut(&self, subject: &str, client: &str) -> Result<u64> {
        let row = self
            .query(
                "SELECT COALESCE(MAX(number), 0) FROM session_feed
             WHERE customer = ? AND (what = 'subject' AND id = ? OR what = 'client' AND id = ?)",
            )
            .bind(self.customer.to_string())
            .bind(subject)
            .bind(client)
            .fetch_one(&self.store.pool)
            .await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    async fn say(
        &self,
        write: &mut Write,
        what: What,
        id: &str,
        for_s: i64,
        resource: Option<&str>,
    ) -> Result<i64> {
        // Readers refuse a part with an id that is too long: better not to write it.
        if id.len() > ID_BYTES_MAX {
            return Err(StoreError::Damaged("an id in the session feed".into()));
        }
        self.store.feed_writes.fetch_add(1, Ordering::SeqCst);
        across("DELETE FROM session_feed WHERE until <= ?").bind(now_s()).execute(&mut **write).await?;
        let row = self.query(
            "INSERT INTO session_feed (customer, what, id, until, resource) VALUES (?, ?, ?, ?, ?) RETURNING number",
        )
        .bind(self.customer.to_string())
        .bind(word(what))
        .bind(id)
        .bind(now_s() + for_s)
        .bind(resource)
        .fetch_one(&mut **write)
        .await?;
        Ok(row.try_get(0)?)
    }
}

fn word(what: What) -> &'static str {
    match what {
        What::Began => "began",
        What::Session => "session",
        What::Subject => "subject",
        What::Client => "client",
        What::Customer => "customer",
    }
}

fn entry(row: &Row) -> Result<Entry> {
    let (number, what, until): (i64, String, i64) = (row.try_get(0)?, row.try_get(2)?, row.try_get(4)?);
    Ok(Entry {
        number: number.unsigned_abs(),
        customer: parse(row.try_get(1)?)?,
        what: from_json(&format!("\"{what}\""))?,
        id: row.try_get(3)?,
        until_s: until.unsigned_abs(),
        resource: row.try_get(5)?,
    })
}
