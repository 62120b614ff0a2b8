//! Two customers on one node: a quiet app that is asked at a steady rate, and one that disturbs as hard as it can.

use crate::{Client, Options, Product, build_hello, client::Line, product::build_app};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Whoever floods comes from an address of their own.
const FLOOD_FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// Connections whose requests are never answered, and connections that ask again and again.
const HELD: usize = 300;
const ASKING: usize = 8;
const ASKING_EVERY: Duration = Duration::from_millis(10);

/// What one app does to disturb the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturber {
    /// Every process makes more of its kind.
    ForkBomb,
    /// It takes all memory that it gets, over and over.
    MemoryHog,
    /// It fills whatever it can write to.
    DiskFiller,
    /// It prints as fast as it can.
    LogFlood,
    /// It opens connections to its proxy and to closed ranges, and asks for names.
    CallsOut,
    /// It is flooded from outside, through the edge, and leaves most requests unanswered.
    CallsIn,
}

impl Disturber {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::ForkBomb, Self::MemoryHog, Self::DiskFiller, Self::LogFlood, Self::CallsOut, Self::CallsIn];

    /// Its word, also in the path that starts it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ForkBomb => "fork-bomb",
            Self::MemoryHog => "memory-hog",
            Self::DiskFiller => "disk-filler",
            Self::LogFlood => "log-flood",
            Self::CallsOut => "calls-out",
            Self::CallsIn => "calls-in",
        }
    }
}

/// An installation with `quiet` of customer acme and `noisy` of customer beta, each with a replica in both zones.
pub struct Neighbours {
    /// The installation.
    pub product: Product,
    client: Client,
}

impl Neighbours {
    /// Starts this executable and publishes both apps.
    ///
    /// # Errors
    /// Whatever does not start or is not published.
    pub async fn start(executable: PathBuf) -> Result<Self> {
        let hello = build_hello(&executable)?;
        let product = Product::start(Options { executable, arguments: vec!["--no-demo".into()] }).await?;
        let client = product.client()?;
        let all = Self { product, client };
        let published = all
            .publish("acme", "quiet", |to| fs::copy(&hello, to).map(drop).map_err(Into::into))
            .and_then(|()| all.publish("beta", "noisy", |to| build_app("noisy", to)));
        all.product.explained(published)?;
        for (url, word) in [(all.quiet(), "Hello"), (all.noisy(""), "noisy")] {
            all.until(&url, word).await?;
        }
        Ok(all)
    }

    fn publish(&self, customer: &str, name: &str, program: impl Fn(&Path) -> Result<()>) -> Result<()> {
        let product = &self.product;
        let host = format!("https://operator.platform.localhost:{}", product.https_port);
        let secret = fs::read_to_string(product.data().join("keys/operator-client.secret"))?;
        self.cli(&["login", &host, "--client-id", "supervisor", "--client-secret-stdin"], &secret)?;
        let administrator = format!("ann@{customer}.example");
        let made = product
            .cli(&["--json", "customer", "create", customer, "--administrator", &administrator], "")?;
        let made: Value = serde_json::from_str(&made)?;
        let link = made["invitation_link"].as_str().context("a link")?;
        let login = ["login", "--invitation", link, "--email", &administrator, "--password-stdin"];
        self.cli(&login, "Correct-Horse-Battery-1")?;
        let dir = product.scratch().join(name);
        fs::create_dir(&dir)?;
        program(&dir.join("server"))?;
        let app = format!("[app]\nname = \"{name}\"\nkind = \"binary\"\ncommand = [\"./server\"]\n");
        let route = "[[route]]\npath = \"/\"\naccess = \"public\"\n";
        fs::write(dir.join("bastide.toml"), format!("{app}[scale]\nreplicas = 2\n{route}"))?;
        self.cli(&["publish", &dir.display().to_string()], "").map(drop)
    }

