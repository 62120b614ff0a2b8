//! Signing in with a passkey: alone, or as the second step after the password.
//!
//! A button leads to a page with a question to the browser's authenticator; the script of that page sends the answer back
//! with the page's own form. What a question is for and how its answer is checked stays here, in the store, so that any
//! replica can take the answer. A question counts once, in the browser that was asked, at the issuer that asked.

use super::{
    Fault, Identity,
    authorize::redirect,
    factor::FREE_TRIES,
    fault::Answer,
    form::Form,
    issuer::Issuer,
    login::{demand_own_form, form_token, with_sign_in},
    pages,
    second::{Onward, without_half},
    source::{Count, Source},
    tenant::Tenant,
};
use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bastide_identity::{
    Passkey, PasskeyFault, RelyingParty,
    opaque::{self, Opaque},
    passkey,
};
use bastide_store::{Counter, MemberRow, NewEntry, PasskeyRow, SessionUse, StoreError, Write, now_s};
use bastide_types::{Acr, Code, Problem, UserId};
use serde::{Deserialize, Serialize};

/// Where passkeys are asked for and taken, below the issuer.
pub const PATH: &str = "passkey";
/// Where the script is.
pub const SCRIPT_PATH: &str = "/identity/passkey.js";
/// How long a question counts, in seconds.
const QUESTION_LIFE_S: i64 = 300;
/// Longest a sign-in counts as one of just now where somebody changes how to sign in, in seconds.
const FRESH_S: i64 = 600;

const SCRIPT: &str = include_str!("../../templates/identity/passkey.js");

/// What a question is for. Its answer counts for nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Purpose {
    /// Somebody, by a passkey alone.
    SignIn,
    /// The second step of this member, in the browser that has shown the password.
    Second {
        /// Whose.
        member: UserId,
    },
    /// A new passkey of this member, whose sign-in this is.
    Registration {
        /// Whose.
        member: UserId,
        /// Id of the sign-in.
        session: String,
        /// What it will be called.
        name: String,
    },
}

/// What is kept of a question.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Stage of the issuer that asked; empty for members.
    stage: String,
    purpose: Purpose,
    state: String,
}

/// A page that asks.
pub struct Question<'a> {
    /// For the authenticator, as JSON.
    pub options: &'a str,
    /// What comes back with the answer.
    pub secret: &'a str,
    /// Whether it makes a passkey.
    pub registers: bool,
    pub problem: Option<&'a Problem>,
}

/// A passkey that was shown, and whose it is.
pub(super) struct Shown {
    member: MemberRow,
    row: PasskeyRow,
    counter: u32,
}

/// GET `/identity/passkey.js`.
pub async fn script() -> Response {
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
    ];
    (fields, SCRIPT).into_response()
}

/// POST `…/passkey`: asks for a passkey, or takes the answer (`question`).
pub async fn submit(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let onward = match Onward::read(&identity, &issuer, &form).await? {
        Ok(onward) => onward,
        Err(refused) => return Ok(refused),
    };
    let half = if form.get("step") == Some("second") {
        let Some(half) = identity.half_signed_in(&issuer, &headers).await? else {
            return identity.over(&issuer, &headers, &onward).await;
        };
        Some(half)
    } else {
        None
    };
    let purpose = match &half {
        Some((_, member)) => Purpose::Second { member: member.id },
        None => Purpose::SignIn,
    };
    if form.get("question").is_none() {
        return identity.ask_passkey(&issuer, &headers, &purpose, &onward, None).await;
    }
    let half = half.map(|(half, _)| half);
    match identity.passkey_step(&issuer, &headers, &form, &purpose, half.as_ref(), &onward).await {
        Err(Fault::Refused(problem, retry)) => {
            let page = identity.ask_passkey(&issuer, &headers, &purpose, &onward, Some(&problem)).await?;
            Ok(pages::retry_after(page, retry))
        }
        other => other,
    }
}

impl Identity {
    /// The page that asks for a passkey, to sign in with.
    async fn ask_passkey(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        purpose: &Purpose,
        onward: &Onward,
        problem: Option<&Problem>,
    ) -> Answer {
        let allowed = match purpose {
            Purpose::Second { member } => self.passkeys_of(&issuer.tenant, *member).await?,
            _ => Vec::new(),
        };
        let asked = self.relying_party(&issuer.tenant)?.ask(&allowed).map_err(Fault::Passkey)?;
        let secret = self.keep_question(issuer, headers, purpose, asked.state).await?;
        let token = form_token(headers)?;
        let mut fields = onward.fields(&token);
        if matches!(purpose, Purpose::Second { .. }) {
            fields.push(("step", "second"));
        }
        let question =
            Question { options: &asked.options, secret: secret.secret.expose(), registers: false, problem };
        let (origin, target) = (self.domains().platform_url(&issuer.tenant.name), onward.target());
        pages::passkey(issuer, PATH, &origin, &token, fields, &question, &target)
    }

