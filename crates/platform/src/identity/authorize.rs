//! `/authorize`: is the client known and its redirect trusted, is the request right, who is signed in.

use super::{
    CLI, CODE_LIFE_S, Fault, GATEWAY, Identity,
    fault::Answer,
    form::Form,
    login, pages,
    tenant::{Tenant, cookie},
};
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bastide_identity::opaque::{self, Opaque};
use bastide_store::{CodeRow, MemberRow, SessionRow, StoreError, Write, now_s};
use bastide_types::Code;

/// Cookie of the sign-in at the Identity Service.
pub(super) const SIGN_IN_COOKIE: &str = "__Host-bst-sso";

/// A request whose client and redirect are trusted and whose parameters are right.
#[derive(Debug, Clone)]
pub struct Request {
    pub client_id: String,
    pub redirect_uri: String,
    pub state: Option<String>,
    pub challenge: String,
    pub resource: Option<String>,
    pub prompt: Option<String>,
}

/// GET `/identity/authorize`.
pub async fn authorize(
    State(identity): State<Identity>,
    tenant: Tenant,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let form = Form::read(query.unwrap_or_default().as_bytes())?;
    let request = match identity.request(&tenant, &form).await? {
        Ok(request) => request,
        Err(refused) => return Ok(refused),
    };
    let signed_in = match request.prompt.as_deref() {
        Some("login") => None,
        _ => identity.signed_in(&tenant, &headers).await?,
    };
    match signed_in {
        Some((session, member)) => {
            let mut write = identity.store().write().await?;
            let to = identity.code(&tenant, &mut write, &request, &session.id, &member).await?;
            write.commit().await.map_err(StoreError::from)?;
            Ok(redirect(&to))
        }
        None if request.prompt.as_deref() == Some("none") => {
            Ok(redirect(&identity.refusal(&tenant, &request, "login_required", "Nobody is signed in.")))
        }
        None => {
            let token = login::form_token(&headers)?;
            pages::login(&tenant, &request, &token, "", None, StatusCode::OK)
        }
    }
}

impl Identity {
    /// Checks an authorization request. The inner error is a redirect that says what is wrong; it is made
    /// only after client and redirect are known to be good.
    pub(super) async fn request(&self, tenant: &Tenant, form: &Form) -> Answer<Result<Request, Response>> {
        let invalid = |because: &str| Fault::from(Code::OAuthInvalid.because(because));
        let client = form.get("client_id").unwrap_or_default();
        let redirect_uri = form.get("redirect_uri").unwrap_or_default();
        let trusted = match client {
            CLI => is_loopback(redirect_uri),
            GATEWAY => self.is_callback(tenant, redirect_uri).await?,
            _ => return Err(invalid("`client_id` names no client of this organization.")),
        };
        if !trusted {
            return Err(invalid("`redirect_uri` does not belong to this client."));
        }
        let own = |name: &str| form.get(name).map(str::to_owned);
        let request = Request {
            client_id: client.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            state: own("state"),
            challenge: own("code_challenge").unwrap_or_default(),
            resource: own("resource"),
            prompt: own("prompt"),
        };
        let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let fault = if form.get("response_type") != Some("code") {
            Some(("unsupported_response_type", "The response_type is `code`."))
        } else if form.get("code_challenge_method") != Some("S256") {
            Some(("invalid_request", "The code_challenge_method is `S256`."))
        } else if request.challenge.len() != 43 || !request.challenge.bytes().all(base64url) {
            Some(("invalid_request", "The code_challenge is the hash of a verifier."))
        } else {
            match self.target(tenant, request.resource.as_deref()).await {
                Ok(_) => None,
                Err(Fault::OAuth { error, because }) => Some((error, because)),
                Err(other) => return Err(other),
            }
        };
        Ok(match fault {
            Some((error, because)) => Err(redirect(&self.refusal(tenant, &request, error, because))),
            None => Ok(request),
        })
    }

