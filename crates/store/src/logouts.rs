//! What clients still have to hear of sessions that ended. The rows are written by a trigger of the database.

use crate::{
    CustomerStore, Result, Store, Write, now_s, parse,
    sql::{Row, across},
};
use bastide_types::CustomerId;

/// A sign-out that a client has not heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogoutNotice {
    /// Whose client.
    pub customer: CustomerId,
    /// The client.
    pub client: String,
    /// Where it wants to hear of it.
    pub uri: String,
    /// The session that ended.
    pub session: String,
    /// Stage of its issuer; empty for members.
    pub stage: String,
    /// Whose session it was.
    pub member: String,
    /// How often telling failed.
    pub tries: i64,
    /// Seconds since 1970 after which it is not tried any more.
    pub until: i64,
}

impl Store {
    /// Sign-outs that are due, the oldest first.
    pub async fn logouts_due(&self, most: u32) -> Result<Vec<LogoutNotice>> {
        let rows = across(
            "SELECT n.customer, n.client, c.backchannel_logout_uri, n.session, n.stage, n.member, n.tries, n.until
             FROM logout_notice n JOIN client c ON c.customer = n.customer AND c.id = n.client
             WHERE n.next <= ? AND c.backchannel_logout_uri IS NOT NULL ORDER BY n.next LIMIT ?",
        )
        .bind(now_s())
        .bind(most)
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &Row| {
            Ok(LogoutNotice {
                customer: parse(row.try_get(0)?)?,
                client: row.try_get(1)?,
                uri: row.try_get(2)?,
                session: row.try_get(3)?,
                stage: row.try_get(4)?,
                member: row.try_get(5)?,
                tries: row.try_get(6)?,
                until: row.try_get(7)?,
            })
        };
        rows.iter().map(read).collect()
    }
}

impl CustomerStore<'_> {
    /// Forgets a sign-out that the client heard of, or that is given up.
    pub async fn forget_logout(&self, write: &mut Write, client: &str, session: &str) -> Result<()> {
        self.query("DELETE FROM logout_notice WHERE customer = ? AND client = ? AND session = ?")
            .bind(self.customer.to_string())
            .bind(client)
            .bind(session)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Tells a client again, not before this time.
    pub async fn put_logout_off(
        &self,
        write: &mut Write,
        client: &str,
        session: &str,
        next: i64,
    ) -> Result<()> {
        self.query(
            "UPDATE logout_notice SET tries = tries + 1, next = ? WHERE customer = ? AND client = ? AND session = ?",
        )
        .bind(next)
        .bind(self.customer.to_string())
        .bind(client)
        .bind(session)
        .execute(&mut **write)
        .await?;
        Ok(())
    }
}
