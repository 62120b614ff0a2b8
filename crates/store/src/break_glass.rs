//! One-time sign-ins that the operator of the machine makes.

use crate::{CustomerStore, Result, Write, now_s, parse};
use bastide_types::UserId;

impl CustomerStore<'_> {
    /// Stores a one-time sign-in by its hash. Earlier ones of this customer end: there is one at a time.
    pub async fn add_break_glass(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        member: UserId,
        until: i64,
    ) -> Result<()> {
        self.query("DELETE FROM break_glass WHERE customer = ?")
            .bind(self.customer.to_string())
            .execute(&mut **write)
            .await?;
        self.query("INSERT INTO break_glass (customer, hash, member, until) VALUES (?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(member.to_string())
            .bind(until)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Whom a one-time sign-in is for, while it is good.
    pub async fn break_glass(&self, hash: &[u8; 32]) -> Result<Option<UserId>> {
        let row = self
            .query("SELECT member FROM break_glass WHERE customer = ? AND hash = ? AND until > ?")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(now_s())
            .fetch_optional(&self.store.pool)
            .await?;
        row.map(|row| parse(row.try_get(0)?)).transpose()
    }

    /// Uses a one-time sign-in; false when it was used, replaced or over.
    pub async fn take_break_glass(&self, write: &mut Write, hash: &[u8; 32]) -> Result<bool> {
        let done = self
            .query("DELETE FROM break_glass WHERE customer = ? AND hash = ? AND until > ?")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
