//! The second step of a sign-in: a passkey, a code of the member's app, or setting one up where it is demanded.
//!
//! Between the steps the browser holds a cookie that says whose password it has shown, and nothing else.

use super::{
    Fault, Identity, account,
    authorize::{Request, redirect},
    factor,
    fault::{Answer, oauth},
    form::Form,
    issuer::Issuer,
    login::{SignInCookies, add_cookie, demand_own_form, form_token, signed_in_now, status_of, with_sign_in},
    own_passkeys, pages,
    tenant::{Tenant, cookie, set_cookie},
};
use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bastide_identity::opaque::{self, Opaque};
use bastide_store::{MemberRow, StoreError, Write, now_s};
use bastide_types::{Acr, Code, Problem, Secret};

/// Cookie of a browser whose user has shown the password, and how long that counts, in seconds.
const HALF_COOKIE: &str = "__Host-bst-half";
const HALF_LIFE_S: i64 = 600;

/// Where a sign-in leads.
pub enum Onward {
    /// To the client that asked, with a code.
    Client(Request),
    /// To the page of one's sessions.
    Sessions,
    /// To the page of one's second factor.
    SecondFactor,
    /// To the page of one's passkeys.
    Passkeys,
    /// To the page that takes the code of a device.
    Device(String),
}

/// What a sign-in owes after the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    Nothing,
    /// One of what the member has and will do.
    Factor {
        /// A code of the app, or a recovery code.
        app: bool,
        passkey: bool,
    },
    /// Setting an app up.
    Enrolment,
    /// A passkey, and there is none.
    NoPasskey,
}

impl Onward {
    /// Reads where a form leads. The inner error is a redirect that tells the client what is wrong.
    pub(super) async fn read(
        identity: &Identity,
        issuer: &Issuer,
        form: &Form,
    ) -> Answer<Result<Self, Response>> {
        Ok(Ok(match form.get("then") {
            Some("sessions") => Self::Sessions,
            Some("second-factor") => Self::SecondFactor,
            Some("passkeys") => Self::Passkeys,
            Some("device") => Self::Device(form.get("user_code").unwrap_or_default().to_owned()),
            Some(_) => return Err(oauth("invalid_request", "There is no such page.")),
            None => match identity.request(issuer, form).await? {
                Ok(request) => Self::Client(request),
                Err(refused) => return Ok(Err(refused)),
            },
        }))
    }

    /// Its hidden fields.
    pub fn fields<'a>(&'a self, form_token: &'a Secret) -> Vec<(&'a str, &'a str)> {
        let page = |name| vec![("form_token", form_token.expose()), ("then", name)];
        match self {
            Self::Client(request) => pages::fields(request, form_token),
            Self::Sessions => page("sessions"),
            Self::SecondFactor => page("second-factor"),
            Self::Passkeys => page("passkeys"),
            Self::Device(user_code) => {
                let mut fields = page("device");
                fields.push(("user_code", user_code));
                fields
            }
        }
    }

    /// How well the sign-in must be secured.
    pub fn acr(&self) -> Acr {
        match self {
            Self::Client(request) => request.acr,
            _ => Acr::Password,
        }
    }

    /// Where a form may lead besides our own pages.
    pub fn target(&self) -> String {
        match self {
            Self::Client(request) => pages::form_target(&request.redirect_uri),
            _ => String::new(),
        }
    }

    /// The page that it leads to, unless it is a client.
    pub fn path(&self, issuer: &Issuer) -> Option<String> {
        match self {
            Self::Client(_) => None,
            Self::Sessions => Some(issuer.path(account::PATH)),
            Self::SecondFactor => Some(issuer.path(factor::PATH)),
            Self::Passkeys => Some(issuer.path(own_passkeys::PATH)),
            Self::Device(user_code) => {
                let query = url::form_urlencoded::byte_serialize(user_code.as_bytes()).collect::<String>();
                Some(format!("{}?user_code={query}", issuer.path("device")))
            }
        }
    }
}

/// POST `…/second`: the code, or the first code of an app that is being set up (`offer`).
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
    let Some((half, member)) = identity.half_signed_in(&issuer, &headers).await? else {
        return identity.over(&issuer, &headers, &onward).await;
    };
    match identity.second_step(&issuer, &headers, &form, &onward, &half, &member).await {
        Err(Fault::Refused(problem, retry)) => {
            let page = identity.ask_again(&issuer, &headers, &form, &onward, &member, &problem).await?;
            Ok(pages::retry_after(page, retry))
        }
        other => other,
    }
}

impl Identity {
    /// The first step again, since the second took too long.
    pub(super) async fn over(&self, issuer: &Issuer, headers: &HeaderMap, onward: &Onward) -> Answer {
        match (onward, onward.path(issuer)) {
            (Onward::Client(request), _) => {
                let problem = Code::LoginFailed.because("The sign-in took too long. Begin again.");
                self.login_page(issuer, headers, request, "", Some(&problem)).await
            }
            (_, path) => Ok(redirect(&path.unwrap_or_default())),
        }
    }

