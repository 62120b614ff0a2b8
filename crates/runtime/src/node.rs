//! The runtime role: finds out which stages this node runs, and starts an agent for each.

use crate::verify::Verifier;
use crate::{
    Config, Error,
    agent::{self, Ends, Node, chain},
    broker::{self, Door},
    config::DriverKind,
    driver::{Found, LinuxDriver, RuntimeDriver, process::ProcessDriver},
    files,
    image::Images,
    restart::Pasts,
};
use bastide_bus::{
    Bus, VerifyKey,
    state::{self, NodeKey},
};
use bastide_types::{StageName, message::StageGrant, node::Isolation};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often the node asks for its stages; a new customer's stages appear within this time.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// How long replicas that no agent looks after get to end.
const STRAY_GRACE: Duration = Duration::from_secs(10);
/// How often images that nobody needs are removed.
const SWEEP_EVERY: Duration = Duration::from_mins(5);

/// Runs the agents of this node until `stop`. Replicas of a driver whose replicas outlive the role go on running
/// then, unless [`Config::down_mark`] is there. `ready` is called once, when the node knows its stages.
pub async fn run(
    config: Config,
    ready: Box<dyn FnOnce() + Send>,
    stop: CancellationToken,
) -> Result<(), Error> {
    files::private_dir(&config.state_dir)?;
    match config.driver {
        DriverKind::Linux => {
            let linux = config.linux.clone().ok_or_else(|| Error::NotIsolating("no zones are set".into()))?;
            let (executable, state_dir) = (config.executable.clone(), config.state_dir.clone());
            let driver = LinuxDriver::open(executable, state_dir, linux).await?;
            tracing::info!("{}", driver.isolation().label());
            let verifier = Verifier::new(driver.clone(), &config)?;
            // Not before the networks of an earlier life are adopted.
            let (begin, begun) = tokio::sync::oneshot::channel();
            let ready = Box::new(move || {
                ready();
                let _ = begin.send(());
            });
            let over = CancellationToken::new();
            let verifying = tokio::spawn(verifier.serve(begun, stop.clone(), over.clone()));
            let done = run_with(driver, config, ready, stop).await;
            over.cancel();
            let _ = verifying.await;
            done
        }
        DriverKind::Process if !config.allow_no_isolation => Err(Error::NoIsolation),
        DriverKind::Process => {
            let driver = ProcessDriver::new(config.executable.clone(), config.state_dir.join("logs"))?;
            tracing::warn!(
                "{}: apps run as plain child processes; they can reach each other and read this user's files",
                driver.isolation().label()
            );
            run_with(driver, config, ready, stop).await
        }
    }
}

async fn run_with<D: RuntimeDriver>(
    driver: D,
    config: Config,
    ready: Box<dyn FnOnce() + Send>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let driver = Arc::new(driver);
    let ends = Ends::default();
    let down_mark = config.down_mark.clone();
    // Before the doors open: who asks meanwhile waits, instead of hearing that a replica is not here.
    let found = driver.attach().await?;
    let brokers = TaskTracker::new();
    for (path, door) in [(&config.doors.gateways, Door::Gateways), (&config.doors.egress, Door::Egress)] {
        files::private_dir(path.parent().unwrap_or(path))?;
        let listener = broker::open(path)?;
        brokers.spawn(broker::serve(listener, door, driver.clone(), ends.over.clone()));
    }
    let images = Images::new(config.state_dir.join("images"), config.image_bytes_max)?;
    let node = Arc::new(Node { driver: driver.clone(), images, needed: Mutex::default() });
    let seed_file = config.state_dir.join("node.seed");
    let key = NodeKey::load_or_create(&seed_file)?;
    let key_text =
        fs::read_to_string(&config.deploy_key_file).map_err(Error::file(&config.deploy_key_file))?;
    let verify_key = VerifyKey::from_base64url(key_text.trim())?;
    let bus = Bus::connect(&config.bus).await?;
    let mut stages = Stages {
        config,
        node,
        seed_file,
        verify_key,
        ends: ends.clone(),
        agents: HashMap::new(),
        found: by_account(found),
        tasks: TaskTracker::new(),
    };
    let ending = async {
        stop.cancelled().await;
        if !driver.outlived() || down_mark.exists() {
            ends.stop.cancel();
        }
        ends.over.cancel();
    };
    tokio::join!(stages.follow(&bus, key.public(), ready), ending);
    stages.tasks.close();
    stages.tasks.wait().await;
    for bus in stages.agents.into_values() {
        bus.close().await;
    }
    bus.close().await;
    brokers.close();
    brokers.wait().await;
    if ends.stop.is_cancelled() {
        for found in stages.found.into_values().flatten() {
            driver.stop(found.launch.replica.id, STRAY_GRACE).await;
        }
        driver.close().await;
    }
    Ok(())
}

