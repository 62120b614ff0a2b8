//! `bastide verify` in the product: two customers with two stages each are proven to be kept apart, a rule that is
//! taken away by hand is named by its path, and what was there to try things on is gone afterwards.

use anyhow::{Context, Result, ensure};
use bastide_isolation::Installation;
use bastide_testkit::{Options, Product};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_is_proven_in_a_running_installation_and_a_breach_is_named() -> Result<()> {
    if !crate::isolated::isolates("isolation_is_proven_in_a_running_installation_and_a_breach_is_named") {
        return Ok(());
    }
    let mut product = Product::start(Options {
        executable: env!("CARGO_BIN_EXE_bastide").into(),
        arguments: vec!["--no-demo".into()],
    })
    .await?;
    let outcome = all(&product);
    product.explained(outcome)?;
    product.down()
}

fn all(product: &Product) -> Result<()> {
    for customer in ["acme", "beta"] {
        two_stages(product, customer)?;
    }
    let installation = installation(product)?;
    every_path_is_as_it_should_be(product)?;
    nobody_is_out_there(&installation)?;
    only_some_are_tried_from(product)?;
    a_breach_is_named(product, &installation)?;
    what_cannot_be_proven_is_not(product)?;
    nobody_is_left_out_there_when_the_role_dies(product, &installation)
}

/// A customer with an app in Development and Test, and another that the first one may call; Test calls by name.
fn two_stages(product: &Product, customer: &str) -> Result<()> {
    let host = |name: &str| format!("https://{name}.platform.localhost:{}", product.https_port);
    let secret = fs::read_to_string(product.data().join("keys/operator-client.secret"))?;
    until(
        product,
        &["login", &host("operator"), "--client-id", "supervisor", "--client-secret-stdin"],
        &secret,
    )?;
    let administrator = format!("ann@{customer}.example");
    let made = ["--json", "customer", "create", customer, "--administrator", &administrator];
    let made: Value = serde_json::from_str(&product.cli(&made, "")?)?;
    let link = made["invitation_link"].as_str().context("a link")?;
    let login = ["login", "--invitation", link, "--email", &administrator, "--password-stdin"];
    until(product, &login, "Correct-Horse-Battery-1")?;
    for name in ["shop", "blog"] {
        let dir = product.scratch().join(format!("{customer}-{name}"));
        fs::create_dir(&dir)?;
        fs::write(dir.join("index.html"), name)?;
        let route = "[[route]]\npath = \"/\"\naccess = \"public\"\n";
        fs::write(dir.join("bastide.toml"), format!("[app]\nname = \"{name}\"\nkind = \"static\"\n{route}"))?;
        until(product, &["publish", &dir.display().to_string()], "")?;
        until(product, &["promote", name, "--to", "test"], "")?;
    }
    until(product, &["grant", "add", "shop", "blog"], "")?;
    until(product, &["egress", "set", "--stage", "test", "--mode", "enforce"], "")?;
    Ok(())
}

/// Edges and gateways hear of what is new within a moment.
fn until(product: &Product, arguments: &[&str], input: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        match product.cli(arguments, input) {
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
            Ok(text) => return Ok(text),
        }
    }
}

/// Exit code and report.
fn verify(product: &Product, more: &[&str]) -> Result<(i32, Value)> {
    let output = product.try_cli(&[&["verify", "--json"], more].concat(), "")?;
    let code = output.status.code().context("it ends by itself")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).with_context(|| format!("{code}: {said}"))?;
    Ok((code, report))
}

/// Rows of a report by their path.
fn paths(report: &Value) -> BTreeMap<&str, Vec<&Value>> {
    let mut all: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for row in report["rows"].as_array().into_iter().flatten() {
        all.entry(row["path"].as_str().unwrap_or_default()).or_default().push(row);
    }
    all
}

fn wrong(report: &Value) -> Vec<&Value> {
    let rows = ["rows", "controls"].into_iter().filter_map(|key| report[key].as_array()).flatten();
    rows.filter(|row| row["ok"] != true).collect()
}

fn every_path_is_as_it_should_be(product: &Product) -> Result<()> {
    let (code, report) = verify(product, &[])?;
    assert_eq!((code, wrong(&report)), (0, Vec::new()));
    assert_eq!(report["outcome"], "proven");
    // Four apps, one replica in each zone, in two stages.
    ensure!(report["replicas"].as_u64() >= Some(16), "{}", report["replicas"]);
    let by_path = paths(&report);
    for path in [
        "other-customer",
        "other-stage",
        "other-app",
        "own-other-replica",
        "own-gateway",
        "other-gateway",
        "hairpin",
        "host-address",
        "host-port",
        "host-uplink",
        "host-loopback",
        "host-abstract-socket",
        "metadata",
        "private-range",
        "shared-range",
        "broadcast",
        "multicast",
        "ipv6",
        "ipv6-mapped",
        "spoofed-other-customer",
        "spoofed-other-stage",
        "spoofed-other-replica",
        "spoofed-host",
        "spoofed-outside",
        "other-protocol",
        "mid-stream",
        "denied",
        "not-by-name",
        "proxy-other-customer",
        "proxy-loopback",
        "proxy-host",
        "proxy-metadata",
        "proxy-closed-range",
        "names-private",
        "names-rebinding",
        "not-granted",
        "egress",
        "proxy-egress",
        "names",
        "load-balancer",
        "granted",
        "declared-port",
        "gateway-probe",
        "outside-to-gateway",
    ] {
        ensure!(by_path.contains_key(path), "{path} was not tried");
    }
    let from: BTreeSet<_> = by_path["other-customer"].iter().filter_map(|row| row["from"].as_str()).collect();
    assert_eq!(from.len(), 16, "from everybody: {from:?}");
    let table = product.try_cli(&["verify"], "")?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    ensure!(table.contains("other-customer") && table.contains("PROVEN"), "{table}");
    Ok(())
}

