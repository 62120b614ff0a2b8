//! The control plane's truth: SQL and nothing else.
//!
//! Whatever belongs to a customer is reached through a [`CustomerStore`], which is bound to that customer
//! and puts it into every query. The few questions that cross customers stand in [`Store`] itself.
//!
//! The databases of apps are on a server of their own: [`PostgresAdmin`] makes them there. What apps keep in
//! them is never read here.

mod address;
mod apps;
mod audit;
mod backup;
mod bans;
mod break_glass;
mod client_keys;
mod clients;
mod customers;
mod deploy;
mod devices;
mod domains;
mod feed;
mod grants;
mod groups;
mod identity;
mod idps;
mod keys;
mod label;
mod lifecycle;
mod logouts;
mod look;
mod mail;
mod network;
mod once;
mod origin;
mod pace;
mod passkeys;
mod purge;
mod renewal;
mod roles;
mod scale;
mod scram;
mod seal;
mod second_factor;
mod server;
mod services;
mod sessions;
mod settings;
mod site;
mod sql;
mod tries;
mod users;
mod waf;

pub use apps::{AppRow, RevisionRow};
pub use audit::{AuditFilter, AuditVerdict, NewEntry};
pub use backup::copy_database;
pub use bans::{BanCount, BanRow};
pub use client_keys::{ClientKeyRow, KeysAdded};
pub use clients::{ClientRow, ClientSecretRow};
pub use customers::{CustomerRow, NewStage, StageRow};
pub use deploy::{NewOperation, OperationRow, ReplicaRow, StepRow};
pub use devices::{DeviceOutcome, DeviceRow, Word};
pub use domains::{
    CLAIM_LIFE_S, DomainCheck, DomainRow, DomainState, NewCertificate, OrderRow, ServedDomain, UnsealedKey,
};
pub use grants::{RefreshBy, SessionUse};
pub use identity::{CodeOutcome, CodeRow, MemberRow, NewSession, RefreshOutcome, SessionRow};
pub use idps::{IdpLogin, IdpRow};
pub use keys::{IssuerKeys, KeyKind, KeyRow, KeyState, NewKey};
pub use label::{LOCK_S, LockRow};
pub use lifecycle::ServedRow;
pub use logouts::LogoutNotice;
pub use look::{Logo, Look};
pub use mail::{LinkRow, Mail, MailRow};
pub use once::{Condition, Demands, Fingerprint, KEY_LIFE_S, KeptAnswer, OnceKey, OnceRow, demanding};
pub use origin::Origin;
pub use pace::PaceRow;
pub use passkeys::{PASSKEYS_MAX, PasskeyRow};
pub use purge::StagePurges;
pub use renewal::Presented;
pub use roles::RoleRow;
pub use scale::ScalingRow;
pub use seal::{Kek, SealError};
pub use second_factor::{SignInPolicy, StepUpRule};
pub use server::{PostgresAdmin, ServerError};
pub use services::{PostgresRow, login_of};
pub use sessions::{SessionInfo, SessionLimits};
pub use settings::{SettingRow, SettingsChange};
pub use site::SiteBytes;
pub use sql::{Connection, Write, counting, postgres::look_at};
pub use tries::Counter;
pub use users::Beside;
pub use waf::{OfficeLevel, WafLayerRow};

