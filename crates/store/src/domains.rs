//! Custom domains: claims, whose they are, what they serve with.

use crate::{
    CustomerStore, Result, Store, StoreError, Write, label, now_s, parse, raise_revision,
    services::password,
    sql::{Row, across},
};
use bastide_types::{AppName, CustomerId, DomainName, Secret, StageName};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How long a claim may wait for its record, in seconds.
pub const CLAIM_LIFE_S: i64 = 72 * 3600;

/// How a domain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainState {
    /// The record was not seen yet.
    PendingValidation,
    /// Proven, without a certificate yet.
    PendingCertificate,
    /// There is a certificate, but the name does not lead here yet.
    Issued,
    /// It serves.
    Active,
    /// The ownership was lost.
    Failed,
    /// The claim was not proven in time, or the certificate has ended.
    Expired,
}

impl DomainState {
    /// As the API says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PendingValidation => "pending-validation",
            Self::PendingCertificate => "pending-certificate",
            Self::Issued => "issued",
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// A claim on a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRow {
    /// Customer.
    pub customer: CustomerId,
    /// Domain.
    pub name: DomainName,
    /// Stage.
    pub stage: StageName,
    /// What the TXT record must say.
    pub token: String,
    /// The app that it serves at `/`.
    pub app: Option<AppName>,
    /// Whether addresses of the stage are shown with it.
    pub is_default: bool,
    /// Seconds since 1970.
    pub created: i64,
    /// Since when it is proven, in seconds since 1970.
    pub validated: Option<i64>,
    /// Since when the record has been missing.
    pub missing_since: Option<i64>,
    /// When the ownership was lost.
    pub lost: Option<i64>,
    /// Whether the name leads to where the stage's built-in host leads.
    pub leads_here: bool,
    /// When the record was looked for last.
    pub checked: Option<i64>,
    /// What is wrong, for people.
    pub problem: Option<String>,
    /// Where its certificate comes from (`acme` or `uploaded`) and when it ends.
    pub certificate: Option<(String, i64)>,
    /// What is wrong with the order of one, for people.
    pub order_problem: Option<String>,
}

impl DomainRow {
    /// How it is at a time.
    pub fn state(&self, now: i64) -> DomainState {
        match (self.validated, &self.certificate) {
            (None, _) if self.lost.is_some() => DomainState::Failed,
            (None, _) if now >= self.created + CLAIM_LIFE_S => DomainState::Expired,
            (None, _) => DomainState::PendingValidation,
            (Some(_), None) => DomainState::PendingCertificate,
            (Some(_), Some((_, ends))) if *ends <= now => DomainState::Expired,
            (Some(_), Some(_)) if self.leads_here => DomainState::Active,
            (Some(_), Some(_)) => DomainState::Issued,
        }
    }
}

/// What a look at the DNS told of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainCheck<'a> {
    /// Since when the record is missing, if it is.
    pub missing_since: Option<i64>,
    /// Whether the name leads here.
    pub leads_here: bool,
    /// When to look again.
    pub check_at: i64,
    /// What is wrong, for people.
    pub problem: Option<&'a str>,
}

/// A certificate to serve with.
#[derive(Debug, Clone)]
pub struct NewCertificate<'a> {
    /// `acme` or `uploaded`.
    pub source: &'a str,
    /// Chain, PEM.
    pub chain: &'a str,
    /// Key, PEM.
    pub key: &'a Secret,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// What the data plane must know of a proven domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedDomain {
    /// Domain.
    pub name: DomainName,
    /// Stage.
    pub stage: StageName,
    /// The app at `/`.
    pub app: Option<AppName>,
    /// Chain, and the key sealed for edges by the ids of their keys.
    pub certificate: Option<(String, BTreeMap<String, Vec<u8>>)>,
    /// Token and key authorization of an open challenge.
    pub challenge: Option<(String, String)>,
}

