//! Services that an app has besides its replicas: so far a database of its stage.

use crate::{Secret, settings::Values};
use serde::{Deserialize, Serialize};

/// Port on which an app finds its database, at [`crate::network::POSTGRES`].
pub const POSTGRES_PORT: u16 = 5432;

/// The services of one replica.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Services {
    /// Its database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresLogin>,
    /// Version of its app's settings with which it runs; none where nothing was ever set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings_version: Option<u32>,
    /// These settings. From the Platform they come once for all replicas of a stage
    /// ([`StageState::settings`](crate::message::StageState)), and the agent hands them out; here they stand in what a node keeps.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub settings: Values,
}

impl Services {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.postgres.is_none() && self.settings_version.is_none()
    }

    /// What the app is told of them, besides its own environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let set = self.settings.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
        set.chain(self.postgres.iter().flat_map(PostgresLogin::environment)).collect()
    }
}

/// The database of an app in one stage, and the role that it signs in with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresLogin {
    /// Role; letters, digits and `_`.
    pub user: String,
    /// Database; letters, digits and `_`.
    pub database: String,
    /// Password; letters and digits.
    pub password: Secret,
    /// Most connections at a time.
    pub connections: u32,
    /// Name of the variable that holds the whole address.
    pub url_variable: String,
}

impl PostgresLogin {
    /// The variables that clients of PostgreSQL know (libpq), and the whole address as one.
    /// There is no TLS on the way: it does not leave the machine, and what follows is the relay's matter.
    pub fn environment(&self) -> Vec<(String, String)> {
        let Self { user, database, password, .. } = self;
        let (host, password) = (crate::network::POSTGRES_NAME, password.expose());
        let url = format!("postgres://{user}:{password}@{host}:{POSTGRES_PORT}/{database}?sslmode=disable");
        [
            ("PGHOST", host.to_owned()),
            ("PGPORT", POSTGRES_PORT.to_string()),
            ("PGUSER", user.clone()),
            ("PGPASSWORD", password.to_owned()),
            ("PGDATABASE", database.clone()),
            ("PGSSLMODE", "disable".to_owned()),
            (&self.url_variable, url),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// Names of variables that [`PostgresLogin::environment`] sets, besides the one for the address.
pub const POSTGRES_VARIABLES: &[&str] =
    &["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE"];

/// The PostgreSQL server of an installation, as the runtime reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresServer {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// PEM of the authorities that may have issued its certificate; the name in it must be `host`. Without
    /// this the way to the server is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_told_where_its_database_is() {
        let postgres = PostgresLogin {
            user: "u".into(),
            database: "d".into(),
            password: Secret::new("p"),
            connections: 20,
            url_variable: "DB".into(),
        };
        let services = Services { postgres: Some(postgres), ..Services::default() };
        let told = services.environment();
        let value = |name: &str| told.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(value("DB"), Some("postgres://u:p@postgres.internal:5432/d?sslmode=disable"));
        assert_eq!(value("PGPASSWORD"), Some("p"));
        assert!(POSTGRES_VARIABLES.iter().all(|name| value(name).is_some()));
        assert_eq!(told.len(), POSTGRES_VARIABLES.len() + 1);
        assert!(!format!("{services:?}").contains("\"p\""));
        let text = serde_json::to_string(&services).unwrap();
        assert_eq!(serde_json::from_str::<Services>(&text).unwrap(), services);
        assert_eq!(serde_json::to_string(&Services::default()).unwrap(), "{}");
        // What was started is started again from what the node keeps.
        let settings =
            Values::from([("KEY".to_owned(), Secret::new("s")), ("PGHOST".to_owned(), Secret::new("s"))]);
        let services = Services { settings_version: Some(1), settings, ..services };
        let text = serde_json::to_string(&services).unwrap();
        let again: Services = serde_json::from_str(&text).unwrap();
        assert_eq!(again, services);
        let told: std::collections::BTreeMap<_, _> = again.environment().into_iter().collect();
        assert_eq!(told["KEY"], "s");
        assert_ne!(told["PGHOST"], "s", "what a service says wins");
    }
}