/// The stages that a node may run. Without isolation: of one customer, and never Production. The Platform refuses
/// that too; here it holds for what was deployed before this node lost its isolation.
fn allowed(grants: &[StageGrant], isolation: Isolation) -> Vec<&StageGrant> {
    if isolation == Isolation::Kernel {
        return grants.iter().collect();
    }
    let customers: BTreeSet<_> = grants.iter().map(|grant| &grant.customer).collect();
    if customers.len() > 1 {
        tracing::error!(
            customers = customers.len(),
            "B-RT-0403: apps of several customers do not run without isolation; none is started"
        );
        return Vec::new();
    }
    let production = StageName::production();
    grants.iter().filter(|grant| grant.stage != production).collect()
}

fn by_account(found: Vec<Found>) -> HashMap<String, Vec<Found>> {
    let mut all: HashMap<String, Vec<Found>> = HashMap::new();
    for one in found {
        all.entry(one.launch.account.clone()).or_default().push(one);
    }
    all
}

struct Stages<D> {
    config: Config,
    node: Arc<Node<D>>,
    seed_file: PathBuf,
    verify_key: VerifyKey,
    ends: Ends,
    agents: HashMap<String, Bus>,
    /// Running replicas of stages that have no agent yet, by account.
    found: HashMap<String, Vec<Found>>,
    tasks: TaskTracker,
}

impl<D: RuntimeDriver> Stages<D> {
    async fn follow(&mut self, bus: &Bus, user_key: &str, ready: Box<dyn FnOnce() + Send>) {
        let mut ready = Some(ready);
        let mut known: Vec<StageGrant> = self.read_grants();
        self.apply(&known).await;
        let mut swept = tokio::time::Instant::now();
        while !self.ends.over.is_cancelled() {
            match state::grants(bus, user_key, ASK_LIMIT).await {
                Ok(grants) => {
                    let grants = with_known(grants, &known);
                    if grants != known {
                        self.apply(&grants).await;
                        self.write_grants(&grants);
                        known = grants;
                    }
                    self.stop_strays(&known);
                    ready.take().into_iter().for_each(|ready| ready());
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "the platform did not name this node's stages");
                    // With stages from an earlier life the node serves without the Platform.
                    if !known.is_empty() {
                        ready.take().into_iter().for_each(|ready| ready());
                    }
                }
            }
            if swept.elapsed() > SWEEP_EVERY {
                swept = tokio::time::Instant::now();
                self.sweep();
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                () = self.ends.over.cancelled() => {}
            }
        }
    }

    /// Starts agents for new stages and hands fresh credentials to the others. A stage that is no longer
    /// named keeps its agent: its desired state, signed, is what stops its replicas.
    async fn apply(&mut self, grants: &[StageGrant]) {
        for grant in allowed(grants, self.node.driver.isolation()) {
            if let Some(bus) = self.agents.get(&grant.account) {
                if let Err(error) = bus.renew(grant.user_jwt.clone()) {
                    tracing::warn!(error = chain(&error), "a stage's credential cannot be used");
                }
                continue;
            }
            match self.start(grant).await {
                Ok(bus) => {
                    tracing::info!(customer = %grant.customer, stage = %grant.stage, "looking after a stage");
                    self.agents.insert(grant.account.clone(), bus);
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), stage = %grant.stage, "cannot look after a stage");
                }
            }
        }
    }

    async fn start(&mut self, grant: &StageGrant) -> Result<Bus, Error> {
        let dir = self.config.state_dir.join("stages").join(&grant.account);
        files::private_dir(&dir)?;
        let bus = Bus::connect(&bastide_bus::Config {
            url: self.config.bus.url.clone(),
            ca_file: self.config.bus.ca_file.clone(),
            creds_file: None,
            jwt: Some(grant.user_jwt.clone()),
            seed_file: Some(self.seed_file.clone()),
            name: self.config.bus.name.clone(),
        })
        .await?;
        let desired = state::follow(&bus, &dir, self.verify_key, &grant.account, self.ends.over.clone());
        let found = self.found.remove(&grant.account).unwrap_or_default();
        self.tasks.spawn(agent::run(
            self.node.clone(),
            bus.clone(),
            grant.account.clone(),
            Pasts::load(dir.join("pasts.json")),
            found,
            desired,
            self.ends.clone(),
        ));
        Ok(bus)
    }

    /// Stops replicas of an earlier life whose stage the Platform does not name any more: no desired state of
    /// theirs can come.
    fn stop_strays(&mut self, named: &[StageGrant]) {
        let strays = self.found.extract_if(|account, _| !named.iter().any(|grant| grant.account == *account));
        for replica in strays.flat_map(|(_, found)| found).map(|found| found.launch.replica.id) {
            tracing::warn!(%replica, "stopped, for its stage is not on this node any more");
            let node = self.node.clone();
            self.tasks.spawn(async move { node.driver.stop(replica, STRAY_GRACE).await });
        }
    }

    fn sweep(&self) {
        let needed = self.node.needed.lock().unwrap_or_else(PoisonError::into_inner);
        // A stage whose desired state is not known yet may need anything.
        if self.agents.keys().all(|account| needed.contains_key(account)) {
            let all: Vec<_> = needed.values().flatten().copied().collect();
            self.node.images.keep_only(&all);
        }
    }

    fn grants_file(&self) -> PathBuf {
        self.config.state_dir.join("grants.json")
    }

    fn read_grants(&self) -> Vec<StageGrant> {
        fs::read(self.grants_file())
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    fn write_grants(&self, grants: &[StageGrant]) {
        if let Err(error) = files::write(&self.grants_file(), &grants) {
            tracing::warn!(error = chain(&error), "cannot keep this node's stages on disk");
        }
    }
}

