//! The WAF's policies: from the office's layers and the customers' to what holds at one place.

use crate::{ApiError, App};
use aws_lc_rs::digest::{SHA256, digest};
use bastide_store::{OfficeLevel, Result, StoreError, WafLayerRow};
use bastide_types::{
    AppId, Digest, WafPolicy,
    waf::{AllowExclusions, LayerBy, WafFault, WafLayer},
};
use std::collections::BTreeMap;

/// What the office says for all.
pub(crate) struct Office {
    /// Every site.
    pub(crate) top: WafPolicy,
    /// Hosts of the Platform.
    pub(crate) platform: WafPolicy,
    /// Which exclusions customers may add.
    pub(crate) allowed: AllowExclusions,
}

/// Policies that were met while a Snapshot is made, each once.
#[derive(Default)]
pub(crate) struct Policies(pub(crate) BTreeMap<Digest, WafPolicy>);

/// Where a layer belongs among those of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The app; the stage without.
    pub(crate) app: Option<AppId>,
    pub(crate) by: LayerBy,
}

impl Office {
    pub(crate) async fn of(app: &App) -> Result<Self> {
        let office = app.store.waf_office(OfficeLevel::Office).await?;
        let platform = app.store.waf_office(OfficeLevel::Platform).await?;
        let allowed = office.allow_exclusions.clone().unwrap_or_default();
        let top = app.config.waf.clone().decided(&office);
        let platform = top.clone().tightened(&platform, LayerBy::Office, &allowed);
        Ok(Self { top, platform, allowed })
    }

    /// The policy of a stage, or of an app in it, from all that was said about them.
    pub(crate) fn policy(&self, layers: &[WafLayerRow], app: Option<AppId>) -> WafPolicy {
        self.up_to(layers, Place { app, by: LayerBy::Customer }, true)
    }

    /// The policy of an app whose revision brings one of its own: the last to tighten.
    pub(crate) fn policy_with(
        &self,
        layers: &[WafLayerRow],
        app: AppId,
        published: Option<&WafLayer>,
    ) -> WafPolicy {
        let policy = self.policy(layers, Some(app));
        match published {
            Some(layer) => policy.tightened(layer, LayerBy::Customer, &self.allowed),
            None => policy,
        }
    }

    /// The policy above a place: what it may tighten.
    pub(crate) fn above(&self, layers: &[WafLayerRow], place: Place) -> WafPolicy {
        self.up_to(layers, place, false)
    }

    /// Downwards: the office about the stage, the customer about it, the office about the app, the customer.
    fn up_to(&self, layers: &[WafLayerRow], last: Place, with_last: bool) -> WafPolicy {
        let mut order = Vec::new();
        for app in if last.app.is_some() { vec![None, last.app] } else { vec![None] } {
            order.extend([LayerBy::Office, LayerBy::Customer].map(|by| Place { app, by }));
        }
        let mut policy = self.top.clone();
        for place in order {
            if place == last && !with_last {
                break;
            }
            if let Some(row) = layers.iter().find(|row| (row.app, row.by) == (place.app, place.by)) {
                policy = policy.tightened(&row.layer, row.by, &self.allowed);
            }
            if place == last {
                break;
            }
        }
        policy
    }
}

impl Policies {
    /// Adds a policy; gives its digest.
    pub(crate) fn add(&mut self, policy: WafPolicy) -> Result<Digest> {
        let id = id_of(&policy)?;
        self.0.insert(id, policy);
        Ok(id)
    }
}

/// The digest of a policy: its version.
pub(crate) fn id_of(policy: &WafPolicy) -> Result<Digest> {
    let bytes = serde_json::to_vec(policy).map_err(|error| StoreError::Damaged(error.to_string()))?;
    let mut sha = [0; 32];
    sha.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    Ok(Digest::from_sha256(sha))
}

/// Whether a layer may be taken: it makes sense, and loosens nothing.
pub(crate) fn judge(
    above: &WafPolicy,
    layer: &WafLayer,
    by: LayerBy,
    allowed: &AllowExclusions,
) -> std::result::Result<(), ApiError> {
    let judged = layer.check().and_then(|()| above.admits(layer, by, allowed));
    judged.map_err(ApiError::from)
}

impl From<WafFault> for ApiError {
    fn from(fault: WafFault) -> Self {
        use bastide_types::Code;
        let code = match fault {
            WafFault::Invalid(_) | WafFault::Scoring(_) => Code::InputInvalid,
            WafFault::Loosens(_) => Code::PolicyLoosened,
        };
        Self::because(code, fault.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(app: Option<AppId>, by: LayerBy, json: &str) -> WafLayerRow {
        WafLayerRow { app, by, layer: serde_json::from_str(json).unwrap() }
    }

    #[test]
    fn layers_are_taken_from_the_stage_down_to_the_app() {
        let (shop, blog) = (AppId::generate(), AppId::generate());
        let office = Office {
            top: WafPolicy::default(),
            platform: WafPolicy::default(),
            allowed: AllowExclusions::None,
        };
        let layers = [
            row(Some(shop), LayerBy::Customer, r#"{"paranoia":3}"#),
            row(Some(shop), LayerBy::Office, r#"{"exclusions":[{"rules":"942100","target":"ARGS:q"}]}"#),
            row(None, LayerBy::Customer, r#"{"paranoia":2,"exclusions":[{"rules":"930100"}]}"#),
            row(None, LayerBy::Office, r#"{"inbound_threshold":4}"#),
        ];
        let stage = office.policy(&layers, None);
        assert_eq!((stage.paranoia, stage.inbound_threshold, stage.exclusions.len()), (2, 4, 0));
        let app = office.policy(&layers, Some(shop));
        assert_eq!((app.paranoia, app.inbound_threshold, app.exclusions.len()), (3, 4, 1));
        assert_eq!(office.policy(&layers, Some(blog)), stage);
        let published =
            serde_json::from_str(r#"{"paranoia":4,"mode":"detect","inbound_threshold":9}"#).unwrap();
        let own = office.policy_with(&layers, shop, Some(&published));
        assert_eq!((own.paranoia, own.inbound_threshold, own.mode), (4, 4, app.mode), "it only tightens");
        assert_eq!(office.policy_with(&layers, shop, None), app);
        let above = office.above(&layers, Place { app: Some(shop), by: LayerBy::Customer });
        assert_eq!((above.paranoia, above.exclusions.len()), (2, 1));
        let top = office.above(&layers, Place { app: None, by: LayerBy::Office });
        assert_eq!(top, office.top);
    }
}
