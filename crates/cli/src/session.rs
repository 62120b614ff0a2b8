//! A signed-in session with one Platform: finds the credential, gets tokens, calls the API.

use crate::{
    Context,
    credentials::{Credential, Store},
    http::{Answer, Client, Unanswered, request},
    oauth,
};
use anyhow::{Context as _, Result};
use bastide_types::{API, Code, Secret};
use bytes::Bytes;
use http::Method;
use std::time::Duration;

/// Most tries of one request.
const TRIES: u32 = 4;
/// Longest pause before the next try.
const PAUSE_MAX: Duration = Duration::from_secs(61);

/// How long to wait before the request is sent again; `None` when it need not be.
fn pause(outcome: &Result<Answer>) -> Option<Duration> {
    let answer = match outcome {
        Ok(answer) => answer,
        // Whether it arrived is not known: the key makes that no matter.
        Err(error) if error.downcast_ref::<Unanswered>().is_some() => {
            return Some(Duration::from_millis(300));
        }
        Err(_) => return None,
    };
    let code = answer.code()?;
    let again = [Code::TooManyRequests, Code::KeyBusy, Code::PlatformUnavailable];
    if !again.iter().any(|one| one.as_str() == code) {
        return None;
    }
    let seconds = answer.header(http::header::RETRY_AFTER).and_then(|text| text.parse().ok()).unwrap_or(1);
    let pause = Duration::from_secs(seconds).min(PAUSE_MAX);
    if seconds > 2 {
        eprintln!("The Platform asks to wait {seconds} s.");
    }
    Some(pause)
}

/// A key that nobody else has.
fn new_key() -> Result<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).context("no randomness")?;
    Ok(base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes))
}

/// A session.
pub struct Session {
    /// HTTPS.
    pub client: Client,
    /// Address of the Platform, without a trailing slash.
    pub server: String,
    token: Secret,
}

/// The Platform that a command is for.
pub fn server(context: &Context, store: &Store) -> Result<String> {
    let named = context.server.clone().or_else(|| store.credentials.current.clone());
    let server = named.context("not signed in. Run: bastide login https://<customer>.<platform domain>")?;
    Ok(server.trim_end_matches('/').to_owned())
}

impl Session {
    /// Opens a session with the stored credential; `resource` asks for a token for an app.
    pub async fn open(context: &Context, resource: Option<&str>) -> Result<Self> {
        let mut store = Store::open(&context.config_dir)?;
        let server = server(context, &store)?;
        let client = Client::trusting(&context.ca)?;
        let credential = store.credentials.servers.get(&server).cloned();
        let credential =
            credential.with_context(|| format!("not signed in at {server}. Run: bastide login {server}"))?;
        let token = match credential {
            Credential::Client { id, secret } => {
                oauth::client_token(&client, &server, &id, &secret, resource).await?.access_token
            }
            Credential::Member { refresh_token } => {
                let tokens = oauth::refresh(&client, &server, &refresh_token, resource).await;
                let tokens =
                    tokens.with_context(|| format!("your sign-in has ended. Run: bastide login {server}"))?;
                if let Some(refresh_token) = tokens.refresh_token {
                    store.credentials.servers.insert(server.clone(), Credential::Member { refresh_token });
                    store.save()?;
                }
                tokens.access_token
            }
        };
        Ok(Self { client, server, token })
    }

    /// The access token.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// Calls the API at a path below [`API`]. A write carries a key, so that it is done once although it is sent again when
    /// its answer does not come; who asks too much waits.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Answer> {
        self.call_with(method, path, content_type, &[], body).await
    }

    /// The same with more header fields.
    pub async fn call_with(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        more: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let (bearer, url) =
            (format!("Bearer {}", self.token.expose()), format!("{}{API}{path}", self.server));
        let key = if method == Method::GET { None } else { Some(new_key()?) };
        let mut fields = vec![
            ("authorization", bearer.as_str()),
            ("accept", "application/json"),
            ("accept-encoding", "gzip"),
        ];
        fields.extend(content_type.map(|kind| ("content-type", kind)));
        fields.extend_from_slice(more);
        fields.extend(key.as_deref().map(|key| ("idempotency-key", key)));
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.client.send(request(method.clone(), &url, &fields, body.clone())?).await;
            match pause(&outcome).filter(|_| tries < TRIES) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return outcome,
            }
        }
    }

    /// GET of JSON; a list is read to its end.
    pub async fn get(&self, path: &str) -> Result<serde_json::Value> {
        let mut answer = self.call(Method::GET, path, None, Bytes::new()).await?;
        let mut next = answer.next_page();
        let mut all: serde_json::Value = answer.json()?;
        while let (Some(path), Some(list)) = (&next, all.as_array_mut()) {
            answer = self.call(Method::GET, path, None, Bytes::new()).await?;
            next = answer.next_page();
            list.append(&mut answer.json()?);
        }
        Ok(all)
    }

    /// Sends JSON and reads JSON.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value> {
        self.call(method, path, Some("application/json"), body.to_string().into()).await?.json()
    }
}