    /// What this member owes after the password, when the sign-in must be secured so.
    pub(super) async fn owed(&self, tenant: &Tenant, member: &MemberRow, wanted: Acr) -> Answer<Owed> {
        let store = self.of(tenant);
        let app = store.has_second_factor(member.id).await?;
        let passkey = store.count_passkeys(member.id).await? > 0;
        Ok(match wanted {
            Acr::Passkey if passkey => Owed::Factor { app: false, passkey },
            Acr::Passkey => Owed::NoPasskey,
            _ if app || passkey => Owed::Factor { app, passkey },
            Acr::Mfa => Owed::Enrolment,
            _ if self.demands_factor(tenant, member).await? => Owed::Enrolment,
            _ => Owed::Nothing,
        })
    }

    /// The page of the second step, for whoever has shown the password just now.
    pub(super) async fn ask_second(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        member: &MemberRow,
        owed: Owed,
        onward: &Onward,
    ) -> Answer {
        if owed == Owed::NoPasskey {
            return pages::no_passkey(issuer);
        }
        let half = Opaque::generate()?;
        let mut write = self.store().write().await?;
        let until = now_s() + HALF_LIFE_S;
        self.of(&issuer.tenant).add_half_sign_in(&mut write, &half.hash, member.id, until).await?;
        write.commit().await.map_err(StoreError::from)?;
        let offer = match owed {
            Owed::Enrolment => Some(self.offer(&issuer.tenant, member)?),
            _ => None,
        };
        let token = form_token(headers)?;
        let mut page = pages::second(issuer, &token, onward, owed, offer.as_ref(), None, StatusCode::OK)?;
        add_cookie(&mut page, &set_cookie(HALF_COOKIE, half.secret.expose(), HALF_LIFE_S));
        Ok(page)
    }

    async fn ask_again(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        onward: &Onward,
        member: &MemberRow,
        problem: &Problem,
    ) -> Answer {
        let offer = match self.offered_again(&issuer.tenant, member, form) {
            None if form.get("offer").is_some() => return self.over(issuer, headers, onward).await,
            offer => offer,
        };
        let owed = self.owed(&issuer.tenant, member, onward.acr()).await?;
        let (token, status) = (form_token(headers)?, status_of(problem));
        pages::second(issuer, &token, onward, owed, offer.as_ref(), Some(problem), status)
    }

    /// Who has shown the password in this browser, while that counts.
    pub(super) async fn half_signed_in(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
    ) -> Answer<Option<([u8; 32], MemberRow)>> {
        let Some(half) = cookie(headers, HALF_COOKIE).map(opaque::hash) else { return Ok(None) };
        let Some(id) = self.of(&issuer.tenant).half_sign_in(&half).await? else { return Ok(None) };
        let member = self.active(&issuer.tenant, id).await?;
        let member = member.filter(|member| issuer.pools().any(|pool| pool == member.stage));
        Ok(member.map(|member| (half, member)))
    }

    async fn second_step(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        onward: &Onward,
        half: &[u8; 32],
        member: &MemberRow,
    ) -> Answer {
        let tenant = &issuer.tenant;
        let enrols = form.get("offer").is_some();
        if onward.acr() > Acr::Mfa {
            return Err(Code::StepUpNeeded.because("This wants a passkey; a code is not enough.").into());
        }
        // An offer of before is no way around the passkeys that came after it.
        if enrols && self.of(tenant).count_passkeys(member.id).await? > 0 {
            return self.over(issuer, headers, onward).await;
        }
        if !enrols {
            self.take_code(tenant, member, form.get("code").unwrap_or_default()).await?;
        }
        let mut write = self.store().write().await?;
        let codes = if enrols { Some(self.enrol(tenant, &mut write, member, form).await?) } else { None };
        if !self.of(tenant).end_half_sign_in(&mut write, half).await? {
            return self.over(issuer, headers, onward).await;
        }
        let (session, cookies) = self.sign_in(issuer, &mut write, headers, member, Acr::Mfa).await?;
        let response = match codes {
            Some(codes) => pages::recovery(issuer, &form_token(headers)?, &codes, onward)?,
            None => redirect(&self.lead(issuer, &mut write, onward, &session, Acr::Mfa, member).await?),
        };
        write.commit().await.map_err(StoreError::from)?;
        Ok(without_half(with_sign_in(response, &cookies)))
    }

    /// Signs a member in who owes nothing more, and sends the browser on.
    pub(super) async fn enter(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        member: &MemberRow,
        onward: &Onward,
    ) -> Answer {
        let mut write = self.store().write().await?;
        let (session, cookies): (String, SignInCookies) =
            self.sign_in(issuer, &mut write, headers, member, Acr::Password).await?;
        let to = self.lead(issuer, &mut write, onward, &session, Acr::Password, member).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(with_sign_in(redirect(&to), &cookies))
    }

    pub(super) async fn lead(
        &self,
        issuer: &Issuer,
        write: &mut Write,
        onward: &Onward,
        session: &str,
        acr: Acr,
        member: &MemberRow,
    ) -> Answer<String> {
        match onward {
            Onward::Client(request) => {
                self.code(issuer, write, request, session, &signed_in_now(acr), member).await
            }
            page => Ok(page.path(issuer).unwrap_or_default()),
        }
    }
}

/// Takes back the cookie of somebody who has shown the password.
pub(super) fn without_half(mut response: Response) -> Response {
    add_cookie(&mut response, &set_cookie(HALF_COOKIE, "", 0));
    response
}
