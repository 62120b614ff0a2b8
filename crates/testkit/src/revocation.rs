//! How long after somebody asked to end something anybody still gets in by it: measured at a started product, under load.

use crate::{Client, Options, Product, build_hello, load::Target};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Host of the app.
pub const HOST: &str = "demo--development.apps.localhost";
const PLATFORM: &str = "demo.platform.localhost";
const PASSWORD: &str = "Correct-horse-9\n";
/// Clients that show the token again and again.
const PROBERS: usize = 2;
/// Refusals in a row after which nothing is expected any more. Zones take turns: both gateways are among them.
const REFUSALS: usize = 8;
/// Answers before anything is revoked.
const BEFORE: usize = 8;
/// Only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);

/// What is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A session, by its token (RFC 7009).
    SignOut,
    /// A member.
    Suspension,
    /// A role of an app.
    LostRole,
    /// A client that acts for itself.
    Client,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SignOut, Self::Suspension, Self::LostRole, Self::Client];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::SignOut => "sign-out",
            Self::Suspension => "suspension",
            Self::LostRole => "lost role",
            Self::Client => "suspended client",
        }
    }
}

/// A product with somebody whose rights come and go.
pub struct Bench {
    /// The product.
    pub product: Product,
    client: Client,
    /// Header field of an administrator.
    boss: String,
    boss_secret: String,
    job_secret: String,
    bob: String,
}

impl Bench {
    /// Starts it.
    pub async fn start(executable: PathBuf) -> Result<Self> {
        build_hello(&executable)?;
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let arguments =
            vec!["--allow-no-isolation".into(), "--examples".into(), examples.display().to_string()];
        let product = Product::start(Options { executable, arguments }).await?;
        let up: Value = serde_json::from_str(&fs::read_to_string(product.data().join("run/up.json"))?)?;
        let link = up["invitation_link"].as_str().context("a link")?;
        let accept = |link: &str, email: &str| {
            let arguments = ["login", "--invitation", link, "--email", email, "--password-stdin"];
            product.cli(&arguments, PASSWORD)
        };
        accept(link, "admin@demo.localhost")?;
        let read = |text: String| -> Result<Value> { Ok(serde_json::from_str(&text)?) };
        let create = |id: &str, more: &[&str]| -> Result<String> {
            let arguments = ["--json", "client", "create", "--id", id, "--kind", "service"];
            let made = read(product.cli(&[&arguments[..], more].concat(), "")?)?;
            Ok(made["secret"].as_str().context("a secret")?.to_owned())
        };
        let boss_secret = create("boss", &["--role", "administrator"])?;
        let job_secret = create("job", &[])?;
        let invited = read(product.cli(&["--json", "member", "invite", Self::BOB], "")?)?;
        let members = read(product.cli(&["--json", "member", "list"], "")?)?;
        let of_bob =
            members.as_array().context("members")?.iter().find(|member| member["email"] == Self::BOB);
        let bob = of_bob.and_then(|member| member["id"].as_str()).context("bob")?.to_owned();
        accept(invited["link"].as_str().context("a link")?, Self::BOB)?;
        let client = product.client()?;
        let mut bench = Self { product, client, boss: String::new(), boss_secret, job_secret, bob };
        let token = bench.client_token("boss", &bench.boss_secret, None).await?;
        bench.boss = format!("Bearer {token}");
        Ok(bench)
    }

    /// Address of the member whose rights come and go.
    pub const BOB: &str = "bob@demo.localhost";

    /// The command line becomes Bob.
    ///
    /// # Errors
    /// When he may not sign in.
    pub fn sign_in_bob(&self) -> Result<()> {
        let login = ["login", &self.url(PLATFORM, ""), "--email", Self::BOB, "--password-stdin"];
        self.product.cli(&login, PASSWORD).map(drop)
    }

    /// The command line becomes a client that may do what administrators may.
    pub fn sign_in_boss(&self) -> Result<()> {
        let login = ["login", &self.url(PLATFORM, ""), "--client-id", "boss", "--client-secret-stdin"];
        self.product.cli(&login, &self.boss_secret).map(drop)
    }

    /// A path of the Platform.
    pub fn platform(&self, path: &str) -> Result<Target> {
        let mut target = self.target(path)?;
        target.host = PLATFORM.into();
        Ok(target)
    }

    /// Where a load of other users goes.
    pub fn others(&self) -> Result<Target> {
        self.target("/hello/")
    }