    /// Whether this is the gateways' callback on a host of this very customer.
    async fn is_callback(&self, tenant: &Tenant, uri: &str) -> Answer<bool> {
        let callback = |host: &str| format!("{}/.bastide/callback", self.domains().origin(host));
        if uri == callback(&self.domains().platform_host(&tenant.name)) {
            return Ok(true);
        }
        let stages = self.of(tenant).stage_names().await?;
        if stages.iter().any(|stage| uri == callback(&self.domains().runtime_host(&tenant.name, stage))) {
            return Ok(true);
        }
        let domains = self.of(tenant).domains().await?;
        let proven = domains.iter().filter(|domain| domain.validated.is_some());
        Ok(proven.into_iter().any(|domain| uri == callback(domain.name.as_str())))
    }

    /// Who is signed in here with this browser.
    async fn signed_in(
        &self,
        tenant: &Tenant,
        headers: &HeaderMap,
    ) -> Answer<Option<(SessionRow, MemberRow)>> {
        let Some(secret) = cookie(headers, SIGN_IN_COOKIE) else { return Ok(None) };
        let Some(session) = self.of(tenant).session("provider", &opaque::hash(secret)).await? else {
            return Ok(None);
        };
        Ok(self.active(tenant, session.member).await?.map(|member| (session, member)))
    }

    /// Makes a code; returns where the browser takes it.
    pub(super) async fn code(
        &self,
        tenant: &Tenant,
        write: &mut Write,
        request: &Request,
        parent: &str,
        member: &MemberRow,
    ) -> Answer<String> {
        let code = Opaque::generate()?;
        let row = CodeRow {
            client: request.client_id.clone(),
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.challenge.clone(),
            resource: request.resource.clone(),
            member: member.id,
            parent: parent.to_owned(),
        };
        self.of(tenant).add_code(write, &code.hash, &row, now_s() + CODE_LIFE_S).await?;
        Ok(self.answer(tenant, request, &[("code", code.secret.expose())]))
    }

    fn refusal(&self, tenant: &Tenant, request: &Request, error: &str, because: &str) -> String {
        self.answer(tenant, request, &[("error", error), ("error_description", because)])
    }

    /// The redirect URI with an answer. Each answer names its issuer (RFC 9207).
    fn answer(&self, tenant: &Tenant, request: &Request, pairs: &[(&str, &str)]) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        if let Some(state) = &request.state {
            query.append_pair("state", state);
        }
        query.append_pair("iss", &self.domains().member_issuer(&tenant.name));
        // Neither of the two known kinds of redirect has a query of its own.
        format!("{}?{}", request.redirect_uri, query.finish())
    }
}

/// `http://127.0.0.1:<port>/callback` or the same with `[::1]`, written exactly so (RFC 8252 §7.3).
fn is_loopback(uri: &str) -> bool {
    let port = uri
        .strip_prefix("http://127.0.0.1:")
        .or_else(|| uri.strip_prefix("http://[::1]:"))
        .and_then(|rest| rest.strip_suffix("/callback"));
    port.is_some_and(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|number| number > 0)
    })
}

/// Sends the browser on, with GET.
pub fn redirect(to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(to) => (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response(),
        Err(_) => Fault::from(Code::OAuthInvalid).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exact_loopback_redirect_is_trusted() {
        let check = |uri: &str, good| assert_eq!(is_loopback(uri), good, "{uri}");
        check("http://127.0.0.1:1/callback", true);
        check("http://[::1]:65535/callback", true);
        for uri in [
            "http://127.0.0.1/callback",
            "http://127.0.0.1:0/callback",
            "http://127.0.0.1:65536/callback",
            "http://127.0.0.1:1/callback/",
            "http://127.0.0.1:1/callback?x",
            "http://127.0.0.1:1@evil/callback",
            "http://127.0.0.1:1.evil/callback",
            "http://127.0.0.1:+1/callback",
            "https://127.0.0.1:1/callback",
            "http://localhost:1/callback",
            "",
        ] {
            check(uri, false);
        }
    }
}
