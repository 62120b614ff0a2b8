//! Where questions go: connections, and transactions on them.

use super::postgres::{Fenced, Server};
use sqlx::{Sqlite, SqlitePool, Transaction};
use std::ops::{Deref, DerefMut};

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
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(Server),
}

impl Pool {
    /// A transaction that sees the database as it is at one moment.
    pub(crate) async fn snapshot(&self) -> sqlx::Result<Connection> {
        match self {
            Self::Sqlite(pool) => Ok(Connection(Way::Sqlite(pool.begin().await?))),
            Self::Postgres(server) => Ok(Connection(Way::Postgres(server.snapshot().await?))),
        }
    }

    /// A transaction that writes. Others that want one wait for its end.
    pub(crate) async fn write(&self) -> sqlx::Result<Write> {
        Ok(Write(Connection(match self {
            Self::Sqlite(pool) => Way::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(server) => Way::Postgres(server.write().await?),
        })))
    }

    /// Table that keeps the last number of the session feed: as `seq`, under the feed's name.
    pub(crate) fn feed_sequence(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite_sequence",
            Self::Postgres(_) => "feed_sequence",
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(server) => server.close().await,
        }
    }
}

/// A connection in a transaction.
pub struct Connection(pub(super) Way);

/// Where it leads.
pub(super) enum Way {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Fenced),
}

/// A transaction that writes. Without [`Write::commit`] nothing was written.
pub struct Write(Connection);

impl Write {
    /// Makes all of it true at once.
    pub async fn commit(self) -> sqlx::Result<()> {
        match self.0.0 {
            Way::Sqlite(transaction) => transaction.commit().await,
            Way::Postgres(fenced) => fenced.commit().await,
        }
    }

    /// Gives all of it up.
    pub async fn rollback(self) -> sqlx::Result<()> {
        match self.0.0 {
            Way::Sqlite(transaction) => transaction.rollback().await,
            Way::Postgres(fenced) => fenced.rollback().await,
        }
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
