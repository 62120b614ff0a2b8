//! Asking a replica whether it is ready: an HTTP GET that must answer 2xx.

use bastide_proxy::{Body, Pool, PoolLimits, Request, Upstream};
use http::{HeaderValue, header};
use std::{net::SocketAddr, time::Duration};
use tokio::time::Instant;

/// Longest wait for one probe.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Asks once; `Err` says in words what came instead.
pub(crate) async fn probe(addr: SocketAddr, path: &str) -> Result<(), String> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().map_err(|_| format!("{path} is no path"))?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("bastide-probe"));
    let pool = Pool::new(PoolLimits { idle_max: 0, ..PoolLimits::default() });
    let to = Upstream { addr, tls: None, http2: false };
    match pool.send(&to, request, Instant::now() + PROBE_LIMIT).await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(format!("GET {path} answered {}", response.status())),
        Err(failure) => Err(format!("GET {path}: {}", failure.error)),
    }
}