/// A domain for which an authority should be asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRow {
    /// Customer.
    pub customer: CustomerId,
    /// Domain.
    pub name: DomainName,
    /// How often it failed in a row.
    pub attempts: u32,
    /// Whether the name leads here, as far as known.
    pub leads_here: bool,
    /// The certificate that it has from the authority: chain, when it was taken, when it ends.
    pub certificate: Option<(String, i64, i64)>,
}

/// A private key that some edge does not have yet.
pub struct UnsealedKey {
    /// Customer.
    pub customer: CustomerId,
    /// Domain.
    pub name: DomainName,
    /// Id of the certificate.
    pub certificate: String,
    /// The key, PEM.
    pub key: Secret,
}

const DOMAIN: &str = "SELECT d.*, c.source, c.not_after, o.problem AS order_problem FROM domain d
    LEFT JOIN domain_certificate c ON c.customer = d.customer AND c.domain = d.name
    LEFT JOIN domain_order o ON o.customer = d.customer AND o.domain = d.name";

impl Store {
    /// Claims whose record should be looked for now, of all customers; the longest due first.
    pub async fn domains_due(&self, most: u32) -> Result<Vec<DomainRow>> {
        let query =
            sqlx::AssertSqlSafe(format!("{DOMAIN} WHERE d.check_at <= ? ORDER BY d.check_at LIMIT ?"));
        let rows = across(query).bind(now_s()).bind(most).fetch_all(&self.pool).await?;
        rows.iter().map(domain_row).collect()
    }

    /// The proven claim on a domain, whoever's it is.
    pub async fn domain_owner(&self, name: &DomainName) -> Result<Option<DomainRow>> {
        let query = sqlx::AssertSqlSafe(format!("{DOMAIN} WHERE d.name = ? AND d.validated IS NOT NULL"));
        let row = across(query).bind(name.as_str()).fetch_optional(&self.pool).await?;
        row.as_ref().map(domain_row).transpose()
    }

    /// Keys that are not sealed for this edge yet, or for an older certificate.
    pub async fn keys_unsealed(&self, edge: &str) -> Result<Vec<UnsealedKey>> {
        let rows = across(
            "SELECT c.customer, c.domain, c.id, c.key FROM domain_certificate c LEFT JOIN domain_key k
                ON k.customer = c.customer AND k.domain = c.domain AND k.edge = ?
             WHERE k.certificate IS NULL OR k.certificate != c.id",
        )
        .bind(edge)
        .fetch_all(&self.pool)
        .await?;
        let unsealed = |row: &Row| {
            let customer: CustomerId = parse(row.try_get(0)?)?;
            let name: DomainName = parse(row.try_get(1)?)?;
            let key = self.kek.open(&key_place(customer, &name), row.try_get(3)?)?;
            let key = Secret::new(String::from_utf8_lossy(&key));
            Ok(UnsealedKey { customer, name, certificate: row.try_get(2)?, key })
        };
        rows.iter().map(unsealed).collect()
    }

    /// Domains whose order is due, of all customers. Who uploaded a certificate wants none.
    pub async fn orders_due(&self, most: u32) -> Result<Vec<OrderRow>> {
        let rows = across(
            "SELECT d.customer, d.name, o.attempts, d.leads_here, c.chain, c.taken, c.not_after FROM domain d
                JOIN domain_order o ON o.customer = d.customer AND o.domain = d.name
                LEFT JOIN domain_certificate c ON c.customer = d.customer AND c.domain = d.name
             WHERE o.next_at <= ? AND d.validated IS NOT NULL AND (c.source IS NULL OR c.source = 'acme')
             ORDER BY o.next_at LIMIT ?",
        )
        .bind(now_s())
        .bind(most)
        .fetch_all(&self.pool)
        .await?;
        let order = |row: &Row| {
            let certificate = match row.try_get::<Option<String>, _>(4)? {
                Some(chain) => Some((chain, row.try_get(5)?, row.try_get(6)?)),
                None => None,
            };
            Ok(OrderRow {
                customer: parse(row.try_get(0)?)?,
                name: parse(row.try_get(1)?)?,
                attempts: row.try_get(2)?,
                leads_here: row.try_get(3)?,
                certificate,
            })
        };
        rows.iter().map(order).collect()
    }