    /// Keeps what the answer to a question is checked with; the secret that the page brings back.
    pub(super) async fn keep_question(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        purpose: &Purpose,
        state: String,
    ) -> Answer<Opaque> {
        if let Count::Over(wait_s) = self.limits().questions.count(Source::of(headers), now_s()) {
            return Err(Fault::Refused(Code::LoginLocked.problem(), Some(wait_s)));
        }
        let kept = Kept { stage: issuer.stage_text().to_owned(), purpose: purpose.clone(), state };
        let kept = serde_json::to_vec(&kept).map_err(|_| Fault::Passkey(PasskeyFault::Setup))?;
        let (secret, until) = (Opaque::generate()?, now_s() + QUESTION_LIFE_S);
        let browser = opaque::hash(form_token(headers)?.expose());
        let mut write = self.store().write().await?;
        let store = self.of(&issuer.tenant);
        store.add_passkey_challenge(&mut write, &secret.hash, &browser, &kept, until).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(secret)
    }

    /// How the answer that a form brings is checked, when its question was asked for this, here, and not answered yet.
    pub(super) async fn kept_question(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        is_meant: impl FnOnce(&Purpose) -> bool,
    ) -> Answer<Option<(Purpose, String)>> {
        let hash = opaque::hash(form.get("question").unwrap_or_default());
        let browser = opaque::hash(form_token(headers)?.expose());
        let mut write = self.store().write().await?;
        let kept = self.of(&issuer.tenant).take_passkey_challenge(&mut write, &hash, &browser).await?;
        // It has counted, whatever comes of it.
        write.commit().await.map_err(StoreError::from)?;
        let kept = kept.and_then(|kept| serde_json::from_slice::<Kept>(&kept).ok());
        let kept = kept.filter(|kept| kept.stage == issuer.stage_text() && is_meant(&kept.purpose));
        Ok(kept.map(|kept| (kept.purpose, kept.state)))
    }

    async fn passkey_step(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        purpose: &Purpose,
        half: Option<&[u8; 32]>,
        onward: &Onward,
    ) -> Answer {
        let shown = self.passkey_shown(issuer, headers, form, purpose).await?;
        let (tenant, store) = (&issuer.tenant, self.of(&issuer.tenant));
        let mut write = self.store().write().await?;
        if !self.spend(tenant, &mut write, &shown).await? {
            drop(write);
            let who = Some(shown.member.id);
            return Err(self.passkey_failed(tenant, headers, who, &PasskeyFault::Copied.to_string()).await?);
        }
        if let Some(half) = half
            && !store.end_half_sign_in(&mut write, half).await?
        {
            return self.over(issuer, headers, onward).await;
        }
        let member = &shown.member;
        let (session, cookies) = self.sign_in(issuer, &mut write, headers, member, Acr::Passkey).await?;
        let to = self.lead(issuer, &mut write, onward, &session, Acr::Passkey, member).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(without_half(with_sign_in(redirect(&to), &cookies)))
    }

    /// Whose passkey the answer of a form shows. Tries are counted for the member whose it is said to be, and failures at
    /// their source; a lock of passwords locks no passkey.
    ///
    /// # Errors
    /// One and the same [`Code::PasskeyRefused`] whatever is wrong, which the audit trail tells; [`Code::LoginLocked`].
    async fn passkey_shown(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        purpose: &Purpose,
    ) -> Answer<Shown> {
        let (tenant, store) = (&issuer.tenant, self.of(&issuer.tenant));
        let locked = |wait_s| Fault::Refused(Code::LoginLocked.problem(), Some(wait_s));
        if let Some(wait_s) = self.limits().passkeys.wait_s(Source::of(headers), now_s()) {
            return Err(locked(wait_s));
        }
        let expected = match purpose {
            Purpose::Second { member } => Some(*member),
            _ => None,
        };
        let kept = self.kept_question(issuer, headers, form, |kept| kept == purpose).await?;
        let Some((_, state)) = kept else {
            let why = "its question is over, or was asked elsewhere or for something else";
            return Err(self.passkey_failed(tenant, headers, expected, why).await?);
        };
        let answer = answer(form);
        let found = match answer.hash() {
            Ok(hash) => store.passkey(&hash).await?,
            Err(_) => None,
        };
        let counted = expected.or(found.as_ref().map(|row| row.member));
        if let Some(member) = counted {
            store.count_try(Counter::Passkey(member), FREE_TRIES).await?.map_err(locked)?;
        }
        match self.checked(issuer, &state, &answer, found, expected).await? {
            Ok(shown) => Ok(shown),
            Err(why) => Err(self.passkey_failed(tenant, headers, counted, &why).await?),
        }
    }

