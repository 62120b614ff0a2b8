//! The edge alone: CDN and WAF before one HTTP origin. No Platform, no bus, any Host.

use crate::{
    Error, StandAlone, ahead,
    cache::{Behind, Plot, Store},
    compress::Wish,
    context::Context,
    headers,
    journey::{context, limited, pass, refused, text},
    metrics,
    refusal::Refusal,
    rules::Places,
    succession::{Begun, Succession},
    waf::{Inspection, Waf},
};
use bastide_cache::Limits as CacheLimits;
use bastide_proxy::{
    Limits, Listener, Place, Pool, PoolLimits, RefusedHead, Request, Response, Service, Upstream,
    UpstreamError, UpstreamTls, accept_tls, allowed_cores, run_workers, serve, upgrade,
};
use bastide_types::{Code, RequestId};
use bastide_waf::Settings;
use http::Method;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{fs, net::ToSocketAddrs, path::Path, sync::Arc, thread::JoinHandle, time::Duration};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

/// Largest request body.
const BODY_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const DEADLINE: Duration = Duration::from_mins(1);
/// Where Debian keeps the roots that it trusts; needed only for an `https` origin.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

struct Shared {
    origin: Upstream,
    waf: Option<Waf>,
    cache: Option<(Arc<Store>, Arc<Plot>)>,
    compress: bool,
    loop_id: headers::LoopId,
}

/// One worker.
#[derive(Clone)]
struct Alone {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    tasks: TaskTracker,
}

/// Runs until `stop`, or until another edge has taken over and nothing goes on here: one worker thread per core that
/// this process may use. `ready` hears the address.
pub fn run_alone(
    config: StandAlone,
    ready: impl FnOnce(std::net::SocketAddr) + Send + 'static,
    stop: CancellationToken,
) -> Result<(), Error> {
    let origin = origin(&config.origin)?;
    let waf = match &config.waf {
        None => None,
        Some(waf) => {
            let places = Places { named: waf.rules.clone(), versions: None };
            let variables = waf.variables.clone();
            let settings =
                Settings { mode: waf.mode, paranoia: waf.paranoia, variables, ..Settings::default() };
            Some(Waf::alone(places, settings, waf.audit.as_deref())?)
        }
    };
    let tls = match &config.tls {
        None => None,
        Some(file) => {
            let read = |path: &Path| fs::read_to_string(path).map_err(|error| Error::file(path, error));
            let config = bastide_tls::single_config(
                &read(&file.cert_file)?,
                &read(&file.key_file)?,
                &[b"h2", b"http/1.1"],
            )?;
            Some(accept_tls(config))
        }
    };
    let cache = config.cache.then(|| {
        // One origin is one customer: all of it may be its share.
        let limits = CacheLimits::default();
        let limits = CacheLimits { customer_bytes_max: limits.bytes_max, ..limits };
        let store = Store::new(limits, config.compress);
        let plot = Plot::alone(&store.cache);
        (store, plot)
    });
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(Error::Listen)?;
    let leave = CancellationToken::new();
    let mut succession = control.block_on(Succession::begin(config.takeover_socket.as_deref()))?;
    let listening = succession.listen(config.listen, allowed_cores())?;
    let addr = listening[0].local_addr().map_err(Error::Listen)?;
    if let (Some(addr), Some((store, plot))) = (config.metrics, &cache) {
        for tcp in succession.listen(addr, 1)? {
            let plot = plot.clone();
            let counts = move || metrics::Line {
                labels: "app=\"origin\"".into(),
                counts: plot.space.tally().counts(),
            };
            let lines = Arc::new(move || vec![counts()]);
            let figures = metrics::Figures::new(store.clone(), lines, None);
            control.spawn(metrics::serve_at(tcp, figures, leave.clone(), stop.clone()));
        }
    }
    let shared =
        Arc::new(Shared { origin, waf, cache, compress: config.compress, loop_id: headers::LoopId::alone() });
    let begun = Arc::new(Begun::default());
    let settling = (begun.clone(), leave.clone(), stop.clone());
    control.spawn(async move {
        let (begun, leave, stop) = settling;
        begun.all().await;
        succession.settle(|| ready(addr), &leave, &stop).await;
    });
    let watcher = watch_rules(shared.clone(), stop.clone()).map_err(Error::Listen)?;
    let count = listening.len();
    let listening = std::sync::Mutex::new(listening);
    let served = run_workers(count, |_| {
        let tcp = listening.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let (tls, shared, begun) = (tls.clone(), shared.clone(), begun.clone());
        let (leave, stop) = (leave.clone(), stop.clone());
        async move {
            let tcp = tcp.ok_or_else(|| std::io::Error::other("a worker has no listener"))?;
            let alone = Arc::new(Alone {
                shared,
                pool: Arc::new(Pool::new(PoolLimits { idle_max: 256, ..PoolLimits::default() })),
                tasks: TaskTracker::new(),
            });
            let listener = Listener { leave, ..Listener::new(tcp, tls, Limits::default()) };
            begun.one_of(count);
            serve(listener, alone, stop).await
        }
    });
    stop.cancel();
    control.shutdown_timeout(Duration::from_secs(2));
    if let Some(watcher) = watcher {
        // It ends within moments; a panic there is no reason to say that serving failed.
        let _ = watcher.join();
    }
    served.map_err(Error::Listen)?.map_err(Error::Listen)
}

