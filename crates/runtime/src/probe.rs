//! Asking a replica whether it is ready: an HTTP GET that must answer 2xx.

use crate::driver::RuntimeDriver;
use bastide_proxy::{Body, Pool, PoolLimits, Request};
use bastide_types::ReplicaId;
use http::{HeaderValue, header};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest wait for one probe.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Asks once, on the way that gateways take; `Err` says in words what came instead.
pub(crate) async fn probe<D: RuntimeDriver>(
    driver: &D,
    replica: ReplicaId,
    path: &str,
) -> Result<(), String> {
    let deadline = Instant::now() + PROBE_LIMIT;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().map_err(|_| format!("{path} is no path"))?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("bastide-probe"));
    let pool = Pool::new(PoolLimits { idle_max: 0, ..PoolLimits::default() });
    let stream = match timeout_at(deadline, driver.connect(replica)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("GET {path}: no connection: {error}")),
        Err(_) => return Err(format!("GET {path}: no connection in time")),
    };
    match pool.send_over(stream, request, deadline).await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(format!("GET {path} answered {}", response.status())),
        Err(failure) => Err(format!("GET {path}: {}", failure.error)),
    }
}
