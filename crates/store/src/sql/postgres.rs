//! A database on a PostgreSQL server.
//!
//! Its tables are fenced: a connection sees and writes the rows of the customer whom it has named, of all when it has
//! said so, and none otherwise. Each question is asked on a connection that says what the question is of.

use super::{Done, Of, Query, Row, rows, value::Value};
use crate::{Result, StoreError, WRITE_WAIT, address::Address, late};
use bastide_types::Secret;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, PgConnection, PgPool, Postgres, Row as _, Transaction,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions},
};
use std::{fmt::Write as _, time::Duration};

/// Longest wait for an answer.
const ANSWER_WAIT: Duration = Duration::from_mins(1);
/// Whoever writes holds this; it ends with the transaction.
const TURN: &str = "SELECT pg_advisory_xact_lock(hashtextextended('bastide', 0))";
/// What the server does for connections of ours. A machine that vanished keeps nobody from writing for long.
const SETTINGS: [(&str, &str); 6] = [
    ("statement_timeout", "50s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];
/// Names the rows of all customers.
const ALL: &str = "*";
/// SQLSTATE of a prepared text whose answer has other columns by now (`feature_not_supported`).
pub(crate) const OUTDATED: &str = "0A000";
/// Texts that a connection has prepared, at most: more than there are in this crate.
const PREPARED_MAX: usize = 600;

/// Connections to a server.
#[derive(Clone)]
pub(crate) struct Server {
    /// They may touch all rows.
    all: PgPool,
    /// They may touch none until they name a customer.
    one: PgPool,
}

impl Server {
    /// Connects, for `most` questions at once.
    pub(crate) async fn connect(options: &PgConnectOptions, most: u32) -> sqlx::Result<Self> {
        let options = options.clone().options(SETTINGS).statement_cache_capacity(PREPARED_MAX);
        let pool = || PgPoolOptions::new().max_connections(most).acquire_timeout(WRITE_WAIT);
        let all = pool().connect_with(options.clone().options([("bastide.customer", ALL)])).await?;
        Ok(Self { all, one: pool().connect_lazy_with(options) })
    }

    /// A connection for a question.
    pub(super) async fn connection(&self, of: Of) -> sqlx::Result<PoolConnection<Postgres>> {
        let Of::Customer(_) = of else { return self.all.acquire().await };
        let mut connection = self.one.acquire().await?;
        say(&mut connection, "SET", of).await?;
        Ok(connection)
    }

    pub(super) async fn snapshot(&self) -> sqlx::Result<Fenced> {
        let transaction = self.all.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        Ok(Fenced { transaction, of: Some(Of::All) })
    }

    pub(super) async fn write(&self) -> sqlx::Result<Fenced> {
        let mut transaction = self.all.begin().await?;
        within(sqlx::query(TURN).execute(&mut *transaction)).await?;
        Ok(Fenced { transaction, of: Some(Of::All) })
    }

    pub(super) async fn close(&self) {
        self.all.close().await;
        self.one.close().await;
    }
}

/// A transaction that says whose rows it touches.
pub(crate) struct Fenced {
    transaction: Transaction<'static, Postgres>,
    /// What it said last, and that was heard.
    of: Option<Of>,
}

impl Fenced {
    /// The connection, for questions of this kind from now on.
    pub(super) async fn of(&mut self, of: Of) -> sqlx::Result<&mut PgConnection> {
        if self.of != Some(of) {
            self.of = None;
            say(&mut self.transaction, "SET LOCAL", of).await?;
            self.of = Some(of);
        }
        Ok(&mut self.transaction)
    }

    pub(super) async fn commit(self) -> sqlx::Result<()> {
        within(self.transaction.commit()).await
    }

    pub(super) async fn rollback(self) -> sqlx::Result<()> {
        within(self.transaction.rollback()).await
    }
}

impl Query {
    pub(super) async fn execute_on(self, connection: &mut PgConnection) -> sqlx::Result<Done> {
        let done = within(self.postgres().execute(&mut *connection)).await;
        Ok(Done(fresh(done, connection).await?.rows_affected()))
    }

    pub(super) async fn fetch_on(self, connection: &mut PgConnection) -> sqlx::Result<Vec<Row>> {
        let found = within(self.postgres().fetch_all(&mut *connection)).await;
        Ok(rows(fresh(found, connection).await?))
    }

    fn postgres(self) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(numbered(self.sql.as_str())));
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text.map(without_zeros)),
            Value::Bytes(bytes) => query.bind(bytes),
        })
    }
}

