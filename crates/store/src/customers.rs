//! Customers and their stages.

use crate::{
    CustomerStore, Result, Store, StoreError, Write, label, now_s, parse, raise_revision,
    sql::{Row, across},
};
use bastide_types::{CustomerId, CustomerName, Secret, StageName};

/// A customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerRow {
    /// Id.
    pub id: CustomerId,
    /// Name.
    pub name: CustomerName,
}

/// A stage of a customer.
#[derive(Debug, Clone)]
pub struct StageRow {
    /// Customer.
    pub customer: CustomerId,
    /// Its name.
    pub customer_name: CustomerName,
    /// Stage.
    pub name: StageName,
    /// Account on the bus.
    pub account: String,
    /// Seed of the key that signs its agents. Only [`Store::stages_with_replicas`] leaves it empty, where it cannot be opened.
    pub seed: Secret,
    /// Generation of its desired state.
    pub generation: u64,
}

/// A stage to create.
pub struct NewStage<'a> {
    /// Name.
    pub name: &'a StageName,
    /// Account on the bus.
    pub account: &'a str,
    /// Seed of the key that signs its agents.
    pub seed: &'a Secret,
}

const STAGE: &str = "SELECT s.customer, c.name AS customer_name, s.name, s.account, s.seed, s.generation
    FROM stage s JOIN customer c ON c.id = s.customer";

impl Store {
    /// Creates a customer without stages.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the name is, or was given up lately.
    pub async fn create_customer(
        &self,
        write: &mut Write,
        id: CustomerId,
        name: &CustomerName,
    ) -> Result<()> {
        if label::is_locked(write, label::CUSTOMER, name.as_str(), id).await? {
            return Err(StoreError::Taken);
        }
        let name = if name.is_operator() { "operator" } else { name.as_str() };
        across("INSERT INTO customer (id, name, created) VALUES (?, ?, ?)")
            .bind(id.to_string())
            .bind(name)
            .bind(now_s())
            .claim(write)
            .await?;
        raise_revision(write).await
    }

