//! Mail that waits to be sent, and the links that it brings.

use crate::{
    CustomerStore, MemberRow, Result, Store, Write, from_json, now_s, parse,
    sql::{Row, across},
    to_json,
};
use bastide_types::{CustomerId, StageName, UserId};
use serde::{Deserialize, Serialize};

/// Mail that waits of one customer at most: a flood of invitations must not fill the disk.
const WAITING_MAX: i64 = 10_000;

/// A letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// Address.
    pub to: String,
    /// Subject.
    pub subject: String,
    /// Plain text.
    pub text: String,
}

/// A letter that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailRow {
    /// Whose it is.
    pub customer: CustomerId,
    /// Id.
    pub id: String,
    /// How often sending it failed.
    pub tries: i64,
    /// Seconds since 1970 after which it is not tried any more.
    pub until: i64,
    /// What it says.
    pub mail: Mail,
}

/// A link by which somebody chooses a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// Whose new password it is for; `None`: an account that is to be made.
    pub member: Option<UserId>,
    /// Stage of the account; empty for members.
    pub stage: String,
    /// Address of the account.
    pub email: String,
    /// Whether it went by mail.
    pub mailed: bool,
    /// Seconds since 1970 at which it ends.
    pub until: i64,
}

impl LinkRow {
    fn kind(&self) -> &'static str {
        if self.member.is_some() { "reset" } else { "registration" }
    }
}

impl Store {
    /// Ids of all letters that wait.
    pub async fn mail_waiting(&self) -> Result<Vec<String>> {
        let rows = across("SELECT id FROM mail ORDER BY next").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Letters that are due, the oldest first.
    pub async fn mail_due(&self, most: u32) -> Result<Vec<MailRow>> {
        let rows = across(
            "SELECT customer, id, tries, until, sealed FROM mail WHERE next <= ? ORDER BY next LIMIT ?",
        )
        .bind(now_s())
        .bind(most)
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &Row| {
            let (customer, id): (CustomerId, String) = (parse(row.try_get(0)?)?, row.try_get(1)?);
            let sealed: Vec<u8> = row.try_get(4)?;
            let open = self.kek.open(&place(customer, &id), &sealed)?;
            let mail = from_json(&String::from_utf8_lossy(&open))?;
            Ok(MailRow { customer, id, tries: row.try_get(2)?, until: row.try_get(3)?, mail })
        };
        rows.iter().map(read).collect()
    }
}

impl CustomerStore<'_> {
    /// Puts a letter among those that wait; false when too many do.
    pub async fn post(&self, write: &mut Write, mail: &Mail, until: i64) -> Result<bool> {
        let row = self
            .query("SELECT COUNT(*) FROM mail WHERE customer = ?")
            .bind(self.customer.to_string())
            .fetch_one(&mut **write)
            .await?;
        if row.try_get::<i64, _>(0)? >= WAITING_MAX {
            return Ok(false);
        }
        let id = uuid::Uuid::now_v7().to_string();
        let sealed = self.store.kek.seal(&place(self.customer, &id), to_json(mail)?.as_bytes())?;
        self.query("INSERT INTO mail (customer, id, sealed, next, until) VALUES (?, ?, ?, ?, ?)")
            .bind(self.customer.to_string())
            .bind(id)
            .bind(sealed)
            .bind(now_s())
            .bind(until)
            .execute(&mut **write)
            .await?;
        Ok(true)
    }

