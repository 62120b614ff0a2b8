//! `login`, `logout`, `whoami`, `token`.

use crate::{
    Context,
    credentials::{Credential, Store},
    form::{Arrival, Form, Visitor},
    http::Client,
    oauth::{self, Request},
    session::{self, Session},
};
use anyhow::{Context as _, Result, bail};
use bastide_types::{Code, Problem, Secret};
use clap::Args;
use std::{io::Read, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// How long `login` waits for the browser.
const BROWSER_LIMIT: Duration = Duration::from_mins(10);

/// Arguments of `login`.
#[derive(Debug, Clone, Args)]
pub struct LoginArgs {
    /// Address of your Platform
    pub url: Option<String>,
    /// Accept an invitation: choose the password that is read with --password-stdin
    #[arg(long, value_name = "LINK", requires = "password_stdin")]
    pub invitation: Option<String>,
    /// Sign in without a browser, as this member
    #[arg(long, requires = "password_stdin")]
    pub email: Option<String>,
    /// Read the password from standard input, and the code of a second factor from a second line
    #[arg(long)]
    pub password_stdin: bool,
    /// Sign in anew with a second factor, as some commands demand
    #[arg(long, conflicts_with_all = ["device", "client_id"])]
    pub mfa: bool,
    /// Sign in anew with a passkey, in the browser, as some commands demand
    #[arg(long, conflicts_with_all = ["device", "client_id", "password_stdin", "mfa"])]
    pub passkey: bool,
    /// Sign in with the browser of another machine: shows a code to type there
    #[arg(long, conflicts_with_all = ["invitation", "email", "password_stdin", "client_id"])]
    pub device: bool,
    /// Sign in as an API client
    #[arg(long, requires = "client_secret_stdin")]
    pub client_id: Option<String>,
    /// Read the client's secret from standard input
    #[arg(long)]
    pub client_secret_stdin: bool,
}

impl LoginArgs {
    /// What is demanded of the sign-in (`acr_values`).
    fn acr(&self) -> Option<&'static str> {
        if self.passkey { Some("passkey") } else { self.mfa.then_some("mfa") }
    }
}

/// Arguments of `token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// A token for this app instead of the Platform
    #[arg(long)]
    pub app: Option<String>,
    /// Stage of the app
    #[arg(long, default_value = "production", requires = "app")]
    pub stage: String,
}

/// Signs in and remembers the credential.
pub async fn login(context: &Context, args: LoginArgs) -> Result<()> {
    let client = Client::trusting(&context.ca)?;
    let server = match (&args.url, &args.invitation) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(link)) => {
            link.parse::<Url>().context("the invitation is no address")?.origin().ascii_serialization()
        }
        (None, None) => session::server(context, &Store::open(&context.config_dir)?)?,
    };
    let credential = if let Some(id) = args.client_id {
        let secret = Secret::new(read_lines()?.0);
        oauth::client_token(&client, &server, &id, &secret, None).await?;
        Credential::Client { id, secret }
    } else {
        let tokens = if args.device {
            at_another_machine(&client, &server).await?
        } else if args.password_stdin {
            without_browser(&client, &server, &args).await?
        } else {
            with_browser(&client, &server, args.acr()).await?
        };
        let refresh_token = tokens.refresh_token.context("the server gave no refresh token")?;
        Credential::Member { refresh_token }
    };
    let mut store = Store::open(&context.config_dir)?;
    store.credentials.servers.insert(server.clone(), credential);
    store.credentials.current = Some(server.clone());
    store.save()?;
    drop(store);
    eprintln!("Signed in at {server}.");
    Ok(())
}

/// The answer goes to a listener of our own on loopback (RFC 8252 §7.3).
async fn with_browser(client: &Client, server: &str, acr: Option<&str>) -> Result<oauth::Tokens> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let redirect = format!("http://127.0.0.1:{}/callback", listener.local_addr()?.port());
    let request = Request::begin(server, redirect.clone(), acr)?;
    eprintln!("Open this address in your browser to sign in:\n\n  {}\n", request.url);
    let code =
        tokio::time::timeout(BROWSER_LIMIT, wait_for_code(&listener, &request, server, &redirect)).await;
    let code = code.context("nobody signed in within ten minutes")??;
    request.redeem(client, server, &code).await
}

