//! Access tokens: for whom, for which audience, by which issuer.

use super::{
    Identity,
    fault::{Answer, Fault, oauth},
    issuer::Issuer,
    tenant::Tenant,
};
use bastide_identity::{
    Claims, KeyError, SigningKey,
    claims::{CLIENT_LIFE_S, PLATFORM_STAGE, USER_LIFE_S},
    mint,
};
use bastide_store::{AppRow, ClientRow, DomainRow, KeyKind, MemberRow, SessionUse, now_s};
use bastide_types::{Acr, AppName, DomainName, Site, StageName, UserId};
use url::Url;
use uuid::Uuid;

/// How far the session feed was when the facts for a token began to be read. Whatever is revoked after that hits
/// the token, also when it happens while the token is made.
#[derive(Debug, Clone, Copy)]
pub struct Epoch(u64);

/// An app in a stage, asked for as `resource` (RFC 8707).
pub struct Target {
    pub stage: StageName,
    pub app: AppRow,
    pub url: String,
}

/// For whom a token is.
#[derive(Clone, Copy)]
enum Audience<'a> {
    Platform,
    App(&'a Target),
    /// The issuer of a stage itself: its `/userinfo`.
    Issuer(&'a StageName),
}

/// A token and when it ends, in seconds since 1970.
pub struct Issued {
    pub token: String,
    pub expires_at: u64,
    pub life_s: u64,
}

/// Whose token it is.
pub enum Holder<'a> {
    Member {
        member: &'a MemberRow,
        session: &'a str,
        used: &'a SessionUse,
        /// Seconds since 1970 at which the session ends, and the token with it.
        until: i64,
        client_id: &'a str,
    },
    Client {
        client: &'a ClientRow,
        /// Grant of the secret or key by which it proved itself.
        grant: &'a str,
    },
}

impl Identity {
    /// The epoch of a token: asked for before anything that the token will say is read.
    pub(super) async fn epoch(&self) -> Answer<Epoch> {
        Ok(Epoch(self.store().token_epoch().await?))
    }

    /// The app that a `resource` names. It must serve in that stage of this customer.
    pub(super) async fn target(&self, tenant: &Tenant, resource: Option<&str>) -> Answer<Option<Target>> {
        let Some(resource) = resource else { return Ok(None) };
        let unknown = || oauth("invalid_target", "No app of this organization is served at that address.");
        let text = resource.strip_suffix('/').unwrap_or(resource);
        let url = Url::parse(text).map_err(|_| unknown())?;
        let host = url.host_str().ok_or_else(unknown)?;
        let segment = || AppName::new(url.path().trim_start_matches('/')).map_err(|_| unknown());
        let (stage, app, exact) = match self.domains().site(host) {
            Some(Site::Runtime(customer, stage)) if customer == tenant.name => {
                let app = segment()?;
                let exact = self.domains().app_url(&tenant.name, &stage, &app);
                (stage, app, exact)
            }
            Some(_) => return Err(unknown()),
            None => {
                let domain = self.proven_domain(tenant, host).await?.ok_or_else(unknown)?;
                let origin = self.domains().origin(host);
                match domain.app {
                    Some(app) => (domain.stage, app, origin),
                    None => {
                        let app = segment()?;
                        let exact = format!("{origin}/{app}");
                        (domain.stage, app, exact)
                    }
                }
            }
        };
        // The exact text, so that neither port, user nor query can hide in it.
        if exact != text {
            return Err(unknown());
        }
        // Tokens are for the app in its stage, by whichever address it was asked for.
        let url = self.domains().app_url(&tenant.name, &stage, &app);
        let app = self.of(tenant).app_named(&app).await?.ok_or_else(unknown)?;
        if !self.of(tenant).serving(&stage).await?.contains_key(&app.id) {
            return Err(unknown());
        }
        Ok(Some(Target { stage, app, url }))
    }

    pub(super) async fn proven_domain(&self, tenant: &Tenant, host: &str) -> Answer<Option<DomainRow>> {
        let Ok(name) = DomainName::new(host) else { return Ok(None) };
        let found = self.of(tenant).domain(&name).await?;
        Ok(found.filter(|domain| domain.validated.is_some()))
    }

    /// As [`Self::target`]; the issuer of a stage makes tokens for apps of that stage only.
    pub(super) async fn target_at(&self, issuer: &Issuer, resource: Option<&str>) -> Answer<Option<Target>> {
        // The Platform's own API needs no asking for at the organization's issuer.
        let platform = self.domains().platform_audience(&issuer.tenant.name);
        if issuer.stage.is_none() && resource == Some(platform.as_str()) {
            return Ok(None);
        }
        match self.target(&issuer.tenant, resource).await? {
            Some(target) if issuer.stage.as_ref().is_some_and(|stage| *stage != target.stage) => {
                Err(oauth("invalid_target", "This issuer makes tokens for apps of its own stage."))
            }
            found => Ok(found),
        }
    }

