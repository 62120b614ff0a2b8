//! Databases of apps, and the logins to them.

use crate::{
    CustomerStore, Result, Store, StoreError, Write, now_s, parse,
    sql::{Row, across},
};
use aws_lc_rs::rand;
use bastide_types::{AppId, CustomerId, ReplicaId, Secret, StageName};
use uuid::Uuid;

const PASSWORD_LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 32 letters of 5 bits.
const PASSWORD_LENGTH: usize = 32;

/// A login to the database of an app in a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresRow {
    /// Customer.
    pub customer: CustomerId,
    /// Stage.
    pub stage: StageName,
    /// App.
    pub app: AppId,
    /// Database on the server, and the role that owns what is in it.
    pub database: String,
    /// Id; ids made later sort later, and replicas made later use it.
    pub id: Uuid,
    /// Counts the logins to this database.
    pub number: u32,
    /// Password.
    pub password: Secret,
    /// Most connections, as wanted.
    pub connections: u32,
    /// Most connections, as the server has it; `None` while it is not made there.
    pub applied: Option<u32>,
    /// Why not, for people.
    pub problem: Option<String>,
    /// Seconds since 1970.
    pub created: i64,
}

impl PostgresRow {
    /// The role on the server that signs in.
    pub fn user(&self) -> String {
        format!("{}_{}", self.database, self.number)
    }

    fn place(&self) -> String {
        place(self.customer, self.id)
    }
}

/// The login that a replica uses: the newest one that is older than the replica.
pub fn login_of(logins: &[PostgresRow], app: AppId, replica: ReplicaId) -> Option<&PostgresRow> {
    logins.iter().filter(|login| login.app == app && login.id < replica.0).max_by_key(|login| login.id)
}

const LOGIN: &str = "SELECT l.customer, l.stage, l.app, d.name AS database, l.id, l.number, l.password, l.connections,
        l.applied, l.problem, l.created
    FROM postgres_login l JOIN postgres_database d ON d.customer = l.customer AND d.stage = l.stage AND d.app = l.app";

impl Store {
    /// Logins of all customers that the server does not have yet, or has with another limit; oldest first.
    pub async fn postgres_wanted(&self) -> Result<Vec<PostgresRow>> {
        self.postgres("WHERE l.applied IS NULL OR l.applied != l.connections").await
    }

    /// Logins of all customers that the server should have.
    pub async fn postgres_made(&self) -> Result<Vec<PostgresRow>> {
        self.postgres("WHERE l.applied IS NOT NULL").await
    }

    /// Logins of all customers that nobody uses any more: there is a newer one, and no replica is left that came
    /// before that.
    pub async fn postgres_unused(&self) -> Result<Vec<PostgresRow>> {
        let all = self.postgres("").await?;
        let mut unused = Vec::new();
        for login in &all {
            let same = |other: &&PostgresRow| {
                (other.customer, &other.stage, other.app) == (login.customer, &login.stage, login.app)
            };
            let logins: Vec<_> = all.iter().filter(same).cloned().collect();
            // Only what is on the server replaces another.
            if !logins.iter().any(|newer| newer.id > login.id && newer.applied.is_some()) {
                continue;
            }
            let replicas = self.customer(login.customer).replicas(&login.stage).await?;
            let uses = |replica: ReplicaId| {
                login_of(&logins, login.app, replica).is_some_and(|own| own.id == login.id)
            };
            if !replicas.iter().any(|replica| replica.app == login.app && uses(replica.id)) {
                unused.push(login.clone());
            }
        }
        Ok(unused)
    }

    async fn postgres(&self, condition: &str) -> Result<Vec<PostgresRow>> {
        let query = sqlx::AssertSqlSafe(format!("{LOGIN} {condition} ORDER BY l.id"));
        let rows = across(query).fetch_all(&self.pool).await?;
        rows.iter().map(|row| self.postgres_row(row)).collect()
    }

    fn postgres_row(&self, row: &Row) -> Result<PostgresRow> {
        let sealed: Vec<u8> = row.try_get("password")?;
        let mut login = PostgresRow {
            customer: parse(row.try_get("customer")?)?,
            stage: parse(row.try_get("stage")?)?,
            app: parse(row.try_get("app")?)?,
            database: row.try_get("database")?,
            id: parse(row.try_get("id")?)?,
            number: row.try_get("number")?,
            password: Secret::new(""),
            connections: row.try_get("connections")?,
            applied: row.try_get("applied")?,
            problem: row.try_get("problem")?,
            created: row.try_get("created")?,
        };
        let password = self.kek.open(&login.place(), &sealed)?;
        login.password = Secret::new(String::from_utf8_lossy(&password));
        Ok(login)
    }
}

