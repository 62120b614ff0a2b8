//! The product with its apps isolated: what roles may do, what apps see, who outlives whom, and that nothing is left.

use anyhow::{Context, Result, ensure};
use bastide_container::cgroup::Cgroups;
use bastide_isolation::Installation;
use bastide_testkit::{Client, Options, Product};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);
const DEVELOPMENT: &str = "demo--development.apps.localhost";

fn executable() -> PathBuf {
    env!("CARGO_BIN_EXE_bastide").into()
}

/// Arguments of `up` that publish the examples.
fn arguments(more: &[&str]) -> Vec<String> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut all = vec!["--examples".to_owned(), examples.display().to_string()];
    all.extend(more.iter().map(|argument| (*argument).to_owned()));
    all
}

async fn start(more: &[&str]) -> Result<Product> {
    bastide_testkit::build_hello(&executable())?;
    Product::start(Options { executable: executable(), arguments: arguments(more) }).await
}

/// Whether this machine can isolate; says so when it cannot.
pub(crate) fn isolates(test: &str) -> bool {
    let missing = bastide_container::preflight().missing().next().map(|finding| finding.found.clone());
    if let Some(missing) = &missing {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {missing}");
    }
    missing.is_none()
}

/// What an installation has in the kernel.
struct Kernel {
    installation: Installation,
    replicas: BTreeSet<String>,
}

impl Kernel {
    fn of(product: &Product) -> Result<Self> {
        let runtime = product.data().join("runtime").canonicalize()?;
        let replicas = fs::read_dir(runtime.join("replicas"))?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        Ok(Self { installation: Installation::of(&runtime.to_string_lossy()), replicas })
    }

    /// Processes of the apps, by their cgroups.
    fn processes(&self) -> BTreeSet<i32> {
        self.replicas.iter().flat_map(|id| Cgroups::of(id).processes()).collect()
    }

    /// Everything that is there: namespaces, links, tables, cgroups, processes.
    fn everything(&self) -> Result<Vec<String>> {
        let prefix = self.installation.prefix();
        let mut found = Vec::new();
        for place in ["/run/netns", "/sys/class/net"] {
            for entry in fs::read_dir(place).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(&prefix) {
                    found.push(format!("{place}/{name}"));
                }
            }
        }
        let tables = Command::new("nft").args(["list", "tables"]).output()?;
        let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
        found.extend(
            tables.lines().filter(|line| line.ends_with(&self.installation.table())).map(str::to_owned),
        );
        for id in &self.replicas {
            found.extend(Cgroups::of(id).dirs().iter().map(|dir| dir.display().to_string()));
        }
        found.extend(self.processes().iter().map(|pid| format!("process {pid}")));
        Ok(found)
    }
}

/// Command lines of running processes that name this data directory.
fn processes_of(data: &Path) -> Result<Vec<String>> {
    let needle = data.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&needle) {
            found.push(command);
        }
    }
    Ok(found)
}

async fn get(product: &Product, client: &Client, path: &str) -> Result<String> {
    let url = format!("https://{DEVELOPMENT}:{}{path}", product.https_port);
    let answer = client.get(&url).await?;
    ensure!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text());
    Ok(answer.text())
}

/// Asks until it answers.
async fn answers(product: &Product, client: &Client, path: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        match get(product, client, path).await {
            Ok(text) => return Ok(text),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test]
async fn apps_are_isolated_outlive_the_runtime_role_and_leave_nothing_behind() -> Result<()> {
    if !isolates("apps_are_isolated_outlive_the_runtime_role_and_leave_nothing_behind") {
        return Ok(());
    }
    let mut product = start(&[]).await?;
    let outcome = async {
        let client = product.client()?;
        ensure!(!product.output().contains("WARNING"), "{}", product.output());
        roles_hold_no_capability(&product)?;
        apps_see_only_the_broker(&product, &client).await?;
        addresses_are_shown(&product)?;
        apps_outlive_the_runtime_role(&product, &client).await
    };
    product.explained(outcome.await)?;
    let outcome = apps_outlive_everything(&mut product).await;
    product.explained(outcome)?;
    let (data, kernel) = (product.data(), Kernel::of(&product)?);
    ensure!(kernel.everything()?.len() > 10, "there is something to take away");
    product.down()?;
    assert_eq!(kernel.everything()?, Vec::<String>::new(), "down leaves nothing behind");
    assert_eq!(processes_of(&data)?, Vec::<String>::new());
    a_killed_installation_is_cleared_by_down(&mut product).await
}

/// All roles but the runtime: no capability, none to be had, no new privileges, spared when memory runs out.
fn roles_hold_no_capability(product: &Product) -> Result<()> {
    for role in ["edge", "gateway-a", "gateway-b", "platform-1", "platform-2", "egress", "nats"] {
        let pid = product.pid_of(role)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for line in [
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            ensure!(status.contains(line), "{role}: no `{line}` in {status}");
        }
        // Every thread has its own.
        for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let status = fs::read_to_string(thread.path().join("status"))?;
            ensure!(status.contains("CapEff:\t0000000000000000"), "{role}: {status}");
        }
        let score: i32 = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim().parse()?;
        // Below zero only where root may lower it (CAP_SYS_RESOURCE).
        ensure!(score <= 0, "{role}: {score}");
    }
    Ok(())
}

