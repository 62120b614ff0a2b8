//! Questions to the database: a text, what is bound to it, and whose rows it may touch.
//!
//! The database is a file of SQLite's, or on a PostgreSQL server. One text is for both: parameters are written `?` or
//! `?1`, and words that only one of them knows are not used.

mod count;
mod pool;
pub(crate) mod postgres;
mod value;

pub use count::counting;
pub use pool::{Connection, Write};
pub(crate) use pool::{On, Pool};
pub(crate) use postgres::Server;
pub(crate) use value::{Bind, Row};

use crate::{Result, taken};
use bastide_types::CustomerId;
use pool::Way;
use sqlx::{Acquire as _, SqlSafeStr, SqlStr, Sqlite, sqlite::SqliteArguments};
use value::Value;

/// Whose rows a question may touch. On PostgreSQL the database sees to it, too, whatever the text says.
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
        count::note();
        Self { of, sql: sql.into_sql_str(), values: Vec::new() }
    }

    /// Binds the next parameter.
    pub(crate) fn bind(mut self, value: impl Bind) -> Self {
        self.values.push(value.value());
        self
    }

    pub(crate) async fn execute(self, on: impl Into<On<'_>>) -> sqlx::Result<Done> {
        match on.into() {
            On::Pool(Pool::Sqlite(pool)) => Ok(Done(self.sqlite().execute(pool).await?.rows_affected())),
            On::Connection(Connection(Way::Sqlite(own))) => {
                Ok(Done(self.sqlite().execute(&mut **own).await?.rows_affected()))
            }
            On::Pool(Pool::Postgres(server)) => {
                let mut own = server.connection(self.of).await?;
                self.execute_on(&mut own).await
            }
            On::Connection(Connection(Way::Postgres(own))) => {
                let own = own.of(self.of).await?;
                self.execute_on(own).await
            }
        }
    }

    /// As [`Query::execute`], and a broken unique rule is a taken name. Then the write goes on without this.
    ///
    /// # Errors
    /// [`crate::StoreError::Taken`].
    pub(crate) async fn claim(self, write: &mut Write) -> Result<Done> {
        match &mut (**write).0 {
            Way::Sqlite(_) => self.execute(&mut **write).await,
            Way::Postgres(own) => {
                let mut apart = own.of(self.of).await?.begin().await?;
                let done = self.execute_on(&mut apart).await;
                if done.is_ok() {
                    apart.commit().await?;
                } else {
                    apart.rollback().await?;
                }
                done
            }
        }
        .map_err(taken)
    }

    pub(crate) async fn fetch_all(self, on: impl Into<On<'_>>) -> sqlx::Result<Vec<Row>> {
        match on.into() {
            On::Pool(Pool::Sqlite(pool)) => Ok(rows(self.sqlite().fetch_all(pool).await?)),
            On::Connection(Connection(Way::Sqlite(own))) => {
                Ok(rows(self.sqlite().fetch_all(&mut **own).await?))
            }
            On::Pool(Pool::Postgres(server)) => {
                let mut own = server.connection(self.of).await?;
                self.fetch_on(&mut own).await
            }
            On::Connection(Connection(Way::Postgres(own))) => {
                let own = own.of(self.of).await?;
                self.fetch_on(own).await
            }
        }
    }

    /// The first row.
    pub(crate) async fn fetch_optional(self, on: impl Into<On<'_>>) -> sqlx::Result<Option<Row>> {
        match on.into() {
            On::Pool(Pool::Sqlite(pool)) => Ok(self.sqlite().fetch_optional(pool).await?.map(Row::from)),
            On::Connection(Connection(Way::Sqlite(own))) => {
                Ok(self.sqlite().fetch_optional(&mut **own).await?.map(Row::from))
            }
            // Nothing here asks for many rows and reads one.
            server => Ok(self.fetch_all(server).await?.into_iter().next()),
        }
    }

    pub(crate) async fn fetch_one(self, on: impl Into<On<'_>>) -> sqlx::Result<Row> {
        self.fetch_optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    fn sqlite(self) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        self.values.into_iter().fold(sqlx::query(self.sql), |query, value| match value {
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Bytes(bytes) => query.bind(bytes),
        })
    }
}

fn rows<R>(rows: Vec<R>) -> Vec<Row>
where
    Row: From<R>,
{
    rows.into_iter().map(Row::from).collect()
}
