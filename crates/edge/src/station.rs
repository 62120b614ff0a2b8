//! Starting an edge of a Bastide and keeping its view fresh.

use crate::{
    Config, Error,
    bans::{self, Bans},
    cache::{Store, told},
    certificates,
    custom::{self, CustomSites},
    front::Fronts,
    gateways::Gateways,
    golden,
    headers::LoopId,
    journey::{Edge, Shared},
    lines::Lines,
    metrics,
    rules::Places,
    site,
    succession::{Begun, Succession},
    view::{self, View, Worked},
    waf::{
        Waf,
        force::{self, Sites},
    },
};
use bastide_bus::{Bus, VerifyKey};
use bastide_cache::Limits as CacheLimits;
use bastide_proxy::{
    Accept, Body, Limits, Listener, Pool, PoolLimits, RefusedHead, Request, Response, Service, allowed_cores,
    run_workers, serve,
};
use bastide_tls::{CertificateStore, SealingKey};
use bastide_types::{
    Domains, Snapshot,
    cache::{CacheAnswer, CacheQuestion, CacheSays},
};
use http::{HeaderValue, StatusCode, header};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often the rules are looked at. A look costs a few dozen `stat`.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Runs an edge until `stop`, then drains: one worker thread per core, and one for everything else.
/// `ready` is called once, when it listens and has a Snapshot. Also ends when another edge has taken over and the
/// last request here has its answer.
pub fn run(config: Config, ready: Box<dyn FnOnce() + Send>, stop: CancellationToken) -> Result<(), Error> {
    let certificates = CertificateStore::new();
    let files = certificates::Files::load(&config.certificates, certificates.clone())?;
    let tls = bastide_tls::server_config(certificates.clone(), &[b"h2", b"http/1.1"])?;
    let custom = CustomSites::new(certificates.clone(), sealing_key(config.sealing_key_file.as_deref())?);
    let places = Places { named: config.waf_rules.clone(), versions: config.waf_versions.clone() };
    let waf = Waf::load(places, force::office(), config.waf_audit.as_deref())?;
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
    let leave = CancellationToken::new();
    let mut succession = control.block_on(Succession::begin(config.takeover_socket.as_deref()))?;
    let bus = control.block_on(Bus::connect(&config.bus))?;
    let (sender, view) = watch::channel(None);
    let shared = Arc::new(Shared {
        view,
        certificates: certificates.clone(),
        waf,
        store: Store::new(CacheLimits::default(), true),
        gateways: Gateways::new(&config.node, &config.gateways)?,
        loop_id: LoopId::of(&config.domains),
        access_log,
        deadline: Duration::from_millis(config.deadline_ms),
        body_limits: (config.body_bytes_max, config.upload_bytes_max),
        believed: config.settings.forwarded_from.clone(),
        banned: Arc::default(),
    });
    let guard = control.enter();
    follow(&bus, &config.state_dir, verify_key, (shared.clone(), custom), sender, &stop);
    answer_questions(&bus, &shared, &leave);
    drop(guard);
    let proxies = config.settings.proxy_protocol_from.clone();
    let shut = bans::shut(shared.view.clone(), shared.believed.clone(), shared.banned.clone());
    let listening = succession.listen(config.https, allowed_cores())?;
    let plain = succession.listen(config.http, 1)?;
    let figures = config.settings.metrics.map(|addr| succession.listen(addr, 1)).transpose()?;
    if succession.takes_over() {
        // Others are served meanwhile: whoever comes to us must be, too.
        control.block_on(has_view(&shared, &stop));
    }
    for tcp in plain {
        let service = Redirect { domains: config.domains.clone(), view: shared.view.clone() };
        let listener = Listener {
            proxies: proxies.clone(),
            leave: leave.clone(),
            shut: Some(shut.clone()),
            ..Listener::new(tcp, None, Limits { connections_max: 1000, ..Limits::default() })
        };
        control.spawn(redirect(listener, service, stop.clone()));
    }
    control.spawn(files.watch());
    control.spawn(watch_rules(shared.clone(), config.waf_status.clone(), leave.clone()));
    for tcp in figures.into_iter().flatten() {
        let view = shared.view.clone();
        let lines =
            Arc::new(move || view.borrow().clone().map_or_else(Vec::new, |view| metrics::of_apps(&view)));
        let figures = metrics::Figures::new(shared.store.clone(), lines, Some(shared.banned.clone()));
        control.spawn(metrics::serve_at(tcp, figures, leave.clone(), stop.clone()));
    }
    let begun = Arc::new(Begun::default());
    let settling = (shared.clone(), begun.clone(), leave.clone(), stop.clone());
    control.spawn(async move {
        let (shared, begun, leave, stop) = settling;
        begun.all().await;
        if has_view(&shared, &stop).await {
            succession.settle(ready, &leave, &stop).await;
        }
    });
    let limits = config.settings.limits.limits();
    let accept = accept(certificates, tls);
    let count = listening.len();
    let listening = std::sync::Mutex::new(listening);
    let served = run_workers(count, |_| {
        let tcp = listening.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let (accept, shared, begun) = (accept.clone(), shared.clone(), begun.clone());
        let (limits, proxies, shut) = (limits.clone(), proxies.clone(), Some(shut.clone()));
        let (leave, stop) = (leave.clone(), stop.clone());
        async move {
            let tcp = tcp.ok_or_else(|| io::Error::other("a worker has no listener"))?;
            let pool = Arc::new(Pool::new(PoolLimits::default()));
            let edge = Arc::new(Edge { shared, pool, tasks: TaskTracker::new() });
            let listener = Listener { tcp, tls: Some(accept), limits, proxies, shut, leave };
            begun.one_of(count);
            serve(listener, edge, stop).await
        }
    });
    control.block_on(bus.close());
    control.shutdown_timeout(Duration::from_secs(2));
    served.map_err(Error::Listen)?.map_err(Error::Listen)
}

