//! Names to addresses. The only resolver that apps have stands here; answers are judged by whoever asked.

use crate::Error;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
const CACHED: u64 = 4096;
/// An answer is kept no longer than this, whatever its TTL.
const KEPT_LONGEST: Duration = Duration::from_mins(5);

/// Something that knows the addresses of names.
pub trait Names: Send + Sync + 'static {
    /// All addresses of a name.
    fn addresses(&self, name: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// The resolver over real name servers.
#[derive(Clone)]
pub struct Resolver(pub(crate) TokioResolver);

impl Resolver {
    /// Asks `servers`, or those of this machine when there are none. The machine's hosts file and search
    /// domains stay out of it: they are not for apps.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, Error> {
        let wrong = |error: hickory_resolver::net::NetError| Error::Resolver(Box::new(error));
        let mut config = if servers.is_empty() {
            hickory_resolver::system_conf::read_system_conf().map_err(wrong)?.0
        } else {
            ResolverConfig::from_name_servers(servers.iter().copied().map(server).collect())
        };
        config = ResolverConfig::from_name_servers(config.into_parts().2);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = ATTEMPT_LIMIT;
        options.attempts = ATTEMPTS;
        options.cache_size = CACHED;
        options.use_hosts_file = ResolveHosts::Never;
        options.positive_max_ttl = Some(KEPT_LONGEST);
        options.negative_max_ttl = Some(KEPT_LONGEST);
        Ok(Self(builder.build().map_err(wrong)?))
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

impl Names for Resolver {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // The final dot says that it is the whole name.
        let found = self.0.lookup_ip(format!("{name}.")).await;
        let found = found.map_err(|error| {
            let unknown = error.is_nx_domain();
            io::Error::new(if unknown { io::ErrorKind::NotFound } else { io::ErrorKind::Other }, error)
        })?;
        Ok(found.iter().collect())
    }
}
