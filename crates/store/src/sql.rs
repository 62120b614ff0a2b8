//! Questions to the database: a text, what is bound to it, and whose rows it may touch.
//!
//! Columns hold whole numbers, texts or bytes, and nothing else: so do [`Value`]s. Truth is a number, 0 or 1.

use bastide_types::CustomerId;
use sqlx::{ColumnIndex, Row as _, SqlSafeStr, SqlStr, Sqlite, SqlitePool, Transaction, sqlite::SqliteRow};
use std::ops::{Deref, DerefMut};

/// Whose rows a question may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// Those of all customers, and the installation's own.
    All,
    /// Those of one customer.
    Customer(CustomerId),
}

/// A question that crosses customers. There are few.
pub(crate) fn across(sql: impl SqlSafeStr) -> Query {
    Query::new(Of::All, sql)
}

/// Something to ask, or to do.
pub(crate) struct Query {
    #[expect(dead_code, reason = "an embedded database has no fences")]
    of: Of,
    sql: SqlStr,
    values: Vec<Value>,
}

/// What was done.
pub(crate) struct Done(u64);

impl Done {
    pub(crate) fn rows_affected(&self) -> u64 {
        self.0
    }
}

impl Query {
    pub(crate) fn new(of: Of, sql: impl SqlSafeStr) -> Self {
        Self { of, sql: sql.into_sql_str(), values: Vec::new() }
    }

    /// Binds the next parameter.
    pub(crate) fn bind(mut self, value: impl Bind) -> Self {
        self.values.push(value.value());
        self
    }

    pub(crate) async fn execute(self, on: impl Into<On<'_>>) -> sqlx::Result<Done> {
        let done = match on.into() {
            On::Pool(pool) => self.sqlite().execute(&pool.0).await,
            On::Connection(connection) => self.sqlite().execute(&mut *connection.0).await,
        };
        Ok(Done(done?.rows_affected()))
    }

    pub(crate) async fn fetch_all(self, on: impl Into<On<'_>>) -> sqlx::Result<Vec<Row>> {
        let rows = match on.into() {
            On::Pool(pool) => self.sqlite().fetch_all(&pool.0).await,
            On::Connection(connection) => self.sqlite().fetch_all(&mut *connection.0).await,
        };
        Ok(rows?.into_iter().map(Row).collect())
    }

    pub(crate) async fn fetch_optional(self, on: impl Into<On<'_>>) -> sqlx::Result<Option<Row>> {
        let row = match on.into() {
            On::Pool(pool) => self.sqlite().fetch_optional(&pool.0).await,
            On::Connection(connection) => self.sqlite().fetch_optional(&mut *connection.0).await,
        };
        Ok(row?.map(Row))
    }

    pub(crate) async fn fetch_one(self, on: impl Into<On<'_>>) -> sqlx::Result<Row> {
        self.fetch_optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    fn sqlite(self) -> sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments> {
        // The file has no fences: whose rows it are stands in the text alone.
        let Self { of: _, sql, values } = self;
        values.into_iter().fold(sqlx::query(sql), |query, value| match value {
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Bytes(bytes) => query.bind(bytes),
        })
    }
}

/// Where a question goes.
pub(crate) enum On<'c> {
    Pool(&'c Pool),
    Connection(&'c mut Connection),
}

impl<'c> From<&'c Pool> for On<'c> {
    fn from(pool: &'c Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'c> From<&'c mut Connection> for On<'c> {
    fn from(connection: &'c mut Connection) -> Self {
        Self::Connection(connection)
    }
}

/// Connections.
#[derive(Clone)]
pub(crate) struct Pool(SqlitePool);

impl Pool {
    pub(crate) fn new(pool: SqlitePool) -> Self {
        Self(pool)
    }

    /// A transaction that sees the database as it is at one moment.
    pub(crate) async fn snapshot(&self) -> sqlx::Result<Connection> {
        Ok(Connection(self.0.begin().await?))
    }

    /// A transaction that writes. Others that want one wait for its end.
    pub(crate) async fn write(&self) -> sqlx::Result<Write> {
        Ok(Write(Connection(self.0.begin_with("BEGIN IMMEDIATE").await?)))
    }

    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

/// A connection in a transaction.
pub struct Connection(Transaction<'static, Sqlite>);

/// A transaction that writes. Without [`Write::commit`] nothing was written.
pub struct Write(Connection);

impl Write {
    /// Makes all of it true at once.
    pub async fn commit(self) -> sqlx::Result<()> {
        self.0.0.commit().await
    }

    /// Gives all of it up.
    pub async fn rollback(self) -> sqlx::Result<()> {
        self.0.0.rollback().await
    }
}

impl Deref for Write {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

/// A row of an answer.
pub(crate) struct Row(SqliteRow);

impl Row {
    /// The value of a column, by its number or name.
    pub(crate) fn try_get<'r, T: Read<'r>, I: ColumnIndex<SqliteRow>>(&'r self, index: I) -> sqlx::Result<T> {
        T::read(self, index.index(&self.0)?)
    }
}

/// What is bound to a question; nothing of its kind when `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Number(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// What can be bound.
pub(crate) trait Bind {
    /// Nothing of its kind.
    const NULL: Value;

    fn value(self) -> Value;
}

macro_rules! bind {
    ($($kind:ident $type:ty: $convert:expr;)*) => { $(
        impl Bind for $type {
            const NULL: Value = Value::$kind(None);

            fn value(self) -> Value {
                Value::$kind(Some($convert(self)))
            }
        }
    )* };
}

bind! {
    Number i64: i64::from;
    Number u32: i64::from;
    Number u8: i64::from;
    Number bool: i64::from;
    Text String: String::from;
    Text &str: str::to_owned;
    Text &String: String::clone;
    Bytes Vec<u8>: Vec::from;
    Bytes &[u8]: <[u8]>::to_vec;
}

impl<T: Bind> Bind for Option<T> {
    const NULL: Value = T::NULL;

    fn value(self) -> Value {
        self.map_or(Self::NULL, T::value)
    }
}

impl<'t, T> Bind for &'t Option<T>
where
    &'t T: Bind,
{
    const NULL: Value = <&T>::NULL;

    fn value(self) -> Value {
        self.as_ref().value()
    }
}

/// What can be read from a column.
pub(crate) trait Read<'r>: Sized {
    fn read(row: &'r Row, column: usize) -> sqlx::Result<Self>;
}

macro_rules! read {
    ($($type:ty),*) => { $(
        impl<'r> Read<'r> for $type {
            fn read(row: &'r Row, column: usize) -> sqlx::Result<Self> {
                row.0.try_get(column)
            }
        }
        impl<'r> Read<'r> for Option<$type> {
            fn read(row: &'r Row, column: usize) -> sqlx::Result<Self> {
                row.0.try_get(column)
            }
        }
    )* };
}

read!(i64, u32, u8, bool, String, &'r str, Vec<u8>, &'r [u8]);
