//! Custom domains in the product: claimed and proven by the command line, served by the edge, with a name server and
//! certificates of our own.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{Client, Dns, Options, Product, free_port};
use bastide_tls::LocalCa;
use http::Method;
use serde_json::Value;
use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use time::OffsetDateTime;

/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);
const ALL: &str = "apps.example.com";
const ONE: &str = "hello.example.com";
const STAGE: &[&str] = &["--stage", "development"];

struct Town<'p> {
    product: &'p Product,
    dns: &'p Dns,
    dir: &'p Path,
}

impl Town<'_> {
    fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.product.https_port)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.product.cli(&[&["--json"], arguments].concat(), "")?)?)
    }

    fn shown(&self, domain: &str) -> Result<Value> {
        let all = self.json(&["domain", "list"])?;
        let found = all.as_array().into_iter().flatten().find(|one| one["domain"] == domain);
        found.cloned().with_context(|| format!("{domain} is not listed: {all}"))
    }

    /// Claims a domain, writes what is asked for into the DNS, and proves it.
    fn prove(&self, domain: &str, more: &[&str]) -> Result<()> {
        let made = self.json(&[&["domain", "add", domain], STAGE, more].concat())?;
        let record = &made["record"];
        let text = |key: &str| record[key].as_str().unwrap_or_default();
        self.dns.set_texts(text("name"), &[text("value")]);
        self.dns.set_address(domain, Ipv4Addr::LOCALHOST);
        let begun = Instant::now();
        // The Platform looks by itself, too, and not twice within five seconds.
        while self.shown(domain)?["state"] == "pending-validation" {
            ensure!(begun.elapsed() < PATIENCE, "{domain}: {}", self.shown(domain)?);
            let _ = self.product.try_cli(&["domain", "verify", domain], "")?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Uploads a certificate of a new authority; a client that trusts only that one.
    fn upload(&self, domain: &str) -> Result<Client> {
        let now = OffsetDateTime::now_utc();
        let ca = LocalCa::create_public(&["example.com".into()], now)?;
        let at = |name: &str| self.dir.join(name);
        ca.write(&at("ca.pem"), &at("ca.key"))?;
        ca.issue_site(&[domain.into()], now)?.write(&at("cert.pem"), &at("cert.key"))?;
        let (cert, key) = (at("cert.pem").display().to_string(), at("cert.key").display().to_string());
        self.product.cli(&["domain", "certificate", domain, "--cert", &cert, "--key", &key], "")?;
        Client::trusting(&at("ca.pem"))
    }

    /// Asks until the answer has this status: certificates and routes take a moment to the edge.
    async fn until(&self, client: &Client, host: &str, path: &str, status: u16) -> Result<String> {
        let begun = Instant::now();
        loop {
            let answer = client.get(&self.url(host, path)).await;
            match answer {
                Ok(answer) if answer.status == status => return Ok(answer.text()),
                other => ensure!(begun.elapsed() < PATIENCE, "{host}{path}: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Starts the product with these settings of custom domains.
async fn start(dir: &Path, settings: &str) -> Result<Product> {
    let executable = Path::new(env!("CARGO_BIN_EXE_bastide"));
    bastide_testkit::build_hello(executable)?;
    let file = dir.join("domains.toml");
    fs::write(&file, settings)?;
    let file = file.display().to_string();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").display().to_string();
    let arguments =
        ["--allow-no-isolation", "--examples", &examples, "--domain-settings", &file].map(str::to_owned);
    Product::start(Options { executable: executable.to_owned(), arguments: arguments.into() }).await
}

/// Signs in as the first customer's automation.
fn sign_in(town: &Town<'_>) -> Result<()> {
    let file = town.product.data().join("keys/demo-client.json");
    let demo: Value = serde_json::from_slice(&fs::read(file)?)?;
    let (id, secret) = (demo["id"].as_str().context("id")?, demo["secret"].as_str().context("secret")?);
    let platform = town.url("demo.platform.localhost", "");
    town.product.cli(&["login", &platform, "--client-id", id, "--client-secret-stdin"], secret)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_of_ones_own_is_proven_served_and_given_up() -> Result<()> {
    let (dns, dir) = (Dns::start(), tempfile::tempdir()?);
    let mut product = start(dir.path(), &format!("name_servers = [\"{}\"]\n", dns.address())).await?;
    let outcome = async {
        let town = Town { product: &product, dns: &dns, dir: dir.path() };
        sign_in(&town)?;
        all_apps(&town).await?;
        one_app(&town).await?;
        given_up(&town).await
    };
    product.explained(outcome.await)?;
    product.down()
}

/// A domain for all apps of a stage.
async fn all_apps(town: &Town<'_>) -> Result<()> {
    let refused =
        town.product.try_cli(&["domain", "add", "x.apps.localhost", "--stage", "development"], "")?;
    ensure!(!refused.status.success(), "the base domains are nobody's");
    town.prove(ALL, &[])?;
    let any = town.product.client()?;
    ensure!(any.get(&town.url(ALL, "/hello/")).await.is_err(), "there is no certificate yet");
    let client = town.upload(ALL)?;
    let page = town.until(&client, ALL, "/hello/", 200).await?;
    ensure!(page.contains("Hello from replica"), "{page}");
    town.until(&client, ALL, "/site/", 200).await?;
    town.until(&client, ALL, "/nothing/", 404).await?;
    let answer = client.get(&town.url(ALL, "/hello/")).await?;
    ensure!(answer.header("strict-transport-security").is_empty(), "its owner decides");
    // Another certificate takes its place without a restart.
    let before = town.dir.join("before.pem");
    fs::copy(town.dir.join("ca.pem"), &before)?;
    let newer = town.upload(ALL)?;
    town.until(&newer, ALL, "/hello/", 200).await?;
    // A client that never was here: the other would resume its session.
    let client = Client::trusting(&before)?;
    ensure!(client.get(&town.url(ALL, "/hello/")).await.is_err(), "the one before is gone");
    Ok(())
}

/// A domain for one app, at `/`.
async fn one_app(town: &Town<'_>) -> Result<()> {
    town.prove(ONE, &["--app", "hello"])?;
    let client = town.upload(ONE)?;
    town.until(&client, ONE, "/", 200).await?;
    town.until(&client, ONE, "/healthz", 200).await?;
    // No other app, and no path of authorities reaches it.
    let foreign = client.get(&town.url(ONE, "/site/")).await?;
    ensure!(foreign.header("x-bastide-replica").len() == 36, "hello answers: {foreign:?}");
    for path in [
        "/.well-known/acme-challenge/x",
        "/.well-known%2Facme-challenge/x",
        "//.well-known/./acme-challenge/x",
    ] {
        let answer = client.get(&town.url(ONE, path)).await?;
        ensure!(answer.status == 404 && answer.header("x-bastide-replica").is_empty(), "{path}: {answer:?}");
    }
    // Who must sign in is sent to the customer's sign-in, which knows the way back to this host.
    let browser = [("accept", "text/html"), ("sec-fetch-mode", "navigate")];
    let sent = client.send(Method::GET, &town.url(ONE, "/me"), &browser, "").await?;
    let location = sent.header("location").to_owned();
    ensure!(sent.status == 302 && location.contains("hello.example.com"), "{sent:?}");
    let page = town.product.client()?.send(Method::GET, &location, &browser, "").await?;
    ensure!(page.status == 200 && page.text().contains("password"), "{}", page.text());
    // Addresses are shown with the default domain, and tokens are given for it.
    town.product.cli(&["domain", "default", ONE], "")?;
    let status = town.product.cli(&["status", "hello"], "")?;
    ensure!(status.contains(&town.url(ONE, "/")), "{status}");
    let token = town.product.cli(&["token", "--app", "hello", "--stage", "development"], "")?;
    let bearer = format!("Bearer {}", token.trim());
    let me = client.send(Method::GET, &town.url(ONE, "/me"), &[("authorization", &bearer)], "").await?;
    ensure!(me.status == 200, "{me:?}");
    // A page that edges store is purged by the address that people use.
    town.product.cli(&["cache", "purge", &town.url(ONE, "/x")], "")?;
    Ok(())
}

/// What was given up serves no more.
async fn given_up(town: &Town<'_>) -> Result<()> {
    let client = Client::trusting(&town.dir.join("ca.pem"))?;
    town.product.cli(&["domain", "remove", ONE], "")?;
    let begun = Instant::now();
    while client.get(&town.url(ONE, "/")).await.is_ok() {
        ensure!(begun.elapsed() < PATIENCE, "it still serves");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let left = town.json(&["domain", "list"])?;
    ensure!(left.as_array().is_some_and(|left| left.len() == 1 && left[0]["domain"] == ALL), "{left}");
    Ok(())
}

/// An authority that speaks ACME, ended when it is dropped.
struct Pebble(Child);

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pebble {
    /// Starts Debian's `pebble`; it looks for domains at the product's ports and asks our name server.
    fn start(dir: &Path, product: &Product, dns: &Dns, (port, management): (u16, u16)) -> Result<Self> {
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": dir.join("pebble.pem"), "privateKey": dir.join("pebble.key"),
            "httpPort": product.http_port, "tlsPort": product.https_port,
            "ocspResponderURL": "", "externalAccountBindingRequired": false } });
        let file = dir.join("pebble.json");
        fs::write(&file, config.to_string())?;
        let log = fs::File::create(dir.join("pebble.log"))?;
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(&file).args(["-dnsserver", &dns.address().to_string()]);
        // No pauses; and each order is looked at anew, though it was looked at before.
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        Ok(Self(pebble.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?))
    }

    fn is_installed() -> bool {
        let there = Command::new("pebble").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if there.is_err() {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED certificates by ACME: there is no `pebble` (apt-get install pebble)"
            );
        }
        there.is_ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_come_from_an_authority_by_each_kind_of_challenge() -> Result<()> {
    if !Pebble::is_installed() {
        return Ok(());
    }
    for challenge in ["http-01", "tls-alpn-01"] {
        by_acme(challenge).await.context(challenge)?;
    }
    Ok(())
}

async fn by_acme(challenge: &str) -> Result<()> {
    let (dns, dir) = (Dns::start(), tempfile::tempdir()?);
    let now = OffsetDateTime::now_utc();
    let ca = LocalCa::create_public(&["localhost".into()], now)?;
    ca.write(&dir.path().join("authority.pem"), &dir.path().join("authority.key"))?;
    ca.issue_site(&["localhost".into()], now)?
        .write(&dir.path().join("pebble.pem"), &dir.path().join("pebble.key"))?;
    let ports = (free_port(), free_port());
    let settings = format!(
        "name_servers = [\"{}\"]\n[acme]\ndirectory = \"https://localhost:{}/dir\"\ncontact = \"ops@example.com\"\n\
         ca_file = \"{}\"\nchallenges = [\"{challenge}\"]\n",
        dns.address(),
        ports.0,
        dir.path().join("authority.pem").display()
    );
    let mut product = start(dir.path(), &settings).await?;
    let outcome = async {
        let _pebble = Pebble::start(dir.path(), &product, &dns, ports)?;
        let town = Town { product: &product, dns: &dns, dir: dir.path() };
        sign_in(&town)?;
        town.prove(ALL, &[])?;
        let begun = Instant::now();
        let shown = loop {
            let shown = town.shown(ALL)?;
            if shown["certificate"] == "acme" {
                break shown;
            }
            ensure!(begun.elapsed() < PATIENCE, "{shown}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        ensure!(shown["certificate_until"].as_str().is_some_and(|until| until > "2026"), "{shown}");
        // Whose root it is, the authority says by its other door.
        let door = Client::trusting(&dir.path().join("authority.pem"))?;
        let root = door.get(&format!("https://localhost:{}/roots/0", ports.1)).await?;
        fs::write(dir.path().join("root.pem"), &root.body)?;
        let client = Client::trusting(&dir.path().join("root.pem"))?;
        town.until(&client, ALL, "/site/", 200).await?;
        // Nothing is left that would be answered.
        let plain = format!("http://{ALL}:{}/.well-known/acme-challenge/x", product.http_port);
        let answer = client.get(&plain).await?;
        ensure!(answer.status == 404 && answer.body.is_empty(), "{answer:?}");
        Ok(())
    };
    let told = || fs::read_to_string(dir.path().join("pebble.log")).unwrap_or_default();
    product.explained(outcome.await.with_context(told))?;
    product.down()
}
