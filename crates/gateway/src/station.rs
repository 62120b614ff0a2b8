//! Starting a gateway and keeping its view fresh.

use crate::{
    Config, Error, began,
    context::Gateway,
    golden,
    liveness::{Liveness, Reader},
    platform_lb::PlatformBalancer,
    runtime_lb::RuntimeBalancer,
    session::Sessions,
    view::View,
};
use bastide_bus::{Bus, VerifyKey, facts::Facts};
use bastide_identity::{SigningKey, TokenCache, seal::SealKey};
use bastide_proxy::{Limits, Listener, Pool, PoolLimits, accept_tls, serve};
use bastide_types::{Role, Snapshot};
use std::{fs, net::TcpListener, path::Path, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Runs a gateway until `stop`, then drains. `ready` is called once, when it serves with a Snapshot.
///
/// Neither broker nor Platform need be there: it serves from the last good Snapshot and facts on disk.
pub async fn run(
    config: Config,
    ready: Box<dyn FnOnce() + Send>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let tcp = bastide_proxy::reuse_port_listener(config.listen).map_err(Error::Listen)?;
    run_on(tcp, config, ready, stop).await
}

/// As [`run`], on a socket that listens already; `config.listen` is not used.
pub async fn run_on(
    tcp: TcpListener,
    config: Config,
    ready: Box<dyn FnOnce() + Send>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let path = &config.snapshot_verify_key_file;
    let verify_key =
        VerifyKey::from_base64url(read_text(path)?.trim()).map_err(|error| unusable(path, error))?;
    let assertion_key = SigningKey::from_pkcs8(&read(&config.assertion_key_file)?)
        .map_err(|error| unusable(&config.assertion_key_file, error))?;
    let seal = SealKey::new(&read(&config.cookie_key_file)?)
        .map_err(|error| unusable(&config.cookie_key_file, error))?;
    let tls = config.node.server_config(&[Role::Edge], &[b"h2"])?;
    let platform = PlatformBalancer::new(&config.node, &config.platform)?;
    let bus = Bus::connect(&config.bus).await?;
    let facts = bastide_bus::facts::follow(&bus, &config.state_dir, stop.clone());
    let known = facts.clone();
    // A view is made of each Snapshot beside the one in force, and asked golden requests, before it takes its place.
    let build = move |snapshot: &Arc<Snapshot>, before: Option<&Arc<View>>| {
        let view = View::new(snapshot.clone(), known.borrow().clone());
        golden::ask(&view, before.map(|before| &**before))?;
        Ok(Arc::new(view))
    };
    let views = bastide_bus::snapshot::follow(&bus, &config.state_dir, verify_key, build, stop.clone());
    let liveness = Liveness::new(config.silence_max_s);
    let (began_sender, began) = mpsc::channel(began::WAITING_MAX);
    let reader = Reader { liveness: liveness.clone(), began: began_sender };
    bastide_bus::sessions::follow(&bus, verify_key, reader, stop.clone());
    let (sender, view) = watch::channel(join(&views, &facts));
    let gateway = Arc::new(Gateway {
        view: view.clone(),
        pool: Pool::new(PoolLimits::default()),
        platform,
        runtime: RuntimeBalancer::new(config.zone.clone(), config.broker, view.clone()),
        zone: config.zone,
        tokens: TokenCache::new(config.tokens_max),
        liveness,
        sessions: Sessions::new(seal),
        assertion_key,
        deadline: Duration::from_millis(config.deadline_ms),
        platform_deadline: Duration::from_millis(config.platform_deadline_ms),
    });
    let listener = Listener::new(tcp, Some(accept_tls(tls)), Limits::inner());
    let fresh = keep_fresh(views, facts, sender, &stop);
    let announce = announce(view, ready, stop.clone());
    let fetched = began::run(gateway.clone(), began, &stop);
    let (served, (), (), ()) = tokio::join!(serve(listener, gateway, stop.clone()), announce, fresh, fetched);
    bus.close().await;
    served.map_err(Error::Listen)
}

type Views = watch::Receiver<Option<Arc<View>>>;
type AllFacts = watch::Receiver<Arc<Facts>>;

/// The newest Snapshot joined with the newest facts.
fn join(views: &Views, facts: &AllFacts) -> Option<Arc<View>> {
    let view = views.borrow().clone()?;
    Some(view.with(facts.borrow().clone()))
}

/// Joins anew whenever either changes, until `stop` or until neither can change any more.
async fn keep_fresh(
    mut views: Views,
    mut facts: AllFacts,
    view: watch::Sender<Option<Arc<View>>>,
    stop: &CancellationToken,
) {
    let (mut more_views, mut more_facts) = (true, true);
    while more_views || more_facts {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = views.changed(), if more_views => more_views = changed.is_ok(),
            changed = facts.changed(), if more_facts => more_facts = changed.is_ok(),
        }
        view.send_replace(join(&views, &facts));
    }
}

async fn announce(
    mut view: watch::Receiver<Option<Arc<View>>>,
    ready: Box<dyn FnOnce() + Send>,
    stop: CancellationToken,
) {
    tokio::select! {
        there = view.wait_for(Option::is_some) => {
            if there.is_ok() {
                ready();
            }
        }
        () = stop.cancelled() => {}
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| unusable(path, error))
}

fn read_text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::File { path: path.to_owned(), source: Box::new(source) }
}
