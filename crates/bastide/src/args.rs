//! What people type.

use crate::{roles::RoleName, waf::WafCommand};
use bastide_types::ZoneName;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
};

/// Bastide: the secure network of a multi-tenant app platform, on your own machine.
#[derive(Debug, Parser)]
#[command(name = "bastide", version, about, arg_required_else_help = true)]
pub struct Arguments {
    /// Options of the commands that talk to a Platform
    #[command(flatten)]
    pub common: bastide_cli::Common,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Everything the executable does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring everything up on this machine
    Up(UpArgs),
    /// Stop what `up` started
    Down(DownArgs),
    /// After the executable was replaced: let the running installation use it, without losing a request (operator)
    Upgrade(UpgradeArgs),
    /// Check whether this machine is ready, before `up`
    Check(UpArgs),
    /// Show, export or install the local CA, so that browsers trust the addresses of this installation
    Trust(TrustArgs),
    /// The broker between Platform and stages (operator)
    #[command(subcommand)]
    Bus(BusCommand),
    /// Write all that an installation cannot make anew into one file; it may run meanwhile (operator)
    Backup(BackupArgs),
    /// Put a backup back, where nothing runs (operator)
    Restore(RestoreArgs),
    /// After a database on a PostgreSQL server was put back, and where nothing runs: begin a new life with it (operator)
    NewLife(NewLifeArgs),
    /// Prove that apps are kept apart: try every forbidden and every allowed path (operator)
    Verify(VerifyArgs),
    /// Make one sign-in for an administrator of a customer who has no other way in; it is audited (operator)
    BreakGlass(BreakGlassArgs),
    /// A part of the network, alone or as others start it
    #[command(flatten)]
    Part(Part),
    /// The firewall: its policies, rules and log (security office)
    #[command(subcommand)]
    Waf(WafCommand),
    /// Use a Platform
    #[command(flatten)]
    Cli(bastide_cli::Command),
}

