//! Members and roles of apps: the part of the API that belongs to identity.

use super::{
    letters::{self, LINK_LIFE_S},
    reset::reset_link,
    sessions_api,
};
use crate::{ApiError, App, caller::Caller, wire::paging::Part};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::JsonRejection},
    routing::{delete, get, post},
};
use bastide_identity::opaque::Opaque;
use bastide_store::{Beside, CustomerStore, Mail, MemberRow, StoreError, Write, now_s};
use bastide_types::{AppName, Code, CustomerId, CustomerName, StageName};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

/// Life of an invitation, in seconds.
pub(super) const INVITATION_S: i64 = 7 * 24 * 3600;

#[derive(OpenApi)]
#[openapi(paths(list, invite_member, reset_password, roles, grant, revoke_of_group))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/members", get(list).post(invite_member))
        .route("/members/{member}/password-reset", post(reset_password))
        .route("/apps/{app}/roles", get(roles).put(grant))
        .route("/apps/{app}/roles/{stage}/{role}/groups/{group}", delete(revoke_of_group))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// A member.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Member {
    id: String,
    email: String,
    name: String,
    /// `invited`, `active` or `inactive`.
    state: String,
    roles: Vec<String>,
    /// Whether the member signs in with a code of an app, too.
    second_factor: bool,
    /// How many passkeys the member has.
    passkeys: i64,
}

/// Somebody to invite.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMember {
    email: String,
    name: Option<String>,
    /// `administrator`, `developer`, or roles of one's own; `ROLE@STAGE` for one that counts in that stage only.
    roles: Vec<String>,
}

/// A link for somebody. It works once: an invitation for seven days, one for a new password for 15 minutes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Invitation {
    /// Whether it went by mail.
    mailed: bool,
    /// The link, where no mail is sent: for the administrator to hand on.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

impl Invitation {
    /// Sends the letter with this link, or else shows the link.
    pub(super) async fn deliver(
        app: &App,
        own: &CustomerStore<'_>,
        write: &mut Write,
        letter: Mail,
        link: String,
        life_s: i64,
    ) -> Result<Self, ApiError> {
        if app.mailer.is_none() {
            return Ok(Self { mailed: false, link: Some(link) });
        }
        if own.post(write, &letter, now_s() + life_s).await? {
            return Ok(Self { mailed: true, link: None });
        }
        Err(ApiError::because(Code::Overloaded, "too many letters wait to be sent"))
    }
}

/// A role of an app in a stage, and who has it: one of `email`, `user`, `group`.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    stage: String,
    role: String,
    /// Address of a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// Address of an end user of the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// A group of the stage's end users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

/// Lists members.
#[utoipa::path(get, path = "/members", params(Part), responses((status = 200, body = Vec<Member>)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(part): Query<Part>,
) -> Result<Json<Vec<Member>>, ApiError> {
    let (after, most) = part.page();
    let own = caller.store(&app);
    let members = own.members_after(after, most).await?;
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return Ok(Json(Vec::new())) };
    let mut beside = own.beside("", &first.email, &last.email).await?;
    let shown = members.into_iter().map(|member| {
        let Beside { second_factor, passkeys, .. } = beside.remove(&member.id).unwrap_or_default();
        Member {
            passkeys,
            second_factor,
            id: member.id.to_string(),
            email: member.email,
            name: member.name,
            state: member.state,
            roles: member.roles,
        }
    });
    Ok(Json(shown.collect()))
}

