//! Groups of end users in a stage: who is in them, and which roles of apps they give.

use crate::{CustomerStore, Result, Write, parse};
use bastide_types::{AppId, StageName, UserId};

/// Users of a group whose tokens are revoked one by one; of more, those of the whole customer are.
const REVOKED_MAX: usize = 500;

impl CustomerStore<'_> {
    /// Names of a stage's groups with the number of users in each.
    pub async fn groups(&self, stage: &StageName) -> Result<Vec<(String, i64)>> {
        let rows = self
            .query(
                "SELECT g.name, COUNT(u.member) FROM user_group g
             LEFT JOIN group_user u ON u.customer = g.customer AND u.stage = g.stage AND u.name = g.name
             WHERE g.customer = ? AND g.stage = ? GROUP BY g.name ORDER BY g.name",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Adds a group; false when the stage has `most` already.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`] when there is one of this name.
    pub async fn add_group(
        &self,
        write: &mut Write,
        stage: &StageName,
        name: &str,
        most: i64,
    ) -> Result<bool> {
        let row = self
            .query("SELECT COUNT(*) FROM user_group WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_one(&mut **write)
            .await?;
        if row.try_get::<i64, _>(0)? >= most {
            return Ok(false);
        }
        self.query("INSERT INTO user_group (customer, stage, name) VALUES (?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(name)
            .claim(write)
            .await?;
        Ok(true)
    }

    /// Removes a group and revokes the tokens that may name its roles; false when there is none of this name.
    pub async fn remove_group(&self, write: &mut Write, stage: &StageName, name: &str) -> Result<bool> {
        self.revoke_group(write, stage, name).await?;
        let done = self
            .query("DELETE FROM user_group WHERE customer = ? AND stage = ? AND name = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(name)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether there is a group of this name, as the transaction sees it.
    pub async fn has_group(&self, write: &mut Write, stage: &StageName, name: &str) -> Result<bool> {
        let row = self
            .query("SELECT 1 FROM user_group WHERE customer = ? AND stage = ? AND name = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(name)
            .fetch_optional(&mut **write)
            .await?;
        Ok(row.is_some())
    }

    /// Puts an end user into a group, whose roles the next tokens name: those of before are revoked.
    pub async fn join_group(
        &self,
        write: &mut Write,
        stage: &StageName,
        name: &str,
        user: UserId,
    ) -> Result<()> {
        let done = self.query(
            "INSERT INTO group_user (customer, stage, name, member) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(name)
        .bind(user.to_string())
        .execute(&mut **write)
        .await?;
        if done.rows_affected() == 1 { self.revoke_member(write, user).await } else { Ok(()) }
    }

    /// Takes an end user out of a group and revokes the tokens of before; false when the user was not in it.
    pub async fn leave_group(
        &self,
        write: &mut Write,
        stage: &StageName,
        name: &str,
        user: UserId,
    ) -> Result<bool> {
        let done = self
            .query("DELETE FROM group_user WHERE customer = ? AND stage = ? AND name = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(name)
            .bind(user.to_string())
            .execute(&mut **write)
            .await?;
        let was_in = done.rows_affected() == 1;
        if was_in {
            self.revoke_member(write, user).await?;
        }
        Ok(was_in)
    }

    /// Groups of an end user.
    pub async fn groups_of(&self, user: UserId) -> Result<Vec<String>> {
        let rows = self
            .query("SELECT name FROM group_user WHERE customer = ? AND member = ? ORDER BY name")
            .bind(self.customer.to_string())
            .bind(user.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// So many addresses of users in a group that come after this one.
    pub async fn users_in(
        &self,
        stage: &StageName,
        name: &str,
        after: &str,
        most: u32,
    ) -> Result<Vec<(UserId, String)>> {
        let rows = self.query(
            "SELECT m.id, m.email FROM group_user u JOIN member m ON m.customer = u.customer AND m.id = u.member
             WHERE u.customer = ? AND u.stage = ? AND u.name = ? AND m.email > ? ORDER BY m.email LIMIT ?",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(name)
        .bind(after)
        .bind(most)
        .fetch_all(&self.store.pool)
        .await?;
        rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?))).collect()
    }

    /// Gives a group a role of an app, which the next tokens of its users name: those of before are revoked.
    pub async fn grant_group_role(
        &self,
        write: &mut Write,
        stage: &StageName,
        name: &str,
        app: AppId,
        role: &str,
    ) -> Result<()> {
        let done = self.query(
            "INSERT INTO group_role (customer, stage, name, app, role) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(name)
        .bind(app.to_string())
        .bind(role)
        .execute(&mut **write)
        .await?;
        if done.rows_affected() == 1 { self.revoke_group(write, stage, name).await } else { Ok(()) }
    }

    /// Takes a role of an app from a group and revokes the tokens that may name it; false when the group had it not.
    pub async fn revoke_group_role(
        &self,
        write: &mut Write,
        stage: &StageName,
        name: &str,
        app: AppId,
        role: &str,
    ) -> Result<bool> {
        let done = self.query(
            "DELETE FROM group_role WHERE customer = ? AND stage = ? AND name = ? AND app = ? AND role = ?",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(name)
        .bind(app.to_string())
        .bind(role)
        .execute(&mut **write)
        .await?;
        let had = done.rows_affected() == 1;
        if had {
            self.revoke_group(write, stage, name).await?;
        }
        Ok(had)
    }

    /// Roles of an app that groups have: stage, role, group.
    pub async fn group_roles(&self, app: AppId) -> Result<Vec<(StageName, String, String)>> {
        let rows = self.query(
            "SELECT stage, role, name FROM group_role WHERE customer = ? AND app = ? ORDER BY stage, role, name",
        )
        .bind(self.customer.to_string())
        .bind(app.to_string())
        .fetch_all(&self.store.pool)
        .await?;
        rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?, row.try_get(2)?))).collect()
    }

    async fn revoke_group(&self, write: &mut Write, stage: &StageName, name: &str) -> Result<()> {
        let rows = self
            .query("SELECT member FROM group_user WHERE customer = ? AND stage = ? AND name = ? LIMIT ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(name)
            .bind(i64::try_from(REVOKED_MAX).unwrap_or(i64::MAX) + 1)
            .fetch_all(&mut **write)
            .await?;
        if rows.len() > REVOKED_MAX {
            return self.revoke_everybody(write).await;
        }
        for row in &rows {
            self.revoke_member(write, parse(row.try_get(0)?)?).await?;
        }
        Ok(())
    }
}
