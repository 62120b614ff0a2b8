//! What a request is for, as far as the edge must know.

use crate::{
    cache::Plot,
    canonical::canonical,
    context::{Context, SiteNames},
    front::Sent,
    refusal::Refusal,
    view::{View, Worked},
    waf::force::Policy,
};
use bastide_balancer::AppKey;
use bastide_proxy::Request;
use bastide_types::{API, AccessRule, AppName, Code, Site, Snapshot, access::rule_for};
use http::Uri;
use std::sync::Arc;

/// A site of a Bastide.
pub(crate) struct Found {
    pub(crate) waf: Arc<Policy>,
    pub(crate) target: Target,
    pub(crate) body_bytes_max: u64,
    /// Value of Strict-Transport-Security; custom domains are their owners' to decide about.
    pub(crate) hsts: Option<&'static str>,
    /// For how many seconds it is closed for this client.
    pub(crate) closed: Option<u32>,
    /// Where the customer wants such requests to be sent.
    pub(crate) sent: Option<Sent>,
}

/// Where it leads.
pub(crate) enum Target {
    /// The Platform: any gateway.
    Platform,
    /// A stage's host, but no app: the gateway's own pages.
    Stage,
    /// No app of a stage that has something to say there: a redirect, or a page.
    Nowhere,
    /// An app.
    App {
        key: AppKey,
        /// What the cache knows of it.
        plot: Option<Arc<Plot>>,
        /// Its rule is public now: answers may be stored, and looked up.
        is_public: bool,
    },
}

const PLATFORM_HSTS: &str = "max-age=31536000; includeSubDomains";
const RUNTIME_HSTS: &str = "max-age=31536000";

/// Brings the path into its canonical form.
pub(crate) fn settle_path(request: &mut Request) -> Result<(), Refusal> {
    if request.uri().path() == "*" {
        return Err(Refusal::new(Code::SiteUnknown));
    }
    let path = canonical(request.uri().path())
        .map_err(|fault| Refusal::because(Code::BadRequest, fault.to_string()))?;
    if path != request.uri().path() {
        let target = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        *request.uri_mut() = target.parse().map_err(|_| Refusal::new(Code::BadRequest))?;
    }
    Ok(())
}

/// Where authorities look for answers (RFC 8555 §8.3). They ask over plain HTTP; no app is ever asked.
pub(crate) const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Refuses what an app might read as a path of authorities.
pub(crate) fn keep_challenges(request: &Request) -> Result<(), Refusal> {
    // An escaped slash or backslash is all that a canonical path may still hide.
    let mut loose = request.uri().path().replace("%2F", "/").replace("%5C", "/");
    while loose.contains("//") {
        loose = loose.replace("//", "/");
    }
    let below = format!("{loose}/");
    if below.starts_with(CHALLENGES) { Err(Refusal::new(Code::SiteUnknown)) } else { Ok(()) }
}

/// Puts the app's name into the path of a host that serves only that app, so that everything behind, rules, keys of
/// stored responses and purges, knows one address of each thing.
pub(crate) fn settle_root(snapshot: &Snapshot, host: &str, request: &mut Request) -> Result<(), Refusal> {
    let Some(root) = snapshot.root_app(host) else { return Ok(()) };
    let path = request.uri().path();
    if path.starts_with("/.bastide/") || path == "/.bastide" {
        return Ok(());
    }
    let target = match request.uri().query() {
        Some(query) => format!("/{root}{path}?{query}"),
        None => format!("/{root}{path}"),
    };
    *request.uri_mut() = target.parse().map_err(|_| Refusal::new(Code::BadRequest))?;
    Ok(())
}

/// The WAF policy of a host; the Platform's when nothing is served under it.
pub(crate) fn policy_of<'v>(view: &'v View, host: &str) -> &'v Arc<Policy> {
    let of_stage = match view.snapshot.site(host) {
        Some(Site::Runtime(name, stage)) => {
            view.snapshot.customers.get(&name).and_then(|customer| view.waf.of(customer.id, &stage, None))
        }
        Some(Site::Platform(_)) | None => None,
    };
    of_stage.unwrap_or(view.waf.platform())
}