/// Waits for the first view; false when the edge ends before.
async fn has_view(shared: &Shared, stop: &CancellationToken) -> bool {
    let mut view = shared.view.clone();
    tokio::select! {
        there = view.wait_for(Option::is_some) => there.is_ok(),
        () = stop.cancelled() => false,
    }
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

/// The newest Snapshot joined with the newest facts, made anew whenever either changes. What a Snapshot needs is worked
/// out and asked golden requests beside what is in force, and only then changes anything.
fn follow(
    bus: &Bus,
    dir: &Path,
    key: VerifyKey,
    (shared, custom): (Arc<Shared>, CustomSites),
    sender: watch::Sender<Option<Arc<View>>>,
    stop: &CancellationToken,
) {
    let force = Arc::new((shared, custom));
    let shadow = force.clone();
    let build = move |snapshot: &Arc<Snapshot>, before: Option<&Worked>| {
        let (shared, custom) = &*shadow;
        let worked = work_out(shared, custom, snapshot.clone(), before);
        golden::ask(&worked, before)?;
        Ok(worked)
    };
    let mut worked = bastide_bus::snapshot::follow(bus, dir, key, build, stop.clone());
    let mut facts = bastide_bus::facts::follow(bus, dir, stop.clone());
    // Its owner is the control runtime, which outlives the workers.
    tokio::spawn(async move {
        let mut last: Option<Arc<Snapshot>> = None;
        loop {
            let newest = worked.borrow_and_update().clone();
            let known = facts.borrow_and_update().clone();
            if let Some(newest) = newest {
                if last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &newest.snapshot)) {
                    last = Some(newest.snapshot.clone());
                    if !bring_into_force(&force, newest.clone()).await {
                        return;
                    }
                }
                sender.send_replace(Some(Arc::new(View::new(newest, &known))));
            }
            let changed = tokio::select! {
                changed = worked.changed() => changed,
                changed = facts.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    });
}

/// What a view holds besides the view: certificates, purges, what is told of policies. False when the edge ends.
async fn bring_into_force(force: &Arc<(Arc<Shared>, CustomSites)>, worked: Worked) -> bool {
    let force = force.clone();
    let brought = tokio::task::spawn_blocking(move || {
        let (shared, custom) = &*force;
        custom.serve(&worked.custom);
        shared.waf.force.note(&worked.waf);
        worked.purge(&shared.store.cache);
    });
    brought.await.is_ok()
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

/// Works out what a Snapshot means here. Compiling policies may take a while.
fn work_out(
    shared: &Shared,
    custom: &CustomSites,
    snapshot: Arc<Snapshot>,
    before: Option<&Worked>,
) -> Worked {
    let policies = before.map(|before| &*before.waf);
    let waf = Sites::new(&shared.waf.force, &snapshot, policies, &shared.waf.default);
    let fronts = Fronts::new(&snapshot, before.map(|before| &*before.fronts));
    let plots = view::plots(&snapshot, &shared.store.cache, &fronts);
    let custom = custom.made(&snapshot, before.map(|before| &*before.custom));
    let bans = Bans::new(&snapshot).into();
    Worked { snapshot, plots, waf: waf.into(), bans, fronts: fronts.into(), custom: custom.into() }
}

/// Looks every other second whether there are other rules, and tells people what is in force, unless another edge
/// does.
async fn watch_rules(shared: Arc<Shared>, status: Option<PathBuf>, leave: CancellationToken) {
    let mut told = None;
    loop {
        let looking = shared.clone();
        let looked = tokio::task::spawn_blocking(move || {
            looking.waf.force.look();
            looking.waf.force.status()
        });
        if let (Ok(now), Some(file)) = (looked.await, &status)
            && told.as_ref() != Some(&now)
            && !leave.is_cancelled()
        {
            match write_status(file, &now) {
                Ok(()) => told = Some(now),
                Err(error) => {
                    tracing::warn!(%error, file = %file.display(), "cannot write the status of the WAF");
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn write_status(file: &Path, status: &impl serde::Serialize) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec(status)?)?;
    fs::rename(new, file)
}

fn sealing_key(path: Option<&Path>) -> Result<Option<SealingKey>, Error> {
    let Some(path) = path else { return Ok(None) };
    let bytes = fs::read(path).map_err(|error| Error::file(path, error))?;
    Ok(Some(SealingKey::from_bytes(&bytes)?))
}

/// Plain HTTP: the way to HTTPS, and answers for authorities that check a domain.
async fn redirect(listener: Listener, service: Redirect, stop: CancellationToken) {
    if let Err(error) = serve(listener, Arc::new(service), stop).await {
        tracing::error!(%error, "plain HTTP is not served");
    }
}

struct Redirect {
    domains: Domains,
    view: watch::Receiver<Option<Arc<View>>>,
}

impl Redirect {
    /// The answer for an authority (RFC 8555 §8.3); 404 for what is not known, since it is for nobody else.
    fn challenge(&self, host: &str, token: &str) -> Response {
        let view = self.view.borrow().clone();
        let answer = view.as_ref().and_then(|view| custom::challenge(&view.snapshot, host, token));
        let mut response = Response::new(Body::from(answer.unwrap_or_default().to_owned()));
        if answer.is_none() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl Service for Redirect {
    async fn call(&self, request: Request) -> Response {
        let (head, _) = request.into_parts();
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        if let Some(token) = head.uri.path().strip_prefix(site::CHALLENGES) {
            return self.challenge(&host.to_ascii_lowercase(), token);
        }
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
