//! Browser sessions whose user's rights have changed: each gets another secret at its next use.

use crate::{CustomerStore, Result, SessionRow, Write, identity::session_row, now_s};
use bastide_types::UserId;

/// Which of a session's secrets was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// Its own.
    Own,
    /// Its own, in whose place another one is due.
    Outdated,
    /// The one before. It serves until then, in seconds since 1970.
    Former(i64),
}

impl CustomerStore<'_> {
    /// The browser session of this secret while it lives, and which of its secrets that is.
    pub async fn browser_session(&self, hash: &[u8; 32]) -> Result<Option<(SessionRow, Presented)>> {
        let row = self
            .query(
                "SELECT id, member, until, CASE WHEN hash = ?2 THEN renew ELSE 2 END, former_until FROM session
                 WHERE customer = ?1 AND kind = 'browser' AND until > ?3
                 AND (hash = ?2 OR former = ?2 AND former_until > ?3)",
            )
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(now_s())
            .fetch_optional(&self.store.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let presented = match row.try_get::<i64, _>(3)? {
            0 => Presented::Own,
            1 => Presented::Outdated,
            _ => Presented::Former(row.try_get(4)?),
        };
        Ok(Some((session_row(&row)?, presented)))
    }

    /// Gives a session another secret in place of one that is outdated; that one serves until `former_until`. False when it
    /// has it already, or is gone.
    pub async fn renew_secret(
        &self,
        write: &mut Write,
        session: &str,
        (old, new): (&[u8; 32], &[u8; 32]),
        former_until: i64,
    ) -> Result<bool> {
        let done = self
            .query(
                "UPDATE session SET former = hash, former_until = ?1, hash = ?2, renew = 0
                 WHERE customer = ?3 AND id = ?4 AND hash = ?5 AND renew = 1 AND until > ?6",
            )
            .bind(former_until)
            .bind(&new[..])
            .bind(self.customer.to_string())
            .bind(session)
            .bind(&old[..])
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The rights of a user have changed: the secrets of the user's browser sessions are outdated.
    pub(crate) async fn outdate_secrets(&self, write: &mut Write, member: UserId) -> Result<()> {
        self.query("UPDATE session SET renew = 1 WHERE customer = ? AND member = ? AND kind = 'browser'")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// As [`Self::outdate_secrets`], of every user of the customer.
    pub(crate) async fn outdate_all_secrets(&self, write: &mut Write) -> Result<()> {
        self.query("UPDATE session SET renew = 1 WHERE customer = ? AND kind = 'browser'")
            .bind(self.customer.to_string())
            .execute(&mut **write)
            .await?;
        Ok(())
    }
}