/// Invites somebody.
#[utoipa::path(post, path = "/members", request_body = NewMember, responses((status = 201, body = Invitation), (status = 409, description = "Already a member")))]
pub(crate) async fn invite_member(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewMember>, JsonRejection>,
) -> Result<(StatusCode, Json<Invitation>), ApiError> {
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    if new.roles.is_empty() {
        return Err(ApiError::because(Code::InputInvalid, "roles: at least one"));
    }
    let mut write = app.store.write().await?;
    caller.demand_to_give(&app, &mut write, &new.roles).await?;
    let customer = &caller.customer;
    let row = invited(&new.email, new.name, new.roles)?;
    let mailed = app.mailer.is_some();
    let link = invite(&app, &mut write, customer.id, &customer.name, &row, mailed).await?;
    let own = caller.store(&app);
    let letter = letters::invitation(&row.email, &customer.name, None, &link);
    let made = Invitation::deliver(&app, &own, &mut write, letter, link, INVITATION_S).await?;
    own.audit(&mut write, &caller.who.sub, "member.invited", &row.email).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Adds an invited member, or renews the invitation of one who has not accepted yet; the link that makes
/// them active. Links made before stop working.
pub(crate) async fn invite(
    app: &App,
    write: &mut Write,
    customer: CustomerId,
    customer_name: &CustomerName,
    member: &MemberRow,
    mailed: bool,
) -> Result<String, ApiError> {
    let own = app.store.customer(customer);
    let taken = || ApiError::because(Code::NameTaken, format!("{} is a member already", member.email));
    let id = own.renew_invited(write, member).await?.ok_or_else(taken)?;
    let token = Opaque::generate()?;
    own.add_invitation_by(write, &token.hash, id, now_s() + INVITATION_S, mailed).await?;
    Ok(format!("{}/invite/{}", app.config.domains.member_issuer(customer_name), token.secret.expose()))
}

/// A member to be.
pub(crate) fn invited(email: &str, name: Option<String>, roles: Vec<String>) -> Result<MemberRow, ApiError> {
    let email = address(email)?;
    Ok(MemberRow::invited("", &email, &display_name(name, &email), roles))
}

/// Makes a link by which a member who has forgotten the password chooses another one.
#[utoipa::path(post, path = "/members/{member}/password-reset", params(("member" = String, Path, description = "Id of the member")), responses((status = 201, body = Invitation), (status = 404, description = "No such member"), (status = 422, description = "The member is not active")))]
pub(crate) async fn reset_password(
    State(app): State<App>,
    caller: Caller,
    Path(member): Path<String>,
) -> Result<(StatusCode, Json<Invitation>), ApiError> {
    let member = sessions_api::find(&app, &caller, &member).await?;
    let mut write = app.store.write().await?;
    // Whoever reads the link can be that member.
    caller.demand_reach(&app, &mut write, &member.roles).await?;
    let made = password_link(&app, &caller, &mut write, &member, None).await?;
    caller.done(&app, write, "password.link", &member.email).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// A link for a new password, by mail or for the administrator who asked.
pub(super) async fn password_link(
    app: &App,
    caller: &Caller,
    write: &mut Write,
    member: &MemberRow,
    stage: Option<&StageName>,
) -> Result<Invitation, ApiError> {
    if member.state != "active" {
        return Err(ApiError::because(Code::InputInvalid, "only active accounts have a password"));
    }
    let (own, name, domains) = (caller.store(app), &caller.customer.name, &app.config.domains);
    let issuer = stage.map_or_else(|| domains.member_issuer(name), |stage| domains.stage_issuer(name, stage));
    let (token, mailed) = (Opaque::generate()?, app.mailer.is_some());
    let link = reset_link(&own, write, &issuer, member, mailed, &token).await?;
    let letter = letters::reset(&member.email, name, stage, &link);
    Invitation::deliver(app, &own, write, letter, link, LINK_LIFE_S).await
}

/// An e-mail address, in lower case.
pub(super) fn address(text: &str) -> Result<String, ApiError> {
    let email = text.trim().to_lowercase();
    let plausible = email.len() <= 254
        && email
            .split_once('@')
            .is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains('@'))
        && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    if plausible {
        Ok(email)
    } else {
        Err(ApiError::because(Code::InputInvalid, "email: an address such as ann@example.com"))
    }
}

/// A name to show; without one, the first part of the address.
pub(super) fn display_name(name: Option<String>, email: &str) -> String {
    let name = name.unwrap_or_else(|| email.split('@').next().unwrap_or_default().to_owned());
    name.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Lists who has which role of an app.
#[utoipa::path(get, path = "/apps/{app}/roles", params(("app" = String, Path, description = "Name of the app")), responses((status = 200, body = Vec<Grant>), (status = 404, description = "No such app")))]
pub(crate) async fn roles(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<Grant>>, ApiError> {
    let own = caller.store(&app);
    let found = find(&app, &caller, &name).await?;
    let of = |stage: StageName, role| Grant { stage: stage.to_string(), role, ..Grant::default() };
    let mut shown = Vec::new();
    let seen = own.app_roles(found).await?.into_iter().filter(|(stage, ..)| caller.sees(stage));
    for (stage, role, holder) in seen {
        let grant = of(stage, role);
        shown.push(match holder.stage.as_str() {
            "" => Grant { email: Some(holder.email), ..grant },
            _ => Grant { user: Some(holder.email), ..grant },
        });
    }
    let groups = own.group_roles(found).await?.into_iter().filter(|(stage, ..)| caller.sees(stage));
    shown.extend(groups.map(|(stage, role, group)| Grant { group: Some(group), ..of(stage, role) }));
    Ok(Json(shown))
}

/// Gives a member, an end user or a group a role of an app in a stage.
#[utoipa::path(put, path = "/apps/{app}/roles", params(("app" = String, Path, description = "Name of the app")), request_body = Grant, responses((status = 204, description = "Granted"), (status = 404, description = "No such app")))]
pub(crate) async fn grant(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<Grant>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Json(grant) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let invalid = |what: &str| ApiError::because(Code::InputInvalid, what);
    let stage = StageName::new(grant.stage.clone()).map_err(|error| invalid(&format!("stage: {error}")))?;
    caller.demand_in(&stage)?;
    let found = find(&app, &caller, &name).await?;
    let own = caller.store(&app);
    if !own.stage_names().await?.contains(&stage) {
        return Err(invalid("stage: there is no such stage"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if grant.role.is_empty() || grant.role.len() > 64 || !grant.role.bytes().all(plain) {
        return Err(invalid("role: letters, digits, `-`, `_`"));
    }
    let who = holder(&own, &stage, &grant).await?;
    let mut write = app.store.write().await?;
    match &who {
        Holder::Somebody(member) => {
            own.grant_app_role(&mut write, &stage, found, &grant.role, member.id).await?;
        }
        Holder::Group(group) if own.has_group(&mut write, &stage, group).await? => {
            own.grant_group_role(&mut write, &stage, group, found, &grant.role).await?;
        }
        Holder::Group(_) => return Err(invalid("group: there is no such group in that stage")),
    }
    let who = match who {
        Holder::Somebody(member) => member.email,
        Holder::Group(group) => format!("group {group}"),
    };
    let detail = format!("{name} {} in {stage} to {who}", grant.role);
    caller.done(&app, write, "role.granted", &detail).await
}

/// Takes a role of an app in a stage from a group. Tokens that name it count no longer.
#[utoipa::path(delete, path = "/apps/{app}/roles/{stage}/{role}/groups/{group}", params(("app" = String, Path, description = "Name of the app"), ("stage" = String, Path, description = "Stage"), ("role" = String, Path, description = "The role"), ("group" = String, Path, description = "Name of the group")), responses((status = 204, description = "Taken"), (status = 404, description = "The group has no such role")))]
pub(crate) async fn revoke_of_group(
    State(app): State<App>,
    caller: Caller,
    Path((name, stage, role, group)): Path<(String, String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let found = find(&app, &caller, &name).await?;
    let stage = StageName::new(stage).map_err(|_| unknown())?;
    let mut write = app.store.write().await?;
    if !caller.store(&app).revoke_group_role(&mut write, &stage, &group, found, &role).await? {
        return Err(unknown());
    }
    let detail = format!("{name} {role} in {stage} from group {group}");
    caller.done(&app, write, "role.revoked", &detail).await
}

/// Who gets a role.
enum Holder {
    Somebody(MemberRow),
    Group(String),
}

async fn holder(own: &CustomerStore<'_>, stage: &StageName, grant: &Grant) -> Result<Holder, ApiError> {
    let invalid = |what: &str| ApiError::because(Code::InputInvalid, what);
    let (pool, address, nobody) = match (&grant.email, &grant.user, &grant.group) {
        (Some(email), None, None) => ("", email, "email: nobody here has this address"),
        (None, Some(user), None) => (stage.as_str(), user, "user: nobody in that stage has this address"),
        (None, None, Some(group)) => return Ok(Holder::Group(group.clone())),
        _ => return Err(invalid("give one of `email` (a member), `user` (an end user), `group`")),
    };
    let found = own.user_with_email(pool, &address.trim().to_lowercase()).await?;
    Ok(Holder::Somebody(found.ok_or_else(|| invalid(nobody))?))
}

async fn find(app: &App, caller: &Caller, name: &str) -> Result<bastide_types::AppId, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let name = AppName::new(name).map_err(|_| unknown())?;
    Ok(caller.store(app).app_named(&name).await?.ok_or_else(unknown)?.id)
}
