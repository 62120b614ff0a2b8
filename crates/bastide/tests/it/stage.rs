//! What the apps of a stage have besides the outside, in the product with its apps isolated: each other by grant, and
//! databases. What is asked is asked by the apps themselves, from inside their containers.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{Client, Options, Postgres, Product, build_caller, postgres::put_psql};
use http::{Method, StatusCode};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);
const DEVELOPMENT: &str = "acme--development.apps.localhost";
const TEST: &str = "acme--test.apps.localhost";

struct Stage<'p> {
    product: &'p Product,
    client: Client,
    psql: String,
}

impl Stage<'_> {
    /// What an app answers; asked until it is there at all.
    async fn ask(&self, host: &str, path: &str, body: &str) -> Result<String> {
        let url = format!("https://{host}:{}{path}", self.product.https_port);
        let begun = Instant::now();
        loop {
            let answer = self.client.send(Method::POST, &url, &[], body.to_owned()).await?;
            if answer.status == StatusCode::OK {
                return Ok(answer.text());
            }
            ensure!(begun.elapsed() < PATIENCE, "{url}: {} {}", answer.status, answer.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks until the answer is as it should be.
    async fn until(&self, host: &str, path: &str, body: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
        let begun = Instant::now();
        loop {
            let answer = self.ask(host, path, body).await?;
            if fits(&answer) {
                return Ok(answer);
            }
            ensure!(begun.elapsed() < PATIENCE, "{path} {body}: always {answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What `front` gets when it runs SQL with what it was told.
    async fn sql(&self, host: &str, sql: &str) -> Result<String> {
        let words = [&self.psql, "-X", "-A", "-t", "-q", "-c", sql].join("\n");
        Ok(self.ask(host, "/front/run", &words).await?.trim().to_owned())
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.product.cli(&[&["--json"], arguments].concat(), "")?)?)
    }
}

/// Writes the directory of an app.
fn app(at: &Path, name: &str, caller: &Path, more: &str) -> Result<String> {
    let dir = at.join(name);
    fs::create_dir_all(&dir)?;
    fs::copy(caller.join("caller"), dir.join("caller"))?;
    let manifest = format!(
        "[app]\nname = \"{name}\"\nkind = \"binary\"\ncommand = [\"./caller\"]\n{more}\n\
         [scale]\nreplicas = 4\n[[route]]\npath = \"/\"\naccess = \"public\"\n"
    );
    fs::write(dir.join("bastide.toml"), manifest)?;
    Ok(dir.display().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_of_a_stage_call_each_other_by_grant_and_have_databases_of_their_own() -> Result<()> {
    let test = "apps_of_a_stage_call_each_other_by_grant_and_have_databases_of_their_own";
    if !crate::isolated::isolates(test) {
        return Ok(());
    }
    let server = Postgres::start(&[], &[]);
    let made = tempfile::tempdir()?;
    let address = made.path().join("postgres");
    fs::write(&address, server.admin_url())?;
    let address = address.display().to_string();
    let arguments = ["--no-demo", "--waf-mode", "detect", "--postgres", &address];
    let mut product = Product::start(Options {
        executable: env!("CARGO_BIN_EXE_bastide").into(),
        arguments: arguments.map(str::to_owned).into(),
    })
    .await?;
    let outcome = async {
        build_caller(made.path())?;
        let front = app(made.path(), "front", made.path(), "[services.postgres]")?;
        let back = app(made.path(), "back", made.path(), "")?;
        let psql = put_psql(Path::new(&front));
        become_acme(&product).await?;
        product.cli(&["publish", &back], "")?;
        product.cli(&["publish", &front], "")?;
        let stage = Stage { product: &product, client: product.client()?, psql };
        grants(&stage).await?;
        databases(&stage, &server).await?;
        rotation(&stage).await?;
        secrets(&stage).await?;
        life_of_the_role(&stage).await?;
        what_is_granted_is_proven(&stage)
    };
    product.explained(outcome.await)?;
    product.down()
}

async fn become_acme(product: &Product) -> Result<()> {
    let operator = format!("https://operator.platform.localhost:{}", product.https_port);
    let secret = fs::read_to_string(product.data().join("keys/operator-client.secret"))?;
    let begun = Instant::now();
    // Edges and gateways hear of what is new within a moment.
    let retry = |arguments: &[&str], input: &str| -> Result<String> {
        loop {
            match product.cli(arguments, input) {
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
                Ok(text) => return Ok(text),
            }
        }
    };
    retry(&["login", &operator, "--client-id", "supervisor", "--client-secret-stdin"], &secret)?;
    let made =
        product.cli(&["--json", "customer", "create", "acme", "--administrator", "ann@acme.example"], "")?;
    let made: Value = serde_json::from_str(&made)?;
    let link = made["invitation_link"].as_str().context("a link")?;
    let password = "Correct-Horse-Battery-1";
    retry(&["login", "--invitation", link, "--email", "ann@acme.example", "--password-stdin"], password)?;
    // Each gateway must know the customer.
    for _ in 0..4 {
        retry(&["status"], "")?;
    }
    Ok(())
}

/// Apps and databases that are granted are reached, and nothing else is.
fn what_is_granted_is_proven(stage: &Stage<'_>) -> Result<()> {
    let report = stage.json(&["verify"])?;
    let rows: Vec<_> = report["rows"].as_array().into_iter().flatten().collect();
    let tried = |path: &str| rows.iter().filter(|row| row["path"] == path).count();
    ensure!(
        rows.iter().any(|row| row["path"] == "granted" && row["to"] == "169.254.2.1:5432"),
        "the database"
    );
    ensure!(tried("granted") > 0 && tried("not-granted") > 0, "{} tries", rows.len());
    Ok(())
}

async fn grants(stage: &Stage<'_>) -> Result<()> {
    let refused = |answer: &str| answer.starts_with("error:");
    // Without a grant: no name, and nothing behind the addresses that there may be.
    for body in ["back.internal:80", "front.internal:80", "unknown.internal:80"] {
        let found = stage.ask(DEVELOPMENT, "/front/find", body).await?;
        ensure!(refused(&found), "{body}: {found}");
    }
    for body in ["169.254.2.2:80", "169.254.2.3:80", "169.254.2.1:5432", "169.254.1.3:80"] {
        let answer = stage.ask(DEVELOPMENT, "/front/call", body).await?;
        ensure!(refused(&answer), "{body}: {answer}");
    }
    stage.product.cli(&["grant", "add", "front", "back"], "")?;
    let first =
        stage.until(DEVELOPMENT, "/front/call", "back.internal:80", |a| a.starts_with("back ")).await?;
    ensure!(first.ends_with(" 169.254.1.3"), "the called app sees a call like any other: {first}");
    // Own zone first, and everyone there has a turn.
    let mut called: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..24 {
        let answer = stage.ask(DEVELOPMENT, "/front/call-and-tell", "back.internal:80").await?;
        let words: Vec<_> = answer.split(' ').map(str::to_owned).collect();
        let [zone, _app, replica, there, _source] = &words[..] else { anyhow::bail!("{answer}") };
        ensure!(zone == there, "called in another zone: {answer}");
        called.entry(zone.clone()).or_default().insert(replica.clone());
    }
    let replicas: Vec<_> = called.values().map(BTreeSet::len).collect();
    ensure!(replicas == [2, 2], "two replicas in each of two zones are called: {called:?}");
    let answer = stage.ask(DEVELOPMENT, "/back/call", "front.internal:80").await?;
    ensure!(refused(&answer), "a grant has one direction: {answer}");
    let answer = stage.ask(DEVELOPMENT, "/front/call", "back.internal:8080").await?;
    // All of these addresses are the caller's own; on other ports it meets itself.
    ensure!(answer.starts_with("front "), "and one port: {answer}");

    // What an app may call outside is another matter.
    stage.product.cli(&["egress", "set", "--mode", "enforce"], "")?;
    stage.until(DEVELOPMENT, "/front/call", "back.internal:80", |a| a.starts_with("back ")).await?;
    stage.product.cli(&["grant", "remove", "front", "back"], "")?;
    stage.until(DEVELOPMENT, "/front/find", "back.internal:80", refused).await?;
    stage.until(DEVELOPMENT, "/front/call", "169.254.2.2:80", refused).await?;
    stage.product.cli(&["grant", "add", "front", "back"], "")?;
    stage.until(DEVELOPMENT, "/front/call", "back.internal:80", |a| a.starts_with("back ")).await?;
    Ok(())
}

async fn databases(stage: &Stage<'_>, server: &Postgres) -> Result<()> {
    let listed = stage.json(&["services", "list", "front"])?;
    ensure!(listed[0]["status"] == "ready" && listed[0]["stage"] == "development", "{listed}");
    let database = listed[0]["database"].as_str().context("a database")?;
    let user = listed[0]["user"].as_str().context("a user")?;
    let who = stage.sql(DEVELOPMENT, "select current_database(), session_user").await?;
    ensure!(who == format!("{database}|{user}"), "{who}");
    stage.sql(DEVELOPMENT, "create table notes (text text)").await?;
    stage.sql(DEVELOPMENT, "insert into notes values ('kept')").await?;
    ensure!(stage.sql(DEVELOPMENT, "select * from notes").await? == "kept");

    let psql = |more: &[&str]| [&[stage.psql.as_str(), "-X", "-c", "select 1"], more].concat().join("\n");
    for (more, says) in [
        (&["-U", "admin"][..], "may not connect as"),
        (&["-d", "postgres"], "may not connect to the database"),
        (&["-h", "169.254.1.3"], "refused"),
        (&["-h", "127.0.0.1", "-p", &server.port().to_string()], "refused"),
    ] {
        let answer = stage.ask(DEVELOPMENT, "/front/run", &psql(more)).await?;
        ensure!(answer.contains(says), "{more:?}: {answer}");
    }
    // An app that asked for none can neither name nor reach it.
    for (path, body) in [("/back/find", "postgres.internal:5432"), ("/back/call", "169.254.2.1:5432")] {
        let answer = stage.ask(DEVELOPMENT, path, body).await?;
        ensure!(answer.starts_with("error:"), "{path} {body}: {answer}");
    }
    // The same image in the next stage has a database of its own, which is empty.
    stage.product.cli(&["promote", "front", "--to", "test"], "")?;
    let other = stage.sql(TEST, "select current_database()").await?;
    ensure!(other.starts_with("bastide_") && other != database, "{other}");
    let notes = stage.sql(TEST, "select * from notes").await?;
    ensure!(notes.contains("does not exist"), "{notes}");
    let across = [stage.psql.as_str(), "-X", "-c", "select 1", "-d", database].join("\n");
    let answer = stage.ask(TEST, "/front/run", &across).await?;
    ensure!(answer.contains("may not connect to the database"), "{answer}");
    Ok(())
}

async fn rotation(stage: &Stage<'_>) -> Result<()> {
    let before = stage.sql(DEVELOPMENT, "select session_user").await?;
    stage.product.cli(&["services", "rotate", "front"], "")?;
    let words = [stage.psql.as_str(), "-X", "-A", "-t", "-q", "-c", "select session_user"].join("\n");
    let fresh = |answer: &str| answer.trim().starts_with("bastide_") && answer.trim() != before;
    stage.until(DEVELOPMENT, "/front/run", &words, fresh).await?;
    ensure!(stage.sql(DEVELOPMENT, "select * from notes").await? == "kept", "what was there is there");
    Ok(())
}

/// A secret comes into the environment of new replicas, in its stage alone, and is shown by no command.
async fn secrets(stage: &Stage<'_>) -> Result<()> {
    const SECRET: &str = "told-by-standard-input";
    stage.product.cli(&["secret", "set", "front", "OWN_KEY"], &format!("{SECRET}\n"))?;
    let found = ["-X", "-q", "-c", "\\getenv found OWN_KEY", "-c", "\\echo :found"];
    let words = [&[stage.psql.as_str()][..], &found].concat().join("\n");
    stage.until(DEVELOPMENT, "/front/run", &words, |answer| answer.trim() == SECRET).await?;
    let answer = stage.ask(TEST, "/front/run", &words).await?;
    ensure!(!answer.contains(SECRET), "{answer}");
    let listed = stage.json(&["settings", "list", "front"])?;
    ensure!(listed["settings"][0]["name"] == "OWN_KEY" && !listed.to_string().contains(SECRET), "{listed}");
    Ok(())
}

/// A runtime role that was killed takes its apps over, and they find again what they had.
async fn life_of_the_role(stage: &Stage<'_>) -> Result<()> {
    let role = stage.product.pid_of("runtime")?;
    kill(Pid::from_raw(role), Signal::SIGKILL)?;
    let begun = Instant::now();
    while !stage.product.pid_of("runtime").is_ok_and(|pid| pid != role)
        || !stage.product.data().join("run/runtime.ready").exists()
    {
        ensure!(begun.elapsed() < PATIENCE, "the role is not back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.until(DEVELOPMENT, "/front/call", "back.internal:80", |a| a.starts_with("back ")).await?;
    let words = [stage.psql.as_str(), "-X", "-A", "-t", "-q", "-c", "select * from notes"].join("\n");
    stage.until(DEVELOPMENT, "/front/run", &words, |answer| answer.trim() == "kept").await?;
    Ok(())
}