    /// The passkey of an answer, or why it does not count.
    async fn checked(
        &self,
        issuer: &Issuer,
        state: &str,
        answer: &passkey::Answer<'_>,
        found: Option<PasskeyRow>,
        expected: Option<UserId>,
    ) -> Answer<Result<Shown, String>> {
        let refused = |why: &str| Ok(Err(why.to_owned()));
        let Some(mut row) = found else { return refused("nobody has this passkey") };
        if expected.is_some_and(|expected| expected != row.member) {
            return refused("it is somebody else's passkey");
        }
        let owner = match answer.owner() {
            Ok(owner) => owner.map(UserId),
            Err(fault) => return refused(&fault.to_string()),
        };
        // Who is not known yet is known by the passkey's own word (Web Authentication §7.2, step 6).
        if owner.map_or(expected.is_none(), |owner| owner != row.member) {
            return refused("it does not say whose it is, or says another one's name");
        }
        let Some(member) = self.active(&issuer.tenant, row.member).await? else {
            return refused("its owner is not active");
        };
        if issuer.pools().all(|pool| pool != member.stage) {
            return refused("its owner has no account here, but in another stage");
        }
        let kept = Passkey::from_bytes(&row.data).map_err(Fault::Passkey)?;
        match self.relying_party(&issuer.tenant)?.shown(state, answer, &kept) {
            Ok(shown) => {
                row.data = shown.passkey.to_bytes().map_err(Fault::Passkey)?;
                Ok(Ok(Shown { member, row, counter: shown.counter }))
            }
            Err(fault @ (PasskeyFault::Kept | PasskeyFault::Setup)) => Err(Fault::Passkey(fault)),
            Err(fault) => refused(&fault.to_string()),
        }
    }

    /// Notes that a passkey was shown, and forgets the failures before; false when its counter says that it, or a copy of
    /// it, was shown later.
    async fn spend(&self, tenant: &Tenant, write: &mut Write, shown: &Shown) -> Answer<bool> {
        let store = self.of(tenant);
        if !store.use_passkey(write, &shown.row, shown.counter).await? {
            return Ok(false);
        }
        store.reset_tries(write, Counter::Passkey(shown.member.id)).await?;
        Ok(true)
    }

    /// Writes a refused passkey down and counts it at its source.
    pub(super) async fn passkey_failed(
        &self,
        tenant: &Tenant,
        headers: &HeaderMap,
        member: Option<UserId>,
        why: &str,
    ) -> Answer<Fault> {
        self.limits().passkeys.count(Source::of(headers), now_s());
        let who = member.map_or_else(|| "anonymous".to_owned(), |member| member.to_string());
        let refused = Some(Code::PasskeyRefused.as_str());
        let entry =
            NewEntry { who: &who, what: "passkey.failed", detail: why, refused, ..NewEntry::default() };
        let mut write = self.store().write().await?;
        self.of(tenant).audit_entry(&mut write, &entry).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(Code::PasskeyRefused.into())
    }

    /// The pages of a customer, as authenticators know them.
    pub(super) fn relying_party(&self, tenant: &Tenant) -> Answer<RelyingParty> {
        let (host, origin) =
            (self.domains().platform_host(&tenant.name), self.domains().platform_url(&tenant.name));
        RelyingParty::new(&host, &origin, &format!("Bastide {}", tenant.name)).map_err(Fault::Passkey)
    }

    /// The passkeys of a member or end user, for the engine.
    pub(super) async fn passkeys_of(&self, tenant: &Tenant, member: UserId) -> Answer<Vec<Passkey>> {
        let rows = self.of(tenant).passkeys_of(member).await?;
        rows.iter().map(|row| Passkey::from_bytes(&row.data).map_err(Fault::Passkey)).collect()
    }
}

/// Whether somebody has shown a passkey just now.
pub(super) fn is_fresh(used: &SessionUse) -> bool {
    used.acr == Acr::Passkey && (0..=FRESH_S).contains(&(now_s() - used.auth_time))
}

/// The answer that a form brings.
fn answer(form: &Form) -> passkey::Answer<'_> {
    let part = |name| form.get(name).unwrap_or_default();
    passkey::Answer {
        credential: part("credential"),
        client_data: part("client_data"),
        authenticator_data: part("authenticator_data"),
        signature: part("signature"),
        user_handle: form.get("user_handle"),
    }
}
