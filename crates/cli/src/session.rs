//! A signed-in session with one Platform: finds the credential, gets tokens, calls the API.

use crate::{
    Context,
    credentials::{Credential, Store},
    http::{Answer, Client, request},
    oauth,
};
use anyhow::{Context as _, Result};
use bastide_types::Secret;
use bytes::Bytes;
use http::Method;

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

    /// Calls the API.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Answer> {
        let bearer = format!("Bearer {}", self.token.expose());
        let mut fields = vec![("authorization", bearer.as_str()), ("accept", "application/json")];
        fields.extend(content_type.map(|kind| ("content-type", kind)));
        self.client.send(request(method, &format!("{}{path}", self.server), &fields, body)?).await
    }

    /// GET of JSON.
    pub async fn get(&self, path: &str) -> Result<serde_json::Value> {
        self.call(Method::GET, path, None, Bytes::new()).await?.json()
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
