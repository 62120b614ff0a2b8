//! Customers who publish at a started product, and how long each waits for an answer of what is new.

use crate::{Client, Options, Product, build_hello};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(3);
/// Size of a program.
const PROGRAM_BYTES: usize = 5_000_000;
/// Files of a site.
const FILES: usize = 300;
/// Size of each.
const FILE_BYTES: usize = 8 * 1024;

/// A product with customers.
pub struct Town {
    /// The product.
    pub product: Product,
    client: Client,
    executable: PathBuf,
    hello: PathBuf,
}

impl Town {
    /// Starts it.
    ///
    /// # Errors
    /// Whatever does not start.
    pub async fn start(executable: PathBuf, customers: usize) -> Result<Self> {
        let hello = build_hello(&executable)?;
        let arguments = vec!["--no-demo".to_owned()];
        let product = Product::start(Options { executable: executable.clone(), arguments }).await?;
        let client = product.client()?;
        let town = Self { product, client, executable, hello };
        let settled = (0..customers).try_for_each(|customer| town.settle(customer));
        town.product.explained(settled)?;
        Ok(town)
    }

    /// Makes a customer, and signs its administrator in.
    fn settle(&self, customer: usize) -> Result<()> {
        let platform = format!("https://operator.platform.localhost:{}", self.product.https_port);
        let secret = fs::read_to_string(self.product.data().join("keys/operator-client.secret"))?;
        let login = ["login", &platform, "--client-id", "supervisor", "--client-secret-stdin"];
        self.at_last(&login, &secret, &self.product.scratch().join("operator"))?;
        let (name, administrator) = (name(customer), "ann@example.com");
        let create = ["--json", "customer", "create", &name, "--administrator", administrator];
        let made = self.at_last(&create, "", &self.product.scratch().join("operator"))?;
        let made: Value = serde_json::from_str(&made)?;
        let link = made["invitation_link"].as_str().context("a link")?;
        let login = ["login", "--invitation", link, "--email", administrator, "--password-stdin"];
        self.at_last(&login, "Correct-Horse-Battery-1", &self.home(customer)).map(drop)
    }

    /// Publishes an app whose program nobody has seen; how long until it answers.
    pub async fn new_program(&self, customer: usize, turn: usize) -> Result<Duration> {
        let app = format!("program-{turn}");
        let dir = self.app_dir(
            customer,
            &app,
            "kind = \"binary\"\ncommand = [\"./server\"]\nhealth = \"/healthz\"",
        )?;
        let mut program = fs::read(&self.hello)?;
        ensure!(program.len() < PROGRAM_BYTES, "the example has {} bytes", program.len());
        // What follows the sections of an executable is not read, but travels and is kept.
        program.extend(noise(turn as u64 + 1, PROGRAM_BYTES - program.len()));
        fs::write(dir.join("server"), program)?;
        make_executable(&dir.join("server"))?;
        self.answers(customer, &["publish", &dir.display().to_string()], &app, "Hello").await
    }

    /// Publishes a site in which one file is new; how long until it is shown.
    pub async fn change_site(&self, customer: usize, turn: usize) -> Result<Duration> {
        let dir = self.app_dir(customer, "site", "kind = \"static\"")?;
        for number in 0..FILES {
            let file = dir.join(format!("file-{number}.bin"));
            if !file.exists() {
                fs::write(file, noise(number as u64 + 1, FILE_BYTES))?;
            }
        }
        fs::write(dir.join("index.html"), format!("turn {turn}."))?;
        let page = format!("turn {turn}.");
        self.answers(customer, &["publish", &dir.display().to_string()], "site", &page).await
    }

    /// Goes back to the revision before; how long until its page is shown.
    pub async fn roll_back_site(&self, customer: usize, turn: usize) -> Result<Duration> {
        self.answers(customer, &["rollback", "site"], "site", &format!("turn {turn}.")).await
    }

    /// Publishes a small site, when what is returned is awaited.
    pub fn publish_small(
        &self,
        customer: usize,
        app: usize,
    ) -> Result<impl Future<Output = Result<()>> + use<>> {
        let app = format!("small-{app}");
        let dir = self.app_dir(customer, &app, "kind = \"static\"")?;
        fs::write(dir.join("index.html"), format!("small {customer} {app}."))?;
        let (executable, data, home) = (self.executable.clone(), self.product.data(), self.home(customer));
        let (client, url) = (self.client.clone(), self.url(customer, &app));
        Ok(async move {
            let arguments = ["publish".to_owned(), dir.display().to_string()];
            command(&executable, &data, &home, &arguments).await?;
            until(&client, &url, &format!("small {customer} {app}.")).await
        })
    }

    fn app_dir(&self, customer: usize, app: &str, kind: &str) -> Result<PathBuf> {
        let dir = self.product.scratch().join(name(customer)).join(app);
        fs::create_dir_all(&dir)?;
        let route = "[[route]]\npath = \"/\"\naccess = \"public\"\n";
        let scale = "[scale]\nreplicas = 1\n";
        fs::write(dir.join("bastide.toml"), format!("[app]\nname = \"{app}\"\n{kind}\n{scale}{route}"))?;
        Ok(dir)
    }

    /// Where the command line of a customer keeps its credentials.
    fn home(&self, customer: usize) -> PathBuf {
        self.product.scratch().join("homes").join(name(customer))
    }

    fn url(&self, customer: usize, app: &str) -> String {
        format!("https://{}--development.apps.localhost:{}/{app}/", name(customer), self.product.https_port)
    }

    /// How long after a command began there is an answer with this word. The command may tell of the end a moment later.
    async fn answers(&self, customer: usize, command: &[&str], app: &str, word: &str) -> Result<Duration> {
        let begun = Instant::now();
        let first = async { self.until(customer, app, word).await.map(|()| begun.elapsed()) };
        let (done, first) = tokio::join!(self.run(customer, command), first);
        done?;
        first
    }

    async fn until(&self, customer: usize, app: &str, word: &str) -> Result<()> {
        until(&self.client, &self.url(customer, app), word).await
    }

    async fn run(&self, customer: usize, arguments: &[&str]) -> Result<()> {
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        command(&self.executable, &self.product.data(), &self.home(customer), &arguments).await.map(drop)
    }

    /// Edges and gateways hear of a new customer within a moment.
    fn at_last(&self, arguments: &[&str], input: &str, home: &Path) -> Result<String> {
        let begun = Instant::now();
        loop {
            let done = self.product.cli_at(home, arguments, input)?;
            if done.status.success() {
                return Ok(String::from_utf8(done.stdout)?);
            }
            let why = String::from_utf8_lossy(&done.stderr).into_owned();
            ensure!(begun.elapsed() < PATIENCE, "{arguments:?}: {why}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn name(customer: usize) -> String {
    format!("customer-{customer}")
}

async fn until(client: &Client, url: &str, word: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        match client.get(url).await {
            Ok(answer) if answer.status == 200 && answer.text().contains(word) => return Ok(()),
            _ if begun.elapsed() > PATIENCE => bail!("{url} never says {word}"),
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn command(executable: &Path, data: &Path, home: &Path, arguments: &[String]) -> Result<String> {
    let mut command = Command::new(executable);
    command.args(arguments).env("BASTIDE_DATA", data).env("XDG_CONFIG_HOME", home).env("NO_COLOR", "1");
    command.stdin(Stdio::null());
    let output = tokio::process::Command::from(command).output().await?;
    ensure!(
        output.status.success(),
        "{arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Bytes that no coder makes smaller.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let words = std::iter::from_fn(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.to_le_bytes())
    });
    words.flatten().take(length).collect()
}
