//! How a platform replica is set up.

use crate::{Error, wire::pace};
use bastide_store::{Kek, Store};
use bastide_tls::NodeTls;
use bastide_types::{
    Domains, Secret, WafPolicy, ZoneName,
    node::{Isolation, ZoneAddress},
};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
};

/// Configuration of one platform replica.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this replica, unique.
    pub name: String,
    /// Address on which it takes requests from gateways.
    pub listen: SocketAddr,
    /// Own certificate and the CA of the others.
    pub node: NodeTls,
    /// Where it keeps what it knows.
    pub database: Database,
    /// Key-encryption key of private values in the database, 32 bytes.
    pub kek_file: PathBuf,
    /// Program, with its arguments, that prints this key as base64, instead of the file: a way to a KMS. Its path is
    /// absolute; it is run without a shell, when the replica starts, and has 30 seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kek_command: Vec<String>,
    /// Directory of the images, as an OCI image layout.
    pub images: PathBuf,
    /// Directory for uploads in progress.
    pub work_dir: PathBuf,
    /// Base domains.
    pub domains: Domains,
    /// Zones in which replicas run.
    pub zones: Vec<ZoneName>,
    /// Broker, as a platform service.
    pub bus: bastide_bus::Config,
    /// Broker, as the system account: pushes stage accounts.
    pub bus_system: bastide_bus::Config,
    /// What makes stage accounts.
    pub bus_authority_file: PathBuf,
    /// Private key that signs Snapshots.
    pub snapshot_key_file: PathBuf,
    /// Private key that signs desired states.
    pub deploy_key_file: PathBuf,
    /// Public keys of the gateways' assertions, a JWK set.
    pub assertion_jwks_file: PathBuf,
    /// Secret of the operator's API client `supervisor`.
    pub operator_client_file: PathBuf,
    /// What keeps apps apart on the nodes.
    pub isolation: Isolation,
    /// Addresses that outsiders see when apps of a zone call them.
    #[serde(default)]
    pub egress_addresses: Vec<ZoneAddress>,
    /// WAF policy of every site until the security office decides otherwise.
    #[serde(default)]
    pub waf: WafPolicy,
    /// Longest time until the replicas of a deployment are ready, in seconds. Default 60.
    #[serde(default = "default_deploy_timeout_s")]
    pub deploy_timeout_s: u32,
    /// PostgreSQL server for the databases of apps. Without one, apps that ask for a database are refused.
    #[serde(default)]
    pub postgres: Option<PostgresConfig>,
    /// Most replicas that a customer may have in all its stages, unless the operator gave it another number.
    /// Default 200.
    #[serde(default = "default_replicas_per_customer")]
    pub replicas_per_customer: u32,
    /// Registries that need a word: with a private address, a certificate of their own, or credentials. Images
    /// from the public internet need none.
    #[serde(default)]
    pub registries: Vec<Registry>,
    /// Breached passwords, which nobody may choose: SHA-1 hashes as Pwned Passwords are distributed, or passwords;
    /// one a line, sorted. Replaced by renaming another file to it.
    #[serde(default)]
    pub breached_passwords_file: Option<PathBuf>,
    /// SMTP server for invitations, links and reminders. Without one, links are shown to the administrator who asked.
    #[serde(default)]
    pub mail: Option<MailSettings>,
    /// Hosts that customers may name although they are not on the public internet: providers of identity, and where
    /// clients want to hear of sign-outs.
    #[serde(default)]
    pub outbound: Vec<OutboundHost>,
    /// Custom domains: who is asked about them, which edges serve them, who issues their certificates.
    #[serde(default)]
    pub custom_domains: CustomDomains,
    /// Days after which each issuer's keys are exchanged. Default 30, at least 1.
    #[serde(default = "default_key_days")]
    pub key_days: NonZeroU16,
    /// How many requests a customer may make to the API in a minute.
    #[serde(default)]
    pub api_limits: pace::Limits,
    /// Days for which entries of audit trails are kept. Default 400.
    #[serde(default = "default_audit_days")]
    pub audit_days: NonZeroU16,
    /// Days for which operations are kept after they ended. Default 90.
    #[serde(default = "default_operation_days")]
    pub operation_days: NonZeroU16,
    /// Days for which revisions are kept that serve nowhere and are not among the newest 50 of their app. Default 90.
    #[serde(default = "default_revision_days")]
    pub revision_days: NonZeroU16,
}

/// Where the control plane keeps what it knows: one SQL database for all its replicas.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Database {
    /// A file, for replicas on one machine; made when it is missing.
    File(PathBuf),
    /// A database on a PostgreSQL server, for replicas on any number of machines.
    Server(DatabaseServer),
}

/// A database on a PostgreSQL server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseServer {
    /// File with the address of the role that owns it:
    /// `postgres://name:password@host:5432/bastide?sslmode=verify-full&sslrootcert=/etc/ca.pem`.
    pub address_file: PathBuf,
}

impl Database {
    /// The file with the data, or with the address.
    pub fn file(&self) -> &Path {
        match self {
            Self::File(file) => file,
            Self::Server(server) => &server.address_file,
        }
    }

