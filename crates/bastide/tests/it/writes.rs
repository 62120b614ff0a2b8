//! Platform replicas are killed while 200 clients of the API are registered at once: what was acknowledged is there, once,
//! and so is its audit entry; nothing is half there.

use crate::chaos::sign_in;
use anyhow::{Context, Result, ensure};
use bastide_testkit::{Client, Options, Product};
use futures_util::future::try_join_all;
use http::{Method, StatusCode};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

const WRITES: usize = 200;
/// A replica dies when so many are acknowledged, and the other one later.
const DEATHS: [(usize, &str); 2] = [(40, "platform-1"), (120, "platform-2")];
/// Nobody is about one write that long.
const ABOUT_IT: Duration = Duration::from_secs(20);
/// Between two times that somebody asks: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(3);

struct Writer<'a> {
    product: &'a Product,
    client: Client,
    platform: String,
    bearer: String,
    acknowledged: AtomicUsize,
    asked_again: AtomicUsize,
}

impl Writer<'_> {
    /// Registers a client of the API, asking again with the same key until that is acknowledged; its secret. `None`: it is
    /// there, and whoever did it died before it could say so.
    async fn write(&self, number: usize) -> Result<Option<String>> {
        let (begun, key) = (Instant::now(), format!("write-{number}"));
        let body = format!(r#"{{"id":"robot-{number}","kind":"service","roles":["developer"]}}"#);
        let fields = [
            ("authorization", self.bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", &key),
        ];
        let (url, mut pause) = (format!("{}/api/v1/clients", self.platform), PAUSE);
        loop {
            ensure!(begun.elapsed() < PATIENCE, "{key} is never acknowledged");
            match self.client.send(Method::POST, &url, &fields, body.clone()).await {
                Ok(answer) if answer.status == StatusCode::CREATED => {
                    self.one_more()?;
                    return Ok(Some(answer.json()?["secret"].as_str().context("a secret")?.to_owned()));
                }
                // Somebody is about it still, or was.
                Ok(answer) if answer.status == StatusCode::CONFLICT => {
                    if begun.elapsed() > ABOUT_IT && self.is_there(number).await {
                        return Ok(None);
                    }
                }
                Ok(answer) => {
                    ensure!(answer.status.is_server_error(), "{key}: {} {}", answer.status, answer.text());
                }
                Err(_cut_off) => {}
            }
            self.asked_again.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn is_there(&self, number: usize) -> bool {
        let url = format!("{}/api/v1/clients/robot-{number}", self.platform);
        let bearer = [("authorization", self.bearer.as_str())];
        let answer = self.client.send(Method::GET, &url, &bearer, "").await;
        answer.is_ok_and(|answer| answer.status == StatusCode::OK)
    }

    fn one_more(&self) -> Result<()> {
        let count = self.acknowledged.fetch_add(1, Ordering::Relaxed);
        for (_, role) in DEATHS.iter().filter(|(at, _)| *at == count) {
            kill(Pid::from_raw(self.product.pid_of(role)?), Signal::SIGKILL)?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_writes_at_once_outlive_the_death_of_each_replica_and_none_is_done_twice() -> Result<()> {
    let executable: PathBuf = env!("CARGO_BIN_EXE_bastide").into();
    bastide_testkit::build_hello(&executable)?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").display().to_string();
    let arguments = vec!["--allow-no-isolation".to_owned(), "--examples".to_owned(), examples];
    let mut product = Product::start(Options { executable, arguments }).await?;
    sign_in(&product)?;
    let outcome = writes(&product).await;
    product.explained(outcome)?;
    product.down()
}

async fn writes(product: &Product) -> Result<()> {
    let writer = Writer {
        product,
        client: product.client()?,
        platform: format!("https://demo.platform.localhost:{}", product.https_port),
        bearer: format!("Bearer {}", product.cli(&["token"], "")?.trim()),
        acknowledged: AtomicUsize::new(0),
        asked_again: AtomicUsize::new(0),
    };
    let secrets = try_join_all((0..WRITES).map(|number| writer.write(number))).await?;
    let told: Vec<_> =
        secrets.iter().enumerate().filter_map(|(number, secret)| Some((number, secret.as_ref()?))).collect();
    let different: BTreeSet<_> = told.iter().map(|(_, secret)| secret).collect();
    ensure!(different.len() == told.len(), "each got a secret of its own");
    let last_death = DEATHS[DEATHS.len() - 1].0;
    ensure!(told.len() > last_death, "only {} were told", told.len());
    ensure!(writer.asked_again.load(Ordering::Relaxed) > 0, "somebody was cut off");
    let ids = |found: Vec<String>| {
        let mut times = BTreeMap::<String, usize>::new();
        found.into_iter().for_each(|id| *times.entry(id).or_default() += 1);
        times
    };
    let once: BTreeMap<_, _> = (0..WRITES).map(|number| (format!("robot-{number}"), 1)).collect();
    let clients: Vec<Value> = serde_json::from_str(&product.cli(&["--json", "client", "list"], "")?)?;
    let listed = clients.iter().filter_map(|client| robot(client["id"].as_str()?));
    ensure!(ids(listed.collect()) == once, "each is there, once");
    let trail = product.cli(&["audit", "export"], "")?;
    let entries: Vec<Value> = trail.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let made = entries.iter().filter(|entry| entry["what"] == "client.created" && entry["outcome"] == "done");
    let created = made.filter_map(|entry| robot(entry["detail"].as_str()?.split(' ').next()?));
    ensure!(ids(created.collect()) == once, "and so is its entry");
    product.cli(&["audit", "verify"], "")?;
    // A secret that was told is the one that counts, whoever told it, and however often.
    for (number, secret) in [told[0], told[told.len() / 2], told[told.len() - 1]] {
        let id = format!("robot-{number}");
        let login = ["login", &writer.platform, "--client-id", &id, "--client-secret-stdin"];
        product.cli(&login, secret)?;
    }
    Ok(())
}

fn robot(id: &str) -> Option<String> {
    id.starts_with("robot-").then(|| id.to_owned())
}