impl CustomerStore<'_> {
    /// Logins to the databases of a stage, oldest first.
    pub async fn postgres(&self, stage: &StageName) -> Result<Vec<PostgresRow>> {
        let query =
            sqlx::AssertSqlSafe(format!("{LOGIN} WHERE l.customer = ? AND l.stage = ? ORDER BY l.id"));
        let rows = self
            .query(query)
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| self.store.postgres_row(row)).collect()
    }

    /// Sees to it that an app has a database in a stage, and that its newest login may have so many connections.
    /// Call it before the replicas that will use it are made.
    pub async fn want_postgres(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        connections: u32,
    ) -> Result<()> {
        let made = self
            .query(
                "INSERT INTO postgres_database (customer, stage, app, name, created) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
            )
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .bind(app.to_string())
            .bind(format!("bastide_{}", Uuid::now_v7().simple()))
            .bind(now_s())
            .execute(&mut **write)
            .await?;
        if made.rows_affected() == 1 {
            return self.add_postgres_login(write, stage, app, connections).await;
        }
        self.query(
            "UPDATE postgres_login SET connections = ?4 WHERE customer = ?1 AND stage = ?2 AND app = ?3
             AND id = (SELECT MAX(id) FROM postgres_login WHERE customer = ?1 AND stage = ?2 AND app = ?3)",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(connections)
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// Adds a login to the database of an app, for the replicas that are made after it.
    pub async fn add_postgres_login(
        &self,
        write: &mut Write,
        stage: &StageName,
        app: AppId,
        connections: u32,
    ) -> Result<()> {
        let id = Uuid::now_v7();
        let sealed = self.store.kek.seal(&place(self.customer, id), password()?.expose().as_bytes())?;
        self.query(
            "INSERT INTO postgres_login (customer, stage, app, id, number, password, connections, created)
             VALUES (?1, ?2, ?3, ?4, (SELECT COALESCE(MAX(number), 0) + 1 FROM postgres_login
                WHERE customer = ?1 AND stage = ?2 AND app = ?3), ?5, ?6, ?7)",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(app.to_string())
        .bind(id.to_string())
        .bind(sealed)
        .bind(connections)
        .bind(now_s())
        .execute(&mut **write)
        .await?;
        Ok(())
    }

    /// The server has a login as it was wanted; the generation of its stage rises.
    pub async fn note_postgres(&self, write: &mut Write, login: &PostgresRow) -> Result<()> {
        self.query("UPDATE postgres_login SET applied = ?, problem = NULL WHERE customer = ? AND id = ?")
            .bind(login.connections)
            .bind(self.customer.to_string())
            .bind(login.id.to_string())
            .execute(&mut **write)
            .await?;
        self.raise_generation(write, &login.stage).await
    }

    /// A login could not be made.
    pub async fn note_postgres_problem(&self, write: &mut Write, login: Uuid, problem: &str) -> Result<()> {
        self.query("UPDATE postgres_login SET problem = ? WHERE customer = ? AND id = ?")
            .bind(problem)
            .bind(self.customer.to_string())
            .bind(login.to_string())
            .execute(&mut **write)
            .await?;
        Ok(())
    }

    /// Forgets a login that the server does not have any more.
    pub async fn forget_postgres_login(&self, write: &mut Write, login: Uuid) -> Result<()> {
        self.query("DELETE FROM postgres_login WHERE customer = ? AND id = ?")
            .bind(self.customer.to_string())
            .bind(login.to_string())
            .execute(&mut **write)
            .await?;
        Ok(())
    }
}

fn place(customer: CustomerId, login: Uuid) -> String {
    format!("postgres_login/{customer}/{login}")
}

/// 160 bits, as letters and digits that need no escaping anywhere.
pub(crate) fn password() -> Result<Secret> {
    let mut bytes = [0; PASSWORD_LENGTH];
    rand::fill(&mut bytes).map_err(|_| StoreError::Damaged("there is no randomness".into()))?;
    let letters = bytes.map(|byte| char::from(PASSWORD_LETTERS[usize::from(byte & 31)]));
    Ok(Secret::new(letters.iter().collect::<String>()))
}