    /// The account at an authority: credentials as the client wrote them.
    pub async fn acme_account(&self, directory: &str) -> Result<Option<Secret>> {
        let row = across("SELECT credentials FROM acme_account WHERE directory = ?")
            .bind(directory)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let opened = self.kek.open(&account_place(directory), row.try_get(0)?)?;
        Ok(Some(Secret::new(String::from_utf8_lossy(&opened))))
    }

    /// Keeps the account at an authority.
    pub async fn put_acme_account(&self, directory: &str, credentials: &Secret) -> Result<()> {
        let sealed = self.kek.seal(&account_place(directory), credentials.expose().as_bytes())?;
        across(
            "INSERT INTO acme_account (directory, credentials) VALUES (?1, ?2)
             ON CONFLICT (directory) DO UPDATE SET credentials = ?2",
        )
        .bind(directory)
        .bind(sealed)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Whether something is sealed for an edge that is not among these.
    pub async fn has_other_edges(&self, known: &[String]) -> Result<bool> {
        let rows = across("SELECT DISTINCT edge FROM domain_key").fetch_all(&self.pool).await?;
        for row in &rows {
            if !known.iter().any(|edge| row.try_get::<&str, _>(0).is_ok_and(|own| own == edge)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets what was sealed for edges that are not among these.
    pub async fn forget_edges(&self, write: &mut Write, known: &[String]) -> Result<()> {
        let rows = across("SELECT DISTINCT edge FROM domain_key").fetch_all(&mut **write).await?;
        for row in &rows {
            let edge: &str = row.try_get(0)?;
            if !known.iter().any(|known| known == edge) {
                across("DELETE FROM domain_key WHERE edge = ?").bind(edge).execute(&mut **write).await?;
            }
        }
        raise_revision(write).await
    }

    /// Certificates that end before a time, of all customers: domain and end.
    pub async fn certificates_ending(&self, before: i64) -> Result<Vec<(DomainName, i64)>> {
        let rows = across("SELECT domain, not_after FROM domain_certificate WHERE not_after < ?")
            .bind(before)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?))).collect()
    }
}

impl CustomerStore<'_> {
    /// All claims of the customer.
    pub async fn domains(&self) -> Result<Vec<DomainRow>> {
        let query = sqlx::AssertSqlSafe(format!("{DOMAIN} WHERE d.customer = ? ORDER BY d.name"));
        let rows = self.query(query).bind(self.customer.to_string()).fetch_all(&self.store.pool).await?;
        rows.iter().map(domain_row).collect()
    }

    /// One claim.
    pub async fn domain(&self, name: &DomainName) -> Result<Option<DomainRow>> {
        let query = sqlx::AssertSqlSafe(format!("{DOMAIN} WHERE d.customer = ? AND d.name = ?"));
        let query = self.query(query).bind(self.customer.to_string()).bind(name.as_str());
        query.fetch_optional(&self.store.pool).await?.as_ref().map(domain_row).transpose()
    }

