//! The operator's verification of isolation on this node: they ask by a socket file of their own, and hear what
//! came of it.
//!
//! For the time of a run there is a machine outside that answers. It goes with the run, however that ends: when
//! whoever asked hangs up the run still comes to its end, when this role ends the next one takes it away.

mod scene;

use crate::{Config, Error, agent::chain, config, driver::LinuxDriver, files};
use bastide_proxy::handover;
use bastide_types::{CustomerName, ReplicaId, StageName};
use bastide_verify::{Limits, Outcome, Report, Subject, facts};
use scene::Scene;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Mutex, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const REQUEST_BYTES_MAX: u64 = 4096;
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Longest wait for a request, and for an answer to be taken.
const TALK_LIMIT: Duration = Duration::from_secs(10);
/// Longest time of one verification.
const RUN_LIMIT: Duration = Duration::from_mins(10);
/// Verifications until replicas and addresses stay as they are.
const RUNS: usize = 5;
/// Argument of the executable that makes it the prober.
const PROBER: &str = "probe";

/// What the operator asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Try from this customer's replicas only.
    pub customer: Option<CustomerName>,
    /// Try from replicas in this stage only.
    pub stage: Option<StageName>,
}

/// What the operator hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// What came of it.
    Report(Report),
    /// Why there was none.
    Refused(String),
}

/// Asks the runtime role behind this socket file.
///
/// # Errors
/// When it is not there or does not answer.
pub async fn ask(door: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = handover::connect(door).await?;
    stream.write_all(&serde_json::to_vec(request)?).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX);
    timeout(RUN_LIMIT * 2, { read }.read_to_end(&mut answer)).await??;
    Ok(serde_json::from_slice(&answer)?)
}

/// Verifies on request.
#[derive(Clone)]
pub(crate) struct Verifier {
    driver: LinuxDriver,
    executable: PathBuf,
    door: PathBuf,
    outside: Option<PathBuf>,
    one_at_a_time: Arc<Mutex<()>>,
}

impl Verifier {
    pub(crate) fn new(driver: LinuxDriver, config: &Config) -> Result<Self, Error> {
        let outside = match config.linux.as_ref().map(|linux| &linux.outside) {
            Some(config::Outside::Namespace { name, .. }) => Some(bastide_network::path(name)),
            _ => None,
        };
        let door = config.doors.verify.clone();
        files::private_dir(door.parent().unwrap_or(&door))?;
        let executable = config.executable.clone();
        Ok(Self { driver, executable, door, outside, one_at_a_time: Arc::default() })
    }

