//! What a first start leaves for its user: a customer, two published examples, and how to go on.
//!
//! It uses the public API over HTTPS, as any user would, with the operator's API client.

use crate::{args::UpArgs, bootstrap::zones, files, layout::Layout};
use anyhow::{Context, Result, bail};
use bastide_cli::{Client, client_token, pack};
use bastide_types::{API, AppName, CustomerName, Domains, Secret, StageName};
use bytes::Bytes;
use http::{Method, header};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const OPERATOR_CLIENT: &str = "supervisor";
/// Address of the first administrator; only a name to sign in with.
const ADMINISTRATOR: &str = "admin@demo.localhost";
/// Longest wait until a new customer's hosts are served.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for the first deployments.
const DEPLOY_LIMIT: Duration = Duration::from_secs(90);

/// What `up` tells.
#[derive(Debug, Serialize)]
pub struct Report {
    platform_url: Option<String>,
    administrator_email: Option<String>,
    invitation_link: Option<String>,
    operator_url: String,
    apps: Vec<String>,
    ca: PathBuf,
}

/// What is remembered of the first customer: its API client, the link until it is used, and whether the
/// examples were published: a start that fails in between is gone on with by the next.
#[derive(Debug, Serialize, Deserialize)]
struct Demo {
    id: String,
    secret: Secret,
    invitation_link: String,
    #[serde(default)]
    published: bool,
}

/// Creates the customer `demo` and publishes the examples, unless that was done before.
pub async fn run(layout: &Layout, domains: &Domains, args: &UpArgs, executable: &Path) -> Result<Report> {
    let mut report = Report {
        platform_url: None,
        administrator_email: None,
        invitation_link: None,
        operator_url: domains.platform_url(&CustomerName::operator()),
        apps: Vec::new(),
        ca: layout.local_ca(),
    };
    if args.no_demo {
        return Ok(report);
    }
    let name = CustomerName::new("demo")?;
    let client = Client::trusting(&layout.local_ca())?;
    let url = domains.platform_url(&name);
    let known = files::read_json::<Demo>(&layout.demo_client())?;
    let examples = match &known {
        Some(demo) if demo.published => Vec::new(),
        _ => examples(layout, args, executable)?,
    };
    let mut demo = match known {
        Some(demo) => demo,
        None => create(layout, domains, &client).await?,
    };
    let session = sign_in(&client, &url, &demo.id, &demo.secret).await?;
    for example in &examples {
        session.publish(example).await.with_context(|| format!("cannot publish {}", example.display()))?;
    }
    if !demo.published {
        demo.published = true;
        demo.remember(layout)?;
    }
    let stage = StageName::development();
    for app in session.get("/apps").await?.as_array().into_iter().flatten() {
        if let Some(app) = app["name"].as_str().and_then(|app| AppName::new(app).ok()) {
            report.apps.push(format!("{}/", domains.app_url(&name, &stage, &app)));
        }
    }
    report.platform_url = Some(session.url.clone());
    report.administrator_email = Some(ADMINISTRATOR.into());
    let members = session.get("/members").await?;
    let invited = members
        .as_array()
        .into_iter()
        .flatten()
        .any(|m| m["email"] == ADMINISTRATOR && m["state"] == "invited");
    // The link was made when ports may have been others.
    let path = demo.invitation_link.find("/identity/").map(|at| &demo.invitation_link[at..]);
    report.invitation_link = path.filter(|_| invited).map(|path| format!("{}{path}", session.url));
    Ok(report)
}

/// Signs in with an API client. Its host and the keys of its issuer are known to the edge and the gateways
/// as soon as the newest Snapshot has arrived there, so it asks until each zone has let it in.
async fn sign_in(client: &Client, url: &str, id: &str, secret: &Secret) -> Result<Session> {
    let begun = std::time::Instant::now();
    loop {
        match welcome(client, url, id, secret).await {
            Err(_) if begun.elapsed() < SNAPSHOT_LIMIT => tokio::time::sleep(Duration::from_millis(50)).await,
            outcome => return outcome,
        }
    }
}

async fn welcome(client: &Client, url: &str, id: &str, secret: &Secret) -> Result<Session> {
    let token = client_token(client, url, id, secret, None).await?.access_token;
    let session = Session { token, client: client.clone(), url: url.to_owned() };
    for _zone in zones() {
        session.get("/whoami").await?;
    }
    Ok(session)
}

