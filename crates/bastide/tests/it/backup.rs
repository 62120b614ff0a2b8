//! A backup of a running installation, put back: what came after it is gone, and edges, gateways and agents follow the
//! older truth, because it begins a new life.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{Client, Options, Product};
use http::Method;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);
pub(crate) const DEVELOPMENT: &str = "demo--development.apps.localhost";
pub(crate) const TEST: &str = "demo--test.apps.localhost";

fn executable() -> PathBuf {
    env!("CARGO_BIN_EXE_bastide").into()
}

pub(crate) async fn until(product: &Product, client: &Client, host: &str, wanted: u16) -> Result<()> {
    let url = format!("https://{host}:{}/hello/", product.https_port);
    let begun = Instant::now();
    loop {
        let status = client.send(Method::GET, &url, &[], "").await.map(|answer| answer.status.as_u16());
        if status.as_ref().is_ok_and(|status| *status == wanted) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{url}: {status:?} instead of {wanted}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Epoch and revision of what the edge serves from.
fn in_force(product: &Product) -> Result<(u64, u64)> {
    let file = fs::read_to_string(product.data().join("state/edge/snapshot.json"))?;
    let signed: Value = serde_json::from_str(&file)?;
    let snapshot: Value = serde_json::from_str(signed["payload"].as_str().context("a payload")?)?;
    let number = |name: &str| snapshot[name].as_u64().context("a number");
    Ok((number("epoch")?, number("revision")?))
}

/// What the API answers to this token.
async fn asks(product: &Product, client: &Client, token: &str) -> Result<u16> {
    let url = format!("https://demo.platform.localhost:{}/api/v1/whoami", product.https_port);
    let bearer = format!("Bearer {}", token.trim());
    Ok(client.send(Method::GET, &url, &[("authorization", &bearer)], "").await?.status.as_u16())
}

/// Who was signed in is not any more: never taken, and refused as soon as gateways have heard of the Platform.
pub(crate) async fn refused_at_last(product: &Product, client: &Client, token: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        match asks(product, client, token).await? {
            401 => return Ok(()),
            503 => ensure!(begun.elapsed() < PATIENCE, "no word from the Platform"),
            other => anyhow::bail!("{other} to a token of the former life"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn sign_in(product: &Product) -> Result<()> {
    let client: Value =
        serde_json::from_str(&fs::read_to_string(product.data().join("keys/demo-client.json"))?)?;
    let word = |name: &str| client[name].as_str().context("a word");
    let platform = format!("https://demo.platform.localhost:{}", product.https_port);
    let arguments = ["login", &platform, "--client-id", word("id")?, "--client-secret-stdin"];
    product.cli(&arguments, word("secret")?)?;
    Ok(())
}

fn the_broker_keeps_stages_apart(product: &Product, data: &str) -> Result<()> {
    let report: Value = serde_json::from_str(&product.cli(&["--json", "bus", "check", "--data", data], "")?)?;
    ensure!(
        report["tried"].as_u64() > Some(200) && report["faults"].as_array().is_some_and(Vec::is_empty),
        "{report}"
    );
    ensure!(!product.data().join("run/check.sys.creds").exists(), "its credential is gone");
    Ok(())
}

#[tokio::test]
async fn what_a_running_installation_wrote_is_put_back_and_obeyed() -> Result<()> {
    bastide_testkit::build_hello(&executable())?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").display().to_string();
    let arguments = ["--allow-no-isolation".to_owned(), "--examples".to_owned(), examples];
    let mut product =
        Product::start(Options { executable: executable(), arguments: arguments.clone().into() }).await?;
    let file = product.scratch().join("backup.tar");
    let file = file.to_str().context("text")?.to_owned();
    let data = product.data().display().to_string();
    let client = product.client()?;
    let before = async {
        until(&product, &client, DEVELOPMENT, 200).await?;
        the_broker_keeps_stages_apart(&product, &data)?;
        product.cli(&["backup", "--data", &data, &file], "")?;
        ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "it holds every key");
        let again = product.try_cli(&["backup", "--data", &data, &file], "")?;
        ensure!(!again.status.success(), "no backup is overwritten");
        let running = product.try_cli(&["restore", "--data", &data, "--replace", &file], "")?;
        let why = String::from_utf8_lossy(&running.stderr).into_owned();
        ensure!(!running.status.success() && why.contains("bastide down"), "{why}");
        sign_in(&product)?;
        product.cli(&["promote", "hello", "--to", "test"], "")?;
        until(&product, &client, TEST, 200).await?;
        let token = product.cli(&["token"], "")?;
        ensure!(asks(&product, &client, &token).await? == 200, "the token is good");
        Ok::<_, anyhow::Error>((in_force(&product)?, token))
    };
    let (before, token) = product.explained(before.await)?;
    product.down()?;

    let refused = product.try_cli(&["restore", "--data", &data, &file], "")?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && why.contains("--replace"), "{why}");
    product.cli(&["restore", "--data", &data, "--replace", &file], "")?;
    product.start_again(&arguments).await?;
    let after = async {
        until(&product, &client, DEVELOPMENT, 200).await?;
        until(&product, &client, TEST, 404).await?;
        let after = in_force(&product)?;
        ensure!(after.0 > before.0, "{after:?} would come before {before:?}");
        refused_at_last(&product, &client, &token).await?;
        sign_in(&product)?;
        product.cli(&["promote", "hello", "--to", "test"], "")?;
        until(&product, &client, TEST, 200).await
    };
    product.explained(after.await)?;
    product.down()
}
