//! Programs without a browser (RFC 8628): a code to type elsewhere, a page that takes it, a member's word.

use super::{
    Fault, Identity,
    authorize::{SignIn, known_scopes},
    clients::{Client, Kind},
    fault::{Answer, oauth},
    form::Form,
    issue::Epoch,
    issuer::Issuer,
    login::{SignInCookies, demand_own_form, form_token, with_sign_in},
    pages,
    second::{Onward, Owed},
    source::{Count, Source},
    token::client_form,
};
use axum::{
    Json,
    body::Bytes,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bastide_identity::opaque::{self, Opaque};
use bastide_store::{Counter, DeviceOutcome, DeviceRow, StoreError, Word, now_s};
use bastide_types::{Acr, Code, Problem, Secret};
use serde_json::json;

/// Life of a device code, in seconds.
const LIFE_S: i64 = 600;
/// Seconds that a program waits between two questions.
const EVERY_S: i64 = 5;
/// Programs of one organization that may wait at the same time: anybody may ask for codes.
const WAITING_MAX: i64 = 1000;
/// Wrong codes that a member may type before waiting begins.
const FREE_TRIES: i64 = 5;

/// What the page for the code shows.
pub struct Shown<'a> {
    /// What was typed.
    pub user_code: &'a str,
    /// Who is signed in.
    pub member: Option<&'a str>,
    /// The client to decide about, once the code is known.
    pub client: Option<&'a str>,
    /// What went wrong.
    pub problem: Option<&'a Problem>,
}

/// POST `…/device_authorization`: a program asks for codes.
pub async fn begin(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = client_form(&headers, &body)?;
    if let Count::Over(wait_s) = identity.limits().devices.count(Source::of(&headers), now_s()) {
        return Err(Fault::Refused(Code::Overloaded.problem(), Some(wait_s)));
    }
    let client = identity.authenticate(&issuer, &headers, &form).await?;
    demand_device(&client)?;
    let device_code = Opaque::generate()?;
    let user_code = opaque::user_code()?;
    let row = DeviceRow {
        user_code: user_code.clone(),
        client: client.id,
        stage: issuer.stage_text().to_owned(),
        scope: known_scopes(form.get("scope").unwrap_or_default()),
        until: now_s() + LIFE_S,
        every_s: EVERY_S,
    };
    let mut write = identity.store().write().await?;
    if !identity.of(&issuer.tenant).add_device(&mut write, &device_code.hash, &row, WAITING_MAX).await? {
        return Err(Fault::Refused(Code::Overloaded.problem(), Some(LIFE_S)));
    }
    write.commit().await.map_err(StoreError::from)?;
    let (page, shown) = (format!("{}/device", issuer.url), spelled(&user_code));
    let body = json!({
        "device_code": device_code.secret.expose(),
        "user_code": shown,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={shown}"),
        "expires_in": LIFE_S,
        "interval": EVERY_S,
    });
    Ok(([("cache-control", "no-store")], Json(body)).into_response())
}

/// GET `…/device`: the page that takes the code.
pub async fn page(
    State(identity): State<Identity>,
    issuer: Issuer,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let form = Form::read(query.unwrap_or_default().as_bytes())?;
    let user_code = spelled(&opaque::typed_user_code(form.get("user_code").unwrap_or_default()));
    let sign_in = identity.signed_in(&issuer, &headers).await?;
    let member = sign_in.as_ref().map(|sign_in| sign_in.member.email.as_str());
    let shown = Shown { user_code: &user_code, member, client: None, problem: None };
    pages::device(&issuer, &form_token(&headers)?, &shown)
}

/// POST `…/device`: the code, and then the member's word. A link cannot say yes in somebody's name: the page
/// shows which program asks, and only its own button counts.
pub async fn submit(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let typed = opaque::typed_user_code(form.get("user_code").unwrap_or_default());
    let token = form_token(&headers)?;
    match identity.device_step(&issuer, &headers, &form, &typed, &token).await {
        Err(Fault::Refused(problem, retry)) => {
            let (user_code, sign_in) = (spelled(&typed), identity.signed_in(&issuer, &headers).await?);
            let member = sign_in.as_ref().map(|sign_in| sign_in.member.email.as_str());
            let shown = Shown { user_code: &user_code, member, client: None, problem: Some(&problem) };
            pages::refused_device(&issuer, &token, &shown, retry)
        }
        other => other,
    }
}

impl Identity {
    async fn device_step(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        typed: &str,
        token: &Secret,
    ) -> Answer {
        let onward = Onward::Device(spelled(typed));
        let (sign_in, secret) = match self.member_of_form(issuer, headers, form, onward).await? {
            Ok(found) => found,
            Err(page) => return Ok(page),
        };
        let client = self.waiting_client(issuer, &sign_in, typed).await?;
        let answer = match form.get("decision") {
            // A word counts only from somebody who saw who asks.
            Some(word @ ("allow" | "deny")) if secret.is_none() => {
                self.decide_device(issuer, &sign_in, typed, word == "allow", &client).await?
            }
            _ => {
                let (user_code, member) = (spelled(typed), Some(sign_in.member.email.as_str()));
                let client = Some(client.name.as_str());
                pages::device(issuer, token, &Shown { user_code: &user_code, member, client, problem: None })?
            }
        };
        Ok(match secret {
            Some(secret) => with_sign_in(answer, &secret),
            None => answer,
        })
    }

