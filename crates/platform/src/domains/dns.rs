//! The DNS as far as domains need it: records of ownership, and where names lead.

use crate::Error;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
/// Texts of one name that are read.
const TEXTS_MAX: usize = 50;

/// The resolver.
pub(crate) struct Dns(TokioResolver);

/// The DNS did not say: no answer, a broken one, a failing server. Nothing follows from that.
#[derive(Debug, thiserror::Error)]
#[error("the DNS does not answer")]
pub(crate) struct Trouble(#[source] NetError);

impl Dns {
    /// Asks `servers`, or those of this machine when there are none. Nothing is remembered: who has just written a
    /// record wants it seen.
    pub(crate) fn new(servers: &[SocketAddr]) -> Result<Self, Error> {
        let wrong = |error: NetError| Error::Resolver(Box::new(error));
        let mut config = if servers.is_empty() {
            hickory_resolver::system_conf::read_system_conf().map_err(wrong)?.0
        } else {
            ResolverConfig::from_name_servers(servers.iter().copied().map(server).collect())
        };
        // Without the search domains of this machine.
        config = ResolverConfig::from_name_servers(config.into_parts().2);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = ATTEMPT_LIMIT;
        options.attempts = ATTEMPTS;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self(builder.build().map_err(wrong)?))
    }

    /// All texts of a name; none when the name or the record does not exist.
    pub(crate) async fn texts(&self, name: &str) -> Result<Vec<String>, Trouble> {
        let found = match self.0.txt_lookup(format!("{name}.")).await {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
            Err(error) => return Err(Trouble(error)),
        };
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            // One text may come in several pieces (RFC 1035 §3.3.14).
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        });
        Ok(texts.take(TEXTS_MAX).collect())
    }

    /// All addresses of a name.
    pub(crate) async fn addresses(&self, name: &str) -> Result<BTreeSet<IpAddr>, Trouble> {
        match self.0.lookup_ip(format!("{name}.")).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) if error.is_no_records_found() => Ok(BTreeSet::new()),
            Err(error) => Err(Trouble(error)),
        }
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connection = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
    server
}
