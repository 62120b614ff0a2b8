//! Which issuer a request is for: the organization's or that of one of its stages, by Host and path.

use super::{Fault, Identity, fault::Answer, tenant::Tenant};
use crate::keys::generate;
use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use bastide_store::{KeyKind, KeyState, StoreError, now_s};
use bastide_types::{Code, StageName};

/// An issuer. Whatever it makes (codes, tokens, sessions) is worth nothing at another one.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Whose.
    pub tenant: Tenant,
    /// Its stage; `None`: the organization's own.
    pub stage: Option<StageName>,
    /// Its name, as `iss` says it; its endpoints are below.
    pub url: String,
}

impl Issuer {
    /// The stage as the store keeps it: empty for the organization's own issuer.
    pub fn stage_text(&self) -> &str {
        self.stage.as_ref().map_or("", StageName::as_str)
    }

    /// Who may sign in here: the stage's own users, then the members (empty).
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        self.stage.as_ref().map(StageName::as_str).into_iter().chain([""])
    }

    /// Path of one of its endpoints, on the organization's host.
    pub fn path(&self, endpoint: &str) -> String {
        match &self.stage {
            Some(stage) => format!("/identity/s/{stage}/{endpoint}"),
            None => format!("/identity/{endpoint}"),
        }
    }
}

impl Identity {
    /// The issuer of a customer's members, or of one of its stages.
    pub(super) fn issuer_of(&self, tenant: &Tenant, stage: Option<StageName>) -> Issuer {
        let url = match &stage {
            Some(stage) => self.domains().stage_issuer(&tenant.name, stage),
            None => self.domains().member_issuer(&tenant.name),
        };
        Issuer { tenant: tenant.clone(), stage, url }
    }
}

impl FromRequestParts<Identity> for Issuer {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, identity: &Identity) -> Result<Self, Fault> {
        let tenant = Tenant::from_request_parts(parts, identity).await?;
        let unknown = || Fault::from(Code::ApiUnknown);
        let params = RawPathParams::from_request_parts(parts, identity).await.map_err(|_| unknown())?;
        let Some((_, text)) = params.iter().find(|(name, _)| *name == "stage") else {
            return Ok(identity.issuer_of(&tenant, None));
        };
        let stage = StageName::new(text).map_err(|_| unknown())?;
        if !identity.of(&tenant).stage_names().await?.contains(&stage) {
            return Err(unknown());
        }
        Ok(identity.issuer_of(&tenant, Some(stage)))
    }
}

impl Identity {
    /// Makes the first key of an issuer's ID tokens, when it is first asked for.
    pub(super) async fn demand_id_key(&self, issuer: &Issuer) -> Answer<()> {
        let (store, stage) = (self.of(&issuer.tenant), issuer.stage.as_ref());
        if !store.public_keys(stage, KeyKind::Id).await?.is_empty() {
            return Ok(());
        }
        let _one = self.0.id_key.lock().await;
        if !store.public_keys(stage, KeyKind::Id).await?.is_empty() {
            return Ok(());
        }
        let key = generate(KeyKind::Id).await?;
        let mut write = self.store().write().await?;
        match store.add_key(&mut write, stage, &key, KeyState::Current, now_s()).await {
            Ok(()) => Ok(write.commit().await.map_err(StoreError::from)?),
            // Another replica was quicker: its key stays.
            Err(StoreError::Taken) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
