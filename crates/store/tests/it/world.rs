//! A database of a test: a file, or in the binary `on_postgres`, which is made of the same sources, one on a server.

use crate::SEED;
use bastide_store::{Kek, NewStage, Store};
use bastide_testkit::postgres::{Shared, shared};
use bastide_types::{CustomerId, CustomerName, Secret, StageName};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection,
    postgres::{PgConnectOptions, PgRow},
    sqlite::SqliteRow,
};
use std::path::{Path, PathBuf};

pub(crate) struct World {
    pub(crate) store: Store,
    place: Place,
}

enum Place {
    File(PathBuf, #[expect(dead_code, reason = "it is removed at the end")] tempfile::TempDir),
    Server(Shared),
}

impl World {
    pub(crate) async fn new() -> Self {
        let place = Place::new();
        Self { store: open_at(&place, 7).await, place }
    }

    /// As at the first start of an installation: two replicas that find nothing.
    pub(crate) async fn opened_twice() -> (Self, Store) {
        let place = Place::new();
        let (store, other) = tokio::join!(open_at(&place, 7), open_at(&place, 7));
        (Self { store, place }, other)
    }

    /// The file, where it is one: what only files have is tested there.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.place {
            Place::File(file, _) => Some(file),
            Place::Server(_) => None,
        }
    }

    /// Another process at the same database.
    pub(crate) async fn again(&self) -> Store {
        open_at(&self.place, 7).await
    }

    /// One that has another key.
    pub(crate) async fn with_another_key(&self) -> Store {
        open_at(&self.place, 8).await
    }

    pub(crate) async fn customer(&self, name: &str) -> CustomerId {
        let id = CustomerId::generate();
        let mut write = self.store.write().await.unwrap();
        self.store.create_customer(&mut write, id, &CustomerName::new(name).unwrap()).await.unwrap();
        for stage in StageName::defaults() {
            let account = format!("A-{name}-{stage}");
            let new = NewStage { name: &stage, account: &account, seed: &Secret::new(SEED) };
            self.store.customer(id).create_stage(&mut write, &new).await.unwrap();
        }
        write.commit().await.unwrap();
        id
    }

    pub(crate) async fn revision(&self) -> u64 {
        self.store.version().await.unwrap().1
    }

    /// Another process that looks at the database with SQL of its own.
    pub(crate) async fn sql(&self) -> Sql {
        match &self.place {
            Place::File(file, _) => {
                let address = format!("sqlite://{}", file.display());
                Sql::File(SqliteConnection::connect(&address).await.unwrap())
            }
            Place::Server(own) => {
                let options: PgConnectOptions = own.url().parse().unwrap();
                let options = options.options([("bastide.customer", "*")]);
                Sql::Server(PgConnection::connect_with(&options).await.unwrap())
            }
        }
    }
}

impl Place {
    fn new() -> Self {
        if env!("CARGO_CRATE_NAME") == "on_postgres" {
            return Self::Server(shared());
        }
        let dir = tempfile::tempdir().unwrap();
        Self::File(dir.path().join("db"), dir)
    }
}

async fn open_at(place: &Place, key: u8) -> Store {
    let kek = Kek::new(&[key; 32]).unwrap();
    match place {
        Place::File(file, _) => Store::open(file, kek).await.unwrap(),
        Place::Server(own) => Store::connect(&Secret::new(own.url()), kek).await.unwrap(),
    }
}

/// A connection.
pub(crate) enum Sql {
    File(SqliteConnection),
    Server(PgConnection),
}

/// A row.
enum Found {
    File(SqliteRow),
    Server(PgRow),
}

impl Sql {
    /// Does something; to how many rows.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<u64, sqlx::Error> {
        Ok(match self {
            Self::File(own) => sqlx::query(AssertSqlSafe(sql.to_owned())).execute(own).await?.rows_affected(),
            Self::Server(own) => {
                let sql = sql.replace("zeroblob(32)", &bytes_of_server(&[0; 32]));
                sqlx::query(AssertSqlSafe(sql)).execute(own).await?.rows_affected()
            }
        })
    }

    /// Bytes as they are written in a text.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> String {
        match self {
            Self::File(_) => format!("X'{}'", hex(bytes)),
            Self::Server(_) => bytes_of_server(bytes),
        }
    }

    /// The bytes that a question finds in its only row.
    pub(crate) async fn find_bytes(&mut self, sql: &str) -> Vec<u8> {
        match &self.find(sql).await[..] {
            [Found::File(row)] => row.get(0),
            [Found::Server(row)] => row.get(0),
            rows => panic!("{} rows", rows.len()),
        }
    }

    /// The numbers that a question finds.
    pub(crate) async fn find_numbers(&mut self, sql: &str) -> Vec<i64> {
        let number = |row: &Found| match row {
            Found::File(row) => row.get(0),
            Found::Server(row) => row.get(0),
        };
        self.find(sql).await.iter().map(number).collect()
    }

    /// The texts that a question finds.
    pub(crate) async fn find_texts(&mut self, sql: &str) -> Vec<String> {
        let text = |row: &Found| match row {
            Found::File(row) => row.get(0),
            Found::Server(row) => row.get(0),
        };
        self.find(sql).await.iter().map(text).collect()
    }

    async fn find(&mut self, sql: &str) -> Vec<Found> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::File(own) => {
                sqlx::query(sql).fetch_all(own).await.unwrap().into_iter().map(Found::File).collect()
            }
            Self::Server(own) => {
                sqlx::query(sql).fetch_all(own).await.unwrap().into_iter().map(Found::Server).collect()
            }
        }
    }
}

fn bytes_of_server(bytes: &[u8]) -> String {
    format!("'\\x{}'::bytea", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
