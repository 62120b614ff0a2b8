//! What one machine needs at its first start: operator, Bastide's own accounts, the broker's
//! configuration, and a credential for each role. The supervisor writes the files.
//!
//! The operator's root key signs once, here, and can then be taken offline; the platform holds the
//! operator's *signing* key, which the root can replace.

use crate::account::{self, PAYLOAD_BYTES_MAX, seed_of};
use crate::jwt::{self, Claim};
use crate::{BusError, file};
use bastide_types::{Role, Secret};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Public keys of Bastide's own accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    /// System account.
    pub sys: String,
    /// Platform services.
    pub platform: String,
    /// Edges and gateways.
    pub edge: String,
    /// Runtime nodes.
    pub node: String,
}

/// What the platform needs to make stage accounts (file `authority.json`, only for platform replicas).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Public key of the operator.
    pub operator: String,
    /// Seed of the operator's signing key.
    pub signing_seed: Secret,
    /// Bastide's own accounts.
    pub accounts: Accounts,
}

impl Authority {
    /// Reads `authority.json`.
    pub fn load(path: &Path) -> Result<Self, BusError> {
        file::read_json(path)
    }
}

/// What the supervisor keeps to write the broker's configuration and credentials of roles (file
/// `issuers.json`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuers {
    /// JWT of the operator.
    pub operator_jwt: String,
    /// JWTs of SYS, PLATFORM, EDGE, NODE by public key.
    pub account_jwts: BTreeMap<String, String>,
    /// Bastide's own accounts.
    pub accounts: Accounts,
    /// Seeds of the keys that sign users, by account.
    pub signing_seeds: BTreeMap<String, Secret>,
}

/// How the broker is run.
#[derive(Debug, Clone)]
pub struct Server {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Absolute path of its certificate (role `bus`, issued with host `127.0.0.1`).
    pub cert_file: PathBuf,
    /// Absolute path of its key.
    pub key_file: PathBuf,
    /// Absolute path of the directory where it keeps account JWTs (mode 0700).
    pub accounts_dir: PathBuf,
}

/// Files to be written with mode 0600: name → content.
#[derive(Debug, Clone)]
pub struct Material {
    /// `operator.seed` (keep offline), `authority.json` (platform), `issuers.json` (supervisor).
    pub files: BTreeMap<String, Vec<u8>>,
    /// The parsed `issuers.json`.
    pub issuers: Issuers,
    /// The parsed `authority.json`.
    pub authority: Authority,
}

/// Makes operator, accounts and signing keys.
pub fn generate(now_s: u64) -> Result<Material, BusError> {
    let (root, signing) = (KeyPair::new_operator(), KeyPair::new_operator());
    let account = || KeyPair::new_account().public_key();
    let accounts = Accounts { sys: account(), platform: account(), edge: account(), node: account() };
    let operator_jwt = operator_jwt(&root, &signing, &accounts, now_s)?;
    let mut signing_seeds = BTreeMap::new();
    for key in [&accounts.sys, &accounts.platform, &accounts.edge, &accounts.node] {
        signing_seeds.insert(key.clone(), seed_of(&KeyPair::new_account())?);
    }
    let account_jwts = account_jwts(&accounts, &signing_seeds, &signing, now_s)?;
    let issuers = Issuers { operator_jwt, account_jwts, accounts: accounts.clone(), signing_seeds };
    let authority = Authority { operator: root.public_key(), signing_seed: seed_of(&signing)?, accounts };
    let files = BTreeMap::from([
        ("operator.seed".to_owned(), seed_of(&root)?.expose().as_bytes().to_vec()),
        ("authority.json".to_owned(), pretty(&authority)),
        ("issuers.json".to_owned(), pretty(&issuers)),
    ]);
    Ok(Material { files, issuers, authority })
}

fn operator_jwt(
    root: &KeyPair,
    signing: &KeyPair,
    accounts: &Accounts,
    now_s: u64,
) -> Result<String, BusError> {
    let nats = json!({
        "signing_keys": [signing.public_key()],
        "system_account": accounts.sys,
        "strict_signing_key_usage": true,
        "type": "operator",
        "version": 2,
    });
    let subject = root.public_key();
    jwt::mint(root, Claim { subject: &subject, name: "BASTIDE", issued_at: now_s, expires_at: None, nats })
}

fn account_jwts(
    accounts: &Accounts,
    signing_seeds: &BTreeMap<String, Secret>,
    operator: &KeyPair,
    now_s: u64,
) -> Result<BTreeMap<String, String>, BusError> {
    let definitions = [
        ("SYS", &accounts.sys, account::sys()),
        ("PLATFORM", &accounts.platform, account::platform(&accounts.edge)),
        ("EDGE", &accounts.edge, account::edge(&accounts.edge, &accounts.platform)),
        ("NODE", &accounts.node, account::node(&accounts.node, &accounts.platform)),
    ];
    let mut jwts = BTreeMap::new();
    for (name, key, definition) in definitions {
        let signer = jwt::key_from_seed(seed_for(signing_seeds, key)?.expose(), 'A')?.public_key();
        let nats = definition.claims(&signer);
        let claim = Claim { subject: key, name, issued_at: now_s, expires_at: None, nats };
        jwts.insert(key.clone(), jwt::mint(operator, claim)?);
    }
    Ok(jwts)
}

