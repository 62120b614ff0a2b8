//! OAuth 2 as this client speaks it: authorization code with PKCE, refresh, client credentials.

use crate::http::Client;
use anyhow::{Context, Result, bail};
use aws_lc_rs::{digest, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_types::Secret;
use serde::Deserialize;
use std::time::Duration;
use url::Url;

/// Client id of the command line, known to every Platform.
pub const CLIENT_ID: &str = "bastide-cli";

/// What the token endpoint answers.
#[derive(Debug, Deserialize)]
pub struct Tokens {
    /// Access token.
    pub access_token: Secret,
    /// Refresh token, for members.
    #[serde(default)]
    pub refresh_token: Option<Secret>,
}

/// An authorization request that waits for its answer.
pub struct Request {
    /// Where the browser goes.
    pub url: Url,
    state: String,
    verifier: String,
    redirect_uri: String,
}

/// A login that waits for its user at another machine (RFC 8628).
#[derive(Debug, Deserialize)]
pub struct Waiting {
    device_code: Secret,
    /// What the user types.
    pub user_code: String,
    /// Where the user types it.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: String,
    /// Seconds until it ends.
    pub expires_in: u64,
    /// Seconds between two questions.
    interval: u64,
}

impl Waiting {
    /// Begins a login.
    pub async fn begin(client: &Client, server: &str) -> Result<Self> {
        let url = format!("{}/device_authorization", issuer(server));
        client.post_form(&url, &[], &[("client_id", CLIENT_ID)]).await?.json()
    }

    /// Waits for the user's word.
    pub async fn wait(mut self, client: &Client, server: &str) -> Result<Tokens> {
        let url = format!("{}/token", issuer(server));
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", CLIENT_ID),
            ("device_code", self.device_code.expose()),
        ];
        loop {
            tokio::time::sleep(Duration::from_secs(self.interval)).await;
            let answer = client.post_form(&url, &[], &form).await?;
            if answer.status.is_success() {
                return answer.json();
            }
            let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            match said["error"].as_str() {
                Some("authorization_pending") => {}
                Some("slow_down") => self.interval += 5,
                Some("access_denied") => bail!("the sign-in was refused"),
                Some("expired_token") => bail!("nobody signed in in time"),
                _ => return Err(answer.refusal()),
            }
        }
    }
}

/// Base of a Platform's Identity Service.
pub fn issuer(server: &str) -> String {
    format!("{}/identity", server.trim_end_matches('/'))
}

impl Request {
    /// Begins a login whose answer goes to `redirect_uri`.
    pub fn begin(server: &str, redirect_uri: String, acr: Option<&str>) -> Result<Self> {
        let (state, verifier) = (random()?, random()?);
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
        let mut url =
            Url::parse(&format!("{}/authorize", issuer(server))).context("the server is no address")?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", CLIENT_ID)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("state", &state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if let Some(acr) = acr {
            // Older sign-ins of the browser do not count: somebody demands a young one.
            url.query_pairs_mut().append_pair("acr_values", acr).append_pair("max_age", "60");
        }
        Ok(Self { url, state, verifier, redirect_uri })
    }

    /// Reads the answer that came to the redirect URI and checks that it belongs to this request.
    pub fn code(&self, answer: &Url, server: &str) -> Result<String> {
        let value = |key: &str| answer.query_pairs().find(|(k, _)| k == key).map(|(_, v)| v.into_owned());
        if value("state").as_deref() != Some(&self.state) {
            bail!("the answer does not belong to this login");
        }
        // RFC 9207: the answer names its issuer, so that no other one can be mixed in.
        if value("iss").is_none_or(|iss| iss != issuer(server)) {
            bail!("the answer comes from another issuer");
        }
        if let Some(error) = value("error") {
            bail!("{error}: {}", value("error_description").unwrap_or_default());
        }
        value("code").context("the answer holds no code")
    }

    /// Exchanges the code for tokens.
    pub async fn redeem(self, client: &Client, server: &str, code: &str) -> Result<Tokens> {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", CLIENT_ID),
            ("code", code),
            ("code_verifier", &self.verifier),
            ("redirect_uri", &self.redirect_uri),
        ];
        client.post_form(&format!("{}/token", issuer(server)), &[], &form).await?.json()
    }
}

/// Fresh tokens for a member; the old refresh token is spent.
pub async fn refresh(
    client: &Client,
    server: &str,
    token: &Secret,
    resource: Option<&str>,
) -> Result<Tokens> {
    let mut form =
        vec![("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("refresh_token", token.expose())];
    form.extend(resource.map(|resource| ("resource", resource)));
    client.post_form(&format!("{}/token", issuer(server)), &[], &form).await?.json()
}

/// Ends the session of a refresh token (RFC 7009).
pub async fn revoke(client: &Client, server: &str, token: &Secret) -> Result<()> {
    let form = [("client_id", CLIENT_ID), ("token", token.expose()), ("token_type_hint", "refresh_token")];
    client.post_form(&format!("{}/revoke", issuer(server)), &[], &form).await?.good().map(drop)
}

/// A token for an API client.
pub async fn client_token(
    client: &Client,
    server: &str,
    id: &str,
    secret: &Secret,
    resource: Option<&str>,
) -> Result<Tokens> {
    let mut form =
        vec![("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret.expose())];
    form.extend(resource.map(|resource| ("resource", resource)));
    client.post_form(&format!("{}/token", issuer(server)), &[], &form).await?.json()
}

fn random() -> Result<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).context("no randomness")?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "https://demo.platform.localhost:8443";

    fn answer(request: &Request, rest: &str) -> Url {
        let iss = if rest.contains("iss=") { String::new() } else { format!("&iss={}", issuer(SERVER)) };
        format!("http://127.0.0.1:1/callback?state={}{iss}{rest}", request.state).parse().unwrap()
    }

    #[test]
    fn only_the_answer_of_this_login_and_issuer_counts() {
        let request = Request::begin(SERVER, "http://127.0.0.1:1/callback".into(), None).unwrap();
        assert_eq!(request.code(&answer(&request, "&code=c"), SERVER).unwrap(), "c");
        assert!(
            request.code(&"http://127.0.0.1:1/callback?state=x&code=c".parse().unwrap(), SERVER).is_err()
        );
        assert!(request.code(&answer(&request, "&code=c&iss=https://evil"), SERVER).is_err());
        assert!(request.code(&answer(&request, "&code=c&iss="), SERVER).is_err());
        let refused = request.code(&answer(&request, "&error=access_denied"), SERVER).unwrap_err();
        assert!(refused.to_string().contains("access_denied"));
    }

    #[test]
    fn the_challenge_is_the_hash_of_the_verifier() {
        let request = Request::begin(SERVER, "http://127.0.0.1:1/callback".into(), None).unwrap();
        let (_, sent) = request.url.query_pairs().find(|(k, _)| k == "code_challenge").unwrap();
        let hash = digest::digest(&digest::SHA256, request.verifier.as_bytes());
        assert_eq!(sent, BASE64_URL_SAFE_NO_PAD.encode(hash));
    }
}
