//! What a request is for: customer, stage, app, from its host and path alone.

use crate::{path::CanonicalPath, refusal::Refusal};
use bastide_balancer::AppKey;
use bastide_types::{
    AppName, Code, CustomerName, Route, Site, Snapshot, StageName,
    access::route_for,
    snapshot::{App, Customer, Issuer, Stage},
};

/// Where a request goes.
pub(crate) enum Target<'s> {
    /// A platform service.
    Platform { customer_name: CustomerName, customer: &'s Customer },
    /// An app.
    App(AppTarget<'s>),
    /// The gateway's own pages on this host: the end of a sign-in, a sign-out.
    Own { customer_name: CustomerName, issuer: String },
    /// An app's address without its final slash.
    AddSlash,
}

/// An app and the part of it that is asked for.
pub(crate) struct AppTarget<'s> {
    pub(crate) customer_name: CustomerName,
    pub(crate) customer: &'s Customer,
    pub(crate) stage_name: StageName,
    pub(crate) stage: &'s Stage,
    pub(crate) app_name: AppName,
    pub(crate) app: &'s App,
    /// Path below the app.
    pub(crate) path: CanonicalPath,
    /// Whether the client sees it at `/`: the edge put its name into the path.
    pub(crate) is_root: bool,
}

impl AppTarget<'_> {
    pub(crate) fn key(&self) -> AppKey {
        AppKey { customer: self.customer.id, stage: self.stage_name.clone(), app: self.app.id }
    }
    /// The routes that must all let somebody pass: one for each way in which the app may read the path.
    pub(crate) fn routes(&self) -> [&Route; 2] {
        [route_for(&self.app.routes, &self.path.spelled), route_for(&self.app.routes, &self.path.loose)]
    }
    pub(crate) fn issuer(&self) -> &Issuer {
        &self.stage.issuer
    }
}

/// Paths that belong to the gateway on every host.
pub(crate) const OWN: &str = "/.bastide/";

/// A target of a request as its client sees it: without the app's name where the host serves only that app.
pub(crate) fn as_seen<'p>(snapshot: &Snapshot, host: &str, path: &'p str) -> &'p str {
    let below =
        |root: &AppName| path.strip_prefix('/')?.strip_prefix(root.as_str()).filter(|p| p.starts_with('/'));
    snapshot.root_app(host).and_then(below).unwrap_or(path)
}

/// Finds the target. An unknown host and an unknown app are refused in the same words.
pub(crate) fn find<'s>(
    snapshot: &'s Snapshot,
    host: &str,
    path: &CanonicalPath,
) -> Result<Target<'s>, Refusal> {
    let unknown = || Refusal::new(Code::SiteUnknown);
    match snapshot.site(host).ok_or_else(unknown)? {
        Site::Platform(customer_name) => {
            let customer = snapshot.customers.get(&customer_name).ok_or_else(unknown)?;
            if path.spelled.starts_with(OWN) {
                return Ok(Target::Own { customer_name, issuer: customer.issuer.url.clone() });
            }
            if path.may_be_below("/internal") {
                return Err(Refusal::new(Code::ApiUnknown));
            }
            Ok(Target::Platform { customer_name, customer })
        }
        Site::Runtime(customer_name, stage_name) => {
            let (customer, stage) = snapshot.stage(&customer_name, &stage_name).ok_or_else(unknown)?;
            if path.spelled.starts_with(OWN) {
                return Ok(Target::Own { customer_name, issuer: stage.issuer.url.clone() });
            }
            let rest = path.spelled.strip_prefix('/').ok_or_else(unknown)?;
            let (segment, below) =
                rest.split_once('/').map_or((rest, None), |(app, below)| (app, Some(below)));
            let app_name = AppName::new(segment).map_err(|_| unknown())?;
            let root = snapshot.root_app(host);
            // A host of one app leads to no other.
            if root.is_some_and(|root| *root != app_name) {
                return Err(unknown());
            }
            let is_root = root.is_some();
            let app = stage.apps.get(&app_name).ok_or_else(unknown)?;
            let Some(below) = below else { return Ok(Target::AddSlash) };
            let path = CanonicalPath::of(&format!("/{below}")).ok_or_else(unknown)?;
            Ok(Target::App(AppTarget {
                customer_name,
                customer,
                stage_name,
                stage,
                app_name,
                app,
                path,
                is_root,
            }))
        }
    }
}