fn seed_for<'s>(signing_seeds: &'s BTreeMap<String, Secret>, account: &str) -> Result<&'s Secret, BusError> {
    let missing = || BusError::Config("issuers.json lacks the key of an account".into());
    signing_seeds.get(account).ok_or_else(missing)
}

fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("plain data")
}

impl Issuers {
    /// Reads `issuers.json`.
    pub fn load(path: &Path) -> Result<Self, BusError> {
        file::read_json(path)
    }

    /// Makes the accounts' JWTs anew where this version of Bastide defines them otherwise than the one
    /// that wrote the file. Returns whether anything changed: then write [`Self::to_bytes`]. Call it at
    /// each start, before [`Self::nats_conf`] and [`Self::write_accounts`].
    pub fn refresh(&mut self, authority: &Authority, now_s: u64) -> Result<bool, BusError> {
        let operator = jwt::key_from_seed(authority.signing_seed.expose(), 'O')?;
        let fresh = account_jwts(&self.accounts, &self.signing_seeds, &operator, now_s)?;
        let held = |key: &String| self.account_jwts.get(key).map_or("", String::as_str);
        let same = fresh.iter().all(|(key, jwt)| jwt::same_meaning(held(key), jwt));
        if !same {
            self.account_jwts = fresh;
        }
        Ok(!same)
    }

