//! The PostgreSQL server that holds the databases of apps: what is made there, and with which rights.
//!
//! Each app has, in each stage, a database and a role that owns nothing but what it made there; apps sign in as
//! other roles, which act as that one and can be exchanged. Names come from ids. Everything here can be done
//! again: what is there already stays, what differs is brought right.

use crate::{address::Address, scram, services::PostgresRow};
use aws_lc_rs::rand;
use bastide_types::{Secret, service::PostgresServer};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, postgres::PgConnectOptions};
use std::{borrow::Cow, collections::BTreeSet, future::Future, time::Duration};

/// Longest wait for the server to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time for all that one app needs.
const WORK_LIMIT: Duration = Duration::from_mins(1);
/// Longest run of one statement of an app, unless it sets another: nobody waits for an answer that long.
const STATEMENT_LIMIT: &str = "60s";
/// Longest pause within a transaction, unless the app sets another: locks are held meanwhile.
const IDLE_TRANSACTION_LIMIT: &str = "60s";
/// Most temporary space of a session; only the administrator can change it.
const TEMPORARY_SPACE: &str = "1GB";
/// SQLSTATEs that mean: the administrator's role may not do that.
const NOT_ALLOWED: &str = "42501";
/// SQLSTATEs that mean: another was faster (`unique_violation`, `duplicate_object`, `duplicate_database`).
const THERE_ALREADY: &[&str] = &["23505", "42710", "42P04"];

/// What can go wrong with the server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be used; says what would do.
    #[error("the address of the PostgreSQL server is not usable: {0}")]
    Address(String),
    /// It does not answer, or not in time.
    #[error("the PostgreSQL server cannot be reached")]
    Unreachable(#[source] Option<sqlx::Error>),
    /// It answers, and refuses.
    #[error("the PostgreSQL server refused")]
    Refused(#[source] sqlx::Error),
}

impl From<sqlx::Error> for ServerError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(_) => Self::Refused(error),
            _ => Self::Unreachable(Some(error)),
        }
    }
}

/// The server, with the right to make roles and databases.
#[derive(Debug, Clone)]
pub struct PostgresAdmin {
    options: PgConnectOptions,
    server: PostgresServer,
}

impl PostgresAdmin {
    /// Reads an address, whose role may make roles and databases. The administrator's connection trusts, besides the given
    /// authorities, those that the web trusts; connections of apps trust only the given ones.
    ///
    /// # Errors
    /// [`ServerError::Address`].
    pub fn new(address: &Secret) -> Result<Self, ServerError> {
        let Address { options, server } = Address::read(address).map_err(ServerError::Address)?;
        Ok(Self { options, server })
    }

    /// How the runtime reaches it.
    pub fn server(&self) -> &PostgresServer {
        &self.server
    }