/// Whether the customer of a stage's host bans the client. Then the refusal has the stage's words. The Platform's hosts
/// are not among them: nobody shuts themselves out from lifting a ban.
pub(crate) fn is_banned(cx: &mut Context, view: &Worked) -> bool {
    let Some(Site::Runtime(name, stage)) = view.snapshot.site(&cx.host) else { return false };
    if !view.bans.of(&name, cx.client, cx.at) {
        return false;
    }
    if let Some((customer, _)) = view.snapshot.stage(&name, &stage) {
        cx.front = Some(view.fronts.of(customer.id, &stage).clone());
        cx.is_custom = view.snapshot.hosts.contains_key(cx.host.as_str());
        let names = SiteNames { customer: name.to_string(), stage: Some(stage.to_string()), app: None };
        cx.site = Some(names.into());
    }
    true
}

/// Whether a request to the Platform brings content of an app, which may be larger than other bodies.
fn is_upload(path: &str) -> bool {
    let below = path.strip_prefix(API).unwrap_or_default();
    below.starts_with("/apps/") && below.ends_with("/publish")
}

/// Finds the site. An unknown host and an unknown app are refused in the same words, unless the stage has words of its
/// own. `seen` is the target as the client sees it.
pub(crate) fn find(
    cx: &mut Context,
    view: &Worked,
    request: &Request,
    seen: &Uri,
    limits: (u64, u64),
) -> Result<Found, Refusal> {
    let unknown = || Refusal::new(Code::SiteUnknown);
    let (body_bytes_max, upload_bytes_max) = limits;
    let snapshot = &view.snapshot;
    let path = request.uri().path();
    match snapshot.site(&cx.host).ok_or_else(unknown)? {
        Site::Platform(name) => {
            if !snapshot.customers.contains_key(&name) {
                return Err(unknown());
            }
            cx.site = Some(SiteNames { customer: name.to_string(), stage: None, app: None }.into());
            let upload = is_upload(path);
            Ok(Found {
                waf: view.waf.platform().clone(),
                target: Target::Platform,
                body_bytes_max: if upload { upload_bytes_max } else { body_bytes_max },
                hsts: Some(PLATFORM_HSTS),
                closed: None,
                sent: None,
            })
        }
        Site::Runtime(name, stage_name) => {
            let (customer, stage) = snapshot.stage(&name, &stage_name).ok_or_else(unknown)?;
            let front = view.fronts.of(customer.id, &stage_name);
            cx.front = Some(front.clone());
            cx.is_custom = snapshot.hosts.contains_key(cx.host.as_str());
            let (segment, below) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
            let mut names =
                SiteNames { customer: name.to_string(), stage: Some(stage_name.to_string()), app: None };
            let hsts = (!cx.is_custom).then_some(RUNTIME_HSTS);
            let client = cx.client;
            let sent = front.redirect(&snapshot.domains, &cx.host, seen);
            let found = |app: Option<&AppName>, target| {
                let waf = view.waf.of(customer.id, &stage_name, app).unwrap_or(view.waf.platform()).clone();
                let closed = match target {
                    Target::Platform | Target::Stage => None,
                    Target::App { .. } | Target::Nowhere => front.closed(app, client),
                };
                Found { waf, target, body_bytes_max, hsts, closed, sent }
            };
            if segment == ".bastide" {
                cx.site = Some(names.into());
                return Ok(found(None, Target::Stage));
            }
            let known = AppName::new(segment).ok().and_then(|name| Some((stage.apps.get(&name)?, name)));
            let Some((app, app_name)) = known else {
                if front.speaks_for_nothing() {
                    cx.site = Some(names.into());
                    return Ok(found(None, Target::Nowhere));
                }
                return Err(unknown());
            };
            names.app = Some(app_name.to_string());
            cx.site = Some(names.into());
            let is_public = *rule_for(&app.routes, &format!("/{below}")) == AccessRule::Public;
            let key = AppKey { customer: customer.id, stage: stage_name.clone(), app: app.id };
            let plot = view.plots.get(&key).cloned();
            Ok(found(Some(&app_name), Target::App { key, plot, is_public }))
        }
    }
}