use aws_lc_rs::digest::{SHA256, digest};
use bastide_types::{CustomerId, Secret};
use sql::{Of, Pool, Query, Server, across, postgres};
use sqlx::{
    Connection as _, SqlSafeStr, SqlStr,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The schema.
    #[error("the database cannot be brought to this version")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The address of the server, or the role there, will not do; says what would.
    #[error("the address of the PostgreSQL server is not usable: {0}")]
    Address(String),
    /// The lock beside the database file.
    #[error("the database cannot be locked")]
    Lock(#[source] std::io::Error),
    /// A unique name is taken.
    #[error("the name is taken")]
    Taken,
    /// What was to be changed is not any more what the caller saw.
    #[error("the condition of the request does not hold")]
    Unmet,
    /// Another request with the same idempotency key was faster.
    #[error("a request with this key was faster")]
    Repeated,
    /// A row cannot be read: it was damaged or written by a newer version.
    #[error("a row is damaged: {0}")]
    Damaged(String),
    /// A sealed value cannot be opened.
    #[error("a sealed value cannot be opened")]
    Seal(#[from] SealError),
}

impl StoreError {
    /// Whether rows are damaged, so that asking again would bring the same, and others can be read.
    pub fn is_of_a_row(&self) -> bool {
        use sqlx::Error::{ColumnDecode, Decode};
        matches!(self, Self::Damaged(_) | Self::Seal(_) | Self::Database(ColumnDecode { .. } | Decode(_)))
    }

    /// Whether the database does not answer, or not in time: later it may.
    pub fn is_away(&self) -> bool {
        use sqlx::Error::{Database, Io, PoolTimedOut};
        match self {
            Self::Database(Io(_) | PoolTimedOut) => true,
            Self::Database(Database(said)) => {
                said.code().is_some_and(|code| AWAY.iter().any(|begin| code.starts_with(begin)))
            }
            _ => false,
        }
    }
}

/// SQLSTATEs, or their first letters, that mean: try again later. Connections, resources, and locks that are held for long;
/// the server stops or starts; a newer replica changes the schema.
const AWAY: [&str; 5] = ["08", "53", "55P03", "57P", postgres::OUTDATED];

/// Questions at once, besides the one writer.
const READERS: u32 = 8;
/// Longest wait for the turn to write.
const WRITE_WAIT: Duration = Duration::from_secs(10);

/// Shorthand.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The database.
#[derive(Clone)]
pub struct Store {
    /// For everything but transactions that write.
    pool: Pool,
    /// One connection: who writes comes in turn, and who waits for a turn keeps no connection from readers.
    writer: Pool,
    kek: Arc<Kek>,
    feed_writes: Arc<AtomicU64>,
}

/// The part of the database that belongs to one customer.
#[derive(Clone, Copy)]
pub struct CustomerStore<'s> {
    store: &'s Store,
    customer: CustomerId,
}

impl Store {
    /// Opens the database file, creates it when missing, and brings its schema to this version.
    pub async fn open(path: &Path, kek: Kek) -> Result<Self> {
        // Replicas of the platform open the file at the same time; one of them brings it up to date.
        let lock = lock(path).await?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(WRITE_WAIT);
        let pool = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.clone()).await?;
        let turn = SqlitePoolOptions::new().max_connections(1).acquire_timeout(WRITE_WAIT);
        let writer = turn.connect_with(options).await?;
        Migrator::with_migrations(of_sqlite()).run(&pool).await?;
        let store = Self::new(Pool::Sqlite(pool), Pool::Sqlite(writer), kek);
        store.move_keys().await?;
        store.move_audit().await?;
        store.mark_revisions().await?;
        drop(lock);
        store.begin_epoch().await?;
        Ok(store)
    }

    /// Opens a database on a PostgreSQL server, by an address like
    /// `postgres://name:password@db.example.com/bastide?sslmode=verify-full&sslrootcert=/etc/ca.pem`, and brings its
    /// schema to this version. Any number of replicas on any number of machines may use it.
    ///
    /// # Errors
    /// [`StoreError::Address`], also for a role that no row-level security binds.
    pub async fn connect(address: &Secret, kek: Kek) -> Result<Self> {
        let (options, mut first) = postgres::first_connection(address).await?;
        // Replicas wait for the one that brings it up to date.
        Migrator::with_migrations(of_postgres()).run(&mut first).await?;
        first.close().await?;
        let pool = Pool::Postgres(Server::connect(&options, READERS).await?);
        let writer = Pool::Postgres(Server::connect(&options, 1).await?);
        let store = Self::new(pool, writer, kek);
        store.begin_epoch().await?;
        Ok(store)
    }

    fn new(pool: Pool, writer: Pool, kek: Kek) -> Self {
        Self { pool, writer, kek: Arc::new(kek), feed_writes: Arc::default() }
    }

    /// Closes the database.
    pub async fn close(&self) {
        self.writer.close().await;
        self.pool.close().await;
    }

    /// The part that belongs to one customer.
    pub fn customer(&self, customer: CustomerId) -> CustomerStore<'_> {
        CustomerStore { store: self, customer }
    }

    /// A transaction that takes the write lock at once, so that two processes queue instead of failing. Within a
    /// process there is one at a time.
    pub async fn write(&self) -> Result<Write> {
        let mut write = self.writer.write().await?;
        once::check(&mut write).await?;
        Ok(write)
    }

    /// The epoch is made once, when the database is.
    async fn begin_epoch(&self) -> Result<()> {
        across("INSERT INTO meta (key, value) VALUES ('epoch', ?1), ('revision', 0), ('raised_at', ?1) ON CONFLICT DO NOTHING")
            .bind(now_s())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Epoch and revision of what the data plane should know, and when it changed last.
    pub async fn version(&self) -> Result<(u64, u64, u64)> {
        let rows = across("SELECT key, value FROM meta").fetch_all(&self.pool).await?;
        let rows = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?.cast_unsigned())));
        let rows: BTreeMap<&str, u64> = rows.collect::<Result<_>>()?;
        let value = |key: &str| rows.get(key).copied().unwrap_or_default();
        Ok((value("epoch"), value("revision"), value("raised_at")))
    }

    /// Raises the revision when the settings that go into Snapshots are others than at the last start.
    /// `settings` is whatever tells them apart.
    pub async fn note_settings(&self, settings: &[u8]) -> Result<()> {
        let mut first = [0; 8];
        first.copy_from_slice(&digest(&SHA256, settings).as_ref()[..8]);
        let mut write = self.write().await?;
        let noted = across(
            "INSERT INTO meta (key, value) VALUES ('settings', ?1)
             ON CONFLICT (key) DO UPDATE SET value = ?1 WHERE meta.value != ?1",
        )
        .bind(i64::from_be_bytes(first))
        .execute(&mut *write)
        .await?;
        if noted.rows_affected() == 1 {
            raise_revision(&mut write).await?;
        }
        Ok(write.commit().await?)
    }

    /// Takes or keeps a lease for `holder`; false while another holds it.
    pub async fn lease(&self, name: &str, holder: &str, for_s: i64) -> Result<bool> {
        let now = now_s();
        let taken = across(
            "INSERT INTO lease (name, holder, until) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET holder = ?2, until = ?3 WHERE lease.holder = ?2 OR lease.until < ?4",
        )
        .bind(name)
        .bind(holder)
        .bind(now + for_s)
        .bind(now)
        .execute(&self.pool)
        .await?;
        Ok(taken.rows_affected() == 1)
    }
}

