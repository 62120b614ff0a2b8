//! How the hosts of a stage behave, in the product: set by the command line, obeyed by a running edge.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{Answer, Client, Options, Product};
use http::Method;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);
const HOST: &str = "demo--development.apps.localhost";
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
const PASSWORD: &str = "Correct-horse-9\n";

struct Town<'p> {
    product: &'p Product,
    client: Client,
}

impl Town<'_> {
    fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.product.https_port)
    }

    fn site(&self, arguments: &[&str]) -> Result<String> {
        self.product.cli(&[&["site"], arguments].concat(), "")
    }

    /// What a command says that is refused.
    fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.product.try_cli(&[&["site"], arguments].concat(), "")?;
        ensure!(!output.status.success(), "{arguments:?} is taken");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        self.client.send(Method::GET, &self.url(path), fields, "").await
    }

    /// Asks as a browser until the answer is as it should be: settings take a moment to the edge.
    async fn until(&self, path: &str, done: impl Fn(&Answer) -> bool) -> Result<Answer> {
        let begun = Instant::now();
        loop {
            let answer = self.get(path, &[BROWSER]).await?;
            if done(&answer) {
                return Ok(answer);
            }
            ensure!(begun.elapsed() < PATIENCE, "{path}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_has_its_own_pages_maintenance_redirects_and_security_fields() -> Result<()> {
    let executable = Path::new(env!("CARGO_BIN_EXE_bastide"));
    bastide_testkit::build_hello(executable)?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").display().to_string();
    let arguments = ["--allow-no-isolation", "--examples", &examples].map(str::to_owned);
    let options = Options { executable: executable.to_owned(), arguments: arguments.into() };
    let mut product = Product::start(options).await?;
    let outcome = async {
        let town = Town { product: &product, client: product.client()? };
        let edge = product.pid_of("edge")?;
        sign_in(&town)?;
        error_pages(&town).await?;
        redirects(&town).await?;
        maintenance(&town).await?;
        security_fields(&town).await?;
        reset(&town).await?;
        ensure!(product.pid_of("edge")? == edge, "the same edge did all this");
        Ok(())
    };
    product.explained(outcome.await)?;
    product.down()
}

fn sign_in(town: &Town<'_>) -> Result<()> {
    let up: Value = serde_json::from_str(&fs::read_to_string(town.product.data().join("run/up.json"))?)?;
    let link = up["invitation_link"].as_str().context("a first start prints a link")?;
    let login = ["login", "--invitation", link, "--email", "admin@demo.localhost", "--password-stdin"];
    town.product.cli(&login, PASSWORD)?;
    Ok(())
}

async fn error_pages(town: &Town<'_>) -> Result<()> {
    let plain = town.get("/nothing/", &[BROWSER]).await?;
    ensure!(plain.status == 404 && plain.text().contains("B-EDGE-0404"), "{plain:?}");
    let file = town.product.scratch().join("404.html");
    // Markup and scripts on their way through the firewall.
    let html =
        "<!doctype html><script>document.title = 'x'</script><h1>Lost</h1><p>{{code}} {{request_id}}</p>";
    fs::write(&file, html)?;
    let file = file.display().to_string();
    town.site(&["page", "set", "404", &file])?;
    let page = town.until("/nothing/", |answer| answer.text().contains("<h1>Lost</h1>")).await?;
    ensure!(page.status == 404 && page.header("cache-control") == "no-store", "{page:?}");
    ensure!(page.text().contains(&format!("B-EDGE-0404 {}", page.header("x-request-id"))), "{}", page.text());
    let problem = town.get("/nothing/", &[("accept", "application/json")]).await?.json()?;
    ensure!(problem["code"] == "B-EDGE-0404", "{problem}");
    ensure!(town.site(&["page", "show", "404"])?.trim_end() == html);
    // What an app says is its own.
    let own = town.get("/site/nothing.html", &[BROWSER]).await?;
    ensure!(own.status == 404 && !own.text().contains("Lost"), "{own:?}");
    ensure!(town.refused(&["page", "set", "418", &file])?.contains("418"));
    fs::write(town.product.scratch().join("large.html"), "x".repeat(40_000))?;
    let large = town.product.scratch().join("large.html").display().to_string();
    ensure!(town.refused(&["page", "set", "404", &large])?.contains("B-SITE-0422"));
    Ok(())
}

async fn redirects(town: &Town<'_>) -> Result<()> {
    town.site(&["redirect", "add", "/", "/hello/", "--status", "302"])?;
    town.site(&["redirect", "add", "/old/*", "/site/*"])?;
    let sent = town.until("/", |answer| answer.status == 302).await?;
    ensure!(sent.header("location") == "/hello/", "{sent:?}");
    let sent = town.until("/old/logo.svg?v=1", |answer| answer.status == 301).await?;
    ensure!(sent.header("location") == "/site/logo.svg?v=1", "{sent:?}");
    let attack = town.get("/old/?q=%27%20or%201=1--%20", &[BROWSER]).await?;
    ensure!(attack.status == 403, "the firewall comes first: {attack:?}");
    ensure!(town.refused(&["redirect", "add", "/a", "//evil.example/"])?.contains("one slash"));
    town.site(&["redirect", "add", "/hello/x", "/old/x"])?;
    ensure!(town.refused(&["redirect", "add", "/site/*", "/old/*"])?.contains("circle"));
    ensure!(town.refused(&["redirect", "add", "/.bastide/x", "/y"])?.contains("belong to Bastide"));
    town.site(&["redirect", "remove", "/"])?;
    town.until("/", |answer| answer.status == 404).await?;
    Ok(())
}

async fn maintenance(town: &Town<'_>) -> Result<()> {
    let before = town.until("/hello/", |answer| answer.status == 200).await?;
    ensure!(!before.header("x-bastide-replica").is_empty(), "{before:?}");
    town.site(&["maintenance", "on", "--app", "hello", "--retry-after", "60"])?;
    let closed = town.until("/hello/", |answer| answer.status == 503).await?;
    ensure!(closed.header("retry-after") == "60" && closed.text().contains("B-SITE-0503"), "{closed:?}");
    ensure!(town.get("/site/", &[BROWSER]).await?.status == 200, "the other app is open");
    // The app runs on behind it.
    let status = town.product.cli(&["status", "hello"], "")?;
    ensure!(status.contains("ready") && !status.contains("failed"), "{status}");
    town.site(&["maintenance", "on", "--app", "hello", "--open-for", "127.0.0.0/8"])?;
    town.until("/hello/", |answer| answer.status == 200).await?;
    town.site(&["maintenance", "off", "--app", "hello"])?;
    town.site(&["maintenance", "on", "--open-for", "192.0.2.0/24"])?;
    town.until("/site/", |answer| answer.status == 503).await?;
    ensure!(town.get("/nothing/", &[BROWSER]).await?.status == 503, "all of it");
    town.site(&["maintenance", "off"])?;
    let after = town.until("/hello/", |answer| answer.status == 200).await?;
    ensure!(after.text().contains("Hello from replica"), "{}", after.text());
    ensure!(town.refused(&["maintenance", "off"])?.contains("is not closed"));
    Ok(())
}

async fn security_fields(town: &Town<'_>) -> Result<()> {
    let default = town.get("/site/", &[]).await?;
    ensure!(default.header("x-content-type-options") == "nosniff", "{default:?}");
    ensure!(default.header("content-security-policy").is_empty(), "{default:?}");
    let policy = "default-src 'self'; object-src 'none'; script-src 'self' 'unsafe-inline'";
    town.site(&["field", "set", "content-security-policy", policy])?;
    // Stored answers, too.
    let set = town.until("/site/", |answer| !answer.header("content-security-policy").is_empty()).await?;
    ensure!(set.header("content-security-policy") == policy, "{set:?}");
    ensure!(town.refused(&["field", "set", "set-cookie", "a=b"])?.contains("fields that can be set are"));
    ensure!(town.refused(&["field", "set", "x-frame-options", "MAYBE"])?.contains("B-SITE-0422"));
    town.site(&["field", "off", "x-frame-options"])?;
    town.until("/site/", |answer| answer.header("x-frame-options").is_empty()).await?;
    let shown = town.site(&["field", "list"])?;
    ensure!(shown.contains("x-frame-options: left to the apps"), "{shown}");
    Ok(())
}

async fn reset(town: &Town<'_>) -> Result<()> {
    town.site(&["reset"])?;
    let plain = town.until("/nothing/", |answer| !answer.text().contains("Lost")).await?;
    ensure!(plain.text().contains("B-EDGE-0404"), "{plain:?}");
    let answer = town.until("/site/", |answer| answer.header("x-frame-options") == "SAMEORIGIN").await?;
    ensure!(answer.header("content-security-policy").is_empty(), "{answer:?}");
    let shown = town.site(&["show"])?;
    ensure!(shown.starts_with("development: open\ndevelopment: built-in pages\n"), "{shown}");
    Ok(())
}
