//! Tries to sign in: counters that make guessing slow, and the devices that no foreign guess locks out.

use crate::{CustomerStore, Result, Write, now_s, sql::across};
use bastide_types::UserId;

/// Longest wait after a failure, in seconds.
const WAIT_S_MAX: i64 = 300;
/// Seconds after which a counter that nobody touched is forgotten: the table stays small.
const FORGET_S: i64 = 86_400;
/// Devices that are remembered of one member; the oldest goes.
const DEVICES_MAX: i64 = 10;

/// What is guessed at. Each has its own count, so that failures at one do not lock the others.
#[derive(Debug, Clone, Copy)]
pub enum Counter<'a> {
    /// The password of this address, from devices that are not known; of the members, or of a stage's own users.
    Password {
        /// Empty for members.
        stage: &'a str,
        /// The address.
        email: &'a str,
    },
    /// Letters that somebody has sent to this address by a form.
    Letter {
        /// Empty for members.
        stage: &'a str,
        /// The address.
        email: &'a str,
    },
    /// The password of a member, from the known device with this hash.
    Device(&'a [u8; 32]),
    /// Codes that programs wait under, typed by this member.
    UserCode(UserId),
    /// Codes of this member's authenticator app.
    Totp(UserId),
    /// Recovery codes of this member.
    RecoveryCode(UserId),
    /// Answers of this member's passkeys.
    Passkey(UserId),
}

impl Counter<'_> {
    fn kind_and_key(&self) -> (&'static str, String) {
        match self {
            Self::Password { stage: "", email } => ("password", (*email).to_owned()),
            Self::Password { stage, email } => ("stage_password", format!("{stage}/{email}")),
            Self::Letter { stage, email } => ("letter", format!("{stage}/{email}")),
            Self::Device(hash) => ("device", hash.map(|byte| format!("{byte:02x}")).concat()),
            Self::UserCode(member) => ("user_code", member.to_string()),
            Self::Totp(member) => ("totp", member.to_string()),
            Self::RecoveryCode(member) => ("recovery_code", member.to_string()),
            Self::Passkey(member) => ("passkey", member.to_string()),
        }
    }
}

/// Seconds to wait after this many failures: nothing during the free tries, then 2, 4, 8 … 300.
fn wait_s(failures: i64, free_tries: i64) -> i64 {
    match failures.saturating_sub(free_tries) {
        ..0 => 0,
        over => 2_i64
            .checked_shl(over.min(62) as u32)
            .filter(|wait| (1..WAIT_S_MAX).contains(wait))
            .unwrap_or(WAIT_S_MAX),
    }
}

impl CustomerStore<'_> {
    /// Counts a try as if it failed, unless its counter is locked: then `Err` holds the seconds to wait. A
    /// success takes the count back. The write lock is held from the look to the count, so that parallel
    /// guesses cannot pass the limit.
    pub async fn count_try(
        &self,
        counter: Counter<'_>,
        free_tries: i64,
    ) -> Result<std::result::Result<(), i64>> {
        let (now, (kind, key)) = (now_s(), counter.kind_and_key());
        let mut write = self.store.write().await?;
        let row = self
            .query("SELECT failures, until FROM try_counter WHERE customer = ? AND kind = ? AND key = ?")
            .bind(self.customer.to_string())
            .bind(kind)
            .bind(&key)
            .fetch_optional(&mut *write)
            .await?;
        let (failures, until): (i64, i64) = match row {
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
            None => (0, 0),
        };
        if until > now {
            return Ok(Err(until - now));
        }
        let failures = failures.saturating_add(1);
        self.query(
            "INSERT INTO try_counter (customer, kind, key, failures, until, touched) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (customer, kind, key) DO UPDATE SET failures = ?4, until = ?5, touched = ?6",
        )
        .bind(self.customer.to_string())
        .bind(kind)
        .bind(&key)
        .bind(failures)
        .bind(now + wait_s(failures, free_tries))
        .bind(now)
        .execute(&mut *write)
        .await?;
        across("DELETE FROM try_counter WHERE touched < ?").bind(now - FORGET_S).execute(&mut *write).await?;
        write.commit().await?;
        Ok(Ok(()))
    }

    /// Forgets the failures of a counter after a success.
    pub async fn reset_tries(&self, write: &mut Write, counter: Counter<'_>) -> Result<()> {
        let (kind, key) = counter.kind_and_key();
        self.query("DELETE FROM try_counter WHERE customer = ? AND kind = ? AND key = ?")
            .bind(self.customer.to_string())
            .bind(kind)
            .bind(key)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Takes one failure of a counter back: it was counted for a try that was meant for another one.
    pub async fn uncount_try(&self, write: &mut Write, counter: Counter<'_>) -> Result<()> {
        let (kind, key) = counter.kind_and_key();
        self.query(
            "UPDATE try_counter SET failures = failures - 1, until = CASE WHEN until < ?1 THEN until ELSE ?1 END
             WHERE customer = ?2 AND kind = ?3 AND key = ?4 AND failures > 0",
        )
        .bind(now_s())
        .bind(self.customer.to_string())
        .bind(kind)
        .bind(key)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Remembers that this member signed in with the device of this hash.
    pub async fn remember_device(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        member: UserId,
        until: i64,
    ) -> Result<()> {
        self.query("INSERT INTO known_device (customer, hash, member, until) VALUES (?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(member.to_string())
            .bind(until)
            .execute(&mut **write)
            .await?;
        self.query(
            "DELETE FROM known_device WHERE customer = ?1 AND member = ?2 AND hash != ?3 AND (until <= ?4 OR hash NOT IN
             (SELECT hash FROM known_device WHERE customer = ?1 AND member = ?2 AND hash != ?3
              ORDER BY until DESC, hash LIMIT ?5))",
        )
        .bind(self.customer.to_string())
        .bind(member.to_string())
        .bind(&hash[..])
        .bind(now_s())
        .bind(DEVICES_MAX - 1)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Whether the member (`stage` empty) or end user with this address has signed in with the device of this hash.
    pub async fn knows_device(&self, hash: &[u8; 32], stage: &str, email: &str) -> Result<bool> {
        let row = self.query(
            "SELECT 1 FROM known_device JOIN member ON member.customer = known_device.customer AND member.id = known_device.member
             WHERE known_device.customer = ? AND known_device.hash = ? AND known_device.until > ? AND member.stage = ? AND member.email = ?",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(now_s())
        .bind(stage)
        .bind(email)
        .fetch_optional(&self.store.pool)
        .await?;
        Ok(row.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::wait_s;

    #[test]
    fn waits_double_from_two_seconds_to_three_hundred() {
        let waits: Vec<i64> = (1..=15).map(|failures| wait_s(failures, 5)).collect();
        assert_eq!(waits, [0, 0, 0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        for failures in [60, 66, 70, 1000, i64::MAX] {
            assert_eq!(wait_s(failures, 5), 300, "{failures}");
        }
    }
}