/// Stages whose credential the Platform cannot give now keep the one that they have.
fn with_known(grants: Vec<StageGrant>, known: &[StageGrant]) -> Vec<StageGrant> {
    let kept = |grant: StageGrant| match grant.user_jwt.is_empty() {
        true => known.iter().find(|known| known.account == grant.account).cloned(),
        false => Some(grant),
    };
    grants.into_iter().filter_map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::{CustomerId, CustomerName};

    fn grant(customer: &str, stage: StageName) -> StageGrant {
        StageGrant {
            customer: CustomerName::new(customer).unwrap(),
            customer_id: CustomerId::generate(),
            stage,
            account: "A".into(),
            user_jwt: String::new(),
        }
    }

    #[test]
    fn without_isolation_a_node_runs_one_customer_and_no_production() {
        let acme = StageName::defaults().map(|stage| grant("acme", stage));
        assert_eq!(allowed(&acme, Isolation::Kernel).len(), 3);
        let stages: Vec<_> =
            allowed(&acme, Isolation::None).iter().map(|grant| grant.stage.to_string()).collect();
        assert_eq!(stages, ["development", "test"]);
        let both = [grant("acme", StageName::test()), grant("beta", StageName::test())];
        assert_eq!(allowed(&both, Isolation::None).len(), 0);
        assert_eq!(allowed(&both, Isolation::Kernel).len(), 2);
    }

    #[test]
    fn a_stage_keeps_its_credential_while_the_platform_can_give_no_other() {
        let with = |account: &str, jwt: &str| StageGrant {
            account: account.into(),
            user_jwt: jwt.into(),
            ..grant("acme", StageName::test())
        };
        let known = [with("A", "old"), with("B", "old")];
        let settled = with_known(vec![with("A", ""), with("B", "new"), with("C", "")], &known);
        let settled: Vec<_> =
            settled.iter().map(|grant| (grant.account.as_str(), grant.user_jwt.as_str())).collect();
        assert_eq!(settled, [("A", "old"), ("B", "new")]);
    }
}
