//! End users: accounts of one stage, apart from the members.

use crate::{CustomerStore, MemberRow, Result, Write, identity::member_row, parse};
use bastide_types::{StageName, UserId};
use std::collections::BTreeMap;

/// What a list says of somebody beside the row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// Groups, by name.
    pub groups: Vec<String>,
    /// Whether there is a second factor.
    pub second_factor: bool,
    /// How many passkeys there are.
    pub passkeys: i64,
}

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

    /// What is beside the rows of the end users of a stage, or of the members (`stage` empty), from one address to another. Who
    /// has nothing is not in it.
    pub async fn beside(&self, stage: &str, first: &str, last: &str) -> Result<BTreeMap<UserId, Beside>> {
        let mut all = BTreeMap::<UserId, Beside>::new();
        let those = "m.customer = ? AND m.stage = ? AND m.email >= ? AND m.email <= ?";
        let ask = async |what: &str| {
            let query = self.query(sqlx::AssertSqlSafe(what.replace("THOSE", those)));
            let query = query.bind(self.customer.to_string()).bind(stage).bind(first).bind(last);
            query.fetch_all(&self.store.pool).await
        };
        let groups = "SELECT g.member, g.name FROM group_user g JOIN member m
            ON m.customer = g.customer AND m.id = g.member WHERE THOSE ORDER BY g.name";
        for row in ask(groups).await? {
            all.entry(parse(row.try_get(0)?)?).or_default().groups.push(row.try_get(1)?);
        }
        let factors = "SELECT f.member FROM second_factor f JOIN member m
            ON m.customer = f.customer AND m.id = f.member WHERE THOSE";
        for row in ask(factors).await? {
            all.entry(parse(row.try_get(0)?)?).or_default().second_factor = true;
        }
        let passkeys = "SELECT p.member, COUNT(*) FROM passkey p JOIN member m
            ON m.customer = p.customer AND m.id = p.member WHERE THOSE GROUP BY p.member";
        for row in ask(passkeys).await? {
            all.entry(parse(row.try_get(0)?)?).or_default().passkeys = row.try_get(1)?;
        }
        Ok(all)
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
