//! Second factors: authenticator apps, recovery codes, and sign-ins that wait for one.

use crate::{CustomerStore, Result, StoreError, Write, from_json, now_s, parse, sql::across, to_json};
use bastide_types::{StageName, StepUp, UserId};
use serde::{Deserialize, Serialize};

/// What a customer demands of its members' sign-ins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SignInPolicy {
    /// Whether everybody needs a second factor.
    pub second_factor: bool,
    /// What some permissions demand of the sign-in of whoever uses them.
    pub step_up: Vec<StepUpRule>,
}

/// What a permission demands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepUpRule {
    /// Name of the permission.
    pub permission: String,
    /// The one stage that it is about.
    #[serde(default)]
    pub stage: Option<StageName>,
    /// The demand.
    pub demand: StepUp,
}

impl CustomerStore<'_> {
    /// The secret of a member's authenticator app.
    pub async fn second_factor(&self, member: UserId) -> Result<Option<Vec<u8>>> {
        let row = self
            .query("SELECT secret FROM second_factor WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let sealed: Vec<u8> = row.try_get(0)?;
        Ok(Some(self.store.kek.open(&self.factor_place("second_factor", member), &sealed)?))
    }

    /// Whether a member or end user has a second factor.
    pub async fn has_second_factor(&self, member: UserId) -> Result<bool> {
        let row = self
            .query("SELECT 1 FROM second_factor WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        Ok(row.is_some())
    }

    /// Gives a member a second factor whose first code was the one of `step`, with these recovery codes.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the member has one already.
    pub async fn add_second_factor(
        &self,
        write: &mut Write,
        member: UserId,
        secret: &[u8],
        step: u64,
        recovery: &[[u8; 32]],
    ) -> Result<()> {
        let sealed = self.store.kek.seal(&self.factor_place("second_factor", member), secret)?;
        self.query("INSERT INTO second_factor (customer, member, secret, last_step) VALUES (?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .bind(sealed)
            .bind(step.cast_signed())
            .claim(write)
            .await?;
        self.set_recovery_codes(write, member, recovery).await
    }

    /// Takes the code of a step; false when it, or a later one, was taken before.
    pub async fn take_step(&self, write: &mut Write, member: UserId, step: u64) -> Result<bool> {
        let done = self.query(
            "UPDATE second_factor SET last_step = ?1 WHERE customer = ?2 AND member = ?3 AND last_step < ?1",
        )
        .bind(step.cast_signed())
        .bind(self.customer.to_string())
        .bind(member.to_string())
        .execute(&mut **write)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes a second factor away with its recovery codes; false when there is none.
    pub async fn remove_second_factor(&self, write: &mut Write, member: UserId) -> Result<bool> {
        let done = self
            .query("DELETE FROM second_factor WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives a member with a second factor other recovery codes, by their hashes.
    pub async fn set_recovery_codes(
        &self,
        write: &mut Write,
        member: UserId,
        hashes: &[[u8; 32]],
    ) -> Result<()> {
        self.query("DELETE FROM recovery_code WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        for hash in hashes {
            self.query("INSERT INTO recovery_code (customer, member, hash) VALUES (?, ?, ?)")
                .bind(self.customer.to_string())
                .bind(member.to_string())
                .bind(&hash[..])
                .execute(&mut **write)
                .await?;
        }
        Ok(())
    }

    /// Takes a recovery code; false when the member has no such one any more.
    pub async fn take_recovery_code(
        &self,
        write: &mut Write,
        member: UserId,
        hash: &[u8; 32],
    ) -> Result<bool> {
        let done = self
            .query("DELETE FROM recovery_code WHERE customer = ? AND member = ? AND hash = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .bind(&hash[..])
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Recovery codes that a member has left.
    pub async fn recovery_codes_left(&self, member: UserId) -> Result<i64> {
        let row = self
            .query("SELECT COUNT(*) FROM recovery_code WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .fetch_one(&self.store.pool)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// A secret that is offered to a member until a time: it opens for that member only, and not later.
    pub fn seal_offer(&self, member: UserId, secret: &[u8], until: i64) -> Result<Vec<u8>> {
        let mut value = until.to_be_bytes().to_vec();
        value.extend_from_slice(secret);
        Ok(self.store.kek.seal(&self.factor_place("offer", member), &value)?)
    }

    /// The secret of an offer, while it is good.
    pub fn open_offer(&self, member: UserId, sealed: &[u8]) -> Option<Vec<u8>> {
        let value = self.store.kek.open(&self.factor_place("offer", member), sealed).ok()?;
        let (until, secret) = value.split_first_chunk()?;
        (i64::from_be_bytes(*until) > now_s()).then(|| secret.to_vec())
    }

    fn factor_place(&self, kind: &str, member: UserId) -> String {
        format!("{kind}/{}/{member}", self.customer)
    }

    /// Remembers that a browser has shown a member's password.
    pub async fn add_half_sign_in(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        member: UserId,
        until: i64,
    ) -> Result<()> {
        across("DELETE FROM half_sign_in WHERE until < ?").bind(now_s()).execute(&mut **write).await?;
        self.query("INSERT INTO half_sign_in (customer, hash, member, until) VALUES (?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(member.to_string())
            .bind(until)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Whose password a browser has shown, while that counts.
    pub async fn half_sign_in(&self, hash: &[u8; 32]) -> Result<Option<UserId>> {
        let row = self
            .query("SELECT member FROM half_sign_in WHERE customer = ? AND hash = ? AND until > ?")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(now_s())
            .fetch_optional(&self.store.pool)
            .await?;
        row.map(|row| parse(row.try_get(0)?)).transpose()
    }

    /// Ends what a browser has shown of a sign-in; false when it was used or ended before.
    pub async fn end_half_sign_in(&self, write: &mut Write, hash: &[u8; 32]) -> Result<bool> {
        let done = self
            .query("DELETE FROM half_sign_in WHERE customer = ? AND hash = ? AND until > ?")
            .bind(self.customer.to_string())
            .bind(&hash[..])
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// What is demanded of sign-ins.
    pub async fn sign_in_policy(&self) -> Result<SignInPolicy> {
        let row = self
            .query("SELECT policy FROM sign_in_policy WHERE customer = ?")
            .bind(self.customer.to_string())
            .fetch_optional(&self.store.pool)
            .await?;
        row.map_or_else(|| Ok(SignInPolicy::default()), |row| from_json(row.try_get(0)?))
    }

    /// Decides what is demanded of sign-ins from now on.
    pub async fn set_sign_in_policy(&self, write: &mut Write, policy: &SignInPolicy) -> Result<()> {
        self.query(
            "INSERT INTO sign_in_policy (customer, policy) VALUES (?1, ?2) ON CONFLICT (customer) DO UPDATE SET policy = ?2",
        )
        .bind(self.customer.to_string())
        .bind(to_json(policy)?)
        .execute(&mut **write)
        .await
        .map_err(StoreError::from)?;
        Ok(())
    }
}
