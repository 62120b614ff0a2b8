//! What a provider of identity outside says about itself, and how it is spoken to (OpenID Connect Discovery, Core).

use super::idp::{Auth, IdpConfig};
use crate::outbound::{Outbound, OutboundFault, Reply};
use base64::{Engine, prelude::BASE64_STANDARD};
use bastide_identity::{IdKey, KeyError, UpstreamFault, UpstreamKeys};
use bastide_store::{IdpRow, now_s};
use http::HeaderValue;
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use uuid::Uuid;

/// How long what a provider says about itself is kept, in seconds; and at least, when a key is not found.
const KEPT_S: i64 = 300;
const KEPT_MIN_S: i64 = 10;
/// Providers that are remembered.
const KEPT_MAX: usize = 1000;
/// Life of our word about ourselves, in seconds.
const ASSERTION_LIFE_S: i64 = 60;

/// Why a provider is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ProviderFault {
    /// It was not asked, or gave no answer.
    #[error(transparent)]
    Outbound(#[from] OutboundFault),
    /// An answer means nothing.
    #[error("{0}")]
    Answer(String),
    /// Our own key.
    #[error("our key there cannot be used")]
    Key(#[from] KeyError),
    /// Its token.
    #[error("its token does not count: {0}")]
    Token(#[from] UpstreamFault),
}

/// A provider, as it describes itself.
#[derive(Debug)]
pub struct Provider {
    pub authorization_endpoint: String,
    token_endpoint: String,
    pub keys: UpstreamKeys,
    /// Whether each of its answers names it (RFC 9207).
    pub says_iss: bool,
    read_at: i64,
}

/// Providers that were asked lately, by issuer.
#[derive(Default)]
pub struct Providers(Mutex<HashMap<String, Arc<Provider>>>);

impl Providers {
    /// A provider; with `kid`, one whose keys are read again when this one is not among them.
    pub async fn get(
        &self,
        outbound: &Outbound,
        issuer: &str,
        kid: Option<&str>,
    ) -> Result<Arc<Provider>, ProviderFault> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(issuer).cloned();
        if let Some(known) = known {
            let age = now_s() - known.read_at;
            let has_key = kid.is_none_or(|kid| known.keys.knows(kid));
            if (0..KEPT_S).contains(&age) && (has_key || age < KEPT_MIN_S) {
                return Ok(known);
            }
        }
        let read = Arc::new(discover(outbound, issuer).await?);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT_MAX {
            all.clear();
        }
        all.insert(issuer.to_owned(), read.clone());
        Ok(read)
    }
}

/// Reads what a provider says about itself.
///
/// # Errors
/// [`ProviderFault`]; also when it is not the one that was named.
pub async fn discover(outbound: &Outbound, issuer: &str) -> Result<Provider, ProviderFault> {
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    let said =
        json_of(outbound.get(&format!("{base}/.well-known/openid-configuration")).await?, "its description")?;
    if said.get("issuer").and_then(Value::as_str) != Some(issuer) {
        let found: String = said.get("issuer").map(Value::to_string).unwrap_or_default();
        let found: String = found.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(ProviderFault::Answer(format!("it calls itself {found}")));
    }
    let endpoint = |name: &str| {
        let text = said.get(name).and_then(Value::as_str).unwrap_or_default();
        outbound.demand(text).map(|_| text.to_owned())
    };
    let keys = outbound.get(&endpoint("jwks_uri")?).await?;
    let keys = UpstreamKeys::read(&keys.body);
    Ok(Provider {
        authorization_endpoint: endpoint("authorization_endpoint")?,
        token_endpoint: endpoint("token_endpoint")?,
        keys: keys.ok_or_else(|| ProviderFault::Answer("its keys cannot be read".to_owned()))?,
        says_iss: said.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
        read_at: now_s(),
    })
}

impl Provider {
    /// The ID token for a code.
    pub async fn redeem(
        &self,
        outbound: &Outbound,
        (row, config): (&IdpRow, &IdpConfig),
        code: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<String, ProviderFault> {
        let (form, word) = self.form((row, config), code, verifier, redirect_uri)?;
        let said = json_of(outbound.post(&self.token_endpoint, form, word).await?, "its answer to the code")?;
        let token = said.get("id_token").and_then(Value::as_str);
        Ok(token.ok_or_else(|| ProviderFault::Answer("it gave no ID token".to_owned()))?.to_owned())
    }

    /// The form that redeems a code, and our word about ourselves if it goes into the head.
    fn form(
        &self,
        (row, config): (&IdpRow, &IdpConfig),
        code: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<(String, Option<HeaderValue>), ProviderFault> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("code_verifier", verifier)
            .append_pair("redirect_uri", redirect_uri);
        let secret = row.secret.as_deref().unwrap_or_default();
        let mut word = None;
        match config.auth {
            Auth::ClientSecretBasic => word = Some(basic(&config.client_id, secret)?),
            Auth::ClientSecretPost => {
                form.append_pair("client_id", &config.client_id).append_pair("client_secret", secret);
            }
            Auth::PrivateKeyJwt => {
                let assertion = self.assertion(row, config)?;
                form.append_pair("client_id", &config.client_id)
                    .append_pair(
                        "client_assertion_type",
                        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    )
                    .append_pair("client_assertion", &assertion);
            }
            Auth::None => {
                form.append_pair("client_id", &config.client_id);
            }
        }
        Ok((form.finish(), word))
    }

    /// Our word about ourselves (RFC 7523 §3), signed with the key that only we have.
    fn assertion(&self, row: &IdpRow, config: &IdpConfig) -> Result<String, ProviderFault> {
        let key = IdKey::from_pkcs8(row.private.as_deref().ok_or(KeyError::NotAKey)?)?;
        let now = now_s();
        let claims = json!({
            "iss": config.client_id,
            "sub": config.client_id,
            "aud": self.token_endpoint,
            "jti": Uuid::new_v4().to_string(),
            "iat": now,
            "exp": now + ASSERTION_LIFE_S,
        });
        Ok(key.sign("JWT", &claims)?)
    }
}

/// `Basic …` with both parts encoded as RFC 6749 §2.3.1 says.
fn basic(id: &str, secret: &str) -> Result<HeaderValue, ProviderFault> {
    let part = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let both = BASE64_STANDARD.encode(format!("{}:{}", part(id), part(secret)));
    let value = HeaderValue::from_str(&format!("Basic {both}"));
    let mut value = value.map_err(|_| ProviderFault::Answer("our secret there is odd".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn json_of(reply: Reply, what: &str) -> Result<Map<String, Value>, ProviderFault> {
    let read = serde_json::from_slice::<Map<String, Value>>(&reply.body).ok();
    if !reply.status.is_success() {
        // Its own word for what is wrong, if it is one of the few plain ones (RFC 6749 §5.2).
        let word =
            read.as_ref().and_then(|said| said.get("error")).and_then(Value::as_str).unwrap_or_default();
        let plain = word.len() <= 40 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let word = if plain { word } else { "" };
        return Err(ProviderFault::Answer(
            format!("{what}: {} {word}", reply.status.as_u16()).trim_end().to_owned(),
        ));
    }
    read.ok_or_else(|| ProviderFault::Answer(format!("{what} cannot be read")))
}
