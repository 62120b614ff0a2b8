//! A town of a thousand customers: how long it takes to add one more, and until a change is in force at every edge and
//! gateway. Run by `bench/bus/run`.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{Client, Options, Product, neighbours::quantile};
use http::Method;
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

/// Customers before anything is measured; each has three stages.
const TOWN: usize = 1000;
/// Of each kind.
const ROUNDS: usize = 200;
const ADD_BAR: Duration = Duration::from_millis(100);
const FORCE_BAR: Duration = Duration::from_millis(250);
/// Only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);
const STATIONS: [&str; 3] = ["edge", "gateway-a", "gateway-b"];

struct Town {
    product: Product,
    client: Client,
    token: String,
}

impl Town {
    async fn call(&self, method: Method, path: &str, body: String) -> Result<()> {
        let url = format!("https://operator.platform.localhost:{}/api/v1{path}", self.product.https_port);
        let bearer = format!("Bearer {}", self.token);
        let fields = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = self.client.send(method, &url, &fields, body).await?;
        ensure!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text());
        Ok(())
    }

    /// A customer more; the broker holds its accounts when this is answered, for each is read back.
    async fn add(&self, number: usize) -> Result<()> {
        let body = format!(r#"{{"name":"town-{number}","administrator_email":"ann@town.example"}}"#);
        self.call(Method::POST, "/customers", body).await
    }

    fn sign_in(&mut self) -> Result<()> {
        let operator = format!("https://operator.platform.localhost:{}", self.product.https_port);
        let secret = fs::read_to_string(self.product.data().join("keys/operator-client.secret"))?;
        self.product
            .cli(&["login", &operator, "--client-id", "supervisor", "--client-secret-stdin"], &secret)?;
        self.token = self.product.cli(&["token"], "")?.trim().to_owned();
        Ok(())
    }

    /// When a station wrote what it serves from.
    fn written(&self, station: &str) -> Result<SystemTime> {
        let file = self.product.data().join("state").join(station).join("snapshot.json");
        Ok(fs::metadata(file)?.modified()?)
    }

    /// Waits until all stations serve from a Snapshot of after `begun`.
    async fn in_force(&self, begun: SystemTime) -> Result<()> {
        let since = Instant::now();
        while STATIONS.iter().map(|station| self.written(station)).collect::<Result<Vec<_>>>()?.iter().min()
            < Some(&begun)
        {
            ensure!(since.elapsed() < PATIENCE, "a station does not follow");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn memory(&self, process: &str) -> Result<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.product.pid_of(process)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its memory")?;
        Ok(line.trim().to_owned())
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let executable = PathBuf::from(std::env::args().nth(1).context("the executable of Bastide")?);
    let product = Product::start(Options { executable, arguments: vec!["--no-demo".into()] }).await?;
    let client = product.client()?;
    let mut town = Town { product, client, token: String::new() };
    town.sign_in()?;
    for number in 0..TOWN {
        if number % 100 == 0 {
            town.sign_in()?; // tokens live for minutes
        }
        town.add(number).await?;
    }
    let (mut added, mut forced) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round % 50 == 0 {
            town.sign_in()?;
        }
        let (begun, clock) = (Instant::now(), SystemTime::now());
        town.add(TOWN + round).await?;
        added.push(begun.elapsed());
        town.in_force(clock).await?;
        forced.push(begun.elapsed());
    }
    println!(
        "| of {TOWN} customers with 3 stages | times | p50, ms | p99, ms | bar, ms |\n|---|---|---|---|---|"
    );
    let add = line("a customer more: its accounts answer", &mut added, ADD_BAR);
    let force = line("in force at edge and gateways", &mut forced, FORCE_BAR);
    let bytes = fs::metadata(town.product.data().join("state/edge/snapshot.json"))?.len();
    println!("\nThe Snapshot has {bytes} bytes. Memory:");
    for process in ["edge", "gateway-a", "platform-1", "nats"] {
        println!("* {process}: {}", town.memory(process)?);
    }
    town.product.down()?;
    ensure!(add <= ADD_BAR && force <= FORCE_BAR, "a bar is missed");
    Ok(())
}

fn line(word: &str, took: &mut [Duration], bar: Duration) -> Duration {
    let ms = |at: Duration| at.as_secs_f64() * 1000.0;
    let (p50, p99) = (quantile(took, 500), quantile(took, 990));
    println!("| {word} | {} | {:.1} | {:.1} | {:.0} |", took.len(), ms(p50), ms(p99), ms(bar));
    p99
}