async fn create(layout: &Layout, domains: &Domains, client: &Client) -> Result<Demo> {
    let operator = domains.platform_url(&CustomerName::operator());
    let secret = Secret::new(fs::read_to_string(layout.operator_client())?.trim());
    let session = sign_in(client, &operator, OPERATOR_CLIENT, &secret).await?;
    let body = serde_json::json!({ "name": "demo", "administrator_email": ADMINISTRATOR });
    let made = session.send(Method::POST, "/customers", "application/json", body.to_string().into()).await?;
    let text =
        |value: &serde_json::Value| value.as_str().map(str::to_owned).context("the answer is incomplete");
    let demo = Demo {
        id: text(&made["client"]["id"])?,
        secret: Secret::new(text(&made["client"]["secret"])?),
        invitation_link: text(&made["invitation_link"])?,
        published: false,
    };
    demo.remember(layout)?;
    Ok(demo)
}

impl Demo {
    fn remember(&self, layout: &Layout) -> Result<()> {
        files::write_private(&layout.demo_client(), &serde_json::to_vec(self)?)?;
        Ok(())
    }
}

/// Directories to publish: the static site as it is, and `hello` with its built program.
fn examples(layout: &Layout, args: &UpArgs, executable: &Path) -> Result<Vec<PathBuf>> {
    let dir = match &args.examples {
        Some(dir) => dir.clone(),
        // `target/<profile>/bastide` lies in the workspace that holds the examples.
        None => {
            match executable.ancestors().nth(3).map(|root| root.join("examples")).filter(|dir| dir.exists()) {
                Some(dir) => dir,
                None => return Ok(Vec::new()),
            }
        }
    };
    let site = dir.join("site");
    let manifest = dir.join("hello/bastide.toml");
    if !site.is_dir() || !manifest.is_file() {
        bail!("{} does not hold the examples `site` and `hello`", dir.display());
    }
    let program = hello(executable);
    let bundle = layout.run().join("hello");
    let mut found = vec![site];
    if program.exists() {
        files::private_dir(&bundle)?;
        fs::copy(manifest, bundle.join("bastide.toml"))?;
        fs::copy(&program, bundle.join("hello"))?;
        found.push(bundle);
    }
    Ok(found)
}

/// The program of the example: linked statically below `target/static/<profile>`, as `./start` builds it, or
/// beside an installed executable.
fn hello(executable: &Path) -> PathBuf {
    let built = || {
        let profile = executable.parent()?;
        Some(profile.parent()?.join("static").join(profile.file_name()?).join("hello"))
    };
    built().filter(|path| path.exists()).unwrap_or_else(|| executable.with_file_name("hello"))
}

struct Session {
    client: Client,
    url: String,
    token: Secret,
}

impl Session {
    async fn get(&self, path: &str) -> Result<serde_json::Value> {
        self.send(Method::GET, path, "application/json", Bytes::new()).await
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: Bytes) -> Result<serde_json::Value> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{API}{path}", self.url))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.expose()))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "bastide-up")
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(body))?;
        self.client.send(request).await?.json()
    }

    async fn publish(&self, dir: &Path) -> Result<()> {
        #[derive(Deserialize)]
        struct Named {
            app: App,
        }
        #[derive(Deserialize)]
        struct App {
            name: AppName,
        }
        let named: Named = toml::from_str(&fs::read_to_string(dir.join("bastide.toml"))?)?;
        let path = format!("/apps/{}/publish", named.app.name);
        let begun = self.send(Method::POST, &path, "application/gzip", pack(dir)?.into()).await?;
        let operation = begun["operation"].as_str().context("the answer is incomplete")?.to_owned();
        tokio::time::timeout(DEPLOY_LIMIT, self.finished(&operation)).await.context("it took too long")?
    }

    async fn finished(&self, operation: &str) -> Result<()> {
        loop {
            let state = self.get(&format!("/operations/{operation}")).await?;
            match state["status"].as_str() {
                Some("running") => tokio::time::sleep(Duration::from_millis(50)).await,
                Some("finished") => return Ok(()),
                _ => bail!("{}", state["problem"]),
            }
        }
    }
}

impl Report {
    /// For programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people.
    pub fn text(&self, layout: &Layout, took: Duration) -> String {
        let mut lines = vec![format!("Bastide is up ({:.1} s).", took.as_secs_f64()), String::new()];
        if let Some(url) = &self.platform_url {
            lines.push(format!("  Portal and API   {url}"));
        }
        if let (Some(link), Some(email)) = (&self.invitation_link, &self.administrator_email) {
            lines.push(format!("  Administrator    {email}: open this link once to choose a password"));
            lines.push(format!("                   {link}"));
        }
        for app in &self.apps {
            lines.push(format!("  App              {app}"));
        }
        let ca = self.ca.display();
        if let Some(app) = self.apps.first() {
            lines.push(format!("  Try it           curl --cacert '{ca}' '{app}'"));
        }
        lines.push(format!("  Operator         {}", self.operator_url));
        lines.push(format!("  Local CA         {ca} (import it into your browser)"));
        lines.push(format!("  Data and logs    {}", layout.root().display()));
        lines.push("  Stop             Ctrl-C here, or `bastide down` elsewhere".into());
        lines.join("\n")
    }
}
