//! Programs without a browser that wait for a member's word (RFC 8628).

use crate::{CustomerStore, Result, Write, now_s, parse};
use bastide_types::{Acr, UserId};

/// A program that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// What the member types, in capitals and without its dash.
    pub user_code: String,
    /// OAuth client.
    pub client: String,
    /// Stage of the issuer; empty for members.
    pub stage: String,
    /// Scopes, with spaces between.
    pub scope: String,
    /// Seconds since 1970 at which it ends.
    pub until: i64,
    /// Seconds that the program must wait between two questions.
    pub every_s: i64,
}

/// A member's word for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Whose.
    pub member: UserId,
    /// Seconds since 1970 at which the member had signed in.
    pub since: i64,
    /// How well that is secured.
    pub acr: Acr,
}

/// What a program hears that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceOutcome {
    /// The member allowed it. Said once.
    Allowed(DeviceRow, Word),
    /// The member said no. Said once.
    Denied,
    /// Nobody has said anything yet.
    Waiting,
    /// It asks more often than it may; it must wait longer from now on.
    TooOften,
    /// Its time is over.
    Over,
    /// There is no such code of this client and issuer.
    Unknown,
}

/// Seconds by which the wait grows for those who ask too often (RFC 8628 §3.5).
const SLOWER_S: i64 = 5;

impl CustomerStore<'_> {
    /// Remembers a program that waits; false when `most` wait already. Those whose time has been over for an
    /// hour are forgotten.
    pub async fn add_device(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        device: &DeviceRow,
        most: i64,
    ) -> Result<bool> {
        self.query("DELETE FROM device WHERE customer = ? AND until < ?")
            .bind(self.customer.to_string())
            .bind(now_s() - 3600)
            .execute(&mut **write)
            .await?;
        let row = self
            .query("SELECT COUNT(*) FROM device WHERE customer = ? AND until > ?")
            .bind(self.customer.to_string())
            .bind(now_s())
            .fetch_one(&mut **write)
            .await?;
        if row.try_get::<i64, _>(0)? >= most {
            return Ok(false);
        }
        self.query(
            "INSERT INTO device (customer, hash, user_code, client, stage, scope, until, every) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(&device.user_code)
        .bind(&device.client)
        .bind(&device.stage)
        .bind(&device.scope)
        .bind(device.until)
        .bind(device.every_s)
        .execute(&mut **write)
        .await?;
        Ok(true)
    }

    /// The client that waits under this code at this issuer for a member's word.
    pub async fn device_waiting(&self, user_code: &str, stage: &str) -> Result<Option<String>> {
        let row = self.query(
            "SELECT client FROM device WHERE customer = ? AND user_code = ? AND stage = ? AND state = 'waiting' AND until > ?",
        )
        .bind(self.customer.to_string())
        .bind(user_code)
        .bind(stage)
        .bind(now_s())
        .fetch_optional(&self.store.pool)
        .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Writes down a member's word, once; false when nobody waits (any more).
    pub async fn answer_device(
        &self,
        write: &mut Write,
        user_code: &str,
        stage: &str,
        allowed: bool,
        word: Word,
    ) -> Result<bool> {
        let done = self
            .query(
                "UPDATE device SET state = ?, member = ?, since = ?, acr = ?
             WHERE customer = ? AND user_code = ? AND stage = ? AND state = 'waiting' AND until > ?",
            )
            .bind(if allowed { "allowed" } else { "denied" })
            .bind(word.member.to_string())
            .bind(word.since)
            .bind(word.acr.as_str())
            .bind(self.customer.to_string())
            .bind(user_code)
            .bind(stage)
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Answers a program that asks. A word is given once.
    pub async fn ask_device(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        client: &str,
        stage: &str,
    ) -> Result<DeviceOutcome> {
        let row = self
            .query(
                "SELECT user_code, scope, until, every, asked, state, member, since, acr FROM device
             WHERE customer = ? AND hash = ? AND client = ? AND stage = ?",
            )
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(client)
            .bind(stage)
            .fetch_optional(&mut **write)
            .await?;
        let Some(row) = row else { return Ok(DeviceOutcome::Unknown) };
        let (now, asked): (i64, i64) = (now_s(), row.try_get(4)?);
        let device = DeviceRow {
            user_code: row.try_get(0)?,
            client: client.to_owned(),
            stage: stage.to_owned(),
            scope: row.try_get(1)?,
            until: row.try_get(2)?,
            every_s: row.try_get(3)?,
        };
        if device.until <= now {
            return Ok(DeviceOutcome::Over);
        }
        let state: String = row.try_get(5)?;
        if state == "waiting" {
            let too_often = now - asked < device.every_s;
            self.note_question(write, hash, now, if too_often { SLOWER_S } else { 0 }).await?;
            return Ok(if too_often { DeviceOutcome::TooOften } else { DeviceOutcome::Waiting });
        }
        self.query("DELETE FROM device WHERE customer = ? AND hash = ?")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .execute(&mut **write)
            .await?;
        let member: Option<String> = row.try_get(6)?;
        match member {
            Some(member) if state == "allowed" => {
                let (since, acr) = (row.try_get(7)?, parse(row.try_get(8)?)?);
                Ok(DeviceOutcome::Allowed(device, Word { member: parse(&member)?, since, acr }))
            }
            _ => Ok(DeviceOutcome::Denied),
        }
    }

    async fn note_question(&self, write: &mut Write, hash: &[u8; 32], now: i64, slower_s: i64) -> Result<()> {
        self.query("UPDATE device SET asked = ?, every = every + ? WHERE customer = ? AND hash = ?")
            .bind(now)
            .bind(slower_s)
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .execute(&mut **write)
            .await?;
        Ok(())
    }
}