    /// Puts the accounts' JWTs where the broker keeps them, making the directory (mode 0700). Call it
    /// before each start of the broker, while it does not run: seen with 2.15.1, `resolver_preload`
    /// does not reliably replace what the directory holds from an earlier version.
    pub fn write_accounts(&self, accounts_dir: &Path) -> Result<(), BusError> {
        use std::os::unix::fs::DirBuilderExt;
        let fault = |source| BusError::File { path: accounts_dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(accounts_dir).map_err(fault)?;
        for (account, jwt) in &self.account_jwts {
            file::write(&accounts_dir.join(format!("{account}.jwt")), jwt.as_bytes())?;
        }
        Ok(())
    }

    /// Content of `issuers.json`, to be written with mode 0600.
    pub fn to_bytes(&self) -> Vec<u8> {
        pretty(self)
    }

    /// `nats.conf`: loopback only, TLS, accounts from JWTs, no monitoring port, no JetStream.
    pub fn nats_conf(&self, server: &Server) -> Result<String, BusError> {
        let mut conf = String::new();
        let mut line = |text: String| conf.push_str(&format!("{text}\n"));
        line(format!("listen: \"127.0.0.1:{}\"", server.port));
        line("server_name: \"bastide\"".into());
        line(format!("max_payload: {PAYLOAD_BYTES_MAX}"));
        line("ping_interval: \"5s\"".into());
        line("ping_max: 2".into());
        line("write_deadline: \"5s\"".into());
        line(format!(
            "tls {{ cert_file: {}, key_file: {}, timeout: 5 }}",
            quoted(&server.cert_file)?,
            quoted(&server.key_file)?
        ));
        conf.push_str(&self.authority_conf(&server.accounts_dir)?);
        Ok(conf)
    }

    /// What every server of a cluster has in its configuration, besides its listeners, certificates and routes: who makes
    /// accounts, and those of Bastide. `accounts_dir` is where that server keeps accounts.
    ///
    /// # Errors
    /// When the path cannot stand in a configuration.
    pub fn authority_conf(&self, accounts_dir: &Path) -> Result<String, BusError> {
        let dir = quoted(accounts_dir)?;
        let mut conf = self.operator_conf();
        conf.push_str(&format!(
            "resolver {{ type: full, dir: {dir}, allow_delete: true, interval: \"2m\", timeout: \"1.9s\" }}\n"
        ));
        conf.push_str(&preload(self.account_jwts.iter()));
        Ok(conf)
    }

    fn operator_conf(&self) -> String {
        format!("operator: \"{}\"\nsystem_account: \"{}\"\n", self.operator_jwt, self.accounts.sys)
    }

    /// Credentials files of one role instance, by file name: `<name>.creds`, and for the platform also
    /// `<name>.sys.creds`. Each call makes new keys; a running process keeps what it has.
    pub fn creds(&self, role: Role, name: &str, now_s: u64) -> Result<BTreeMap<String, Secret>, BusError> {
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if name.is_empty() || !plain {
            return Err(BusError::Config(format!("`{name}` is not an instance name")));
        }
        let accounts = &self.accounts;
        let mut made = BTreeMap::new();
        let mut make = |file: String, account: &String| {
            made.insert(file, self.user(account, name, now_s)?);
            Ok::<(), BusError>(())
        };
        match role {
            Role::Platform => {
                make(format!("{name}.creds"), &accounts.platform)?;
                make(format!("{name}.sys.creds"), &accounts.sys)?;
            }
            Role::Edge | Role::Gateway => make(format!("{name}.creds"), &accounts.edge)?,
            Role::Runtime => make(format!("{name}.creds"), &accounts.node)?,
            Role::Bus => return Err(BusError::Config("the broker is not its own user".into())),
        }
        Ok(made)
    }

    fn user(&self, account: &str, name: &str, now_s: u64) -> Result<Secret, BusError> {
        let seed = seed_for(&self.signing_seeds, account)?;
        let user = KeyPair::new_user();
        let jwt = account::user_jwt(seed, account, &user.public_key(), name, now_s, None)?;
        Ok(creds_text(&jwt, seed_of(&user)?.expose()))
    }
}

/// A credentials file in the form that all NATS tools read.
fn creds_text(jwt: &str, seed: &str) -> Secret {
    let mut text = String::new();
    let _ = write!(
        text,
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    Secret::new(text)
}

/// JWT and seed of a credentials file.
pub(crate) fn parse_creds(text: &str) -> Result<(String, Secret), BusError> {
    let within = |what: &str| {
        let (begin, end) = (format!("-----BEGIN {what}-----"), format!("------END {what}------"));
        let inner = text.split_once(&begin)?.1.split_once(&end)?.0.trim();
        (!inner.is_empty()).then(|| inner.to_owned())
    };
    match (within("NATS USER JWT"), within("USER NKEY SEED")) {
        (Some(jwt), Some(seed)) => Ok((jwt, Secret::new(seed))),
        _ => Err(BusError::Config("not a credentials file".into())),
    }
}

fn preload<'j>(jwts: impl Iterator<Item = (&'j String, &'j String)>) -> String {
    let lines: String = jwts.map(|(account, jwt)| format!("  {account}: \"{jwt}\"\n")).collect();
    format!("resolver_preload {{\n{lines}}}\n")
}

fn quoted(path: &Path) -> Result<String, BusError> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\\', '\n', '\r', '$']));
    match text {
        Some(text) if path.is_absolute() => Ok(format!("\"{text}\"")),
        _ => Err(BusError::Config(format!("{} cannot stand in nats.conf", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_of_credentials_panic(text in "\\PC*") {
            let _ = parse_creds(&text);
            let _ = parse_creds(&format!("-----BEGIN NATS USER JWT-----{text}------END NATS USER JWT------"));
        }
    }

    #[test]
    fn a_credentials_file_reads_back() {
        let (jwt, seed) = parse_creds(creds_text("a.b.c", "SUX").expose()).unwrap();
        assert_eq!((jwt.as_str(), seed.expose()), ("a.b.c", "SUX"));
        assert!(parse_creds("").is_err());
    }

    #[test]
    fn the_root_key_is_in_no_other_file() {
        let material = generate(0).unwrap();
        let root = String::from_utf8(material.files["operator.seed"].clone()).unwrap();
        for (name, content) in &material.files {
            let holds = String::from_utf8_lossy(content).contains(&root);
            assert_eq!(holds, name == "operator.seed", "{name}");
        }
    }

    #[test]
    fn accounts_are_made_anew_only_when_they_differ() {
        let Material { mut issuers, authority, .. } = generate(0).unwrap();
        assert!(!issuers.refresh(&authority, 9).unwrap());
        let edge = issuers.accounts.edge.clone();
        let before = issuers.account_jwts[&edge].clone();
        issuers.account_jwts.insert(edge.clone(), issuers.account_jwts[&issuers.accounts.node].clone());
        assert!(issuers.refresh(&authority, 9).unwrap());
        assert!(jwt::same_meaning(&before, &issuers.account_jwts[&edge]));
        assert_eq!(
            serde_json::from_slice::<Issuers>(&issuers.to_bytes()).unwrap().accounts,
            issuers.accounts
        );
    }

    #[test]
    fn a_path_that_would_end_its_quotes_is_refused() {
        let material = generate(0).unwrap();
        let server = |path: &str| Server {
            port: 1,
            cert_file: path.into(),
            key_file: "/k".into(),
            accounts_dir: "/d".into(),
        };
        assert!(material.issuers.nats_conf(&server("/a\" , x: \"")).is_err());
        assert!(material.issuers.nats_conf(&server("relative")).is_err());
        assert!(material.issuers.nats_conf(&server("/plain")).is_ok());
    }

    #[test]
    fn the_broker_and_odd_names_get_no_credentials() {
        let issuers = generate(0).unwrap().issuers;
        assert!(issuers.creds(Role::Bus, "bus", 0).is_err());
        assert!(issuers.creds(Role::Edge, "edge.>", 0).is_err());
        assert_eq!(issuers.creds(Role::Platform, "platform-1", 0).unwrap().len(), 2);
    }
}
