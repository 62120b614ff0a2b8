//! Configurations of the processes of one machine, written anew at each start.

use crate::{
    bootstrap::{site_names, zones},
    files, isolation,
    layout::Layout,
    ports::Ports,
    supervisor::{Process, Ready},
};
use anyhow::Result;
use bastide_platform::config::{Database, DatabaseServer, PostgresConfig};
use bastide_runtime::config::{DriverKind, Zone};
use bastide_tls::NodeTls;
use bastide_types::{Domains, WafPolicy, node::Isolation, waf::WafMode};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// What the operator chose for this machine.
pub struct Choices {
    /// Address on which the edge listens.
    pub listen: IpAddr,
    /// HTTP port.
    pub http_port: u16,
    /// Base domains and HTTPS port.
    pub domains: Domains,
    /// WAF rules that were named, in order.
    pub waf_rules: Vec<PathBuf>,
    /// Whether verdicts are enforced.
    pub waf_mode: WafMode,
    /// Limits of the edge, and who stands before it.
    pub edge: bastide_edge::config::Settings,
    /// Name servers and the authority for custom domains.
    pub custom_domains: bastide_platform::config::CustomDomains,
    /// Passwords that nobody may choose.
    pub breached_passwords: Option<PathBuf>,
    /// SMTP server, and hosts that the Identity Service may ask.
    pub identity: bastide_platform::config::IdentitySettings,
    /// How many requests a customer may make to the API.
    pub api_limits: bastide_platform::wire::pace::Limits,
    /// How apps run.
    pub driver: DriverKind,
    /// What keeps them apart.
    pub isolation: Isolation,
    /// Zones with their public addresses.
    pub zones: Vec<Zone>,
    /// A program with runc's command line, if one makes the containers.
    pub runc: Option<PathBuf>,
    /// File with the address of a PostgreSQL server for databases of apps.
    pub postgres: Option<PathBuf>,
    /// File with the address of a PostgreSQL database for the control plane, instead of a file.
    pub database: Option<PathBuf>,
    /// Program with its arguments that prints the key of the database, instead of the key file.
    pub kek_command: Vec<String>,
    /// A broker that somebody else runs.
    pub bus: Option<ExternalBus>,
}

/// A broker that somebody else runs.
#[derive(Debug, Clone)]
pub struct ExternalBus {
    /// Its addresses.
    pub url: String,
    /// Certificate of the authority of its servers.
    pub ca_file: PathBuf,
}

/// Most connections of an app to its database, in each stage.
const POSTGRES_CONNECTIONS_MAX: u32 = 50;

/// Name of the broker's process.
pub const BROKER: &str = "nats";
/// Names of the processes that listen inside.
pub const LISTENING: [&str; 5] = [BROKER, "gateway-a", "gateway-b", "platform-1", "platform-2"];

/// How the Platform's first replica reaches the system account of a broker that somebody else runs.
pub fn system_bus(layout: &Layout, bus: &ExternalBus) -> bastide_bus::Config {
    let name = "platform-1";
    bastide_bus::Config {
        url: bus.url.clone(),
        ca_file: bus.ca_file.clone(),
        creds_file: Some(layout.nats().join(format!("{name}.sys.creds"))),
        jwt: None,
        seed_file: None,
        name: name.to_owned(),
    }
}

/// Writes all configurations; the processes to run, broker first.
pub fn write(
    layout: &Layout,
    ports: &Ports,
    choices: &Choices,
    executable: &Path,
    broker: Option<&bastide_bus::broker::Broker>,
) -> Result<Vec<Process>> {
    files::private_dir(&layout.sockets())?;
    let machine = Machine { layout, ports, executable, bus: choices.bus.as_ref() };
    let mut processes: Vec<_> = broker.map(|broker| machine.broker(broker)).into_iter().collect();
    for name in ["platform-1", "platform-2"] {
        processes.push(machine.role("platform", name, &machine.platform(name, choices))?);
    }
    if choices.driver == DriverKind::Linux {
        processes.push(machine.role("egress", "egress", &machine.egress())?);
    }
    processes.push(machine.role("runtime", "runtime", &machine.runtime(choices))?);
    for (zone, name) in zones().into_iter().zip(["gateway-a", "gateway-b"]) {
        let config = bastide_gateway::Config {
            zone,
            listen: ports.address(name),
            node: machine.node(name),
            bus: machine.bus(name),
            state_dir: machine.state(name)?,
            snapshot_verify_key_file: layout.snapshot_public(),
            assertion_key_file: layout.assertion_key(),
            cookie_key_file: layout.cookie_key(),
            broker: layout.broker_gateways(),
            platform: vec![ports.address("platform-1"), ports.address("platform-2")],
            deadline_ms: 60_000,
            platform_deadline_ms: 300_000,
            tokens_max: 100_000,
            silence_max_s: bastide_gateway::config::default_silence_max_s(),
        };
        processes.push(machine.role("gateway", name, &config)?);
    }
    processes.push(machine.role("edge", "edge", &machine.edge(choices)?)?);
    Ok(processes)
}