/// A newer replica may have added columns since a text was prepared, which the server then refuses: it is prepared anew the
/// next time.
async fn fresh<T>(outcome: sqlx::Result<T>, connection: &mut PgConnection) -> sqlx::Result<T> {
    if let Err(sqlx::Error::Database(said)) = &outcome
        && said.code().is_some_and(|code| code == OUTDATED)
    {
        within(connection.clear_cached_statements()).await?;
    }
    outcome
}

/// Connects for the first time, as a role that the fences bind.
pub(crate) async fn first_connection(address: &Secret) -> Result<(PgConnectOptions, PgConnection)> {
    let options = Address::read(address).map_err(StoreError::Address)?.options;
    let options = options.application_name("bastide").disable_statement_logging();
    let mut connection = tokio::time::timeout(WRITE_WAIT, options.connect()).await.map_err(|_| late())??;
    // They bind no superuser and nobody with BYPASSRLS.
    let unbound = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)";
    match within(sqlx::query(unbound).fetch_optional(&mut connection)).await? {
        None => Ok((options, connection)),
        Some(_) => Err(StoreError::Address(
            "its role is a superuser or has BYPASSRLS, which row-level security does not bind; \
             make one of its own: CREATE ROLE bastide LOGIN PASSWORD '…'; CREATE DATABASE bastide OWNER bastide"
                .into(),
        )),
    }
}

/// Whether a database on a server can be used; in words, what it is. Nothing is changed there.
pub async fn look_at(address: &Secret) -> Result<String> {
    let (options, mut connection) = first_connection(address).await?;
    let version = "SELECT current_setting('server_version'), current_database()";
    let row = within(sqlx::query(version).fetch_one(&mut connection)).await?;
    connection.close().await?;
    let (version, database): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(format!("PostgreSQL {version} at {}:{}, database {database}", options.get_host(), options.get_port()))
}

/// Says whose rows the next questions on a connection are about.
async fn say(connection: &mut PgConnection, how: &str, of: Of) -> sqlx::Result<()> {
    let whose = match of {
        Of::All => ALL.to_owned(),
        // A UUID: nothing in it ends a quoted text.
        Of::Customer(customer) => customer.to_string(),
    };
    let set = format!("{how} bastide.customer = '{whose}'");
    within(sqlx::raw_sql(AssertSqlSafe(set)).execute(connection)).await.map(drop)
}

/// Every wait ends, also when the server's machine is gone.
async fn within<T>(work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(ANSWER_WAIT, work).await.map_err(|_| late())?
}