    /// Ends something once; how long after the request was sent to do so the last one got in.
    ///
    /// # Errors
    /// When nothing was refused, or was for another reason.
    pub async fn end_once(&self, kind: Kind) -> Result<Duration> {
        let path = if kind == Kind::LostRole { "/hello/admin" } else { "/hello/me" };
        let token = self.prepare(kind).await?;
        let mut probers = JoinSet::new();
        let (seen, mut answers) = tokio::sync::mpsc::channel(1024);
        for _ in 0..PROBERS {
            let prober = Prober { target: self.target(path)?, token: token.clone() };
            let seen = seen.clone();
            probers.spawn(async move { prober.run(&seen).await });
        }
        drop(seen);
        for _ in 0..BEFORE {
            let (_, status) = answers.recv().await.context("an answer")?;
            ensure!(status == StatusCode::OK, "{}: {status} before", kind.word());
        }
        let asked = Instant::now();
        self.end(kind, &token).await?;
        let mut last = asked;
        while let Some((at, status)) = answers.recv().await {
            ensure!(asked.elapsed() < PATIENCE, "{}: never refused", kind.word());
            match status {
                StatusCode::OK => last = last.max(at),
                StatusCode::UNAUTHORIZED => {}
                other => bail!("{}: {other}", kind.word()),
            }
        }
        while let Some(prober) = probers.join_next().await {
            prober??;
        }
        Ok(last - asked)
    }

    /// Gives the right that will be taken; a token that shows it.
    async fn prepare(&self, kind: Kind) -> Result<String> {
        match kind {
            Kind::Client => {
                self.as_boss(Method::PUT, "/api/v1/clients/job/suspension", json!({ "suspended": false }))
                    .await?;
                self.client_token("job", &self.job_secret, Some(&self.app())).await
            }
            _ => {
                let path = format!("/api/v1/members/{}/suspension", self.bob);
                self.as_boss(Method::PUT, &path, json!({ "suspended": false })).await?;
                if kind == Kind::LostRole {
                    let role = json!({ "stage": "development", "role": "admin", "email": Self::BOB });
                    self.as_boss(Method::PUT, "/api/v1/apps/hello/roles", role).await?;
                }
                self.sign_in_bob()?;
                let token = self.product.cli(&["token", "--app", "hello", "--stage", "development"], "")?;
                Ok(token.trim().to_owned())
            }
        }
    }

    async fn end(&self, kind: Kind, token: &str) -> Result<()> {
        let suspended = json!({ "suspended": true });
        match kind {
            Kind::SignOut => {
                let form = format!("token={token}&client_id=bastide-cli");
                self.form("/identity/s/development/revoke", &form).await.map(drop)
            }
            Kind::Suspension => {
                self.as_boss(Method::PUT, &format!("/api/v1/members/{}/suspension", self.bob), suspended)
                    .await
            }
            Kind::LostRole => {
                let path = format!("/api/v1/apps/hello/roles/development/admin/{}", self.bob);
                self.as_boss(Method::DELETE, &path, Value::Null).await
            }
            Kind::Client => self.as_boss(Method::PUT, "/api/v1/clients/job/suspension", suspended).await,
        }
    }

    async fn as_boss(&self, method: Method, path: &str, body: Value) -> Result<()> {
        let fields = [("authorization", self.boss.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.client.send(method, &self.url(PLATFORM, path), &fields, body).await?;
        ensure!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text());
        Ok(())
    }

    async fn client_token(&self, id: &str, secret: &str, resource: Option<&str>) -> Result<String> {
        let mut form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        if let Some(resource) = resource {
            form.push_str(&format!("&resource={resource}"));
        }
        let answer = self.form("/identity/token", &form).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        Ok(answer["access_token"].as_str().context("a token")?.to_owned())
    }

    async fn form(&self, path: &str, form: &str) -> Result<Bytes> {
        let fields = [("content-type", "application/x-www-form-urlencoded")];
        let url = self.url(PLATFORM, path);
        let answer = self.client.send(Method::POST, &url, &fields, form.to_owned()).await?;
        ensure!(answer.status == StatusCode::OK, "{path}: {} {}", answer.status, answer.text());
        Ok(answer.body)
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.product.https_port)
    }

    fn app(&self) -> String {
        self.url(HOST, "/hello")
    }

    fn target(&self, path: &str) -> Result<Target> {
        Target::new(&self.product.data().join("ca/local.pem"), HOST, self.product.https_port, path)
    }
}

/// Shows a token again and again over one connection.
struct Prober {
    target: Target,
    token: String,
}

impl Prober {
    /// Until it was refused often enough in a row; tells when each answer came.
    async fn run(&self, seen: &tokio::sync::mpsc::Sender<(Instant, StatusCode)>) -> Result<()> {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", self.token))?;
        let mut sender = self.target.http1().await?;
        let mut refusals = 0;
        while refusals < REFUSALS {
            let mut request = self.target.request(&self.target.path)?;
            request.headers_mut().insert(header::AUTHORIZATION, bearer.clone());
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            response.into_body().collect().await?;
            refusals = if status == StatusCode::OK { 0 } else { refusals + 1 };
            if seen.send((Instant::now(), status)).await.is_err() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}