    /// Answers from `begun` until `stop`; whoever is asked then ends what runs. Also ends with `over`.
    pub(crate) async fn serve(
        self,
        begun: oneshot::Receiver<()>,
        stop: CancellationToken,
        over: CancellationToken,
    ) {
        let begun = tokio::select! {
            begun = begun => begun.is_ok(),
            () = over.cancelled() => false,
        };
        if !begun {
            return;
        }
        let listener = match handover::listen(&self.door) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, door = %self.door.display(), "isolation cannot be verified");
                return;
            }
        };
        let runs = TaskTracker::new();
        tokio::select! {
            () = self.accept(&listener, &stop, &runs) => {}
            () = stop.cancelled() => {}
            () = over.cancelled() => {}
        }
        runs.close();
        runs.wait().await;
    }

    async fn accept(&self, listener: &UnixListener, stop: &CancellationToken, runs: &TaskTracker) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if !handover::same_user(&stream) {
                tracing::warn!("another user may not have isolation verified");
                continue;
            }
            let (verifier, stop) = (self.clone(), stop.clone());
            runs.spawn(async move {
                if let Err(error) = verifier.conversation(stream, stop).await {
                    tracing::debug!(%error, "whoever asked for a verification is gone");
                }
            });
        }
    }

    async fn conversation(&self, mut stream: UnixStream, stop: CancellationToken) -> io::Result<()> {
        let mut text = Vec::new();
        let mut asked = (&mut stream).take(REQUEST_BYTES_MAX);
        timeout(TALK_LIMIT, asked.read_to_end(&mut text)).await??;
        let answer = match serde_json::from_slice(&text) {
            Ok(request) => self.answer(&request, stop).await,
            Err(error) => Answer::Refused(error.to_string()),
        };
        timeout(TALK_LIMIT, stream.write_all(&serde_json::to_vec(&answer)?)).await?
    }

    async fn answer(&self, request: &Request, stop: CancellationToken) -> Answer {
        let Ok(_alone) = self.one_at_a_time.try_lock() else {
            return Answer::Refused("another verification is going on".into());
        };
        tracing::info!(?request, "verifying isolation");
        let run = tokio::select! {
            run = timeout(RUN_LIMIT, self.verify(request)) => run,
            () = stop.cancelled() => Ok(Err(Error::Verify("this role ends".into()))),
        };
        // However it ended: nobody is out there any more.
        let (names, packets) = (self.driver.egress_canary(None).await, self.driver.canary(None).await);
        for error in [names.err(), packets.err()].into_iter().flatten() {
            tracing::error!(
                error = chain(&error),
                "the machine outside is left; it is taken away when that is possible"
            );
        }
        match run {
            Ok(Ok(report)) => {
                match report.outcome {
                    Outcome::Proven => tracing::info!(tries = report.rows.len(), "isolation is proven"),
                    Outcome::Breached => {
                        let paths: BTreeSet<_> =
                            report.rows.iter().filter(|row| !row.ok).map(|row| row.path.as_str()).collect();
                        tracing::error!(?paths, "isolation is breached");
                    }
                    Outcome::Unproven => tracing::warn!("isolation could not be proven"),
                }
                Answer::Report(report)
            }
            Ok(Err(error)) => Answer::Refused(chain(&error)),
            Err(_) => Answer::Refused("it took too long".into()),
        }
    }

    async fn verify(&self, request: &Request) -> Result<Report, Error> {
        for _ in 1..RUNS {
            let (report, tried) = self.run(request).await?;
            // What went meanwhile left paths that could not be tried.
            if report.outcome == Outcome::Proven || tried.is_still_there(&self.driver).await? {
                return Ok(report);
            }
            tracing::info!("replicas or addresses went while they were tried; verifying again");
        }
        self.run(request).await.map(|(report, _)| report)
    }

    async fn run(&self, request: &Request) -> Result<(Report, Tried), Error> {
        let scene = Scene::invent(&self.driver).await?;
        self.driver.canary(Some(scene.canary.clone())).await?;
        self.driver.egress_canary(Some(scene.egress())).await?;
        let topology = self.driver.topology().await?;
        let facts = scene.facts(&topology, &self.driver, request).await?;
        let subject = Subject { topology: &topology, facts: &facts, outside: self.outside.as_deref() };
        let report = bastide_verify::verify(&self.executable, &[PROBER], subject, Limits::default()).await;
        let report = report.map_err(|error| Error::Verify(chain(&error)))?;
        Ok((report, Tried { replicas: ids(&topology), host: facts.host.iter().copied().collect() }))
    }
}

/// What a run tried to reach.
struct Tried {
    replicas: BTreeSet<ReplicaId>,
    host: BTreeSet<IpAddr>,
}

impl Tried {
    async fn is_still_there(&self, driver: &LinuxDriver) -> Result<bool, Error> {
        let host = facts::addresses().map_err(Error::file("addresses"))?;
        Ok(self.replicas.is_subset(&ids(&driver.topology().await?))
            && self.host.iter().all(|address| host.contains(address)))
    }
}

fn ids(topology: &bastide_isolation::Topology) -> BTreeSet<ReplicaId> {
    topology.stages.iter().flat_map(|stage| &stage.replicas).map(|replica| replica.id).collect()
}