impl CustomerStore<'_> {
    /// A question about this customer's rows.
    fn query(&self, sql: impl SqlSafeStr) -> Query {
        Query::new(Of::Customer(self.customer), sql)
    }
}

/// What brings a file to this version.
fn of_sqlite() -> Vec<Migration> {
    vec![
        migration(1, "core", include_str!("../migrations/0001_core.sql")),
        migration(2, "identity", include_str!("../migrations/0002_identity.sql")),
        migration(3, "network", include_str!("../migrations/0003_network.sql")),
        migration(4, "callee", include_str!("../migrations/0004_callee.sql")),
        migration(5, "postgres", include_str!("../migrations/0005_postgres.sql")),
        migration(6, "scale", include_str!("../migrations/0006_scale.sql")),
        migration(7, "purge", include_str!("../migrations/0007_purge.sql")),
        migration(8, "next look", include_str!("../migrations/0008_next_look.sql")),
        migration(9, "waf", include_str!("../migrations/0009_waf.sql")),
        migration(10, "domain", include_str!("../migrations/0010_domain.sql")),
        migration(11, "site", include_str!("../migrations/0011_site.sql")),
        migration(12, "provider", include_str!("../migrations/0012_provider.sql")),
        migration(14, "device", include_str!("../migrations/0014_device.sql")),
        migration(15, "session feed", include_str!("../migrations/0015_session_feed.sql")),
        migration(16, "tries", include_str!("../migrations/0016_tries.sql")),
        migration(17, "role", include_str!("../migrations/0017_role.sql")),
        migration(18, "second factor", include_str!("../migrations/0018_second_factor.sql")),
        migration(19, "step up", include_str!("../migrations/0019_step_up.sql")),
        migration(20, "break glass", include_str!("../migrations/0020_break_glass.sql")),
        migration(21, "issuer key", include_str!("../migrations/0021_issuer_key.sql")),
        migration(22, "end user", include_str!("../migrations/0022_end_user.sql")),
        migration(23, "audit", include_str!("../migrations/0023_audit.sql")),
        migration(24, "mail", include_str!("../migrations/0024_mail.sql")),
        migration(25, "backchannel", include_str!("../migrations/0025_backchannel.sql")),
        migration(26, "idp", include_str!("../migrations/0026_idp.sql")),
        migration(27, "once", include_str!("../migrations/0027_once.sql")),
        migration(28, "lifecycle", include_str!("../migrations/0028_lifecycle.sql")),
        migration(29, "passkey", include_str!("../migrations/0029_passkey.sql")),
        migration(30, "settings", include_str!("../migrations/0030_settings.sql")),
        migration(31, "client keys", include_str!("../migrations/0031_client_keys.sql")),
        migration(32, "session renewal", include_str!("../migrations/0032_session_renewal.sql")),
        migration(33, "ban", include_str!("../migrations/0033_ban.sql")),
        migration(34, "organization look", include_str!("../migrations/0034_organization_look.sql")),
    ]
}

