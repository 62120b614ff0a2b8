//! Passkeys, and questions to authenticators that wait for an answer.

use crate::{
    CustomerStore, Result, StoreError, Write, now_s, parse,
    sql::{Row, across},
};
use bastide_types::UserId;

/// Most passkeys of one member or end user.
pub const PASSKEYS_MAX: i64 = 20;

/// A passkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasskeyRow {
    /// SHA-256 of the id of its credential.
    pub credential: [u8; 32],
    /// Whose.
    pub member: UserId,
    /// What its owner calls it.
    pub name: String,
    /// Public key and state, as the engine wrote them.
    pub data: Vec<u8>,
    /// Seconds since 1970.
    pub made: i64,
    /// When it was shown last.
    pub used: Option<i64>,
}

impl PasskeyRow {
    /// Its name in forms.
    pub fn id(&self) -> String {
        hex(&self.credential)
    }
}

/// The columns of a [`PasskeyRow`], in the order in which it is read.
const COLUMNS: &str = "SELECT credential, member, name, data, made, used FROM passkey";

impl CustomerStore<'_> {
    /// The passkeys of a member or end user, the oldest first.
    pub async fn passkeys_of(&self, member: UserId) -> Result<Vec<PasskeyRow>> {
        let query = format!("{COLUMNS} WHERE customer = ? AND member = ? ORDER BY made, credential");
        let rows = self
            .query(sqlx::AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| self.passkey_row(row)).collect()
    }

    /// The passkey with this credential.
    pub async fn passkey(&self, credential: &[u8; 32]) -> Result<Option<PasskeyRow>> {
        let query = format!("{COLUMNS} WHERE customer = ? AND credential = ?");
        let row = self
            .query(sqlx::AssertSqlSafe(query))
            .bind(self.customer.to_string())
            .bind(&credential[..])
            .fetch_optional(&self.store.pool)
            .await?;
        row.map(|row| self.passkey_row(&row)).transpose()
    }

    /// How many passkeys a member or end user has.
    pub async fn count_passkeys(&self, member: UserId) -> Result<i64> {
        let row = self
            .query("SELECT COUNT(*) FROM passkey WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .fetch_one(&self.store.pool)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Gives a member or end user a passkey; false when there are [`PASSKEYS_MAX`] already.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when somebody has this credential already.
    pub async fn add_passkey(
        &self,
        write: &mut Write,
        member: UserId,
        credential: &[u8; 32],
        name: &str,
        data: &[u8],
    ) -> Result<bool> {
        let row = self
            .query("SELECT COUNT(*) FROM passkey WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .fetch_one(&mut **write)
            .await?;
        if row.try_get::<i64, _>(0)? >= PASSKEYS_MAX {
            return Ok(false);
        }
        let sealed = self.store.kek.seal(&self.passkey_place(member, credential), data)?;
        self.query(
            "INSERT INTO passkey (customer, credential, member, name, data, counter, made) VALUES (?, ?, ?, ?, ?, 0, ?)",
        )
        .bind(self.customer.to_string())
        .bind(&credential[..])
        .bind(member.to_string())
        .bind(name)
        .bind(sealed)
        .bind(now_s())
        .claim(write)
        .await?;
        Ok(true)
    }

    /// Notes that a passkey was shown; false when it is gone, or was shown with this word of its counter or a later one.
    pub async fn use_passkey(&self, write: &mut Write, shown: &PasskeyRow, counter: u32) -> Result<bool> {
        let place = self.passkey_place(shown.member, &shown.credential);
        let sealed = self.store.kek.seal(&place, &shown.data)?;
        let done = self
            .query(
                "UPDATE passkey SET data = ?1, counter = ?2, used = ?3 WHERE customer = ?4 AND credential = ?5 AND member = ?6
                 AND (counter < ?2 OR (counter = 0 AND ?2 = 0))",
            )
            .bind(sealed)
            .bind(i64::from(counter))
            .bind(now_s())
            .bind(self.customer.to_string())
            .bind(&shown.credential[..])
            .bind(shown.member.to_string())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes one passkey from its owner, by its name in forms; what its owner called it.
    pub async fn remove_passkey(
        &self,
        write: &mut Write,
        member: UserId,
        id: &str,
    ) -> Result<Option<String>> {
        let Some(credential) = unhex(id) else { return Ok(None) };
        let row = self
            .query("DELETE FROM passkey WHERE customer = ? AND member = ? AND credential = ? RETURNING name")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .bind(&credential[..])
            .fetch_optional(&mut **write)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Takes all passkeys from a member or end user; how many there were.
    pub async fn remove_passkeys(&self, write: &mut Write, member: UserId) -> Result<u64> {
        let done = self
            .query("DELETE FROM passkey WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected())
    }

    /// Keeps what the answer to a question is checked with, for one browser.
    pub async fn add_passkey_challenge(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        browser: &[u8; 32],
        state: &[u8],
        until: i64,
    ) -> Result<()> {
        across("DELETE FROM passkey_challenge WHERE until <= ?").bind(now_s()).execute(&mut **write).await?;
        let sealed = self.store.kek.seal(&self.challenge_place(hash), state)?;
        self.query(
            "INSERT INTO passkey_challenge (customer, hash, browser, state, until) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(&browser[..])
        .bind(sealed)
        .bind(until)
        .execute(&mut **write)
        .await
        .map_err(StoreError::from)?;
        Ok(())
    }

    /// Takes what was kept for a question, while it waits: it counts once, and in the browser that was asked.
    pub async fn take_passkey_challenge(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        browser: &[u8; 32],
    ) -> Result<Option<Vec<u8>>> {
        let row = self
            .query(
                "DELETE FROM passkey_challenge WHERE customer = ? AND hash = ? AND browser = ? AND until > ? RETURNING state",
            )
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(&browser[..])
            .bind(now_s())
            .fetch_optional(&mut **write)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let sealed: Vec<u8> = row.try_get(0)?;
        Ok(Some(self.store.kek.open(&self.challenge_place(hash), &sealed)?))
    }

    fn passkey_row(&self, row: &Row) -> Result<PasskeyRow> {
        let credential: Vec<u8> = row.try_get(0)?;
        let damaged = |_| StoreError::Damaged("passkey".to_owned());
        let credential: [u8; 32] = credential.try_into().map_err(damaged)?;
        let member = parse(row.try_get(1)?)?;
        let sealed: Vec<u8> = row.try_get(3)?;
        let data = self.store.kek.open(&self.passkey_place(member, &credential), &sealed)?;
        let (name, made, used) = (row.try_get(2)?, row.try_get(4)?, row.try_get(5)?);
        Ok(PasskeyRow { credential, member, name, data, made, used })
    }

    fn passkey_place(&self, member: UserId, credential: &[u8; 32]) -> String {
        format!("passkey/{}/{member}/{}", self.customer, hex(credential))
    }

    fn challenge_place(&self, hash: &[u8; 32]) -> String {
        format!("passkey_challenge/{}/{}", self.customer, hex(hash))
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).concat()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate().filter(|_| digits) {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    digits.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_forms_is_read_as_it_is_written_and_nothing_else_is() {
        let bytes = [0xa5; 32];
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        for wrong in ["", "a5", &"g".repeat(64), &"ü".repeat(32), &"+1".repeat(32), &"a".repeat(65)] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