async fn apps_see_only_the_broker(product: &Product, client: &Client) -> Result<()> {
    assert_eq!(answers(product, client, "/hello/source").await?.trim(), "169.254.1.3");
    let site = answers(product, client, "/site/").await?;
    ensure!(site.contains("<html"), "the static example runs in containers too: {site}");
    for pid in Kernel::of(product)?.processes() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        ensure!(status.contains("Seccomp:\t2") && status.contains("CapEff:\t0000000000000000"), "{status}");
        let score: i32 = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim().parse()?;
        ensure!(score > 0, "apps are ended first: {score}");
    }
    Ok(())
}

fn addresses_are_shown(product: &Product) -> Result<()> {
    let demo: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(product.data().join("keys/demo-client.json"))?)?;
    let (id, secret) = (demo["id"].as_str().context("an id")?, demo["secret"].as_str().context("a secret")?);
    let platform = format!("https://demo.platform.localhost:{}", product.https_port);
    product.cli(&["login", &platform, "--client-id", id, "--client-secret-stdin"], secret)?;
    let shown: serde_json::Value = serde_json::from_str(&product.cli(&["egress", "ips", "--json"], "")?)?;
    let zones: Vec<_> =
        shown.as_array().context("a list")?.iter().map(|zone| zone["zone"].as_str()).collect();
    assert_eq!(zones, [Some("a"), Some("b")], "{shown}");
    ensure!(shown[0]["chosen"] == false, "{shown}");
    let checked = Command::new(executable()).args(["check", "--data"]).arg(product.data()).output()?;
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    for part in ["isolation: kernel", "isolation-cgroup-memory", "zone a:", "zone b:"] {
        ensure!(checked.contains(part), "{part} in {checked}");
    }
    Ok(())
}

/// Killed or asked to end, the role leaves apps running, and takes them over when it is back.
async fn apps_outlive_the_runtime_role(product: &Product, client: &Client) -> Result<()> {
    let before = Kernel::of(product)?.processes();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let role = product.pid_of("runtime")?;
        kill(Pid::from_raw(role), signal)?;
        let begun = Instant::now();
        while !product.pid_of("runtime").is_ok_and(|pid| pid != role)
            || !product.data().join("run/runtime.ready").exists()
        {
            // Connections that gateways have go on; new ones find the next replica, or wait for the role.
            ensure!(begun.elapsed() < PATIENCE, "the role is not back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        answers(product, client, "/hello/").await?;
        assert_eq!(Kernel::of(product)?.processes(), before, "the same processes after {signal}");
    }
    Ok(())
}

async fn apps_outlive_everything(product: &mut Product) -> Result<()> {
    let before = Kernel::of(product)?.processes();
    product.kill()?;
    product.start_again(&arguments(&[])).await?;
    let client = product.client()?;
    answers(product, &client, "/hello/").await?;
    assert_eq!(Kernel::of(product)?.processes(), before, "apps went on running, and are found again");
    Ok(())
}

async fn a_killed_installation_is_cleared_by_down(product: &mut Product) -> Result<()> {
    product.start_again(&arguments(&[])).await?;
    let kernel = Kernel::of(product)?;
    product.kill()?;
    ensure!(!kernel.processes().is_empty(), "there is something to take away");
    product.down()?;
    assert_eq!(kernel.everything()?, Vec::<String>::new());
    assert_eq!(processes_of(&product.data())?, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn without_isolation_everybody_is_told_and_production_and_a_second_customer_are_refused() -> Result<()>
{
    let product = start(&["--driver", "process", "--allow-no-isolation"]).await?;
    let outcome = async {
        ensure!(product.output().contains("isolation: NONE"), "{}", product.output());
        let client = product.client()?;
        ensure!(answers(&product, &client, "/hello/").await?.contains("Hello"));
        let cli = |arguments: &[&str]| -> Result<String> {
            let output = product.try_cli(arguments, "")?;
            Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        };
        let demo: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(product.data().join("keys/demo-client.json"))?)?;
        let (id, secret) =
            (demo["id"].as_str().context("an id")?, demo["secret"].as_str().context("a secret")?);
        let platform = |host: &str| format!("https://{host}.platform.localhost:{}", product.https_port);
        product.cli(&["login", &platform("demo"), "--client-id", id, "--client-secret-stdin"], secret)?;
        ensure!(cli(&["status"])?.contains("isolation: NONE"));
        let promoted = cli(&["promote", "hello", "--to", "test"])?;
        ensure!(promoted.contains("isolation: NONE"), "{promoted}");
        let refused = cli(&["promote", "hello", "--to", "production"])?;
        ensure!(refused.contains("B-RT-0403"), "{refused}");
        let token = product.cli(&["token"], "")?;
        let page = client
            .send(
                http::Method::GET,
                &format!("{}/", platform("demo")),
                &[("authorization", &format!("Bearer {}", token.trim())), ("accept", "text/html")],
                "",
            )
            .await?;
        ensure!(page.text().contains("isolation: NONE"), "{}", page.text());
        let secret = fs::read_to_string(product.data().join("keys/operator-client.secret"))?;
        let operator = ["login", &platform("operator"), "--client-id", "supervisor", "--client-secret-stdin"];
        product.cli(&operator, &secret)?;
        let refused = cli(&["customer", "create", "acme", "--administrator", "ann@acme.example"])?;
        ensure!(refused.contains("B-RT-0403"), "{refused}");
        Ok(())
    };
    product.explained(outcome.await)
}

#[test]
fn the_process_driver_must_be_allowed() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = Command::new(executable())
        .args(["up", "--driver", "process", "--data"])
        .arg(dir.path().join("data"))
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("B-RT-0403"), "{said}");
}