/// Looks every other second whether there are other rules, on a thread of its own: workers never compile.
fn watch_rules(shared: Arc<Shared>, stop: CancellationToken) -> std::io::Result<Option<JoinHandle<()>>> {
    if shared.waf.is_none() {
        return Ok(None);
    }
    let watch = move || {
        for round in 1_u64.. {
            std::thread::sleep(Duration::from_millis(100));
            if stop.is_cancelled() {
                return;
            }
            if let Some(waf) = shared.waf.as_ref().filter(|_| round.is_multiple_of(20)) {
                waf.force.look();
            }
        }
    };
    std::thread::Builder::new().name("waf-rules".into()).spawn(watch).map(Some)
}

fn origin(text: &str) -> Result<Upstream, Error> {
    let wrong = |why: &str| Error::Origin { origin: text.to_owned(), why: why.to_owned() };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    let host = url.host_str().ok_or_else(|| wrong("it names no host"))?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(wrong("an origin has no path: requests keep theirs"));
    }
    let port = url.port_or_known_default().ok_or_else(|| wrong("http or https"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut found = (bare, port).to_socket_addrs().map_err(|error| wrong(&error.to_string()))?;
    let addr = found.next().ok_or_else(|| wrong("its name has no address"))?;
    let tls = match url.scheme() {
        "http" => None,
        "https" => Some(origin_tls(bare).map_err(|why| wrong(&why))?),
        _ => return Err(wrong("http or https")),
    };
    Ok(Upstream { place: Place::Address(addr), tls, http2: false })
}

fn origin_tls(host: &str) -> Result<UpstreamTls, String> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(SYSTEM_ROOTS).map_err(|error| format!("{SYSTEM_ROOTS}: {error}"))?;
    for certificate in certificates.flatten() {
        // A root that rustls cannot read is one fewer to trust.
        let _ = roots.add(certificate);
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server_name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    Ok(UpstreamTls { config: Arc::new(config), server_name })
}

impl Alone {
    /// The way of one request: the stops of a whole edge, without sites and gateways.
    async fn journey(&self, cx: &mut Context, request: Request) -> Result<Response, Refusal> {
        let mut request = limited(request, BODY_BYTES_MAX)?;
        let inspection = self.inspect(cx, &mut request).await?;
        if ahead::is_short(&request) {
            let taken = timeout(DEADLINE, ahead::take_short(&mut request)).await;
            taken.map_err(|_| Refusal::new(Code::RequestTimeout))??;
        }
        headers::clean(request.headers_mut());
        let (wish, is_head) = (Wish::of(&request), request.method() == Method::HEAD);
        let response = match &self.shared.cache {
            Some((store, plot)) => {
                let answer = store.answer(self, cx, plot, request, inspection).await;
                plot.count(cx);
                answer?
            }
            None => self.fetch(cx, request, inspection).await?,
        };
        Ok(if self.shared.compress { pass(cx, wish, is_head, response) } else { response })
    }

    async fn send(&self, cx: &Context, mut request: Request) -> Result<Response, Refusal> {
        let wanted = request.extensions().get::<upgrade::Wanted>().cloned();
        headers::prepare(cx, &self.shared.loop_id, request.headers_mut())?;
        if let Some(wanted) = wanted {
            request.extensions_mut().insert(wanted);
        }
        let deadline = tokio::time::Instant::now() + DEADLINE;
        match self.pool.send(&self.shared.origin, request, deadline).await {
            Ok(response) => Ok(response),
            Err(failure) => {
                tracing::debug!(error = %failure.error, "the origin did not answer");
                Err(Refusal::new(match failure.error {
                    UpstreamError::TimedOut => Code::GatewayTimeout,
                    UpstreamError::Connect(_) | UpstreamError::BeforeHead(_) => Code::OriginUnreachable,
                }))
            }
        }
    }
}

impl Behind for Alone {
    async fn inspect(&self, cx: &mut Context, request: &mut Request) -> Result<Inspection, Refusal> {
        match &self.shared.waf {
            Some(waf) => timeout(DEADLINE, Box::pin(waf.inspect(cx, &waf.default, request)))
                .await
                .map_err(|_| Refusal::new(Code::RequestTimeout))?,
            None => Ok(Inspection::default()),
        }
    }

    async fn fetch(
        &self,
        cx: &mut Context,
        request: Request,
        inspection: Inspection,
    ) -> Result<Response, Refusal> {
        let response = match self.send(cx, request).await {
            Ok(response) => response,
            Err(refusal) => {
                inspection.conclude(Some(refusal.status()));
                return Err(refusal);
            }
        };
        match &self.shared.waf {
            Some(waf) => waf.inspect_answer(cx, inspection, response).await,
            None => Ok(response),
        }
    }

    fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }
}

impl Service for Alone {
    async fn call(&self, request: Request) -> Response {
        let Some(mut cx) = context(&request, &[]) else {
            return Refusal::new(Code::Internal).response(RequestId::generate(), None);
        };
        let accept = request.headers().get(http::header::ACCEPT).cloned();
        let outcome = self.journey(&mut cx, request).await;
        let mut response = outcome.unwrap_or_else(|refusal| {
            cx.cache = None;
            refusal.response(cx.id, text(accept.as_ref()))
        });
        headers::finish(&cx, &mut response, None);
        response
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        let id = RequestId::generate();
        if let Some(waf) = &self.shared.waf {
            waf.inspect_refused(id, &waf.default, &head, head.status.as_u16());
        }
        refused(id, &head)
    }
}
