//! Starting an edge of a Bastide and keeping its view fresh.

use crate::{
    Config, Error,
    cache::{Store, told},
    certificates,
    gateways::Gateways,
    headers::LoopId,
    journey::{Edge, Shared},
    lines::Lines,
    metrics,
    view::{self, View},
    waf::Waf,
};
use bastide_bus::{Bus, VerifyKey};
use bastide_cache::Limits as CacheLimits;
use bastide_proxy::{
    Accept, Body, Limits, Listener, Pool, PoolLimits, RefusedHead, Request, Response, Service, allowed_cores,
    reuse_port_listener, run_workers, serve,
};
use bastide_tls::CertificateStore;
use bastide_types::{
    Domains, Snapshot,
    cache::{CacheAnswer, CacheQuestion, CacheSays},
    snapshot::WafPolicy,
};
use http::{HeaderValue, StatusCode, header};
use ipnet::IpNet;
use std::{fs, io, path::Path, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Runs an edge until `stop`, then drains: one worker thread per core, and one for everything else.
/// `ready` is called once, when it listens and has a Snapshot.
pub fn run(config: Config, ready: Box<dyn FnOnce() + Send>, stop: CancellationToken) -> Result<(), Error> {
    let certificates = CertificateStore::new();
    let files = certificates::Files::load(&config.certificates, certificates.clone())?;
    let tls = bastide_tls::server_config(certificates.clone(), &[b"h2", b"http/1.1"])?;
    let waf = Waf::load(
        &config.waf_rules,
        Some(office_rules()),
        &WafPolicy::default(),
        office_variables(),
        config.waf_audit.as_deref(),
    )?;
    let access_log = config.access_log.as_deref();
    let access_log =
        access_log.map(|path| Lines::open(path).map_err(|error| Error::file(path, error))).transpose()?;
    let verify_key = fs::read_to_string(&config.snapshot_key_file)
        .map_err(|error| Error::file(&config.snapshot_key_file, error))?;
    let verify_key = VerifyKey::from_base64url(verify_key.trim())?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build();
    let control = control.map_err(Error::Listen)?;
    let bus = control.block_on(Bus::connect(&config.bus))?;
    let (sender, view) = watch::channel(None);
    let shared = Arc::new(Shared {
        view,
        certificates: certificates.clone(),
        waf,
        store: Store::new(CacheLimits::default()),
        gateways: Gateways::new(&config.node, &config.gateways)?,
        loop_id: LoopId::of(&config.domains),
        access_log,
        deadline: Duration::from_millis(config.deadline_ms),
        body_limits: (config.body_bytes_max, config.upload_bytes_max),
        believed: config.settings.forwarded_from.clone(),
    });
    let guard = control.enter();
    follow(&bus, &config.state_dir, verify_key, shared.clone(), sender, &stop);
    answer_questions(&bus, &shared, &stop);
    drop(guard);
    let proxies = config.settings.proxy_protocol_from.clone();
    control.spawn(redirect(config.http, config.domains.clone(), proxies, stop.clone())?);
    control.spawn(files.watch());
    if let Some(addr) = config.settings.metrics {
        let view = shared.view.clone();
        let lines =
            Arc::new(move || view.borrow().clone().map_or_else(Vec::new, |view| metrics::of_apps(&view)));
        control.spawn(metrics::listen(addr, shared.store.clone(), lines, stop.clone())?);
    }
    let mut seen = shared.view.clone();
    let (waiting, listening) = (stop.clone(), listeners(config.https)?);
    control.spawn(async move {
        tokio::select! {
            there = seen.wait_for(Option::is_some) => if there.is_ok() { ready() },
            () = waiting.cancelled() => {}
        }
    });
    let limits = config.settings.limits.limits();
    let accept = accept(certificates, tls);
    let listening = std::sync::Mutex::new(listening);
    let served = run_workers(allowed_cores(), |_| {
        let tcp = listening.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let (accept, shared, stop) = (accept.clone(), shared.clone(), stop.clone());
        let (limits, proxies) = (limits.clone(), config.settings.proxy_protocol_from.clone());
        async move {
            let tcp = tcp.ok_or_else(|| io::Error::other("a worker has no listener"))?;
            let pool = Arc::new(Pool::new(PoolLimits::default()));
            let edge = Arc::new(Edge { shared, pool, tasks: TaskTracker::new() });
            let listener =
                Listener { tcp, tls: Some(accept), limits: limits.clone(), proxies: proxies.clone() };
            serve(listener, edge, stop).await
        }
    });
    control.block_on(bus.close());
    control.shutdown_timeout(Duration::from_secs(2));
    served.map_err(Error::Listen)?.map_err(Error::Listen)
}

/// Exclusions for the pages of Bastide itself.
fn office_rules() -> bastide_waf::Source {
    bastide_waf::Source { name: "office.conf".into(), bytes: include_bytes!("office.conf").to_vec() }
}

/// What the office allows on every site beyond CRS' own defaults: the methods of REST services, and the
/// media type of a publish.
fn office_variables() -> Vec<(String, String)> {
    let methods = "GET HEAD POST OPTIONS PUT PATCH DELETE";
    let kinds = "|application/x-www-form-urlencoded| |multipart/form-data| |multipart/related| |text/xml| |application/xml| \
                 |application/soap+xml| |application/json| |application/problem+json| |application/cloudevents+json| \
                 |application/cloudevents-batch+json| |application/octet-stream| |application/gzip| |text/plain|";
    [("allowed_methods", methods), ("allowed_request_content_type", kinds)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn listeners(addr: std::net::SocketAddr) -> Result<Vec<std::net::TcpListener>, Error> {
    (0..allowed_cores()).map(|_| reuse_port_listener(addr).map_err(Error::Listen)).collect()
}

fn accept(store: Arc<CertificateStore>, config: Arc<rustls::ServerConfig>) -> Accept {
    // The listener limits handshakes, too; this is only the bound of the call.
    let limit = Duration::from_mins(10);
    Arc::new(move |stream| {
        let (store, config) = (store.clone(), config.clone());
        Box::pin(async move {
            bastide_tls::accept(stream, &store, &config, limit).await.map_err(io::Error::other)
        })
    })
}

/// The newest Snapshot joined with the newest facts, made anew whenever either changes. Rule sets of new
/// policies are compiled before the view that needs them is shown.
fn follow(
    bus: &Bus,
    dir: &Path,
    key: VerifyKey,
    shared: Arc<Shared>,
    sender: watch::Sender<Option<Arc<View>>>,
    stop: &CancellationToken,
) {
    let mut snapshots = bastide_bus::snapshot::follow(bus, dir, key, |_| Ok(()), stop.clone());
    let mut facts = bastide_bus::facts::follow(bus, dir, stop.clone());
    // Its owner is the control runtime, which outlives the workers.
    tokio::spawn(async move {
        let mut made: Option<(Arc<Snapshot>, Arc<view::Plots>)> = None;
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            let known = facts.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                let (waf, policies) = (shared.clone(), policies(&snapshot));
                let _ = tokio::task::spawn_blocking(move || waf.waf.prepare(policies.iter())).await;
                let plots = match &made {
                    Some((same, plots)) if Arc::ptr_eq(same, &snapshot) => plots.clone(),
                    _ => view::plots(&snapshot, &shared.store.cache),
                };
                made = Some((snapshot.clone(), plots.clone()));
                sender.send_replace(Some(Arc::new(View::new(snapshot, &known, plots))));
            }
            let changed = tokio::select! {
                changed = snapshots.changed() => changed,
                changed = facts.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    });
}

/// Tells the Platform what is stored of a customer, and why a request is answered as it is.
fn answer_questions(bus: &Bus, shared: &Arc<Shared>, stop: &CancellationToken) {
    let (shared, edge) = (shared.clone(), bus.user_name().to_owned());
    bastide_bus::ask::answer(bus, stop.clone(), move |question: CacheQuestion| {
        let view = shared.view.borrow().clone();
        let says = view.map(|view| told::answer(&shared.store, &view, &question));
        CacheAnswer { edge: edge.clone(), says: says.unwrap_or(CacheSays::Figures(Vec::new())) }
    });
}

fn policies(snapshot: &Snapshot) -> Vec<WafPolicy> {
    let stages = snapshot.customers.values().flat_map(|customer| customer.stages.values());
    let mut all: Vec<WafPolicy> = vec![snapshot.platform_waf.clone()];
    for stage in stages {
        if !all.contains(&stage.waf) {
            all.push(stage.waf.clone());
        }
    }
    all
}

/// Plain HTTP: the way to HTTPS and nothing else.
fn redirect(
    addr: std::net::SocketAddr,
    domains: Domains,
    proxies: Vec<IpNet>,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()>, Error> {
    let tcp = reuse_port_listener(addr).map_err(Error::Listen)?;
    let limits = Limits { connections_max: 1000, ..Limits::default() };
    let listener = Listener { tcp, tls: None, limits, proxies };
    Ok(async move {
        if let Err(error) = serve(listener, Arc::new(Redirect { domains }), stop).await {
            tracing::error!(%error, "plain HTTP is not served");
        }
    })
}

struct Redirect {
    domains: Domains,
}

impl Service for Redirect {
    async fn call(&self, request: Request) -> Response {
        let (head, _) = request.into_parts();
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut response = Response::new(Body::empty());
        match HeaderValue::from_str(&format!("{}{target}", self.domains.origin(host))) {
            Ok(location) if !host.is_empty() => {
                *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
                response.headers_mut().insert(header::LOCATION, location);
            }
            _ => *response.status_mut() = StatusCode::BAD_REQUEST,
        }
        response
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        let mut response = Response::new(Body::from(format!("{}\n", head.reason)));
        *response.status_mut() = head.status;
        response
    }
}