struct Machine<'a> {
    layout: &'a Layout,
    ports: &'a Ports,
    executable: &'a Path,
    bus: Option<&'a ExternalBus>,
}

impl Machine<'_> {
    fn node(&self, name: &str) -> NodeTls {
        NodeTls {
            ca_file: self.layout.internal_ca(),
            cert_file: self.layout.certificate(name),
            key_file: self.layout.certificate_key(name),
        }
    }

    fn bus(&self, name: &str) -> bastide_bus::Config {
        self.bus_as(name, &format!("{name}.creds"))
    }

    fn bus_as(&self, name: &str, creds: &str) -> bastide_bus::Config {
        bastide_bus::Config {
            url: self
                .bus
                .map_or_else(|| format!("tls://{}", self.ports.address("nats")), |bus| bus.url.clone()),
            ca_file: self.bus.map_or_else(|| self.layout.internal_ca(), |bus| bus.ca_file.clone()),
            creds_file: Some(self.layout.nats().join(creds)),
            jwt: None,
            seed_file: None,
            name: name.to_owned(),
        }
    }

    fn state(&self, name: &str) -> Result<PathBuf> {
        let dir = self.layout.state(name);
        files::private_dir(&dir)?;
        Ok(dir)
    }

    fn platform(&self, name: &str, choices: &Choices) -> bastide_platform::Config {
        let layout = self.layout;
        bastide_platform::Config {
            name: name.to_owned(),
            listen: self.ports.address(name),
            node: self.node(name),
            database: match &choices.database {
                Some(address_file) => Database::Server(DatabaseServer { address_file: address_file.clone() }),
                None => Database::File(layout.platform().join("bastide.db")),
            },
            kek_file: layout.kek(),
            kek_command: choices.kek_command.clone(),
            images: layout.platform().join("images"),
            work_dir: layout.platform().join("work").join(name),
            domains: choices.domains.clone(),
            zones: zones().into(),
            bus: self.bus(name),
            bus_system: self.bus_as(name, &format!("{name}.sys.creds")),
            bus_authority_file: layout.nats().join("authority.json"),
            snapshot_key_file: layout.snapshot_key(),
            deploy_key_file: layout.deploy_key(),
            assertion_jwks_file: layout.assertion_jwks(),
            operator_client_file: layout.operator_client(),
            isolation: choices.isolation,
            egress_addresses: isolation::addresses(&choices.zones),
            waf: WafPolicy { mode: choices.waf_mode, ..WafPolicy::default() },
            deploy_timeout_s: 60,
            postgres: choices.postgres.clone().map(|address_file| PostgresConfig {
                address_file,
                connections_max: POSTGRES_CONNECTIONS_MAX,
            }),
            replicas_per_customer: 200,
            registries: Vec::new(),
            breached_passwords_file: choices.breached_passwords.clone(),
            mail: choices.identity.mail.clone(),
            outbound: choices.identity.outbound.clone(),
            key_days: bastide_platform::config::default_key_days(),
            api_limits: choices.api_limits,
            audit_days: bastide_platform::config::default_audit_days(),
            operation_days: bastide_platform::config::default_operation_days(),
            revision_days: bastide_platform::config::default_revision_days(),
            custom_domains: bastide_platform::config::CustomDomains {
                edge_key_files: [&[layout.edge_sealing_public()], &choices.custom_domains.edge_key_files[..]]
                    .concat(),
                ..choices.custom_domains.clone()
            },
        }
    }

    fn runtime(&self, choices: &Choices) -> bastide_runtime::Config {
        bastide_runtime::Config {
            bus: self.bus("runtime"),
            state_dir: self.layout.runtime(),
            executable: self.executable.to_owned(),
            doors: bastide_runtime::config::Doors {
                gateways: self.layout.broker_gateways(),
                egress: self.layout.broker_egress(),
                verify: self.layout.verify_door(),
            },
            down_mark: self.layout.down_mark(),
            driver: choices.driver,
            linux: (choices.driver == DriverKind::Linux).then(|| bastide_runtime::config::Linux {
                zones: choices.zones.clone(),
                egress: self.layout.egress_control(),
                flow_log: self.layout.packet_flows(),
                zones_file: self.layout.zones(),
                blocked: Vec::new(),
                outside: bastide_runtime::config::Outside::Host,
                runc: choices.runc.clone(),
            }),
            allow_no_isolation: choices.isolation == Isolation::None,
            deploy_key_file: self.layout.deploy_public(),
            image_bytes_max: 1024 * 1024 * 1024,
        }
    }

    fn egress(&self) -> bastide_egress::Config {
        bastide_egress::Config {
            control: self.layout.egress_control(),
            broker: self.layout.broker_egress(),
            flow_log: self.layout.egress_flows(),
            name_servers: Vec::new(),
            connections_max: 256,
            calls_per_s: 200,
            lookups_per_s: 50,
        }
    }

    fn edge(&self, choices: &Choices) -> Result<bastide_edge::Config> {
        let layout = self.layout;
        let certificates =
            site_names(&choices.domains).into_iter().map(|(name, _)| bastide_edge::config::CertificateFile {
                cert_file: layout.certificate(name),
                key_file: layout.certificate_key(name),
            });
        let gateways: BTreeMap<_, _> = zones()
            .into_iter()
            .zip(["gateway-a", "gateway-b"].map(|name| self.ports.address(name)))
            .collect();
        Ok(bastide_edge::Config {
            https: SocketAddr::new(choices.listen, choices.domains.https_port),
            http: SocketAddr::new(choices.listen, choices.http_port),
            domains: choices.domains.clone(),
            certificates: certificates.collect(),
            sealing_key_file: Some(layout.edge_sealing_key()),
            takeover_socket: Some(layout.edge_takeover()),
            gateways,
            node: self.node("edge"),
            bus: self.bus("edge"),
            state_dir: self.state("edge")?,
            snapshot_key_file: layout.snapshot_public(),
            waf_rules: choices.waf_rules.clone(),
            waf_versions: Some(layout.waf_versions()),
            waf_status: Some(layout.waf_status()),
            waf_audit: Some(layout.waf_audit()),
            access_log: Some(layout.access_log()),
            body_bytes_max: 30_000_000,
            upload_bytes_max: 256 * 1024 * 1024,
            deadline_ms: 60_000,
            settings: choices.edge.clone(),
        })
    }

    /// The broker ends with the supervisor too: it is started through the executable.
    fn broker(&self, broker: &bastide_bus::broker::Broker) -> Process {
        let mut command = vec![self.executable.to_owned(), "exec-child".into(), "--".into()];
        command.extend(
            broker.command_line(&self.layout.nats().join("nats.conf")).into_iter().map(PathBuf::from),
        );
        Process {
            name: "nats".into(),
            command,
            ready: Ready::Port(self.ports.address("nats")),
            grace_s: 10,
            takes_over: false,
        }
    }

    fn role<C: Serialize>(&self, role: &str, name: &str, config: &C) -> Result<Process> {
        let path = self.layout.config(name);
        files::write_private(&path, &serde_json::to_vec_pretty(config)?)?;
        let command = vec![
            self.executable.to_owned(),
            "run-role".into(),
            role.into(),
            "--config".into(),
            path,
            "--ready".into(),
            self.layout.ready(name),
            "--supervised".into(),
        ];
        // The runtime stops apps, each with its own grace.
        let grace_s = if role == "runtime" { 75 } else { 20 };
        let takes_over = role == "edge";
        Ok(Process { name: name.to_owned(), command, ready: Ready::Mark, grace_s, takes_over })
    }
}
