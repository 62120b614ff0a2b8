//! `/authorize`: is the client known and its redirect trusted, is the request right, who is signed in.

use super::{
    CODE_LIFE_S, Fault, GATEWAY, Identity, clients::Client, discovery::SCOPES, fault::Answer, form::Form,
    issuer::Issuer, login, pages, second::Onward, tenant::Tenant,
};
use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bastide_identity::opaque::{self, Opaque};
use bastide_store::{CodeRow, MemberRow, SessionRow, SessionUse, StoreError, Write, now_s};
use bastide_types::{Acr, Code};

/// Longest nonce, in bytes.
const NONCE_BYTES_MAX: usize = 512;

/// A request whose client and redirect are trusted and whose parameters are right.
#[derive(Debug, Clone)]
pub struct Request {
    pub client_id: String,
    pub client_name: String,
    pub redirect_uri: String,
    pub state: Option<String>,
    pub challenge: String,
    pub resource: Option<String>,
    /// Scopes that are given, with spaces between.
    pub scope: String,
    pub nonce: Option<String>,
    pub prompt: Prompt,
    /// Longest time since the sign-in, in seconds.
    pub max_age_s: Option<i64>,
    /// How well the sign-in must be secured.
    pub acr: Acr,
    pub login_hint: Option<String>,
    /// Whom the client wants, by an ID token.
    pub id_token_hint: Option<String>,
}

/// What the client wants to be shown or not (OpenID Connect Core §3.1.2.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prompt {
    pub none: bool,
    pub login: bool,
    pub ask: bool,
}

impl Prompt {
    fn read(text: &str) -> Option<Self> {
        let mut prompt = Self::default();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            match word {
                "none" => prompt.none = true,
                "login" => prompt.login = true,
                "consent" | "select_account" => prompt.ask = true,
                _ => return None,
            }
        }
        (!(prompt.none && (prompt.login || prompt.ask))).then_some(prompt)
    }
}

/// A sign-in of this browser.
pub struct SignIn {
    pub session: SessionRow,
    pub used: SessionUse,
    pub member: MemberRow,
}

/// GET `…/authorize`.
pub async fn authorize(
    State(identity): State<Identity>,
    issuer: Issuer,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let form = Form::read(query.unwrap_or_default().as_bytes())?;
    identity.authorize(&issuer, &headers, &form).await
}

/// POST `…/authorize`: the same with a form (OpenID Connect Core §3.1.2.1). A form of another site brings no
/// cookie along, so that its sender must sign in.
pub async fn authorize_form(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    identity.authorize(&issuer, &headers, &Form::read(&body)?).await
}

/// POST `…/continue`: the signed-in member goes on to the client that asked to be confirmed.
pub async fn go_on(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    login::demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let mut request = match identity.request(&issuer, &form).await? {
        Ok(request) => request,
        Err(refused) => return Ok(refused),
    };
    request.prompt.ask = false;
    identity.decide(&issuer, &headers, &request).await
}

impl Identity {
    async fn authorize(&self, issuer: &Issuer, headers: &HeaderMap, form: &Form) -> Answer {
        match self.request(issuer, form).await? {
            Ok(request) => self.decide(issuer, headers, &request).await,
            Err(refused) => Ok(refused),
        }
    }

    /// A code for whoever is signed in, or a page, or word that neither is possible.
    async fn decide(&self, issuer: &Issuer, headers: &HeaderMap, request: &Request) -> Answer {
        let refuse = |error, because| Ok(redirect(&refusal(issuer, request, error, because)));
        let signed_in =
            if request.prompt.login { None } else { self.fitting_sign_in(issuer, headers, request).await? };
        match signed_in {
            Some(sign_in) if sign_in.used.acr < request.acr => {
                if request.prompt.none {
                    let because = "The sign-in is not secured as well as that.";
                    return refuse("unmet_authentication_requirements", because);
                }
                // The password was shown lately enough: only the code is owed.
                let owed = self.owed(&issuer.tenant, &sign_in.member, request.acr).await?;
                let onward = Onward::Client(request.clone());
                self.ask_second(issuer, headers, &sign_in.member, owed, &onward).await
            }
            Some(sign_in) if request.prompt.ask => {
                pages::go_on(issuer, request, &login::form_token(headers)?, &sign_in.member)
            }
            Some(SignIn { session, used, member }) => {
                let mut write = self.store().write().await?;
                let to = self.code(issuer, &mut write, request, &session.id, &used, &member).await?;
                write.commit().await.map_err(StoreError::from)?;
                Ok(redirect(&to))
            }
            None if request.prompt.none => refuse("login_required", "Nobody is signed in."),
            None => {
                let name = request.login_hint.as_deref().unwrap_or_default();
                self.login_page(issuer, headers, request, name, None).await
            }
        }
    }

