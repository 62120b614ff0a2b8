//! Broker, Platform replicas and runtime are killed in random order while users come and a developer writes. For 30 s; with
//! BASTIDE_CHAOS_S for as long as it says (`bench/chaos/run`: 5 min).

use anyhow::{Context, Result, ensure};
use bastide_testkit::{
    Options, Product,
    load::{Load, Report, Target},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(3);
const PLATFORM: &str = "demo.platform.localhost";
const DEVELOPMENT: &str = "demo--development.apps.localhost";
/// Longest pause between two kills.
const PAUSE_MS_MAX: u64 = 3000;

fn executable() -> PathBuf {
    env!("CARGO_BIN_EXE_bastide").into()
}

/// Numbers that look random; the seed is told, so that an order can be had again.
struct Dice(u64);

impl Dice {
    fn new() -> Result<Self> {
        let seed = std::env::var("BASTIDE_CHAOS_SEED").ok().map(|seed| seed.parse()).transpose()?;
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes)?;
        let seed = seed.unwrap_or_else(|| u64::from_le_bytes(bytes) >> 1);
        let _ = writeln!(std::io::stderr(), "BASTIDE_CHAOS_SEED={seed}");
        Ok(Self(seed))
    }

    /// A number below `bound`.
    fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The Snapshot that a station serves from, as it lies on its disk.
fn snapshot(product: &Product, station: &str) -> Result<Vec<u8>> {
    Ok(fs::read(product.data().join("state").join(station).join("snapshot.json"))?)
}

fn revision(signed: &[u8]) -> Result<u64> {
    let signed: Value = serde_json::from_slice(signed)?;
    let snapshot: Value = serde_json::from_str(signed["payload"].as_str().context("a payload")?)?;
    snapshot["revision"].as_u64().context("a revision")
}

/// Waits until a process that was killed serves again.
async fn returned(product: &Product, role: &str, before: i32) -> Result<()> {
    let begun = Instant::now();
    let mark = product.data().join(format!("run/{role}.ready"));
    // The broker makes no mark; whoever needs it waits for it.
    let serves = || role == "nats" || mark.exists();
    while !(product.pid_of(role).is_ok_and(|pid| pid != before) && serves()) {
        ensure!(begun.elapsed() < PATIENCE, "{role} is not back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Registers clients of the API one after the other, until `over`; those whose registration was acknowledged.
async fn write(product: &Product, over: &AtomicBool) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("chaos-{number}");
        let create =
            ["client", "create", "--id", &id, "--kind", "public", "--redirect-uri", "http://127.0.0.1/cb"];
        let done = tokio::task::block_in_place(|| product.cli(&create, ""));
        if done.is_ok() {
            acknowledged.insert(id);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_in_whatever_order_users_are_answered_and_nothing_that_was_acknowledged_is_lost()
-> Result<()> {
    bastide_testkit::build_hello(&executable())?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").display().to_string();
    let arguments = vec!["--allow-no-isolation".to_owned(), "--examples".to_owned(), examples];
    let mut product = Product::start(Options { executable: executable(), arguments }).await?;
    sign_in(&product)?;
    let outcome = chaos(&product).await;
    product.explained(outcome)?;
    product.down()
}

pub(crate) fn sign_in(product: &Product) -> Result<()> {
    let up: Value = serde_json::from_str(&fs::read_to_string(product.data().join("run/up.json"))?)?;
    let link = up["invitation_link"].as_str().context("a link")?;
    let email = up["administrator_email"].as_str().context("an address")?;
    product
        .cli(&["login", "--invitation", link, "--email", email, "--password-stdin"], "Correct-horse-9\n")?;
    Ok(())
}

async fn chaos(product: &Product) -> Result<()> {
    let ca = product.data().join("ca/local.pem");
    let target = |host: &str, path: &str| Target::new(&ca, host, product.https_port, path);
    let users = Load::start(&target(DEVELOPMENT, "/hello/")?, 1, |status, _| status == 200);
    let static_users = Load::start(&target(DEVELOPMENT, "/site/")?, 1, |status, _| status == 200);
    let visitors = Load::start(&target(PLATFORM, "/identity/jwks")?, 1, |status, _| status == 200);
    let over = Arc::new(AtomicBool::new(false));
    let (killed, written) = tokio::join!(
        async {
            let killed = kill_at_random(product).await;
            over.store(true, Ordering::Relaxed);
            killed
        },
        write(product, &over)
    );
    let (kills, last) = killed?;
    let took = converge(product, last).await?;
    for report in [users.end().await, static_users.end().await, visitors.end().await] {
        nobody_was_turned_away(&report)?;
    }
    nothing_is_lost(product, &written).await?;
    replicas_are_as_many_as_they_should_be(product).await?;
    let _ = writeln!(std::io::stderr(), "{kills} kills, {} writes; one digest after {took:?}", written.len());
    if std::env::var_os("BASTIDE_BARS").is_some() {
        ensure!(took <= Duration::from_secs(10), "one digest only after {took:?}");
    }
    Ok(())
}

/// How many were killed, and when the last one was.
async fn kill_at_random(product: &Product) -> Result<(usize, Instant)> {
    let seconds = std::env::var("BASTIDE_CHAOS_S").map_or(Ok(30), |text| text.parse())?;
    let mut victims = vec!["nats", "platform-1", "platform-2"];
    // Plain processes end with the role; containers do not.
    if bastide_container::preflight().missing().next().is_none() {
        victims.push("runtime");
    }
    let (mut dice, begun) = (Dice::new()?, Instant::now());
    let mut kills = 0;
    loop {
        let role = victims[usize::try_from(dice.roll(victims.len() as u64))?];
        let before = product.pid_of(role)?;
        kill(Pid::from_raw(before), Signal::SIGKILL)?;
        let last = Instant::now();
        kills += 1;
        tokio::time::sleep(Duration::from_millis(dice.roll(PAUSE_MS_MAX))).await;
        // What is killed again before it served has not been tried.
        returned(product, role, before).await?;
        if begun.elapsed() > Duration::from_secs(seconds) && kills >= victims.len() {
            return Ok((kills, last));
        }
    }
}

/// Waits until all stations serve from the same Snapshot, and it is one of after the last kill's writes.
async fn converge(product: &Product, last: Instant) -> Result<Duration> {
    // One more change, so that there is something to converge to.
    let begun = Instant::now();
    let before = revision(&snapshot(product, "edge")?)?;
    while product.cli(&["site", "redirect", "add", "/chaos", "/hello/", "--stage", "test"], "").is_err() {
        ensure!(begun.elapsed() < PATIENCE, "the Platform does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    loop {
        let all: BTreeSet<_> = ["edge", "gateway-a", "gateway-b"]
            .iter()
            .map(|station| snapshot(product, station))
            .collect::<Result<_>>()?;
        if let (1, Some(one)) = (all.len(), all.first())
            && revision(one)? > before
        {
            return Ok(last.elapsed());
        }
        ensure!(begun.elapsed() < PATIENCE, "stations serve from {} Snapshots", all.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn nobody_was_turned_away(report: &Report) -> Result<()> {
    ensure!(report.answered > 0 && report.lost == 0, "{report:?}");
    Ok(())
}

async fn nothing_is_lost(product: &Product, written: &BTreeSet<String>) -> Result<()> {
    ensure!(!written.is_empty(), "nothing was written");
    let listed: Value = serde_json::from_str(&product.cli(&["--json", "client", "list"], "")?)?;
    let text = listed.to_string();
    let lost: Vec<_> = written.iter().filter(|id| !text.contains(&format!("\"{id}\""))).collect();
    ensure!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    Ok(())
}

/// What was ordered once runs once: no replica was started a second time for an order that came twice or late.
async fn replicas_are_as_many_as_they_should_be(product: &Product) -> Result<()> {
    let (begun, should) = (Instant::now(), replicas_that_should_be(product)?);
    loop {
        let ready = ready_replicas(product)?;
        ensure!(ready.is_subset(&should), "nobody ordered all of {ready:?}: {should:?}");
        if ready == should {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "ready: {ready:?}, should be: {should:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn ready_replicas(product: &Product) -> Result<BTreeSet<String>> {
    let facts: Value = serde_json::from_slice(&fs::read(product.data().join("state/gateway-a/facts.json"))?)?;
    let accounts = facts["accounts"].as_object().context("accounts")?.values();
    let replicas = accounts.flat_map(|entry| entry["facts"]["replicas"].as_array().into_iter().flatten());
    let ready = replicas.filter(|replica| replica["state"] == "ready");
    Ok(ready.filter_map(|replica| replica["id"].as_str()).map(str::to_owned).collect())
}

fn replicas_that_should_be(product: &Product) -> Result<BTreeSet<String>> {
    let signed: Value = serde_json::from_slice(&snapshot(product, "gateway-a")?)?;
    let payload: Value = serde_json::from_str(signed["payload"].as_str().context("a payload")?)?;
    let stages = payload["customers"]["demo"]["stages"].as_object().context("stages")?;
    let apps = stages.values().flat_map(|stage| stage["apps"].as_object().into_iter().flatten());
    let replicas = apps.flat_map(|(_, app)| app["replicas"].as_object().into_iter().flatten());
    Ok(replicas.map(|(id, _)| id.clone()).collect())
}