    /// Claims a domain for a stage. An older claim of the customer that came to nothing is replaced.
    ///
    /// # Errors
    /// [`StoreError::Taken`] while the customer has a live claim on it.
    pub async fn claim_domain(
        &self,
        write: &mut Write,
        name: &DomainName,
        stage: &StageName,
        app: Option<&AppName>,
    ) -> Result<()> {
        let now = now_s();
        self.query(
            "DELETE FROM domain WHERE customer = ? AND name = ? AND validated IS NULL
             AND (lost IS NOT NULL OR created <= ?)",
        )
        .bind(self.customer.to_string())
        .bind(name.as_str())
        .bind(now - CLAIM_LIFE_S)
        .execute(&mut **write)
        .await?;
        self.query(
            "INSERT INTO domain (customer, name, stage, token, app, created, check_at) VALUES (?, ?, ?, ?, ?, ?6, ?6)",
        )
        .bind(self.customer.to_string())
        .bind(name.as_str())
        .bind(stage.as_str())
        .bind(password()?.expose())
        .bind(app.map(AppName::as_str))
        .bind(now)
        .claim(write)
.await?;
        Ok(())
    }

    /// Notes what the DNS told. The Snapshot is not touched.
    pub async fn note_domain_check(
        &self,
        write: &mut Write,
        name: &DomainName,
        check: &DomainCheck<'_>,
    ) -> Result<()> {
        self.query(
            "UPDATE domain SET checked = ?, missing_since = ?, leads_here = ?, check_at = ?, problem = ?
             WHERE customer = ? AND name = ?",
        )
        .bind(now_s())
        .bind(check.missing_since)
        .bind(check.leads_here)
        .bind(check.check_at)
        .bind(check.problem)
        .bind(self.customer.to_string())
        .bind(name.as_str())
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Has the record of a domain looked for at the next opportunity.
    pub async fn hurry_domain(&self, write: &mut Write, name: &DomainName) -> Result<()> {
        self.query("UPDATE domain SET check_at = ?1 WHERE customer = ?2 AND name = ?3 AND check_at > ?1")
            .bind(now_s())
            .bind(self.customer.to_string())
            .bind(name.as_str())
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// The domain belongs to this customer and stage from now on.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when it belongs to somebody else, or somebody else gave it up lately.
    pub async fn validate_domain(&self, write: &mut Write, name: &DomainName) -> Result<()> {
        if label::is_locked(write, label::DOMAIN, name.as_str(), self.customer).await? {
            return Err(StoreError::Taken);
        }
        let made = self.query(
            "UPDATE domain SET validated = ?, lost = NULL WHERE customer = ? AND name = ? AND validated IS NULL",
        )
        .bind(now_s())
        .bind(self.customer.to_string())
        .bind(name.as_str())
        .claim(write)
.await?;
        if made.rows_affected() == 0 {
            return Ok(());
        }
        self.query(
            "INSERT INTO domain_order (customer, domain, next_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(self.customer.to_string())
        .bind(name.as_str())
        .bind(now_s())
        .execute(&mut **write)
        .await?;
        raise_revision(write).await
    }

    /// The domain is this customer's no more: the record stayed away. Nothing is locked, for the DNS has spoken.
    pub async fn lose_domain(&self, write: &mut Write, name: &DomainName, problem: &str) -> Result<()> {
        for table in ["domain_certificate", "domain_order"] {
            self.delete_of(write, table, name).await?;
        }
        self.query(
            "UPDATE domain SET validated = NULL, lost = ?, is_default = 0, leads_here = 0, check_at = ?, problem = ?
             WHERE customer = ? AND name = ?",
        )
        .bind(now_s())
        .bind(i64::MAX)
        .bind(problem)
        .bind(self.customer.to_string())
        .bind(name.as_str())
        .execute(&mut **write)
        .await?;
        raise_revision(write).await
    }

    async fn delete_of(&self, write: &mut Write, table: &'static str, name: &DomainName) -> Result<()> {
        let query = sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE customer = ? AND domain = ?"));
        self.query(query).bind(self.customer.to_string()).bind(name.as_str()).execute(&mut **write).await?;
        Ok(())
    }

    /// Gives a domain up. One that was proven is locked for others for a while. False when there is none.
    pub async fn remove_domain(&self, write: &mut Write, name: &DomainName) -> Result<bool> {
        let row = self
            .query("DELETE FROM domain WHERE customer = ? AND name = ? RETURNING validated")
            .bind(self.customer.to_string())
            .bind(name.as_str())
            .fetch_optional(&mut **write)
            .await?;
        let Some(row) = row else { return Ok(false) };
        if row.try_get::<Option<i64>, _>(0)?.is_some() {
            label::lock(write, label::DOMAIN, name.as_str(), self.customer).await?;
            raise_revision(write).await?;
        }
        Ok(true)
    }

    /// Shows the addresses of its stage with this domain, or with the built-in host again.
    pub async fn set_default_domain(
        &self,
        write: &mut Write,
        stage: &StageName,
        name: Option<&DomainName>,
    ) -> Result<()> {
        self.query("UPDATE domain SET is_default = 0 WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .execute(&mut **write)
            .await?;
        if let Some(name) = name {
            self.query("UPDATE domain SET is_default = 1 WHERE customer = ? AND stage = ? AND name = ?")
                .bind(self.customer.to_string())
                .bind(stage.as_str())
                .bind(name.as_str())
                .execute(&mut **write)
                .await?;
        }
        Ok(())
    }

    /// The domain with which addresses of a stage are shown.
    pub async fn default_domain(&self, stage: &StageName) -> Result<Option<DomainRow>> {
        let all = self.domains().await?;
        Ok(all.into_iter().find(|domain| domain.is_default && domain.stage == *stage))
    }

    /// Puts a certificate in the place of the one before it.
    pub async fn put_certificate(
        &self,
        write: &mut Write,
        name: &DomainName,
        new: &NewCertificate<'_>,
    ) -> Result<()> {
        let place = key_place(self.customer, name);
        let sealed = self.store.kek.seal(&place, new.key.expose().as_bytes())?;
        self.query(
            "INSERT INTO domain_certificate (customer, domain, id, source, chain, key, not_after, taken)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (customer, domain) DO UPDATE SET id = ?3, source = ?4, chain = ?5, key = ?6, not_after = ?7, taken = ?8",
        )
        .bind(self.customer.to_string())
        .bind(name.as_str())
        .bind(Uuid::now_v7().to_string())
        .bind(new.source)
        .bind(new.chain)
        .bind(sealed)
        .bind(new.not_after)
        .bind(now_s())
        .execute(&mut **write)
        .await?;
        raise_revision(write).await
    }

    /// Answers a challenge on all edges: token and key authorization; or ends that.
    pub async fn set_challenge(
        &self,
        write: &mut Write,
        name: &DomainName,
        challenge: Option<(&str, &str)>,
    ) -> Result<()> {
        let changed = self
            .query(
                "UPDATE domain_order SET token = ?1, key_authorization = ?2
             WHERE customer = ?3 AND domain = ?4 AND token IS DISTINCT FROM ?1",
            )
            .bind(challenge.map(|(token, _)| token))
            .bind(challenge.map(|(_, answer)| answer))
            .bind(self.customer.to_string())
            .bind(name.as_str())
            .execute(&mut **write)
            .await?;
        if changed.rows_affected() == 1 { raise_revision(write).await } else { Ok(()) }
    }

    /// When an order is gone on with, how often it failed, and why, for people.
    pub async fn note_order(
        &self,
        write: &mut Write,
        name: &DomainName,
        (next_at, attempts, problem): (i64, u32, Option<&str>),
    ) -> Result<()> {
        self.query(
            "UPDATE domain_order SET next_at = ?, attempts = ?, problem = ? WHERE customer = ? AND domain = ?",
        )
        .bind(next_at)
        .bind(attempts)
        .bind(problem)
        .bind(self.customer.to_string())
        .bind(name.as_str())
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Keeps the key of a certificate sealed for one edge.
    pub async fn put_sealed_key(
        &self,
        write: &mut Write,
        key: &UnsealedKey,
        edge: &str,
        sealed: &[u8],
    ) -> Result<()> {
        // The certificate may have been replaced or removed meanwhile.
        let kept = self.query(
            "INSERT INTO domain_key (customer, domain, edge, certificate, sealed)
             SELECT customer, domain, ?3, id, ?5 FROM domain_certificate WHERE customer = ?1 AND domain = ?2 AND id = ?4
             ON CONFLICT (customer, domain, edge) DO UPDATE SET certificate = ?4, sealed = ?5",
        )
        .bind(self.customer.to_string())
        .bind(key.name.as_str())
        .bind(edge)
        .bind(&key.certificate)
        .bind(sealed)
        .execute(&mut **write)
        .await?;
        if kept.rows_affected() == 1 { raise_revision(write).await } else { Ok(()) }
    }

    /// What the data plane must know of the customer's proven domains.
    pub async fn served_domains(&self) -> Result<Vec<ServedDomain>> {
        let rows = self
            .query(
                "SELECT d.name, d.stage, d.app, c.chain, c.id, o.token, o.key_authorization FROM domain d
                LEFT JOIN domain_certificate c ON c.customer = d.customer AND c.domain = d.name
                LEFT JOIN domain_order o ON o.customer = d.customer AND o.domain = d.name
             WHERE d.customer = ? AND d.validated IS NOT NULL ORDER BY d.name",
            )
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        let mut served = Vec::new();
        for row in &rows {
            let name: DomainName = parse(row.try_get(0)?)?;
            let certificate = match (row.try_get::<Option<String>, _>(3)?, row.try_get::<Option<&str>, _>(4)?)
            {
                (Some(chain), Some(id)) => Some((chain, self.sealed_keys(&name, id).await?)),
                _ => None,
            };
            served.push(ServedDomain {
                certificate,
                name,
                stage: parse(row.try_get(1)?)?,
                app: row.try_get::<Option<&str>, _>(2)?.map(parse).transpose()?,
                challenge: row.try_get::<Option<String>, _>(5)?.zip(row.try_get(6)?),
            });
        }
        Ok(served)
    }

    async fn sealed_keys(&self, name: &DomainName, certificate: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let rows = self
            .query(
                "SELECT edge, sealed FROM domain_key WHERE customer = ? AND domain = ? AND certificate = ?",
            )
            .bind(self.customer.to_string())
            .bind(name.as_str())
            .bind(certificate)
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// How often somebody of this customer did something since a time, by the audit trail.
    pub async fn audited_since(&self, write: &mut Write, what: &str, since: i64) -> Result<u64> {
        let row = self
            .query("SELECT COUNT(*) FROM audit_entry WHERE customer = ? AND what = ? AND at > ?")
            .bind(self.customer.to_string())
            .bind(what)
            .bind(since)
            .fetch_one(&mut **write)
            .await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }
}

fn domain_row(row: &Row) -> Result<DomainRow> {
    let source: Option<String> = row.try_get("source")?;
    Ok(DomainRow {
        customer: parse(row.try_get("customer")?)?,
        name: parse(row.try_get("name")?)?,
        stage: parse(row.try_get("stage")?)?,
        token: row.try_get("token")?,
        app: row.try_get::<Option<&str>, _>("app")?.map(parse).transpose()?,
        is_default: row.try_get("is_default")?,
        created: row.try_get("created")?,
        validated: row.try_get("validated")?,
        missing_since: row.try_get("missing_since")?,
        lost: row.try_get("lost")?,
        leads_here: row.try_get("leads_here")?,
        checked: row.try_get("checked")?,
        problem: row.try_get("problem")?,
        certificate: source.zip(row.try_get("not_after")?),
        order_problem: row.try_get("order_problem")?,
    })
}

fn account_place(directory: &str) -> String {
    format!("acme_account/{directory}")
}

fn key_place(customer: CustomerId, name: &DomainName) -> String {
    format!("domain_certificate/{customer}/{name}")
}