    /// Checks an authorization request. The inner error is a redirect that says what is wrong; it is made
    /// only after client and redirect are known to be good.
    pub(super) async fn request(&self, issuer: &Issuer, form: &Form) -> Answer<Result<Request, Response>> {
        let client = self.trusted(issuer, form).await?;
        let own = |name: &str| form.get(name).map(str::to_owned);
        let scope = form.get("scope").unwrap_or_default();
        let request = Request {
            client_id: client.id,
            client_name: client.name,
            redirect_uri: own("redirect_uri").unwrap_or_default(),
            state: own("state"),
            challenge: own("code_challenge").unwrap_or_default(),
            resource: own("resource"),
            scope: known_scopes(scope),
            nonce: own("nonce"),
            prompt: form.get("prompt").map_or(Some(Prompt::default()), Prompt::read).unwrap_or_default(),
            max_age_s: form.get("max_age").and_then(|text| text.parse().ok()),
            acr: form.get("acr_values").map_or(Acr::Password, least),
            login_hint: own("login_hint").filter(|hint| hint.len() <= 254),
            id_token_hint: own("id_token_hint"),
        };
        let fault = match what_is_wrong(form, &request) {
            Some(fault) => Some(fault),
            None => match self.target_at(issuer, request.resource.as_deref()).await {
                Ok(_) => None,
                Err(Fault::OAuth { error, because }) => Some((error, because)),
                Err(other) => return Err(other),
            },
        };
        Ok(match fault {
            Some((error, because)) => Err(redirect(&refusal(issuer, &request, error, because))),
            None => Ok(request),
        })
    }

    /// The client that asks, if its redirect is its own. Nobody is sent anywhere else.
    async fn trusted(&self, issuer: &Issuer, form: &Form) -> Answer<Client> {
        let invalid = |because: &str| Fault::from(Code::OAuthInvalid.because(because));
        let id = form.get("client_id").unwrap_or_default();
        let redirect_uri = form.get("redirect_uri").unwrap_or_default();
        let (client, trusted) = if id == GATEWAY {
            let trusted = self.is_callback(issuer, redirect_uri).await?;
            (Client { id: GATEWAY.to_owned(), ..Client::command_line() }, trusted)
        } else {
            let client = self.client_with_users(&issuer.tenant, id).await?;
            let client =
                client.ok_or_else(|| invalid("`client_id` names no client of this organization."))?;
            let trusted = client.takes(redirect_uri);
            (client, trusted)
        };
        if trusted { Ok(client) } else { Err(invalid("`redirect_uri` does not belong to this client.")) }
    }

    /// Whether this is the gateways' callback on a host of this very issuer: the Platform's, or one of the stage.
    async fn is_callback(&self, issuer: &Issuer, uri: &str) -> Answer<bool> {
        let tenant = &issuer.tenant;
        let callback = |host: &str| format!("{}/.bastide/callback", self.domains().origin(host));
        let Some(stage) = &issuer.stage else {
            return Ok(uri == callback(&self.domains().platform_host(&tenant.name)));
        };
        if uri == callback(&self.domains().runtime_host(&tenant.name, stage)) {
            return Ok(true);
        }
        let domains = self.of(tenant).domains().await?;
        let proven = domains.iter().filter(|domain| domain.validated.is_some() && domain.stage == *stage);
        Ok(proven.into_iter().any(|domain| uri == callback(domain.name.as_str())))
    }

    /// Who is signed in here with this browser, if that is recent enough and the one whom the client wants.
    async fn fitting_sign_in(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        request: &Request,
    ) -> Answer<Option<SignIn>> {
        let Some(sign_in) = self.signed_in(issuer, headers).await? else { return Ok(None) };
        if request.max_age_s.is_some_and(|max_s| now_s() - sign_in.used.auth_time > max_s) {
            return Ok(None);
        }
        if let Some(hint) = &request.id_token_hint {
            let wanted = self.hinted(issuer, hint).await?;
            if wanted.is_none_or(|wanted| wanted.sub != sign_in.member.id.to_string()) {
                return Ok(None);
            }
        }
        Ok(Some(sign_in))
    }