    /// Who is signed in, or signs in with this form; then with the secret of the new sign-in. The inner error is the
    /// page of the second step, which leads `onward`.
    pub(super) async fn member_of_form(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        onward: Onward,
    ) -> Answer<Result<(SignIn, Option<SignInCookies>), Response>> {
        if let Some(found) = self.signed_in(issuer, headers).await? {
            return Ok(Ok((found, None)));
        }
        let email = form.get("username").unwrap_or_default().trim().to_lowercase();
        let password = Secret::new(form.get("password").unwrap_or_default());
        let member = self.check_password(issuer, headers, &email, password).await?;
        match self.owed(&issuer.tenant, &member, Acr::Password).await? {
            Owed::Nothing => {}
            owed => return Ok(Err(self.ask_second(issuer, headers, &member, owed, &onward).await?)),
        }
        let mut write = self.store().write().await?;
        let (session, secret) = self.sign_in(issuer, &mut write, headers, &member, Acr::Password).await?;
        write.commit().await.map_err(StoreError::from)?;
        let found = self.of(&issuer.tenant).session_with_id(&session).await?;
        let (session, used) = found.ok_or(Code::LoginFailed)?;
        Ok(Ok((SignIn { session, used, member }, Some(secret))))
    }

    /// The client that waits under this code. Guesses are counted for each member.
    async fn waiting_client(&self, issuer: &Issuer, sign_in: &SignIn, typed: &str) -> Answer<Client> {
        let store = self.of(&issuer.tenant);
        let counter = Counter::UserCode(sign_in.member.id);
        if let Err(wait_s) = store.count_try(counter, FREE_TRIES).await? {
            return Err(Fault::Refused(Code::LoginLocked.problem(), Some(wait_s)));
        }
        let waiting = store.device_waiting(typed, issuer.stage_text()).await?;
        let client = match waiting {
            Some(id) => self.client_with_users(&issuer.tenant, &id).await?,
            None => None,
        };
        let Some(client) = client else {
            let who = sign_in.member.id.to_string();
            self.note(&issuer.tenant, &who, "device.refused", "the code is wrong or too old").await?;
            let because = "This code is wrong or its time is over. Look at it again.";
            return Err(Code::OAuthInvalid.because(because).into());
        };
        let mut write = self.store().write().await?;
        store.reset_tries(&mut write, counter).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(client)
    }

    async fn decide_device(
        &self,
        issuer: &Issuer,
        sign_in: &SignIn,
        typed: &str,
        allowed: bool,
        client: &Client,
    ) -> Answer {
        let store = self.of(&issuer.tenant);
        let used = &sign_in.used;
        let word = Word { member: sign_in.member.id, since: used.auth_time, acr: used.acr };
        let mut write = self.store().write().await?;
        let first = store.answer_device(&mut write, typed, issuer.stage_text(), allowed, word).await?;
        if !first {
            return Err(Code::OAuthInvalid.because("The time of this code is over.").into());
        }
        let what = if allowed { "device.allowed" } else { "device.denied" };
        store.audit(&mut write, &word.member.to_string(), what, &client.id).await?;
        write.commit().await.map_err(StoreError::from)?;
        let said =
            if allowed { "The program is signed in. You may close this page." } else { "It was refused." };
        pages::message(&issuer.tenant, "Sign in a device", said)
    }

    /// The grant: the program asks whether the member has spoken.
    pub(super) async fn by_device(
        &self,
        issuer: &Issuer,
        epoch: Epoch,
        client: &Client,
        form: &Form,
    ) -> Answer {
        demand_device(client)?;
        let hash = opaque::hash(form.need("device_code")?);
        let target = self.target_at(issuer, form.get("resource")).await?;
        let mut write = self.store().write().await?;
        let store = self.of(&issuer.tenant);
        let outcome = store.ask_device(&mut write, &hash, &client.id, issuer.stage_text()).await?;
        write.commit().await.map_err(StoreError::from)?;
        match outcome {
            DeviceOutcome::Allowed(row, word) => {
                self.begin_device(issuer, epoch, client, &row, word, target.as_ref()).await
            }
            DeviceOutcome::Denied => Err(oauth("access_denied", "The user said no.")),
            DeviceOutcome::Waiting => Err(oauth("authorization_pending", "The user has not answered yet.")),
            DeviceOutcome::TooOften => Err(oauth("slow_down", "Wait five seconds longer between questions.")),
            DeviceOutcome::Over => Err(oauth("expired_token", "The time of this code is over.")),
            DeviceOutcome::Unknown => Err(oauth("invalid_grant", "The code is not known.")),
        }
    }
}

/// A user code as people see it.
fn spelled(code: &str) -> String {
    match code.split_at_checked(opaque::USER_CODE_LENGTH / 2) {
        Some((first, second)) if !second.is_empty() => format!("{first}-{second}"),
        _ => code.to_owned(),
    }
}

fn demand_device(client: &Client) -> Answer<()> {
    let good = client.kind == Kind::Device || client.row.is_none();
    if good { Ok(()) } else { Err(oauth("unauthorized_client", "This client has a browser.")) }
}