/// What runs for long, many of them beside each other.
#[derive(Debug, Subcommand)]
pub enum Part {
    /// Run the edge alone (CDN and WAF) in front of any HTTP origin
    Edge(EdgeArgs),
    /// Run one role; started by `up`
    #[command(name = "run-role", hide = true)]
    RunRole(RoleArgs),
    /// Serve a directory of files; started by the runtime for static apps
    #[command(hide = true)]
    StaticServer {
        /// Directory
        #[arg(long)]
        root: PathBuf,
    },
    /// Make one container and look after it; started by the runtime for every replica
    #[command(hide = true)]
    Shim {
        /// What to make, as JSON
        #[arg(long)]
        config: PathBuf,
    },
    /// Try network paths inside namespaces as told on standard input; started by the runtime to verify isolation
    #[command(hide = true)]
    Probe,
    /// Start a program that ends with its parent; started by the supervisor and the runtime
    #[command(hide = true)]
    ExecChild {
        /// It is an app, not a part of Bastide
        #[arg(long)]
        app: bool,
        /// Program and arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// How a part is started. It knows of no other command: their descriptions would keep a megabyte of each process.
#[derive(Debug, Parser)]
#[command(name = "bastide", version)]
struct PartArguments {
    #[command(flatten)]
    common: bastide_cli::Common,
    #[command(subcommand)]
    part: Part,
}

impl Arguments {
    /// Reads what was typed; help and errors end the process.
    pub fn read() -> Self {
        let first = std::env::args_os().nth(1).unwrap_or_default();
        if !Part::has_subcommand(&first.to_string_lossy()) {
            return Self::parse();
        }
        let PartArguments { common, part } = PartArguments::parse();
        Self { common, command: Command::Part(part) }
    }
}

/// Where an installation lives.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// Data directory [default: ~/.local/share/bastide]
    #[arg(long, value_name = "DIR", env = "BASTIDE_DATA")]
    pub data: Option<PathBuf>,
}

/// Arguments of `up` and `check`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// HTTPS port of the edge
    #[arg(long, default_value_t = 8443)]
    pub https_port: u16,
    /// HTTP port of the edge; it only redirects
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,
    /// Address on which the edge listens
    #[arg(long, default_value = "127.0.0.1")]
    pub listen: std::net::IpAddr,
    /// Base domain of Platform hosts
    #[arg(long, default_value = "platform.localhost")]
    pub platform_domain: String,
    /// Base domain of Runtime hosts
    #[arg(long, default_value = "apps.localhost")]
    pub runtime_domain: String,
    /// Accept that apps are not isolated from each other where this machine cannot do it: one customer, no Production
    #[arg(long)]
    pub allow_no_isolation: bool,
    /// How apps run: in containers and namespaces (linux), or as plain processes (process, with --allow-no-isolation)
    #[arg(long, default_value = "auto")]
    pub driver: DriverArg,
    /// Address of this host that outsiders see when apps of a zone call them, such as a=203.0.113.7
    /// [default: the address that the host sends with]
    #[arg(long, value_name = "ZONE=ADDRESS")]
    pub egress_ip: Vec<EgressIp>,
    /// Make containers with this program, which has runc's command line [default: Bastide makes them itself]
    #[arg(long, value_name = "FILE")]
    pub runc: Option<PathBuf>,
    /// The nats-server to run [default: beside this executable, then on PATH]
    #[arg(long, value_name = "FILE")]
    pub nats_server: Option<PathBuf>,
    /// Addresses of a NATS cluster that somebody else runs, such as tls://a.example:4222,tls://b.example:4222 (see docs/bus.md)
    /// [default: a broker of its own]
    #[arg(long, value_name = "URLS", requires = "bus_ca", conflicts_with = "nats_server")]
    pub bus: Option<String>,
    /// Certificate (PEM) of the authority of its servers
    #[arg(long, value_name = "FILE", requires = "bus")]
    pub bus_ca: Option<PathBuf>,
    /// WAF rules: files, directories or globs, in order
    /// [default: the imported ones, else Debian's modsecurity-crs, else a few built-in ones]
    #[arg(long, value_name = "PATH")]
    pub waf_rules: Vec<PathBuf>,
    /// Whether WAF verdicts are enforced
    #[arg(long, default_value = "block")]
    pub waf_mode: WafMode,
    /// Settings of the edge, as TOML: its limits, and the proxies before it (see docs/edge-settings.md)
    #[arg(long, value_name = "FILE")]
    pub edge_settings: Option<PathBuf>,
    /// Settings of custom domains, as TOML: name servers, the ACME authority (see docs/domains.md)
    #[arg(long, value_name = "FILE")]
    pub domain_settings: Option<PathBuf>,
    /// File with the address of a PostgreSQL database for the control plane, such as
    /// postgres://name:password@db.example.com/bastide?sslmode=verify-full&sslrootcert=/etc/ca.pem (see docs/database.md)
    /// [default: a file of SQLite's in the data directory]
    #[arg(long, value_name = "FILE", env = "BASTIDE_DATABASE")]
    pub database: Option<PathBuf>,
    /// Program that prints the key of the database, 32 bytes as base64, instead of the key file: an absolute path. May be given
    /// again for its arguments; it is run without a shell (see docs/settings.md)
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true)]
    pub kek_command: Vec<String>,
    /// File with the address of a PostgreSQL server for databases of apps, such as
    /// postgres://name:password@db.example.com/postgres?sslmode=verify-full&sslrootcert=/etc/ca.pem
    #[arg(long, value_name = "FILE", env = "BASTIDE_POSTGRES")]
    pub postgres: Option<PathBuf>,
    /// Passwords that nobody may choose: SHA-1 hashes as Pwned Passwords are distributed, or passwords; one a line, sorted
    #[arg(long, value_name = "FILE")]
    pub breached_passwords: Option<PathBuf>,
    /// Settings of the Identity Service, as TOML: the SMTP server, hosts that it may ask (see docs/identity.md)
    #[arg(long, value_name = "FILE")]
    pub identity_settings: Option<PathBuf>,
    /// Requests that a customer may make to each service of the Platform in a minute
    #[arg(long, default_value = "100", value_name = "NUMBER")]
    pub requests_per_minute: NonZeroU32,
    /// Those of them that build, deploy or exchange something
    #[arg(long, default_value = "10", value_name = "NUMBER")]
    pub deployments_per_minute: NonZeroU32,
    /// Do not create the customer `demo` and its examples at the first start
    #[arg(long)]
    pub no_demo: bool,
    /// Directory with the examples [default: beside the executable's workspace]
    #[arg(long, value_name = "DIR")]
    pub examples: Option<PathBuf>,
}

