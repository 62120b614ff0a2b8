//! Addresses of PostgreSQL servers, with the name and the password to use there.

use bastide_types::{Secret, service::PostgresServer};
use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::path::Path;
use url::Url;

/// An address like `postgres://name:password@db.example.com:5432/database?sslmode=verify-full&sslrootcert=/etc/ca.pem`.
///
/// `sslmode` is `verify-full`, or `disable` where nobody else can listen; on loopback the latter is meant when nothing is
/// said. Our own connections trust, besides the given authorities, those that the web trusts.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// How it is connected to.
    pub(crate) options: PgConnectOptions,
    /// Where it is.
    pub(crate) server: PostgresServer,
}

impl Address {
    /// Reads one; says what is wrong with it otherwise.
    pub(crate) fn read(address: &Secret) -> Result<Self, String> {
        let wrong = |text: &str| text.to_owned();
        let url: Url = address.expose().trim().parse().map_err(|_| wrong("it is no URL"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(wrong("it begins with postgres://"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        if url.username().is_empty() || url.password().is_none() {
            return Err(wrong("it holds the name and the password of a role"));
        }
        let (mut mode, mut authorities) = (None, None);
        for (key, value) in url.query_pairs() {
            match &*key {
                "sslmode" => mode = Some(value.into_owned()),
                "sslrootcert" => authorities = Some(read(Path::new(&*value))?),
                other => {
                    return Err(format!("`{other}` is not known; sslmode and sslrootcert are"));
                }
            }
        }
        let loopback =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let encrypted = match (mode.as_deref(), loopback) {
            (Some("verify-full"), _) => true,
            (Some("disable"), _) | (None, true) => false,
            (None, false) => {
                return Err(wrong(
                    "add sslmode=verify-full and sslrootcert=FILE, or sslmode=disable where nobody else can listen",
                ));
            }
            (Some(_), _) => {
                return Err(wrong(
                    "sslmode is verify-full or disable: the others can be talked out of encryption or of the name",
                ));
            }
        };
        let authorities = match (encrypted, authorities) {
            (true, None) => {
                return Err(wrong(
                    "sslmode=verify-full needs sslrootcert=FILE, the authorities that may have issued its certificate",
                ));
            }
            (false, Some(_)) => return Err(wrong("sslrootcert is for sslmode=verify-full")),
            (_, authorities) => authorities,
        };
        let mut plain = url.clone();
        plain.set_query(None);
        let options = PgConnectOptions::from_url(&plain).map_err(|error| error.to_string())?;
        let options = options.host(&host).port(url.port().unwrap_or(5432)).application_name("bastide");
        let options = match &authorities {
            Some(pem) => {
                options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(pem.clone().into_bytes())
            }
            None => options.ssl_mode(PgSslMode::Disable),
        };
        let server = PostgresServer { host, port: options.get_port(), authorities };
        Ok(Self { options: options.disable_statement_logging(), server })
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("sslrootcert {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str) -> Result<PostgresServer, String> {
        Address::read(&Secret::new(address)).map(|address| address.server)
    }

    #[test]
    fn an_address_says_how_the_way_is_protected() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, "PEM").unwrap();
        let local = server("postgres://a:b@127.0.0.1/postgres\n").unwrap();
        assert_eq!((local.host.as_str(), local.port, local.authorities), ("127.0.0.1", 5432, None));
        assert_eq!(server("postgresql://a:b@[::1]:6000/").unwrap().host, "::1");
        let far =
            format!("postgres://a:b@db.example.com:6432/x?sslmode=verify-full&sslrootcert={}", ca.display());
        let far = server(&far).unwrap();
        assert_eq!((far.port, far.authorities.as_deref()), (6432, Some("PEM")));
        assert!(server("postgres://a:b@10.0.0.1/x?sslmode=disable").is_ok());
        for (address, what) in [
            ("junk", "no URL"),
            ("mysql://a:b@c/d", "postgres://"),
            ("postgres://a:b@/d", "no URL"),
            ("postgres://localhost/x", "password"),
            ("postgres://a@localhost/x", "password"),
            ("postgres://a:b@db.example.com/x", "sslmode=verify-full"),
            ("postgres://a:b@db.example.com/x?sslmode=require", "verify-full or disable"),
            ("postgres://a:b@db.example.com/x?sslmode=verify-full", "sslrootcert"),
            ("postgres://a:b@localhost/x?sslrootcert=/none", "/none"),
            ("postgres://a:b@localhost/x?options=x", "`options`"),
        ] {
            let error = server(address).unwrap_err();
            assert!(error.contains(what), "{address}: {error}");
            assert!(!error.contains("a:b"), "no password in {error}");
        }
    }
}