    /// Opens it, and brings its schema to this version.
    pub async fn open(&self, kek: Kek) -> Result<Store, Error> {
        match self {
            Self::File(file) => Ok(Store::open(file, kek).await?),
            Self::Server(server) => Ok(Store::connect(&server.address()?, kek).await?),
        }
    }
}

impl DatabaseServer {
    /// The address, with the password in it.
    pub fn address(&self) -> Result<Secret, Error> {
        let text = std::fs::read_to_string(&self.address_file);
        Ok(Secret::new(text.map_err(|error| crate::state::unusable(&self.address_file, error))?))
    }
}

/// What the operator decides about the Identity Service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentitySettings {
    /// SMTP server.
    pub mail: Option<MailSettings>,
    /// Hosts that customers may name although they are not on the public internet.
    pub outbound: Vec<OutboundHost>,
}

/// A host that may be asked wherever it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundHost {
    /// Host, and port when it is not 443: `idp.internal:8443`.
    pub host: String,
    /// PEM file of the CA that its certificate comes from. Default: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether it is asked without TLS.
    #[serde(default)]
    pub plain_http: bool,
}

/// How mail is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    /// Host of the SMTP server.
    pub host: String,
    /// Port. Default 587 for `starttls`, 465 for `tls`, 25 for `none`.
    #[serde(default)]
    pub port: Option<u16>,
    /// How the way to it is secured. Default `starttls`, which is demanded.
    #[serde(default)]
    pub security: MailSecurity,
    /// User to sign in as; needs `password_file`.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password of that user.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Sender: `bastide@example.com`, or `Bastide <bastide@example.com>`.
    pub from: String,
    /// PEM file of the CA that the server's certificate comes from. Default: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// How the way to an SMTP server is secured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailSecurity {
    /// TLS before the first letter is said (RFC 3207).
    #[default]
    Starttls,
    /// TLS from the beginning (RFC 8314).
    Tls,
    /// None: for a server on this machine only.
    None,
}

/// How custom domains are looked after.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CustomDomains {
    /// Name servers that are asked for the records of ownership. Default: those of this machine.
    pub name_servers: Vec<SocketAddr>,
    /// Files with the public sealing keys of the edges (32 bytes each): who can open private keys in Snapshots.
    pub edge_key_files: Vec<PathBuf>,
    /// Most domains of a customer, proven or not. Default 100.
    pub domains_max: u32,
    /// The authority for certificates. Without one, certificates are uploaded.
    pub acme: Option<Acme>,
}

impl Default for CustomDomains {
    fn default() -> Self {
        Self { name_servers: Vec::new(), edge_key_files: Vec::new(), domains_max: 100, acme: None }
    }
}

/// An authority that speaks ACME (RFC 8555). Naming it accepts its terms of service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// Address of its directory.
    pub directory: String,
    /// E-mail address that it may write to.
    #[serde(default)]
    pub contact: Option<String>,
    /// PEM file of the CA that its own HTTPS certificate comes from. Default: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How it may look whether a domain leads here, one way after the other. HTTP-01 comes to port 80 of the domain,
    /// TLS-ALPN-01 to port 443. Default both.
    #[serde(default = "default_challenges")]
    pub challenges: Vec<Challenge>,
}

/// How an authority looks whether a domain leads here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Challenge {
    /// RFC 8555 §8.3.
    #[serde(rename = "http-01")]
    Http01,
    /// RFC 8737.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

fn default_challenges() -> Vec<Challenge> {
    vec![Challenge::Http01, Challenge::TlsAlpn01]
}

/// The PostgreSQL server for the databases of apps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// File with the address of a role that may make roles and databases:
    /// `postgres://name:password@host:5432/postgres?sslmode=verify-full&sslrootcert=/etc/ca.pem`.
    pub address_file: PathBuf,
    /// Most connections of an app in a stage, whatever its manifest asks for. Default 50.
    #[serde(default = "default_connections_max")]
    pub connections_max: u32,
}

/// A registry of images.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Host, and port when it is not 443, as references have them: `registry.internal:5000`.
    pub host: String,
    /// Speaks HTTP without TLS. Default false.
    #[serde(default)]
    pub plain_http: bool,
    /// PEM file of the CA that its certificate comes from.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// User name.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password, or token, of that user.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

const fn default_connections_max() -> u32 {
    50
}

const fn default_replicas_per_customer() -> u32 {
    200
}
/// Default of [`Config::audit_days`].
pub const fn default_audit_days() -> NonZeroU16 {
    NonZeroU16::new(400).expect("not zero")
}

/// Default of [`Config::operation_days`].
pub const fn default_operation_days() -> NonZeroU16 {
    NonZeroU16::new(90).expect("not zero")
}

/// Default of [`Config::revision_days`].
pub const fn default_revision_days() -> NonZeroU16 {
    NonZeroU16::new(90).expect("not zero")
}

/// Default of [`Config::key_days`].
pub const fn default_key_days() -> NonZeroU16 {
    NonZeroU16::new(30).expect("30 is not zero")
}
const fn default_deploy_timeout_s() -> u32 {
    60
}
