//! Which issuer a request is for: the organization's or that of one of its stages, by Host and path.

use super::{Fault, Identity, fault::Answer, tenant::Tenant};
use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use bastide_identity::IdKey;
use bastide_store::IdKeyRow;
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

    /// Path of one of its endpoints, on the organization's host.
    pub fn path(&self, endpoint: &str) -> String {
        match &self.stage {
            Some(stage) => format!("/identity/s/{stage}/{endpoint}"),
            None => format!("/identity/{endpoint}"),
        }
    }
}

impl FromRequestParts<Identity> for Issuer {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, identity: &Identity) -> Result<Self, Fault> {
        let tenant = Tenant::from_request_parts(parts, identity).await?;
        let unknown = || Fault::from(Code::ApiUnknown);
        let params = RawPathParams::from_request_parts(parts, identity).await.map_err(|_| unknown())?;
        let Some((_, text)) = params.iter().find(|(name, _)| *name == "stage") else {
            let url = identity.domains().member_issuer(&tenant.name);
            return Ok(Self { tenant, stage: None, url });
        };
        let stage = StageName::new(text).map_err(|_| unknown())?;
        if !identity.of(&tenant).stage_names().await?.contains(&stage) {
            return Err(unknown());
        }
        let url = identity.domains().stage_issuer(&tenant.name, &stage);
        Ok(Self { tenant, stage: Some(stage), url })
    }
}

impl Identity {
    /// The keys of an issuer's ID tokens; the first is made when it is first asked for.
    pub(super) async fn id_keys(&self, issuer: &Issuer) -> Answer<Vec<IdKeyRow>> {
        let store = self.of(&issuer.tenant);
        let keys = store.id_keys(issuer.stage.as_ref()).await?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        let _one = self.0.id_key.lock().await;
        let keys = store.id_keys(issuer.stage.as_ref()).await?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        let made = tokio::task::spawn_blocking(IdKey::generate).await.map_err(|_| Fault::Hash)??;
        let (key, private) = made;
        let row = IdKeyRow { kid: key.kid, n: key.n, private };
        store.begin_id_key(issuer.stage.as_ref(), &row).await?;
        // Perhaps another replica's: the first one stays.
        Ok(store.id_keys(issuer.stage.as_ref()).await?)
    }
}