async fn wait_for_code(
    listener: &TcpListener,
    request: &Request,
    server: &str,
    redirect: &str,
) -> Result<String> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let Ok(Some(target)) = tokio::time::timeout(Duration::from_secs(10), target(&mut stream)).await
        else {
            continue;
        };
        // A browser also asks for icons and the like; only the callback ends the wait.
        if !target.starts_with("/callback?") {
            say(&mut stream, "404 Not Found", "Nothing here.").await;
            continue;
        }
        let answer = Url::parse(redirect)?.join(&target)?;
        let code = request.code(&answer, server);
        let text =
            if code.is_ok() { "You are signed in. You may close this page." } else { "The sign-in failed." };
        say(&mut stream, "200 OK", text).await;
        return code;
    }
}

/// The target of a request's first line, if it is one.
async fn target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < 16 * 1024 {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
    let line = String::from_utf8(head.split(|b| *b == b'\r').next()?.to_vec()).ok()?;
    line.strip_prefix("GET ")?.split(' ').next().map(str::to_owned)
}

async fn say(stream: &mut TcpStream, status: &str, text: &str) {
    let body = format!("<!doctype html><meta charset=utf-8><title>Bastide</title><p>{text}");
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    // The browser may have gone; the code counts all the same.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Shows a code for the browser of another machine and waits.
async fn at_another_machine(client: &Client, server: &str) -> Result<oauth::Tokens> {
    let device = oauth::Waiting::begin(client, server).await?;
    eprintln!(
        "Open {} in a browser and type the code\n\n  {}\n\nor open {}\nIt is good for {} minutes.",
        device.verification_uri,
        device.user_code,
        device.verification_uri_complete,
        device.expires_in / 60
    );
    device.wait(client, server).await
}

/// Fills in the pages of the Identity Service itself.
async fn without_browser(client: &Client, server: &str, args: &LoginArgs) -> Result<oauth::Tokens> {
    let (invitation, email) = (args.invitation.as_deref(), args.email.as_deref());
    let (password, code) = read_lines()?;
    let mut visitor = Visitor::new(client.clone());
    if let Some(link) = invitation {
        accept(&mut visitor, link, &password).await?;
    }
    // Nobody listens there: the code is read from the redirect itself.
    let request = Request::begin(server, "http://127.0.0.1:1/callback".into(), args.acr())?;
    let mut arrival = visitor.open(&request.url).await?;
    if let Arrival::Page(url, answer) = &arrival {
        if !answer.status.is_success() {
            return Err(page_refusal(answer));
        }
        let mut form =
            Form::find(&String::from_utf8_lossy(&answer.body)).context("there is no sign-in form")?;
        let email = email.context("name the member with --email")?;
        if !form.set("username", email) || !form.set("password", &password) {
            bail!("the sign-in form is not known to this version");
        }
        arrival = visitor.submit(url, &form).await?;
    }
    if let Arrival::Page(url, answer) = &arrival
        && let Some(mut form) = Form::find_code(&String::from_utf8_lossy(&answer.body))
    {
        if form.fields.contains_key("offer") {
            bail!("your organization demands a second factor: sign in with the browser once to set it up");
        }
        let code =
            code.context("a second factor is needed: give its code on a second line, or use the browser")?;
        form.set("code", &code);
        arrival = visitor.submit(url, &form).await?;
    }
    match arrival {
        Arrival::Elsewhere(answer) => {
            let code = request.code(&answer, server)?;
            request.redeem(client, server, &code).await
        }
        Arrival::Page(_, answer) if wants_passkey(&answer) => {
            bail!("a passkey is needed, which only a browser can ask for: sign in without --password-stdin")
        }
        Arrival::Page(_, answer) => Err(page_refusal(&answer)),
    }
}

/// Whether a page asks for a passkey and takes nothing else.
fn wants_passkey(answer: &crate::Answer) -> bool {
    answer.status.is_success()
        && String::from_utf8_lossy(&answer.body).contains("name=\"step\" value=\"second\"")
}

async fn accept(visitor: &mut Visitor, link: &str, password: &str) -> Result<()> {
    let link: Url = link.parse().context("the invitation is no address")?;
    let Arrival::Page(url, answer) = visitor.open(&link).await? else {
        bail!("the invitation leads elsewhere")
    };
    if !answer.status.is_success() {
        return Err(page_refusal(&answer));
    }
    let mut form =
        Form::find(&String::from_utf8_lossy(&answer.body)).context("there is no form for a password")?;
    let names: Vec<_> = form.fields.keys().filter(|name| name.starts_with("password")).cloned().collect();
    for name in names {
        form.set(&name, password);
    }
    match visitor.submit(&url, &form).await? {
        Arrival::Page(_, answer) if !answer.status.is_success() => Err(page_refusal(&answer)),
        _ => Ok(()),
    }
}

/// What a page of the Identity Service says, by the code that stands in it.
fn page_refusal(answer: &crate::Answer) -> anyhow::Error {
    let page = String::from_utf8_lossy(&answer.body);
    page_problem(&page).map_or_else(|| answer.refusal(), anyhow::Error::new)
}

/// The code, and what the page says between its title and it.
fn page_problem(page: &str) -> Option<Problem> {
    let code = Code::ALL.iter().find(|code| page.contains(code.as_str()))?;
    let problem = code.problem();
    let behind = page.split_once(code.title()).and_then(|(_, rest)| rest.split_once("<code>"));
    let detail = behind.map(|(detail, _)| detail.trim()).filter(|text| !text.is_empty());
    Some(match detail.filter(|text| !text.contains(['<', '&'])) {
        Some(detail) => code.because(detail),
        None => problem,
    })
}

/// The first line of the standard input, and the second one if there is one.
fn read_lines() -> Result<(String, Option<String>)> {
    let mut text = String::new();
    std::io::stdin().take(4096).read_to_string(&mut text).context("cannot read standard input")?;
    let mut lines = text.lines().map(str::to_owned);
    let line = lines.next().filter(|line| !line.is_empty()).context("standard input holds no secret")?;
    Ok((line, lines.next().filter(|line| !line.is_empty())))
}

/// Ends the session at the Platform and forgets the credential. Without a Platform to reach, the credential is
/// forgotten all the same.
pub async fn logout(context: &Context) -> Result<()> {
    let mut store = Store::open(&context.config_dir)?;
    let server = session::server(context, &store)?;
    if let Some(Credential::Member { refresh_token }) = store.credentials.servers.remove(&server) {
        let ended = match Client::trusting(&context.ca) {
            Ok(client) => oauth::revoke(&client, &server, &refresh_token).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            eprintln!("warning: the session at {server} goes on until its end, at most 12 hours: {error:#}");
        }
    }
    if store.credentials.current.as_deref() == Some(&server) {
        store.credentials.current = None;
    }
    store.save()?;
    eprintln!("Signed out of {server}.");
    Ok(())
}

/// Shows who is signed in.
pub async fn whoami(context: &Context) -> Result<()> {
    let session = Session::open(context, None).await?;
    let who = session.get("/whoami").await?;
    if context.json {
        println!("{who}");
        return Ok(());
    }
    let text = |key: &str| who[key].as_str().unwrap_or_default().to_owned();
    let roles: Vec<_> =
        who["roles"].as_array().into_iter().flatten().filter_map(|role| role.as_str()).collect();
    println!("{} ({})", text("name"), text("subject"));
    println!("customer {} at {}", text("customer"), session.server);
    println!("roles    {}", roles.join(", "));
    Ok(())
}

/// Prints an access token, for other programs.
pub async fn token(context: &Context, args: TokenArgs) -> Result<()> {
    let resource = match &args.app {
        Some(app) => Some(app_url(context, app, &args.stage).await?),
        None => None,
    };
    let session = Session::open(context, resource.as_deref()).await?;
    println!("{}", session.token().expose());
    Ok(())
}

/// Address of an app in a stage, as the Platform says it.
async fn app_url(context: &Context, app: &str, stage: &str) -> Result<String> {
    let session = Session::open(context, None).await?;
    let app = session.get(&format!("/apps/{app}")).await?;
    let stages = app["stages"].as_array().cloned().unwrap_or_default();
    let found =
        stages.iter().find(|found| found["stage"] == stage).context("the app is not in that stage")?;
    Ok(found["url"].as_str().context("the app has no address there")?.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_s_refusal_is_said_with_its_reason_and_nothing_foreign() {
        let page = |detail: &str| {
            let problem = Code::PasswordWeak.problem();
            format!("<p class=\"problem\">{}{detail} <code>{}</code></p>", problem.title, problem.code)
        };
        let said = |page: &str| page_problem(page).map(|problem| problem.to_string());
        let plain = Code::PasswordWeak.problem().to_string();
        assert_eq!(said(&page(" It is too short.")), Some(format!("{plain} It is too short.")));
        assert_eq!(said(&page("")), Some(plain.clone()));
        for foreign in [" <b>x</b>", " &lt;b&gt;"] {
            assert_eq!(said(&page(foreign)), Some(plain.clone()), "{foreign}");
        }
        assert_eq!(said("<p>Welcome</p>"), None);
    }
}