/// What brings a database on a server to this version: the first is what the file's are up to that number, the others
/// have the numbers of theirs.
fn of_postgres() -> Vec<Migration> {
    vec![
        migration(28, "lifecycle", include_str!("../migrations/postgres/0028_lifecycle.sql")),
        migration(29, "passkey", include_str!("../migrations/postgres/0029_passkey.sql")),
        migration(30, "settings", include_str!("../migrations/postgres/0030_settings.sql")),
        migration(31, "client keys", include_str!("../migrations/postgres/0031_client_keys.sql")),
        migration(32, "session renewal", include_str!("../migrations/postgres/0032_session_renewal.sql")),
        migration(33, "ban", include_str!("../migrations/postgres/0033_ban.sql")),
        migration(34, "organization look", include_str!("../migrations/postgres/0034_organization_look.sql")),
    ]
}

fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
}

/// Waits for the lock beside the database file; it ends when the file is dropped.
async fn lock(database: &Path) -> Result<std::fs::File> {
    let path = database.with_extension("lock");
    let wait = move || {
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    };
    let locked = tokio::task::spawn_blocking(wait).await;
    locked.map_err(|error| StoreError::Damaged(error.to_string()))?.map_err(StoreError::Lock)
}

fn late() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Raises the revision of what the data plane should know, in the transaction of the change.
pub async fn raise_revision(write: &mut Write) -> Result<()> {
    across("UPDATE meta SET value = value + 1 WHERE key = 'revision'").execute(&mut **write).await?;
    across("UPDATE meta SET value = ? WHERE key = 'raised_at'").bind(now_s()).execute(&mut **write).await?;
    Ok(())
}

/// Seconds since 1970.
pub fn now_s() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// Reads a value that we wrote ourselves.
pub(crate) fn parse<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| StoreError::Damaged(text.chars().take(80).collect()))
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Damaged(error.to_string()))
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// A broken unique rule is a taken name; everything else stays what it is.
pub(crate) fn taken(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => StoreError::Taken,
        _ => StoreError::Database(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{Migration, of_postgres, of_sqlite};
    use std::{collections::BTreeSet, path::Path};

    /// The texts that lie in a folder.
    fn texts(folder: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|file| file.is_file()).map(|file| std::fs::read_to_string(file).unwrap()).collect()
    }

    fn listed(migrations: &[Migration]) -> BTreeSet<String> {
        migrations.iter().map(|one| one.sql.as_str().to_owned()).collect()
    }

    #[test]
    fn every_migration_is_listed_and_has_its_twin_for_servers() {
        let (files, servers) = (of_sqlite(), of_postgres());
        assert_eq!(listed(&files), texts("migrations"));
        assert_eq!(listed(&servers), texts("migrations/postgres"));
        let twins: Vec<_> = servers.iter().map(|one| (one.version, &one.description)).collect();
        let first = twins[0].0;
        let since = files.iter().filter(|one| one.version >= first);
        assert_eq!(twins, since.map(|one| (one.version, &one.description)).collect::<Vec<_>>());
    }
}
