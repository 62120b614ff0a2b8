//! HTTP/1.1 upstreams: one request at a time per connection, idle ones kept.

use super::{
    Key, Pool, PoolLimits, Upstream,
    connect::{Connected, connect},
    sent, unsent,
};
use crate::{
    Request, Response, SendFailure, UpstreamError,
    h1::exchange::{Failure, Link, exchange},
    upgrade,
};
use http::{HeaderValue, header};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

struct Idle {
    link: Link,
    since: Instant,
}

/// Idle connections by upstream.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    idle: HashMap<Key, Vec<Idle>>,
    /// Whether a task closes those that nobody takes any more.
    swept: bool,
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(super) async fn send(
        &self,
        pool: &Pool,
        to: &Upstream,
        mut request: Request,
        deadline: Instant,
    ) -> Result<Response, Box<SendFailure>> {
        let key = to.key();
        prepare(&mut request);
        // An idle connection may have died meanwhile; then another takes the request, which was not sent.
        while let Some(link) = self.take(&key, &pool.limits) {
            match self.exchange(pool, Some(&key), link, request, deadline).await {
                Err(SendFailure { unsent: Some(unsent), .. }) => request = unsent,
                outcome => return outcome.map_err(Box::new),
            }
        }
        match connect(to, &pool.limits, deadline).await {
            Ok(connected) => {
                self.sweep(pool);
                let outcome = self.exchange(pool, Some(&key), connected.link(), request, deadline).await;
                outcome.map_err(Box::new)
            }
            Err(error) => Err(unsent(UpstreamError::Connect(error), request)),
        }
    }

    pub(super) async fn send_over(
        &self,
        pool: &Pool,
        stream: TcpStream,
        mut request: Request,
        deadline: Instant,
    ) -> Result<Response, Box<SendFailure>> {
        prepare(&mut request);
        if let Err(error) = stream.set_nodelay(true) {
            return Err(unsent(UpstreamError::Connect(error), request));
        }
        let link = Connected::Clear(stream).link();
        self.exchange(pool, None, link, request, deadline).await.map_err(Box::new)
    }

    async fn exchange(
        &self,
        pool: &Pool,
        key: Option<&Key>,
        link: Link,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, SendFailure> {
        let home = key.map(|key| (self.clone(), key.clone(), pool.limits.idle_max));
        let home = move |link| {
            if let Some((connections, key, most)) = home {
                connections.give(key, link, most);
            }
        };
        match timeout_at(deadline, exchange(link, request, &pool.tasks, home)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(Failure::Unsent(request, error))) => {
                Err(SendFailure { error: UpstreamError::BeforeHead(error.into()), unsent: Some(request) })
            }
            Ok(Err(Failure::Sent(error))) => Err(sent(UpstreamError::BeforeHead(error))),
            Err(_) => Err(sent(UpstreamError::TimedOut)),
        }
    }

    fn take(&self, key: &Key, limits: &PoolLimits) -> Option<Link> {
        loop {
            let Idle { mut link, since } = lock(&self.0).idle.get_mut(key)?.pop()?;
            if since.elapsed() <= limits.idle_timeout && link.is_quiet() {
                return Some(link);
            }
        }
    }

    fn give(&self, key: Key, link: Link, most: usize) {
        let mut kept = lock(&self.0);
        let idle = kept.idle.entry(key).or_default();
        if idle.len() < most {
            idle.push(Idle { link, since: Instant::now() });
        }
    }

    /// Sees to it that connections which nobody takes any more are closed.
    fn sweep(&self, pool: &Pool) {
        if !std::mem::replace(&mut lock(&self.0).swept, true) {
            pool.tasks.spawn(sweep(Arc::downgrade(&self.0), pool.limits.idle_timeout));
        }
    }
}

/// Closes what was idle for too long, until the pool is gone. Upstreams come and go: what nobody takes any more must not
/// stay for ever.
async fn sweep(kept: Weak<Mutex<Kept>>, idle_timeout: Duration) {
    loop {
        tokio::time::sleep(idle_timeout).await;
        let Some(kept) = kept.upgrade() else { return };
        let mut kept = lock(&kept);
        kept.idle.retain(|_, idle| {
            idle.retain_mut(|idle| idle.since.elapsed() <= idle_timeout && idle.link.is_quiet());
            !idle.is_empty()
        });
    }
}

fn prepare(request: &mut Request) {
    if let Some(upgrade::Wanted(protocol)) = request.extensions().get::<upgrade::Wanted>().cloned() {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(header::UPGRADE, protocol);
        request.headers_mut().remove(header::TE);
    } else if request.headers().contains_key(header::TE) {
        // RFC 9110 §10.1.4: TE is for this connection, and must be nominated.
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
}