fn only_some_are_tried_from(product: &Product) -> Result<()> {
    let (code, report) = verify(product, &["--customer", "beta", "--stage", "test"])?;
    assert_eq!((code, wrong(&report)), (0, Vec::new()));
    let by_path = paths(&report);
    for row in &by_path["other-customer"] {
        let (from, to) = (row["from"].as_str().unwrap_or_default(), row["to"].as_str().unwrap_or_default());
        ensure!(from.starts_with("beta/test/") && to.starts_with("acme/"), "{row}");
    }
    let nobody = product.try_cli(&["verify", "--customer", "nobody"], "")?;
    assert_eq!(nobody.status.code(), Some(2));
    ensure!(String::from_utf8_lossy(&nobody.stderr).contains("no replica"), "{nobody:?}");
    Ok(())
}

/// Somebody takes the rule against false senders out of every router while paths are tried.
fn a_breach_is_named(product: &Product, installation: &Installation) -> Result<()> {
    let begun = Instant::now();
    let report = loop {
        match sabotaged(product, installation) {
            Ok((1, report)) => break report,
            // The rules were put back before they were tried, or what somebody meddles with was taken away whole.
            other => ensure!(begun.elapsed() < PATIENCE, "never noticed: {other:?}"),
        }
    };
    assert_eq!(report["outcome"], "breached");
    let open = report["rows"].as_array().into_iter().flatten().filter(|row| {
        let seen = row["seen"].as_str().unwrap_or_default();
        row["ok"] != true
            && row["expected"] == "nothing"
            && (seen.contains("answered") || seen.contains("arrived"))
    });
    let open: BTreeSet<_> = open.filter_map(|row| row["path"].as_str()).collect();
    ensure!(open.contains("spoofed-other-replica"), "{open:?}");
    ensure!(open.iter().all(|path| path.starts_with("spoofed-")), "nothing else is open: {open:?}");
    // It was repaired meanwhile, or is by the next run.
    let begun = Instant::now();
    while !matches!(verify(product, &[]), Ok((0, _))) {
        ensure!(begun.elapsed() < PATIENCE, "it is not repaired");
    }
    Ok(())
}

fn sabotaged(product: &Product, installation: &Installation) -> Result<(i32, Value)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if nobody_is_out_there(installation).is_ok() {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                for router in namespaces(installation, 's') {
                    let nft =
                        ["netns", "exec", &router, "nft", "flush", "chain", "inet", "bastide", "prerouting"];
                    let _ = Command::new("ip").args(nft).stderr(Stdio::null()).status();
                }
                // Seldom enough to leave whoever repairs the time to read back what it loaded.
                std::thread::sleep(Duration::from_millis(700));
            }
        });
        let seen = verify(product, &[]);
        over.store(true, Ordering::Relaxed);
        seen
    })
}

/// Without the egress role nobody knows what it would do.
fn what_cannot_be_proven_is_not(product: &Product) -> Result<()> {
    let role = Pid::from_raw(product.pid_of("egress")?);
    kill(role, Signal::SIGSTOP)?;
    let unproven = product.try_cli(&["verify"], "");
    kill(role, Signal::SIGCONT)?;
    let unproven = unproven?;
    assert_eq!(unproven.status.code(), Some(2), "{unproven:?}");
    ensure!(String::from_utf8_lossy(&unproven.stderr).contains("egress role"), "{unproven:?}");
    let begun = Instant::now();
    // The two roles find each other again.
    while verify(product, &[]).is_ok_and(|(code, _)| code != 0) {
        ensure!(begun.elapsed() < PATIENCE, "it stays unproven");
    }
    Ok(())
}

fn nobody_is_left_out_there_when_the_role_dies(product: &Product, installation: &Installation) -> Result<()> {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| product.try_cli(&["verify"], ""));
        let begun = Instant::now();
        while nobody_is_out_there(installation).is_ok() {
            ensure!(begun.elapsed() < PATIENCE, "nobody comes");
            std::thread::sleep(Duration::from_millis(5));
        }
        kill(Pid::from_raw(product.pid_of("runtime")?), Signal::SIGKILL)?;
        let answer = asking.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
        ensure!(!answer.status.success(), "there was nobody to answer");
        let begun = Instant::now();
        while nobody_is_out_there(installation).is_err() {
            ensure!(begun.elapsed() < PATIENCE, "{:?}", nobody_is_out_there(installation));
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    })
}

fn installation(product: &Product) -> Result<Installation> {
    let runtime = product.data().join("runtime").canonicalize()?;
    Ok(Installation::of(&runtime.to_string_lossy()))
}

fn namespaces(installation: &Installation, kind: char) -> Vec<String> {
    let start = format!("{}{kind}", installation.prefix());
    let all = fs::read_dir(Path::new("/run/netns")).into_iter().flatten().flatten();
    let names = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&start)).collect()
}

/// No machine outside, no way to it, no prober.
fn nobody_is_out_there(installation: &Installation) -> Result<()> {
    let left = namespaces(installation, 'c');
    ensure!(left.is_empty(), "{left:?}");
    ensure!(!Path::new("/sys/class/net").join(installation.canary()).exists(), "its link");
    let rules = Command::new("ip").args(["rule", "show"]).output()?;
    let table = installation.canary_table().to_string();
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    ensure!(!rules.contains(&table), "{rules}");
    Ok(())
}