    /// Makes what an app needs: its role, its database, and this login with its password and limit.
    /// Returns other databases that the app's role might connect to, because their owners let everybody.
    pub async fn provide(&self, wanted: &PostgresRow) -> Result<Vec<String>, ServerError> {
        within(WORK_LIMIT, async {
            let mut admin = self.connect(None).await?;
            alone(&mut admin, &wanted.database).await?;
            let user = wanted.user();
            let (owner, database, login) =
                (Name::of(&wanted.database), Name::of(&wanted.database), Name::of(&user));
            make(&mut admin, format!("CREATE ROLE {owner} NOLOGIN")).await?;
            make(&mut admin, format!("CREATE ROLE {login} NOLOGIN")).await?;
            run(&mut admin, format!("GRANT {owner} TO {login}")).await?;
            run(&mut admin, format!("ALTER ROLE {login} SET role = {owner}")).await?;
            for (setting, value) in [
                ("statement_timeout", STATEMENT_LIMIT),
                ("idle_in_transaction_session_timeout", IDLE_TRANSACTION_LIMIT),
            ] {
                run(&mut admin, format!("ALTER ROLE {login} SET {setting} = '{value}'")).await?;
            }
            // A limit that only the mightiest administrators may set.
            allow(
                run(&mut admin, format!("ALTER ROLE {login} SET temp_file_limit = '{TEMPORARY_SPACE}'"))
                    .await,
            )?;
            if !exists(&mut admin, "SELECT 1 FROM pg_database WHERE datname = $1", &wanted.database).await? {
                make(&mut admin, format!("CREATE DATABASE {database} TEMPLATE template0 ENCODING 'UTF8'"))
                    .await?;
            }
            run(&mut admin, format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC")).await?;
            run(&mut admin, format!("GRANT CONNECT, TEMPORARY, CREATE ON DATABASE {database} TO {owner}"))
                .await?;
            let mut inside = self.connect(Some(&wanted.database)).await?;
            run(&mut inside, "REVOKE ALL ON SCHEMA public FROM PUBLIC".into()).await?;
            run(&mut inside, format!("GRANT USAGE, CREATE ON SCHEMA public TO {owner}")).await?;
            inside.close().await?;
            // Last, so that nobody signs in to what is not finished.
            let verifier = scram::verifier(wanted.password.expose(), &salt()?);
            let limit = wanted.connections;
            run(
                &mut admin,
                format!("ALTER ROLE {login} LOGIN CONNECTION LIMIT {limit} PASSWORD '{verifier}'"),
            )
            .await?;
            let open = open_databases(&mut admin, wanted).await?;
            admin.close().await?;
            Ok(open)
        })
        .await
    }

    /// Takes a login away: nobody signs in with it from now on, its sessions end, and what it may have made under
    /// its own name goes to the role of the app.
    pub async fn retire(&self, old: &PostgresRow) -> Result<(), ServerError> {
        within(WORK_LIMIT, async {
            let mut admin = self.connect(None).await?;
            alone(&mut admin, &old.database).await?;
            let user = old.user();
            let (owner, login) = (Name::of(&old.database), Name::of(&user));
            if !exists(&mut admin, "SELECT 1 FROM pg_roles WHERE rolname = $1", &user).await? {
                return Ok(());
            }
            run(&mut admin, format!("ALTER ROLE {login} NOLOGIN PASSWORD NULL")).await?;
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
            allow(
                sqlx::query(end).bind(&user).execute(&mut admin).await.map(drop).map_err(ServerError::from),
            )?;
            let mut inside = self.connect(Some(&old.database)).await?;
            let hand_over = format!("REASSIGN OWNED BY {login} TO {owner}");
            if let Err(error) = run(&mut inside, hand_over.clone()).await {
                // An administrator that is no superuser must belong to both roles.
                allow(Err(error))?;
                run(&mut inside, format!("GRANT {owner}, {login} TO CURRENT_USER")).await?;
                run(&mut inside, hand_over).await?;
            }
            run(&mut inside, format!("DROP OWNED BY {login}")).await?;
            inside.close().await?;
            run(&mut admin, format!("DROP ROLE {login}")).await?;
            admin.close().await?;
            Ok(())
        })
        .await
    }

    /// The roles that were made here and may sign in.
    pub async fn logins(&self) -> Result<BTreeSet<String>, ServerError> {
        within(CONNECT_LIMIT, async {
            let mut admin = self.connect(None).await?;
            let query = "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'bastide\\_%'";
            let rows = sqlx::query(query).fetch_all(&mut admin).await?;
            admin.close().await?;
            let names: Result<_, sqlx::Error> = rows.iter().map(|row| row.try_get(0)).collect();
            Ok(names?)
        })
        .await
    }

    /// Whether it answers and its role has the rights; in words, what is missing.
    pub async fn check(&self) -> Result<String, ServerError> {
        within(CONNECT_LIMIT, async {
            let mut admin = self.connect(None).await?;
            let row = sqlx::query(
                "SELECT current_setting('server_version'), rolsuper OR (rolcreatedb AND rolcreaterole)
                 FROM pg_roles WHERE rolname = current_user",
            )
            .fetch_one(&mut admin)
            .await?;
            admin.close().await?;
            let (version, able): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
            if able {
                Ok(format!("PostgreSQL {version} at {}:{}", self.server.host, self.server.port))
            } else {
                Err(ServerError::Address(
                    "its role may not make roles and databases (CREATEROLE, CREATEDB)".into(),
                ))
            }
        })
        .await
    }

    async fn connect(&self, database: Option<&str>) -> Result<PgConnection, ServerError> {
        let options = match database {
            Some(database) => Cow::Owned(self.options.clone().database(database)),
            None => Cow::Borrowed(&self.options),
        };
        within(CONNECT_LIMIT, async { Ok(options.connect().await?) }).await
    }
}

/// A name that was made here: nothing in it needs quoting. Quoted all the same.
struct Name<'n>(&'n str);

impl<'n> Name<'n> {
    fn of(text: &'n str) -> Self {
        assert!(
            text.len() <= 63
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "names on the server are made from ids"
        );
        Self(text)
    }
}

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

fn salt() -> Result<[u8; scram::SALT_BYTES], ServerError> {
    let mut salt = [0; scram::SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| ServerError::Address("there is no randomness".into()))?;
    Ok(salt)
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ServerError>>,
) -> Result<T, ServerError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(ServerError::Unreachable(None)))
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), ServerError> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Runs a statement that makes something; it may be there already.
async fn make(connection: &mut PgConnection, sql: String) -> Result<(), ServerError> {
    match run(connection, sql).await {
        Err(ServerError::Refused(error))
            if code(&error).is_some_and(|code| THERE_ALREADY.contains(&&*code)) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

/// Waits until nobody else works on this database of an app, and keeps others waiting until the connection ends: two
/// replicas of the Platform may come at once, and the server fails statements that change one role at the same time.
async fn alone(admin: &mut PgConnection, database: &str) -> Result<(), ServerError> {
    sqlx::query("SELECT pg_advisory_lock(hashtextextended($1, 0))").bind(database).execute(admin).await?;
    Ok(())
}

/// Lets pass what the administrator's role may not do.
fn allow(outcome: Result<(), ServerError>) -> Result<(), ServerError> {
    match outcome {
        Err(ServerError::Refused(error)) if code(&error).is_some_and(|code| code == NOT_ALLOWED) => Ok(()),
        outcome => outcome,
    }
}

fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

async fn exists(connection: &mut PgConnection, sql: &'static str, name: &str) -> Result<bool, ServerError> {
    Ok(sqlx::query(sql).bind(name).fetch_optional(connection).await?.is_some())
}

async fn open_databases(admin: &mut PgConnection, wanted: &PostgresRow) -> Result<Vec<String>, ServerError> {
    let rows = sqlx::query(
        "SELECT datname FROM pg_database WHERE datallowconn AND datname <> $1
         AND has_database_privilege($2, oid, 'CONNECT') ORDER BY datname",
    )
    .bind(&wanted.database)
    .bind(wanted.user())
    .fetch_all(admin)
    .await?;
    let names: Result<_, sqlx::Error> = rows.iter().map(|row| row.try_get(0)).collect();
    Ok(names?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "made from ids")]
    fn a_name_that_was_not_made_here_reaches_no_statement() {
        Name::of("x\"; DROP ROLE y");
    }
}
