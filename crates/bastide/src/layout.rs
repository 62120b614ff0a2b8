//! Where one installation keeps its things: every path below the data directory has its name here.

use std::path::{Path, PathBuf};

/// The data directory of one installation.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident => $path:literal;)*) => {
        impl Layout { $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.root.join($path) })* }
    };
}

paths! {
    /// Held by the supervisor while it runs.
    lock => "run/up.lock";
    /// Which process supervises, for `bastide down`.
    supervisor => "run/supervisor.json";
    /// Written when everything serves: addresses, for people and programs.
    up => "run/up.json";
    /// Ports chosen at the first start and kept.
    ports => "run/ports.json";
    /// What runs while it runs: configurations, ready marks.
    run => "run";
    /// Logs, one file per role.
    logs => "logs";
    /// Certificate of the local CA, which clients trust.
    local_ca => "ca/local.pem";
    /// Its key.
    local_ca_key => "ca/local.key";
    /// Certificate of the CA between our own processes.
    internal_ca => "ca/internal.pem";
    /// Its key.
    internal_ca_key => "ca/internal.key";
    /// Signs Snapshots.
    snapshot_key => "keys/snapshot.key";
    /// Checks Snapshots.
    snapshot_public => "keys/snapshot.pub";
    /// Signs desired states.
    deploy_key => "keys/deploy.key";
    /// Checks desired states.
    deploy_public => "keys/deploy.pub";
    /// Signs the gateways' assertions.
    assertion_key => "keys/assertion.key";
    /// Checks them: a JWK set.
    assertion_jwks => "keys/assertion.jwks";
    /// Seals the gateways' login cookies.
    cookie_key => "keys/cookie.key";
    /// Opens the keys of custom domains that are sealed for the edge of this machine.
    edge_sealing_key => "keys/edge-sealing.key";
    /// Seals them.
    edge_sealing_public => "keys/edge-sealing.pub";
    /// Seals private values in SQL.
    kek => "keys/kek";
    /// Broker: configuration, accounts, credentials.
    nats => "nats";
    /// Platform: database and blobs.
    platform => "platform";
    /// Sockets between roles of this machine; only this user may enter.
    sockets => "run/sockets";
    /// Socket broker's door for gateways.
    broker_gateways => "run/sockets/gateways.sock";
    /// Socket broker's door for the egress role.
    broker_egress => "run/sockets/egress.sock";
    /// The operator's door for verifications of isolation.
    verify_door => "run/sockets/verify.sock";
    /// Control socket of the egress role.
    egress_control => "run/sockets/egress-control.sock";
    /// Where the next edge takes over from the one that serves.
    edge_takeover => "run/sockets/edge-takeover.sock";
    /// The operator's door to the supervisor, for upgrades.
    upgrade_door => "run/sockets/upgrade.sock";
    /// There when the runtime is told to end for good, with all replicas.
    down_mark => "run/down";
    /// Runtime agent: images, replicas, state.
    runtime => "runtime";
    /// Secret of the operator's first API client.
    operator_client => "keys/operator-client.secret";
    /// The first customer, once it exists: its API client, for automation on this machine.
    demo_client => "keys/demo-client.json";
    /// Imported WAF rules.
    waf_versions => "waf";
    /// Which WAF rules are in force, as the edge says it.
    waf_status => "run/waf.json";
    /// WAF audit log.
    waf_audit => "logs/waf-audit.jsonl";
    /// Flow log: what apps called outside.
    egress_flows => "logs/egress-flows.jsonl";
    /// Flow log of the packets that apps send past the proxy.
    packet_flows => "logs/packet-flows.jsonl";
    /// How the zones' gateways are.
    zones => "run/zones.json";
    /// Access log of the edge.
    access_log => "logs/access.jsonl";
}

impl Layout {
    /// The layout below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory for the last-known-good state of one process.
    pub fn state(&self, process: &str) -> PathBuf {
        self.root.join("state").join(process)
    }

    /// Certificate of one process.
    pub fn certificate(&self, process: &str) -> PathBuf {
        self.root.join("certificates").join(format!("{process}.pem"))
    }

    /// Key of one process.
    pub fn certificate_key(&self, process: &str) -> PathBuf {
        self.root.join("certificates").join(format!("{process}.key"))
    }

    /// Configuration of one process.
    pub fn config(&self, process: &str) -> PathBuf {
        self.run().join(format!("{process}.json"))
    }

    /// The mark that one process serves.
    pub fn ready(&self, process: &str) -> PathBuf {
        self.run().join(format!("{process}.ready"))
    }

    /// Process id of one process.
    pub fn pid(&self, process: &str) -> PathBuf {
        self.run().join(format!("{process}.pid"))
    }

    /// Log of one process.
    pub fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }
}

/// Where an installation lives when nobody says otherwise: `$BASTIDE_DATA`, else
/// `$XDG_DATA_HOME/bastide`, else `~/.local/share/bastide`.
pub fn default_root(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> PathBuf {
    if let Some(root) = variable("BASTIDE_DATA") {
        return root.into();
    }
    if let Some(data) = variable("XDG_DATA_HOME").filter(|v| !v.is_empty()) {
        return Path::new(&data).join("bastide");
    }
    let home = variable("HOME").unwrap_or_else(|| "/var/lib".into());
    Path::new(&home).join(".local/share/bastide")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_data_directory() {
        let with = |pairs: &'static [(&str, &str)]| {
            default_root(move |key| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).into()))
        };
        assert_eq!(with(&[("BASTIDE_DATA", "/x"), ("HOME", "/h")]), Path::new("/x"));
        assert_eq!(with(&[("XDG_DATA_HOME", "/d"), ("HOME", "/h")]), Path::new("/d/bastide"));
        assert_eq!(with(&[("HOME", "/h")]), Path::new("/h/.local/share/bastide"));
    }
}
