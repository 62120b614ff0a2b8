//! The `[services]` tables: what an app has besides its replicas.

use super::{Kind, Manifest, ManifestError, is_ours, is_variable};
use crate::service::{POSTGRES_PORT, POSTGRES_VARIABLES};
use serde::{Deserialize, Serialize};

/// The `[services]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Services {
    /// `[services.postgres]`: a database with a role of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
}

impl Services {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.postgres.is_none()
    }
}

/// The `[services.postgres]` table; it may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// Name of the variable that holds the address with name and password. Default `DATABASE_URL`; the
    /// variables of libpq (`PGHOST` and so on) are always set.
    pub env: String,
    /// Most connections at a time, of all replicas in a stage together. Default 20, at most
    /// [`POSTGRES_CONNECTIONS_MAX`]; the operator may allow fewer.
    pub connections: u32,
}

/// Most connections of an app to its database.
pub const POSTGRES_CONNECTIONS_MAX: u32 = 200;

impl Default for Postgres {
    fn default() -> Self {
        Self { env: "DATABASE_URL".into(), connections: 20 }
    }
}

pub(super) fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    let Some(postgres) = &manifest.services.postgres else { return Ok(()) };
    let fail = |key: &str, problem: &str| Err(ManifestError { key: key.into(), problem: problem.into() });
    if manifest.app.kind == Kind::Static {
        return fail("services.postgres", "a static app runs no program that could use a database");
    }
    if !(1..=POSTGRES_CONNECTIONS_MAX).contains(&postgres.connections) {
        return fail("services.postgres.connections", "1 to 200 connections");
    }
    if manifest.port() == POSTGRES_PORT {
        return fail("app.port", "the app finds its database on port 5432, so it listens on another");
    }
    let ours = |name: &str| is_ours(name) || POSTGRES_VARIABLES.contains(&name);
    if !is_variable(&postgres.env) || ours(&postgres.env) {
        return fail(
            "services.postgres.env",
            "a name of letters, digits and `_`, such as DATABASE_URL, that Bastide does not set otherwise",
        );
    }
    if manifest.env.keys().any(|name| *name == postgres.env || ours(name)) {
        return fail("env", "the variables of the database are set by [services.postgres]");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(json: &str) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_str(json).map_err(|e| e.to_string())?;
        manifest.check().map_err(|e| e.to_string())?;
        Ok(manifest)
    }

    #[test]
    fn a_database_is_asked_for_by_a_table_that_may_be_empty() {
        let with = |services: &str, env: &str| {
            manifest(&format!(
                r#"{{"app":{{"name":"shop","kind":"binary","command":["./shop"]}},"services":{services},"env":{env}}}"#
            ))
        };
        let plain = with(r#"{"postgres":{}}"#, "{}").unwrap();
        assert_eq!(plain.services.postgres, Some(Postgres::default()));
        assert!(with(r#"{"postgres":{"env":"DB","connections":5}}"#, r#"{"DATABASE_URL":"x"}"#).is_ok());
        for (services, env, key) in [
            (r#"{"postgres":{"connections":0}}"#, "{}", "services.postgres.connections"),
            (r#"{"postgres":{"connections":201}}"#, "{}", "services.postgres.connections"),
            (r#"{"postgres":{"env":"1x"}}"#, "{}", "services.postgres.env"),
            (r#"{"postgres":{"env":"PORT"}}"#, "{}", "services.postgres.env"),
            (r#"{"postgres":{"env":"PGUSER"}}"#, "{}", "services.postgres.env"),
            (r#"{"postgres":{}}"#, r#"{"PGHOST":"x"}"#, "env"),
            (r#"{"postgres":{}}"#, r#"{"DATABASE_URL":"x"}"#, "env"),
            (r#"{"postgres":{"size":1}}"#, "{}", "size"),
            (r#"{"mysql":{}}"#, "{}", "mysql"),
        ] {
            let error = with(services, env).unwrap_err();
            assert!(error.contains(key), "{services} {env}: {error}");
        }
        let of_files = r#"{"app":{"name":"s","kind":"static"},"services":{"postgres":{}}}"#;
        assert!(manifest(of_files).unwrap_err().contains("static app"));
        let port = r#"{"app":{"name":"s","kind":"binary","command":["./s"],"port":5432},"services":{"postgres":{}}}"#;
        assert!(manifest(port).unwrap_err().contains("app.port"));
        let without = serde_json::to_string(&with("{}", "{}").unwrap()).unwrap();
        assert!(!without.contains("services"), "older revisions keep their digest: {without}");
    }
}