    /// All customers, the operator among them.
    pub async fn customers(&self) -> Result<Vec<CustomerRow>> {
        let rows = across("SELECT id, name FROM customer ORDER BY name").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| Ok(CustomerRow { id: parse(row.try_get(0)?)?, name: name(row.try_get(1)?)? }))
            .collect()
    }

    /// A customer by name.
    pub async fn customer_named(&self, name: &CustomerName) -> Result<Option<CustomerRow>> {
        let row = across("SELECT id FROM customer WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(CustomerRow { id: parse(row.try_get(0)?)?, name: name.clone() })).transpose()
    }

    /// All stages of all customers.
    pub async fn stages(&self) -> Result<Vec<StageRow>> {
        let query = sqlx::AssertSqlSafe(format!("{STAGE} ORDER BY c.name, s.position"));
        let rows = across(query).fetch_all(&self.pool).await?;
        rows.iter().map(|row| self.stage_row(row)).collect()
    }

    /// All stages whose rows can be read. The others are said in the log.
    pub async fn readable_stages(&self) -> Result<Vec<StageRow>> {
        let query = sqlx::AssertSqlSafe(format!("{STAGE} ORDER BY c.name, s.position"));
        let rows = across(query).fetch_all(&self.pool).await?;
        let mut readable = Vec::with_capacity(rows.len());
        for row in &rows {
            match self.stage_row(row) {
                Ok(stage) => readable.push(stage),
                Err(error) if error.is_of_a_row() => {
                    let account = row.try_get::<String, _>("account").unwrap_or_default();
                    tracing::error!(%error, account, "the row of a stage cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(readable)
    }

    /// Stages in which replicas run or should, of all customers. A seed that cannot be opened is empty, a row that cannot be
    /// read is left out: neither holds up the others.
    pub async fn stages_with_replicas(&self) -> Result<Vec<StageRow>> {
        let query = sqlx::AssertSqlSafe(format!(
            "{STAGE} WHERE EXISTS (SELECT 1 FROM replica r WHERE r.customer = s.customer AND r.stage = s.name)
             ORDER BY c.name, s.position"
        ));
        let rows = across(query).fetch_all(&self.pool).await?;
        Ok(rows
            .iter()
            .filter_map(|row| self.stage_row(row).or_else(|why| shut_stage_row(row, &why)).ok())
            .collect())
    }

    /// The stage with this account on the bus.
    pub async fn stage_of_account(&self, account: &str) -> Result<Option<StageRow>> {
        let query = sqlx::AssertSqlSafe(format!("{STAGE} WHERE s.account = ?"));
        let row = across(query).bind(account).fetch_optional(&self.pool).await?;
        row.map(|row| self.stage_row(&row)).transpose()
    }

    fn stage_row(&self, row: &Row) -> Result<StageRow> {
        let account: String = row.try_get("account")?;
        let sealed: Vec<u8> = row.try_get("seed")?;
        let seed = self.kek.open(&seed_place(&account), &sealed)?;
        stage_with(row, Secret::new(String::from_utf8_lossy(&seed)))
    }
}

fn stage_with(row: &Row, seed: Secret) -> Result<StageRow> {
    let generation: i64 = row.try_get("generation")?;
    Ok(StageRow {
        customer: parse(row.try_get("customer")?)?,
        customer_name: name(row.try_get("customer_name")?)?,
        name: parse(row.try_get("name")?)?,
        account: row.try_get("account")?,
        seed,
        generation: generation as u64,
    })
}

/// What is known of a stage whose seed cannot be opened.
fn shut_stage_row(row: &Row, why: &StoreError) -> Result<StageRow> {
    let account = row.try_get::<String, _>("account").unwrap_or_default();
    tracing::error!(%why, account, "a stage's credentials cannot be made");
    stage_with(row, Secret::new(""))
}

impl CustomerStore<'_> {
    /// Adds a stage after the existing ones.
    pub async fn create_stage(&self, write: &mut Write, stage: &NewStage<'_>) -> Result<()> {
        let seed = self.store.kek.seal(&seed_place(stage.account), stage.seed.expose().as_bytes())?;
        self.query(
            "INSERT INTO stage (customer, name, position, account, seed)
             VALUES (?1, ?2, (SELECT COUNT(*) FROM stage WHERE customer = ?1), ?3, ?4)",
        )
        .bind(self.customer.to_string())
        .bind(stage.name.as_str())
        .bind(stage.account)
        .bind(seed)
        .claim(write)
        .await?;
        raise_revision(write).await
    }

    /// The stages, first to last.
    pub async fn stages(&self) -> Result<Vec<StageRow>> {
        let query = sqlx::AssertSqlSafe(format!("{STAGE} WHERE s.customer = ? ORDER BY s.position"));
        let rows = self.query(query).bind(self.customer.to_string()).fetch_all(&self.store.pool).await?;
        rows.iter().map(|row| self.store.stage_row(row)).collect()
    }

    /// Names and accounts of the stages, first to last.
    pub async fn stage_accounts(&self) -> Result<Vec<(StageName, String)>> {
        let rows = self
            .query("SELECT name, account FROM stage WHERE customer = ? ORDER BY position")
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?))).collect()
    }

    /// Names of the stages, first to last.
    pub async fn stage_names(&self) -> Result<Vec<StageName>> {
        let rows = self
            .query("SELECT name FROM stage WHERE customer = ? ORDER BY position")
            .bind(self.customer.to_string())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| parse(row.try_get(0)?)).collect()
    }
}

fn seed_place(account: &str) -> String {
    format!("stage/{account}")
}

fn name(text: &str) -> Result<CustomerName> {
    if text == "operator" { Ok(CustomerName::operator()) } else { parse(text) }
}
