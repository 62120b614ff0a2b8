//! End users: accounts of one stage, apart from the members.

use crate::{CustomerStore, MemberRow, Result, Write, identity::member_row};
use bastide_types::{StageName, UserId};

impl CustomerStore<'_> {
    /// The end user of a stage with this address, or the member (`stage` empty).
    pub async fn user_with_email(&self, stage: &str, email: &str) -> Result<Option<MemberRow>> {
        let row = self
            .query("SELECT * FROM member WHERE customer = ? AND stage = ? AND email = ?")
            .bind(self.customer.to_string())
            .bind(stage)
            .bind(email)
            .fetch_optional(&self.store.pool)
            .await?;
        row.as_ref().map(member_row).transpose()
    }

    /// So many end users of a stage whose addresses come after this one, in the order of their addresses.
    pub async fn users(&self, stage: &StageName, after: &str, most: u32) -> Result<Vec<MemberRow>> {
        let rows = self
            .query(
                "SELECT * FROM member WHERE customer = ? AND stage = ? AND email > ? ORDER BY email LIMIT ?",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(after)
            .bind(most)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(member_row).collect()
    }

    /// Removes an end user with all that belongs to them, and revokes their tokens. False when there is none with this
    /// id: members stay.
    pub async fn remove_user(&self, write: &mut Write, user: UserId) -> Result<bool> {
        let there = self
            .query("SELECT 1 FROM member WHERE customer = ? AND id = ? AND stage != ''")
            .bind(self.customer.to_string())
            .bind(user.to_string())
            .fetch_optional(&mut **write)
            .await?;
        if there.is_none() {
            return Ok(false);
        }
        self.end_sessions_of(write, user).await?;
        for table in
            ["app_role", "invitation", "known_device", "half_sign_in", "second_factor", "passkey", "device"]
        {
            let query = format!("DELETE FROM {table} WHERE customer = ? AND member = ?");
            self.query(sqlx::AssertSqlSafe(query))
                .bind(self.customer.to_string())
                .bind(user.to_string())
                .execute(&mut **write)
                .await?;
        }
        self.query("DELETE FROM member WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(user.to_string())
            .execute(&mut **write)
            .await?;
        Ok(true)
    }
}