/// Arguments of `break-glass`.
#[derive(Debug, Clone, Args)]
pub struct BreakGlassArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// Name of the customer
    pub customer: bastide_types::CustomerName,
    /// E-mail address of the administrator [default: the first one]
    #[arg(long)]
    pub email: Option<String>,
}

/// What can be done with the broker.
#[derive(Debug, Clone, Subcommand)]
pub enum BusCommand {
    /// Prove that stages are kept apart on it: try every subject of the system from two throw-away stages
    Check(BusCheckArgs),
    /// Print what each server of a cluster needs in its configuration (see docs/bus.md)
    Config(BusConfigArgs),
}

/// Arguments of `bus config`.
#[derive(Debug, Clone, Args)]
pub struct BusConfigArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// Directory on the server where it keeps accounts
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nats/accounts")]
    pub accounts_dir: PathBuf,
}

/// Arguments of `bus check`.
#[derive(Debug, Clone, Args)]
pub struct BusCheckArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
}

/// Arguments of `backup`.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// File to write; it must not exist yet
    pub file: PathBuf,
}

/// Arguments of `restore`.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// File that `bastide backup` wrote
    pub file: PathBuf,
    /// Put it in the place of the installation that is there; what it replaces is kept beside it
    #[arg(long)]
    pub replace: bool,
}

/// Arguments of `new-life`.
#[derive(Debug, Clone, Args)]
pub struct NewLifeArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
}

/// Arguments of `verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// Try from this customer's apps only
    #[arg(long, value_name = "CUSTOMER")]
    pub customer: Option<bastide_types::CustomerName>,
    /// Try from apps in this stage only
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<bastide_types::StageName>,
}

/// Arguments of `down`.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// Remove the data too
    #[arg(long)]
    pub purge: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `upgrade`.
#[derive(Debug, Clone, Args)]
pub struct UpgradeArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// Only this process, such as edge or gateway-a; may be given more than once [default: all but the broker]
    #[arg(long, value_name = "PROCESS")]
    pub only: Vec<String>,
}

/// Arguments of `trust`.
#[derive(Debug, Clone, Args)]
pub struct TrustArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// Print the certificate (PEM) and nothing else
    #[arg(long, conflicts_with_all = ["out", "install", "remove"])]
    pub pem: bool,
    /// Write the certificate (PEM) into a file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["install", "remove"])]
    pub out: Option<PathBuf>,
    /// Let programs trust it
    #[arg(long, value_name = "STORE", conflicts_with = "remove")]
    pub install: Option<TrustStore>,
    /// Undo --install
    #[arg(long, value_name = "STORE")]
    pub remove: Option<TrustStore>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Change the system below this directory instead of /
    #[arg(long, value_name = "DIR", hide = true)]
    pub system_root: Option<PathBuf>,
}

/// Who is to trust the local CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrustStore {
    /// Every program of this machine (needs root)
    System,
    /// Browsers of this user that use NSS, such as Chromium
    Browser,
}

/// Arguments of a role.
#[derive(Debug, Clone, Args)]
pub struct RoleArgs {
    /// Which one
    pub role: RoleName,
    /// Its configuration, as JSON
    #[arg(long)]
    pub config: PathBuf,
    /// File that it writes when it serves
    #[arg(long)]
    pub ready: Option<PathBuf>,
    /// End when the parent ends
    #[arg(long)]
    pub supervised: bool,
}

/// Driver, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DriverArg {
    /// Containers and namespaces where this machine can do it
    Auto,
    /// Containers and namespaces
    Linux,
    /// Plain processes
    Process,
}

