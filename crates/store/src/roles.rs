//! Organization roles that customers make: named sets of permissions.

use crate::{CustomerStore, Result, Write, from_json, sql::Row, to_json};
use bastide_types::HeldRole;

/// An organization role that a customer made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRow {
    /// Name.
    pub name: String,
    /// Names of its permissions.
    pub permissions: Vec<String>,
}

impl CustomerStore<'_> {
    /// The customer's own roles.
    pub async fn roles(&self) -> Result<Vec<RoleRow>> {
        let rows = self
            .query("SELECT name, permissions FROM role WHERE customer = ? ORDER BY name")
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(role_row).collect()
    }

    /// The customer's own roles, as a transaction sees them: none of them goes before it ends.
    pub async fn roles_in(&self, write: &mut Write) -> Result<Vec<RoleRow>> {
        let rows = self
            .query("SELECT name, permissions FROM role WHERE customer = ? ORDER BY name")
            .bind(self.customer.to_string())
            .fetch_all(&mut **write)
            .await?;
        rows.iter().map(role_row).collect()
    }

    /// Adds a role.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`] when there is one of this name.
    pub async fn add_role(&self, write: &mut Write, role: &RoleRow) -> Result<()> {
        self.query("INSERT INTO role (customer, name, permissions) VALUES (?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(&role.name)
            .bind(to_json(&role.permissions)?)
            .claim(write)
            .await?;
        Ok(())
    }

    /// Gives a role other permissions; false when there is none of this name.
    pub async fn change_role(&self, write: &mut Write, role: &RoleRow) -> Result<bool> {
        let done = self
            .query("UPDATE role SET permissions = ? WHERE customer = ? AND name = ?")
            .bind(to_json(&role.permissions)?)
            .bind(self.customer.to_string())
            .bind(&role.name)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Removes a role; false when there is none of this name.
    pub async fn remove_role(&self, write: &mut Write, name: &str) -> Result<bool> {
        let done = self
            .query("DELETE FROM role WHERE customer = ? AND name = ?")
            .bind(self.customer.to_string())
            .bind(name)
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// How many members and clients have a role.
    pub async fn role_holders(&self, write: &mut Write, name: &str) -> Result<i64> {
        let rows = self
            .query(
                "SELECT roles FROM member WHERE customer = ?1 AND roles != '[]'
                 UNION ALL SELECT roles FROM client WHERE customer = ?1 AND roles != '[]'",
            )
            .bind(self.customer.to_string())
            .fetch_all(&mut **write)
            .await?;
        let mut holders = 0;
        for row in &rows {
            let roles: Vec<String> = from_json(row.try_get(0)?)?;
            holders += i64::from(roles.iter().any(|role| HeldRole::read(role).role == name));
        }
        Ok(holders)
    }
}

fn role_row(row: &Row) -> Result<RoleRow> {
    Ok(RoleRow { name: row.try_get(0)?, permissions: from_json(row.try_get(1)?)? })
}