    /// Edges and gateways hear of what is new within a moment.
    fn cli(&self, arguments: &[&str], input: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            match self.product.cli(arguments, input) {
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
                Ok(text) => return Ok(text),
            }
        }
    }

    async fn until(&self, url: &str, word: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let answer = self.client.get(url).await.map(|answer| answer.text()).unwrap_or_default();
            if answer.contains(word) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{url}: {answer}; {}", self.product.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn quiet(&self) -> String {
        format!("https://acme--development.apps.localhost:{}/quiet/", self.product.https_port)
    }

    fn noisy(&self, path: &str) -> String {
        format!("https://beta--development.apps.localhost:{}/noisy/{path}", self.product.https_port)
    }

    /// Starts a disturbance in both replicas of `noisy`; it ends by itself after `lasting`, at the latest when what is
    /// returned is dropped or shut down.
    ///
    /// # Errors
    /// When it does not begin.
    pub async fn disturb(&self, how: Disturber, lasting: Duration) -> Result<JoinSet<()>> {
        if how == Disturber::CallsIn {
            return Ok(self.flood(lasting));
        }
        let url = self.noisy(&format!("disturb/{}/{}", how.word(), lasting.as_millis()));
        let (begun, mut disturbing) = (Instant::now(), BTreeSet::new());
        while disturbing.len() < 2 {
            let answer = self.client.get(&url).await.map(|answer| answer.text()).unwrap_or_default();
            if let Some((_, replica)) = answer.split_once(' ').filter(|(word, _)| *word == "begun") {
                disturbing.insert(replica.to_owned());
            }
            ensure!(begun.elapsed() < PATIENCE, "{}: {answer}; {}", how.word(), self.product.logs());
        }
        Ok(JoinSet::new())
    }

    fn flood(&self, lasting: Duration) -> JoinSet<()> {
        let (until, mut tasks) = (tokio::time::Instant::now() + lasting, JoinSet::new());
        for number in 0..HELD + ASKING {
            let (client, hold, ask) = (self.client.clone(), self.noisy("hold"), self.noisy(""));
            let one = async move {
                let held = number < HELD;
                loop {
                    let Ok(mut line) = client.line(if held { &hold } else { &ask }, FLOOD_FROM).await else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    while line.get().await.is_ok() {
                        tokio::time::sleep(if held { Duration::from_secs(1) } else { ASKING_EVERY }).await;
                    }
                }
            };
            tasks.spawn(async move { drop(tokio::time::timeout_at(until, one).await) });
        }
        tasks
    }

    /// Lets go of requests that a flood left unanswered.
    pub async fn free(&self) {
        for _ in 0..4 {
            let _ = self.client.get(&self.noisy("free")).await;
        }
    }

    /// Asks `quiet` once in each `every`, whether or not the answer before is there, and says how long each answer took
    /// from the moment at which it was due. Connections stay open.
    ///
    /// # Errors
    /// The first answer that is not right, or none.
    pub async fn ask_steadily(&self, every: Duration, lasting: Duration) -> Result<Vec<Duration>> {
        let (begun, url) = (tokio::time::Instant::now(), self.quiet());
        let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        while begun.elapsed() < lasting {
            let due = ticks.tick().await;
            let (client, url, lines) = (self.client.clone(), url.clone(), lines.clone());
            tasks.spawn(async move {
                let kept = lines.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let mut line = match kept {
                    Some(line) => line,
                    None => client.line(&url, Ipv4Addr::LOCALHOST).await?,
                };
                let answer = tokio::time::timeout(PATIENCE, line.get()).await.context("no answer")??;
                let took = due.elapsed();
                let right = answer.status == 200 && answer.text().contains("Hello");
                ensure!(right, "{}: {}", answer.status, answer.text());
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                Ok(took)
            });
        }
        let mut took = Vec::new();
        while let Some(one) = tasks.join_next().await {
            took.push(one??);
        }
        Ok(took)
    }
}

/// The value below which this share of all lie, in thousandths.
pub fn quantile(took: &mut [Duration], thousandths: usize) -> Duration {
    took.sort_unstable();
    let last = took.len().saturating_sub(1);
    took.get((took.len() * thousandths / 1000).min(last)).copied().unwrap_or_default()
}