/// The address of a zone, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressIp {
    /// Zone.
    pub zone: ZoneName,
    /// Its address.
    pub address: Ipv4Addr,
}

impl std::str::FromStr for EgressIp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (zone, address) = text.split_once('=').ok_or("write ZONE=ADDRESS, such as a=203.0.113.7")?;
        let zone = ZoneName::new(zone).map_err(|error| format!("zone: {error}"))?;
        let address = address.parse().map_err(|_| format!("`{address}` is no IPv4 address"))?;
        Ok(Self { zone, address })
    }
}

/// Engine mode, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WafMode {
    /// Inspect and log
    Detect,
    /// Inspect, log and refuse
    Block,
}

/// Arguments of the stand-alone edge.
#[derive(Debug, Clone, Args)]
pub struct EdgeArgs {
    /// Origin, such as http://127.0.0.1:9000
    #[arg(long, value_name = "URL")]
    pub origin: String,
    /// Address to listen on
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Certificate chain, PEM; with it the edge speaks HTTPS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Store nothing
    #[arg(long)]
    pub no_cache: bool,
    /// Send every answer as the origin does
    #[arg(long)]
    pub no_compression: bool,
    /// Address that serves figures of the cache in the Prometheus text format, at /metrics
    #[arg(long, value_name = "ADDR", conflicts_with = "no_cache")]
    pub metrics: Option<std::net::SocketAddr>,
    /// Socket file of this edge: started again with the same file, another one takes over from it, and no request is
    /// lost (see docs/upgrade.md)
    #[arg(long, value_name = "FILE")]
    pub takeover: Option<PathBuf>,
    /// Inspect nothing
    #[arg(long, conflicts_with_all = ["waf_rules", "waf_mode", "waf_paranoia", "waf_set", "waf_audit"])]
    pub no_waf: bool,
    /// SecLang rules: files, directories or globs, in order; may be given more than once
    /// [default: Debian's modsecurity-crs, else a few built-in ones]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub waf_rules: Vec<PathBuf>,
    /// Whether verdicts are enforced
    #[arg(long, default_value = "block")]
    pub waf_mode: WafMode,
    /// Paranoia level
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub waf_paranoia: u8,
    /// Set a `tx` variable of the rules
    #[arg(long, value_name = "NAME=VALUE", num_args = 1..)]
    pub waf_set: Vec<String>,
    /// File for the audit log, one JSON line per transaction that matched
    #[arg(long, value_name = "FILE")]
    pub waf_audit: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
        PartArguments::command().debug_assert();
    }

    #[test]
    fn the_stand_alone_edge_has_its_interface() {
        let typed = "bastide edge --origin http://127.0.0.1:9000 --listen 127.0.0.1:0 --tls-cert c --tls-key k --no-cache \
                     --waf-rules a b --waf-mode detect --waf-paranoia 4 --waf-set x=1 y=2 --waf-audit log";
        let Command::Part(Part::Edge(edge)) =
            Arguments::try_parse_from(typed.split_whitespace()).unwrap().command
        else {
            panic!("not the edge")
        };
        assert_eq!(edge.waf_rules, [PathBuf::from("a"), "b".into()]);
        let again =
            "bastide edge --origin http://x --listen 127.0.0.1:0 --waf-rules a b --waf-rules c/*.conf";
        let Command::Part(Part::Edge(again)) =
            Arguments::try_parse_from(again.split_whitespace()).unwrap().command
        else {
            panic!("not the edge")
        };
        assert_eq!(again.waf_rules, [PathBuf::from("a"), "b".into(), "c/*.conf".into()]);
        assert_eq!((edge.waf_mode, edge.waf_paranoia), (WafMode::Detect, 4));
        assert_eq!(edge.waf_set, ["x=1", "y=2"]);
        let both = "bastide edge --origin http://x --listen 127.0.0.1:0 --no-waf --waf-paranoia 2";
        assert!(Arguments::try_parse_from(both.split_whitespace()).is_err());
    }
}