    /// Signs a token for one app; without one for the Platform or, at the issuer of a stage, for that
    /// issuer's own endpoints.
    pub(super) async fn issue_at(
        &self,
        issuer: &Issuer,
        epoch: Epoch,
        holder: &Holder<'_>,
        target: Option<&Target>,
    ) -> Answer<Issued> {
        match (target, &issuer.stage) {
            (None, Some(stage)) => {
                self.issue_for(&issuer.tenant, epoch, holder, Audience::Issuer(stage)).await
            }
            _ => self.issue(&issuer.tenant, epoch, holder, target).await,
        }
    }

    /// Signs a token for the Platform, or for one app.
    pub(super) async fn issue(
        &self,
        tenant: &Tenant,
        epoch: Epoch,
        holder: &Holder<'_>,
        target: Option<&Target>,
    ) -> Answer<Issued> {
        self.issue_for(tenant, epoch, holder, target.map_or(Audience::Platform, Audience::App)).await
    }

    async fn issue_for(
        &self,
        tenant: &Tenant,
        epoch: Epoch,
        holder: &Holder<'_>,
        audience: Audience<'_>,
    ) -> Answer<Issued> {
        let stage = match audience {
            Audience::Platform => None,
            Audience::App(target) => Some(&target.stage),
            Audience::Issuer(stage) => Some(stage),
        };
        if let Holder::Member { member, .. } = holder {
            demand_own_stage(member, stage)?;
        }
        let now = now_s().unsigned_abs();
        let (sub, name, sid, client_id, life_s) = match holder {
            Holder::Member { member, session, until, client_id, .. } => {
                let life_s = until.unsigned_abs().saturating_sub(now).min(USER_LIFE_S);
                (member.id.to_string(), &member.name, *session, *client_id, life_s)
            }
            Holder::Client { client, grant } => {
                (client.id.clone(), &client.name, *grant, client.id.as_str(), CLIENT_LIFE_S)
            }
        };
        let roles = match (audience, holder) {
            (Audience::Platform, Holder::Member { member, .. }) => member.roles.clone(),
            (Audience::Platform, Holder::Client { client, .. }) => client.roles.clone(),
            (Audience::App(target), Holder::Member { member, .. }) => {
                self.of(tenant).app_roles_of(&target.stage, target.app.id, member.id).await?
            }
            // Roles of apps are given to people.
            (Audience::App(_), Holder::Client { .. }) | (Audience::Issuer(_), _) => Vec::new(),
        };
        let (acr, auth_time) = match holder {
            Holder::Member { used, .. } => (used.acr, used.auth_time.unsigned_abs()),
            Holder::Client { .. } => (Acr::Client, now),
        };
        let claims = Claims {
            iss: match stage {
                Some(stage) => self.domains().stage_issuer(&tenant.name, stage),
                None => self.domains().member_issuer(&tenant.name),
            },
            sub,
            aud: match audience {
                Audience::App(target) => target.url.clone(),
                Audience::Platform => self.domains().platform_audience(&tenant.name),
                Audience::Issuer(stage) => self.domains().stage_issuer(&tenant.name, stage),
            },
            exp: now + life_s,
            nbf: now,
            iat: now,
            jti: Uuid::new_v4().to_string(),
            sid: sid.to_owned(),
            org: tenant.id.to_string(),
            stage: stage.map_or(PLATFORM_STAGE, StageName::as_str).to_owned(),
            client_id: client_id.to_owned(),
            epoch: epoch.0,
            name: name.clone(),
            roles,
            acr,
            auth_time,
        };
        let key = self.signing_key(tenant, stage).await?;
        Ok(Issued { token: mint(&key, &claims)?, expires_at: claims.exp, life_s })
    }

    async fn signing_key(&self, tenant: &Tenant, stage: Option<&StageName>) -> Answer<SigningKey> {
        let key = self.of(tenant).signing_key(stage, KeyKind::Access).await?;
        Ok(SigningKey::from_pkcs8(&key.ok_or(Fault::Key(KeyError::NotAKey))?)?)
    }

    /// A member or end user who may hold tokens.
    pub(super) async fn active(&self, tenant: &Tenant, id: UserId) -> Answer<Option<MemberRow>> {
        Ok(self.of(tenant).member(id).await?.filter(|member| member.state == "active"))
    }
}

/// End users are at home in one stage: no other one, and never the Platform, hears of them.
fn demand_own_stage(member: &MemberRow, stage: Option<&StageName>) -> Answer<()> {
    if member.stage.is_empty() || stage.is_some_and(|stage| stage.as_str() == member.stage) {
        return Ok(());
    }
    Err(oauth("invalid_target", "This user belongs to another stage."))
}