    /// Who is signed in here with this browser: an end user of the stage, or else a member.
    pub(super) async fn signed_in(&self, issuer: &Issuer, headers: &HeaderMap) -> Answer<Option<SignIn>> {
        for pool in issuer.pools() {
            let Some(secret) = login::sign_in_secret(headers, pool) else { continue };
            let found = self.sign_in_of(&issuer.tenant, secret).await?;
            // Whatever a cookie is called: who it is for is what the account says.
            if let Some(found) = found.filter(|found| found.member.stage == pool) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn sign_in_of(&self, tenant: &Tenant, secret: &str) -> Answer<Option<SignIn>> {
        let store = self.of(tenant);
        let Some(found) = store.session("provider", &opaque::hash(secret)).await? else { return Ok(None) };
        let Some((session, used)) = store.session_with_id(&found.id).await? else { return Ok(None) };
        let member = self.active(tenant, session.member).await?;
        Ok(member.map(|member| SignIn { session, used, member }))
    }

    /// Makes a code for a member who signed in so; returns where the browser takes it.
    pub(super) async fn code(
        &self,
        issuer: &Issuer,
        write: &mut Write,
        request: &Request,
        parent: &str,
        used: &SessionUse,
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
            stage: issuer.stage_text().to_owned(),
            scope: request.scope.clone(),
            nonce: request.nonce.clone(),
            since: used.auth_time,
            acr: used.acr,
            until: now_s() + CODE_LIFE_S,
        };
        self.of(&issuer.tenant).add_code(write, &code.hash, &row).await?;
        Ok(answer(issuer, request, &[("code", code.secret.expose())]))
    }
}

/// What a trusted redirect hears about a request that is not right.
fn what_is_wrong(form: &Form, request: &Request) -> Option<(&'static str, &'static str)> {
    let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if form.get("request").is_some() {
        return Some(("request_not_supported", "Parameters come in the query."));
    }
    if form.get("request_uri").is_some() {
        return Some(("request_uri_not_supported", "Parameters come in the query."));
    }
    if form.get("registration").is_some() {
        return Some(("registration_not_supported", "Clients are registered by an administrator."));
    }
    if form.get("response_type").is_none() {
        return Some(("invalid_request", "The response_type is missing."));
    }
    if form.get("response_type") != Some("code") {
        return Some(("unsupported_response_type", "The response_type is `code`."));
    }
    if form.get("response_mode").is_some_and(|mode| mode != "query") {
        return Some(("invalid_request", "The response_mode is `query`."));
    }
    if form.get("code_challenge_method") != Some("S256") {
        return Some(("invalid_request", "The code_challenge_method is `S256`."));
    }
    if request.challenge.len() != 43 || !request.challenge.bytes().all(base64url) {
        return Some(("invalid_request", "The code_challenge is the hash of a verifier."));
    }
    if form.get("prompt").is_some_and(|text| Prompt::read(text).is_none()) {
        return Some(("invalid_request", "The prompt is not known, or `none` with others."));
    }
    if form.get("max_age").is_some() && request.max_age_s.is_none_or(|max_s| max_s < 0) {
        return Some(("invalid_request", "The max_age is a number of seconds."));
    }
    if request.nonce.as_ref().is_some_and(|nonce| nonce.len() > NONCE_BYTES_MAX) {
        return Some(("invalid_request", "The nonce is too long."));
    }
    None
}

/// Those of the scopes that mean something here, each once; others are ignored (OpenID Connect Core §3.1.2.1).
pub fn known_scopes(asked: &str) -> String {
    let given: Vec<_> =
        SCOPES.into_iter().filter(|known| asked.split(' ').any(|one| one == *known)).collect();
    given.join(" ")
}

/// The weakest of the classes that a client would take, which it lists by preference; others than ours say nothing
/// (OpenID Connect Core §3.1.2.1).
fn least(acr_values: &str) -> Acr {
    let known = acr_values.split(' ').filter_map(|one| one.parse().ok());
    known.min().unwrap_or(Acr::Password)
}

fn refusal(issuer: &Issuer, request: &Request, error: &str, because: &str) -> String {
    answer(issuer, request, &[("error", error), ("error_description", because)])
}

/// The redirect URI with an answer. Each answer names its issuer (RFC 9207).
fn answer(issuer: &Issuer, request: &Request, pairs: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    if let Some(state) = &request.state {
        query.append_pair("state", state);
    }
    query.append_pair("iss", &issuer.url);
    with_query(&request.redirect_uri, &query.finish())
}

/// An address with more in its query.
pub fn with_query(uri: &str, query: &str) -> String {
    let joint = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{joint}{query}")
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
    fn prompts_are_read_as_written_and_none_stands_alone() {
        let check = |text: &str, expected: Option<(bool, bool, bool)>| {
            let read = Prompt::read(text).map(|prompt| (prompt.none, prompt.login, prompt.ask));
            assert_eq!(read, expected, "{text}");
        };
        check("none", Some((true, false, false)));
        check("login consent", Some((false, true, true)));
        check("select_account", Some((false, false, true)));
        check("none login", None);
        check("create", None);
    }

    #[test]
    fn only_known_scopes_are_given() {
        assert_eq!(known_scopes("email admin openid openid"), "openid email");
        assert_eq!(known_scopes(""), "");
    }

    #[test]
    fn an_answer_goes_behind_the_query_of_a_redirect() {
        assert_eq!(with_query("https://a/cb", "x=1"), "https://a/cb?x=1");
        assert_eq!(with_query("https://a/cb?y=2", "x=1"), "https://a/cb?y=2&x=1");
    }
}