    /// Forgets a letter that was sent or given up.
    pub async fn forget_mail(&self, write: &mut Write, id: &str) -> Result<()> {
        self.query("DELETE FROM mail WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(id)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Tries a letter again, not before this time.
    pub async fn put_mail_off(&self, write: &mut Write, id: &str, next: i64) -> Result<()> {
        self.query("UPDATE mail SET tries = tries + 1, next = ? WHERE customer = ? AND id = ?")
            .bind(next)
            .bind(self.customer.to_string())
            .bind(id)
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Stores a link by its hash. Those of before for the same account stop working.
    pub async fn add_link(&self, write: &mut Write, hash: &[u8; 32], link: &LinkRow) -> Result<()> {
        across("DELETE FROM link WHERE until <= ?").bind(now_s()).execute(&mut **write).await?;
        self.query("DELETE FROM link WHERE customer = ? AND kind = ? AND stage = ? AND email = ?")
            .bind(self.customer.to_string())
            .bind(link.kind())
            .bind(&link.stage)
            .bind(&link.email)
            .execute(&mut **write)
            .await?;
        self.query(
            "INSERT INTO link (customer, hash, kind, member, stage, email, mailed, until) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(link.kind())
        .bind(link.member.map(|member| member.to_string()))
        .bind(&link.stage)
        .bind(&link.email)
        .bind(link.mailed)
        .bind(link.until)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// A link, while it is good.
    pub async fn link(&self, hash: &[u8; 32]) -> Result<Option<LinkRow>> {
        let row = self.query(
            "SELECT member, stage, email, mailed, until FROM link WHERE customer = ? AND hash = ? AND until > ?",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(now_s())
        .fetch_optional(&self.store.pool)
        .await?;
        row.as_ref().map(link_row).transpose()
    }

    /// Uses a link up; `None` when it was not good any more.
    pub async fn take_link(&self, write: &mut Write, hash: &[u8; 32]) -> Result<Option<LinkRow>> {
        let row = self.query(
            "DELETE FROM link WHERE customer = ? AND hash = ? AND until > ? RETURNING member, stage, email, mailed, until",
        )
        .bind(self.customer.to_string())
        .bind(&hash[..])
        .bind(now_s())
        .fetch_optional(&mut **write)
        .await?;
        row.as_ref().map(link_row).transpose()
    }

    /// Gives an active account another password, which ends its sessions. With `proven`, mail has proven its address.
    pub async fn set_password(
        &self,
        write: &mut Write,
        member: UserId,
        password: &str,
        proven: bool,
    ) -> Result<bool> {
        let done = self.query(
            "UPDATE member SET password = ?, verified = CASE WHEN ? = 1 THEN 1 ELSE verified END WHERE customer = ? AND id = ? AND state = 'active'",
        )
        .bind(password)
        .bind(proven)
        .bind(self.customer.to_string())
        .bind(member.to_string())
        .execute(&mut **write)
        .await?;
        self.end_sessions_of(write, member).await?;
        self.query("DELETE FROM half_sign_in WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(member.to_string())
            .execute(&mut **write)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Makes an account that somebody registered, with a proven address. An invitation that was not accepted is
    /// accepted by it; `None` when the address has an account.
    pub async fn register(&self, write: &mut Write, user: &MemberRow) -> Result<Option<UserId>> {
        let row = self
            .query(
                "INSERT INTO member (customer, id, stage, email, name, state, roles, password, verified)
             VALUES (?, ?, ?, ?, ?, 'active', '[]', ?, 1)
             ON CONFLICT (customer, stage, email) DO UPDATE
                SET state = 'active', name = excluded.name, password = excluded.password, verified = 1
             WHERE member.state = 'invited' RETURNING id",
            )
            .bind(self.customer.to_string())
            .bind(user.id.to_string())
            .bind(&user.stage)
            .bind(&user.email)
            .bind(&user.name)
            .bind(&user.password)
            .fetch_optional(&mut **write)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let id: UserId = parse(row.try_get(0)?)?;
        self.query("DELETE FROM invitation WHERE customer = ? AND member = ?")
            .bind(self.customer.to_string())
            .bind(id.to_string())
            .execute(&mut **write)
            .await?;
        Ok(Some(id))
    }

    /// Whether everybody may make an account at a stage.
    pub async fn is_open(&self, stage: &StageName) -> Result<bool> {
        let row = self
            .query("SELECT 1 FROM registration WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_optional(&self.store.pool)
            .await?;
        Ok(row.is_some())
    }

    /// Lets everybody make an account at a stage, or nobody any more; then links of before count no longer.
    pub async fn set_open(&self, write: &mut Write, stage: &StageName, open: bool) -> Result<()> {
        let queries: &[&'static str] = if open {
            &["INSERT INTO registration (customer, stage) VALUES (?, ?) ON CONFLICT DO NOTHING"]
        } else {
            &[
                "DELETE FROM registration WHERE customer = ? AND stage = ?",
                "DELETE FROM link WHERE customer = ? AND stage = ? AND kind = 'registration'",
            ]
        };
        for query in queries {
            self.query(*query)
                .bind(self.customer.to_string())
                .bind(stage.as_str())
                .execute(&mut **write)
                .await?;
        }
        Ok(())
    }
}

fn link_row(row: &Row) -> Result<LinkRow> {
    let member: Option<String> = row.try_get(0)?;
    Ok(LinkRow {
        member: member.as_deref().map(parse).transpose()?,
        stage: row.try_get(1)?,
        email: row.try_get(2)?,
        mailed: row.try_get(3)?,
        until: row.try_get(4)?,
    })
}

fn place(customer: CustomerId, id: &str) -> String {
    format!("mail/{customer}/{id}")
}