/// Its texts hold no zero character.
fn without_zeros(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// A text with its parameters as this server writes them: `$1` for `?1`, and for `?` the number after the largest so far.
fn numbered(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len() + 16);
    let mut parts = sql.split('?');
    text.push_str(parts.next().unwrap_or_default());
    let mut largest = 0;
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let number = part[..digits].parse().unwrap_or(largest + 1);
        largest = largest.max(number);
        let _ = write!(text, "${number}{}", &part[digits..]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kek, Store, sql::across};
    use bastide_testkit::postgres::{Shared, shared};
    use bastide_types::{AppName, CustomerId, CustomerName};

    async fn open(database: &Shared) -> Store {
        Store::connect(&Secret::new(database.url()), Kek::new(&[7; 32]).unwrap()).await.unwrap()
    }

    /// A customer with one app.
    async fn customer(store: &Store, name: &str) -> CustomerId {
        let id = CustomerId::generate();
        let mut write = store.write().await.unwrap();
        store.create_customer(&mut write, id, &CustomerName::new(name).unwrap()).await.unwrap();
        let app = AppName::new(format!("{name}-shop")).unwrap();
        store.customer(id).ensure_app(&mut write, &app).await.unwrap();
        write.commit().await.unwrap();
        id
    }

    fn names(rows: &[Row]) -> Vec<String> {
        rows.iter().map(|row| row.try_get("name").unwrap()).collect()
    }

    const WRONG: &str = "SELECT name FROM app ORDER BY name";

    #[tokio::test]
    async fn a_question_that_forgets_its_customer_or_names_another_reaches_nothing_of_others() {
        let database = shared();
        let store = open(&database).await;
        let (acme, beta) = (customer(&store, "acme").await, customer(&store, "beta").await);
        let own = store.customer(acme);
        assert_eq!(names(&own.query(WRONG).fetch_all(&store.pool).await.unwrap()), ["acme-shop"]);
        let theirs = own.query("SELECT name FROM app WHERE customer = ?").bind(beta.to_string());
        assert!(theirs.fetch_all(&store.pool).await.unwrap().is_empty());
        assert_eq!(
            names(&own.query("SELECT name FROM customer").fetch_all(&store.pool).await.unwrap()),
            ["acme"]
        );
        assert_eq!(names(&across(WRONG).fetch_all(&store.pool).await.unwrap()), ["acme-shop", "beta-shop"]);

        // In one transaction, which is of this and of that by turns.
        let mut write = store.write().await.unwrap();
        for (wrong, rows) in [("UPDATE app SET name = name || 'x'", 1), ("DELETE FROM app", 1)] {
            let done = own.query(wrong).execute(&mut *write).await.unwrap();
            assert_eq!(done.rows_affected(), rows, "{wrong}");
            assert_eq!(
                names(&store.customer(beta).query(WRONG).fetch_all(&mut *write).await.unwrap()),
                ["beta-shop"]
            );
        }
        assert_eq!(names(&across(WRONG).fetch_all(&mut *write).await.unwrap()), ["beta-shop"]);
        let planted =
            own.query("INSERT INTO app (customer, id, name) VALUES (?, 'x', 'x')").bind(beta.to_string());
        let refused =
            planted.execute(&mut *write).await.map(|done| done.rows_affected()).unwrap_err().to_string();
        assert!(refused.contains("row-level security"), "{refused}");
        drop(write);

        // What a connection was of before does not stay with it, and one that says nothing sees nothing.
        for customer in [beta, acme, beta] {
            let rows = store.customer(customer).query(WRONG).fetch_all(&store.pool).await.unwrap();
            assert_eq!(rows.len(), 1);
        }
        let (_, mut silent) = first_connection(&Secret::new(database.url())).await.unwrap();
        assert!(sqlx::query(WRONG).fetch_all(&mut silent).await.unwrap().is_empty(), "nor does the owner");
    }

    #[tokio::test]
    async fn every_table_with_a_customer_is_fenced() {
        let database = shared();
        open(&database).await;
        let open = "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'customer'
            WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
            AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid))";
        assert_eq!(database.sql(open), "");
        assert_eq!(database.sql("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'customer'"), "t");
        let fenced: i64 = database.sql("SELECT count(*) FROM pg_policy").parse().unwrap();
        assert!(fenced > 40, "{fenced}");
    }

    #[tokio::test]
    async fn a_role_that_no_fence_binds_is_refused() {
        let database = shared();
        let refused = look_at(&Secret::new(database.admin_url())).await.unwrap_err().to_string();
        assert!(refused.contains("CREATE ROLE bastide"), "{refused}");
        let found = look_at(&Secret::new(database.url())).await.unwrap();
        assert!(found.starts_with("PostgreSQL 1"), "{found}");
    }

    #[tokio::test]
    async fn what_the_server_cut_off_was_never_written_and_the_next_one_writes() {
        let database = shared();
        let store = open(&database).await;
        let (gone, id) = (CustomerName::new("gone").unwrap(), CustomerId::generate());
        let mut write = store.write().await.unwrap();
        store.create_customer(&mut write, id, &gone).await.unwrap();
        database.cut();
        assert!(write.commit().await.is_err());
        customer(&store, "acme").await;
        assert_eq!(store.customer_named(&gone).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_text_with_a_zero_character_is_kept_without_it() {
        let database = shared();
        let store = open(&database).await;
        let acme = customer(&store, "acme").await;
        let own = store.customer(acme);
        let mut write = store.write().await.unwrap();
        own.audit(&mut write, "ann", "app.publish", "a\0b").await.unwrap();
        write.commit().await.unwrap();
        assert_eq!(own.audit_trail(1).await.unwrap()[0].detail, "a\u{fffd}b");
        own.verify_audit().await.unwrap().unwrap();
    }

    #[test]
    fn parameters_have_the_numbers_that_sqlite_gives_them() {
        for (sql, expected) in [
            ("SELECT 1", "SELECT 1"),
            ("a = ? AND b = ?", "a = $1 AND b = $2"),
            ("(?, ?, ?6, ?6, ?)", "($1, $2, $6, $6, $7)"),
            ("?12 + ?1", "$12 + $1"),
        ] {
            assert_eq!(numbered(sql), expected);
        }
    }
}
