//! Golden requests: whether a Snapshot, as it was worked out, leads where its own objects say, asked before it is in
//! force, in the same way as requests are.

use crate::{
    context::Context,
    site::{self, Found, Target},
    view::Worked,
};
use bastide_balancer::AppKey;
use bastide_bus::snapshot::Unfit;
use bastide_proxy::{Body, Peer, RawHead, Request};
use bastide_types::{
    AccessRule, RequestId,
    access::rule_for,
    snapshot::{Leads, Place},
};
use http::Uri;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Instant, SystemTime},
};

/// Asks for every place, and in each for every app and every route of it.
///
/// # Errors
/// The customers at whose places something else stands than they have in the Snapshot.
pub(crate) fn ask(worked: &Worked, before: Option<&Worked>) -> Result<(), Unfit> {
    let mut unfit = BTreeMap::new();
    let mut cx = nobody();
    for place in worked.snapshot.places() {
        if let Err(why) = ask_at(&mut cx, worked, &place) {
            unfit.entry(place.customer_name.clone()).or_insert(why);
        }
    }
    // What was served, and still is in the Snapshot, must still be there.
    let served = before.into_iter().flat_map(|before| before.snapshot.places());
    for place in served.filter(|place| place.is_still_in(&worked.snapshot)) {
        if worked.snapshot.site(&place.host).is_none() {
            let why = format!("{} was served and would not be any more", place.host);
            unfit.entry(place.customer_name.clone()).or_insert(why);
        }
    }
    if unfit.is_empty() { Ok(()) } else { Err(Unfit::Customers(unfit)) }
}

/// Somebody who asks for nothing but the way.
fn nobody() -> Context {
    let addr = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0).into();
    let raw = RawHead {
        method: "GET".into(),
        target: "/".into(),
        version: http::Version::HTTP_11,
        headers: Vec::new(),
        bytes: None,
    };
    Context {
        id: RequestId::generate(),
        peer: Arc::new(Peer { addr, local: addr, tls: None }),
        raw: Arc::new(raw),
        client: addr.ip(),
        host: String::new(),
        authority: String::new(),
        begun: Instant::now(),
        at: SystemTime::UNIX_EPOCH,
        site: None,
        front: None,
        is_custom: false,
        verdict: "",
        cache: None,
    }
}

fn ask_at(cx: &mut Context, worked: &Worked, place: &Place<'_>) -> Result<(), String> {
    cx.host.clone_from(&place.host);
    let Leads::Stage { name, is_custom, .. } = place.leads else {
        let found = found(cx, worked, "/")?;
        return expect(matches!(found.target, Target::Platform), &place.host, "/", "the Platform");
    };
    let own = found(cx, worked, "/.bastide/")?;
    expect(matches!(own.target, Target::Stage), &place.host, "/.bastide/", "the stage's own pages")?;
    expect(cx.is_custom == is_custom, &place.host, "/", "a host of its own kind")?;
    for (app_name, app, before) in place.apps() {
        let key = AppKey { customer: place.customer.id, stage: name.clone(), app: app.id };
        for below in Place::paths(app) {
            let path = format!("{before}{below}");
            let found = found(cx, worked, &path)?;
            let is_open = *rule_for(&app.routes, below) == AccessRule::Public;
            let right = matches!(
                &found.target,
                Target::App { key: at, plot: Some(plot), is_public }
                    if *at == key && *is_public == is_open && plot.mark.as_deref() == Some(&*app.revision.to_string())
            );
            expect(right, &place.host, &path, &format!("the app {app_name}"))?;
        }
    }
    Ok(())
}

/// The stops of the journey that say where a request goes.
fn found(cx: &mut Context, worked: &Worked, path: &str) -> Result<Found, String> {
    let refused = |_| format!("{}{path} leads nowhere", cx.host);
    let uri: Uri = path.parse().map_err(|_| format!("{path} is no path"))?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri.clone();
    site::settle_path(&mut request).map_err(refused)?;
    let seen = request.uri().clone();
    site::settle_root(&worked.snapshot, &cx.host, &mut request).map_err(refused)?;
    let host = cx.host.clone();
    site::find(cx, worked, &request, &seen, (0, 0)).map_err(|_| format!("{host}{path} leads nowhere"))
}

fn expect(right: bool, host: &str, path: &str, what: &str) -> Result<(), String> {
    if right { Ok(()) } else { Err(format!("{host}{path} does not lead to {what}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cache::Store, front::Fronts, view::plots, waf::force::Sites};
    use bastide_cache::Limits;
    use bastide_types::{
        AppId, AppName, CustomerId, CustomerName, Digest, DomainName, Domains, Purges, Route, Snapshot,
        StageName,
        snapshot::{App, CustomDomain, Customer, Issuer, Stage},
    };

    fn customer(account: &str) -> Customer {
        let issuer = Issuer { url: String::new(), keys: vec![], token_epoch: 0 };
        let route = |path: &str, access| Route { path: path.into(), access, acr: None, max_age_s: None };
        let app = App {
            id: AppId::generate(),
            revision: Digest::from_sha256([7; 32]),
            revision_number: 1,
            routes: vec![route("/", AccessRule::Public), route("/me/", AccessRule::Authenticated)],
            waf: None,
            replicas: BTreeMap::new(),
            purges: Purges::default(),
        };
        let apps =
            [AppName::new("shop").unwrap(), AppName::new("blog").unwrap()].map(|name| (name, app.clone()));
        let waf = Digest::from_sha256([0; 32]);
        let stage =
            Stage { account: account.into(), issuer: issuer.clone(), waf, site: None, apps: apps.into() };
        Customer {
            id: CustomerId::generate(),
            issuer,
            bans: Vec::new(),
            stages: [(StageName::production(), stage)].into(),
        }
    }

    fn name(text: &str) -> CustomerName {
        serde_json::from_value(text.into()).unwrap()
    }

    fn snapshot() -> Snapshot {
        let host = |root: Option<&str>| CustomDomain {
            customer: name("acme"),
            stage: StageName::production(),
            root: root.map(|root| AppName::new(root).unwrap()),
            certificate: None,
            challenges: BTreeMap::new(),
        };
        let hosts = [("www.acme.example", None), ("shop.acme.example", Some("shop"))];
        Snapshot {
            epoch: 1,
            revision: 1,
            made_at: 0,
            domains: Domains::default(),
            customers: [(name("acme"), customer("A")), (name("beta"), customer("B"))].into(),
            kept: Vec::new(),
            schema: bastide_types::snapshot::SCHEMA,
            hosts: hosts.map(|(name, root)| (DomainName::new(name).unwrap(), host(root))).into(),
            waf: BTreeMap::new(),
            platform_waf: Digest::from_sha256([0; 32]),
        }
    }

    fn worked(snapshot: Snapshot) -> Worked {
        let (snapshot, fronts) = (Arc::new(snapshot), Arc::<Fronts>::default());
        let plots = plots(&snapshot, &Store::new(Limits::default(), true).cache, &fronts);
        let waf = Sites::under_built_in_rules(&snapshot);
        Worked { snapshot, plots, waf, bans: Arc::default(), fronts, custom: Arc::default() }
    }

    /// Customers that cannot be served so.
    fn unfit(worked: &Worked, before: Option<&Worked>) -> Vec<String> {
        match ask(worked, before) {
            Ok(()) => Vec::new(),
            Err(Unfit::Customers(unfit)) => unfit.into_keys().map(String::from).collect(),
            Err(Unfit::Whole(why)) => panic!("{why}"),
        }
    }

    #[test]
    fn a_sound_snapshot_leads_where_it_says() {
        let first = worked(snapshot());
        assert_eq!(unfit(&first, None), [""; 0]);
        assert_eq!(unfit(&worked((*first.snapshot).clone()), Some(&first)), [""; 0]);
    }

    #[test]
    fn what_leads_elsewhere_names_the_customer_whose_it_is() {
        let mut other = worked(snapshot());
        let acme = other.snapshot.customers[&name("acme")].id;
        let mut fewer = (*other.plots).clone();
        fewer.retain(|key, _| key.customer != acme);
        other.plots = fewer.into();
        assert_eq!(unfit(&other, None), ["acme"], "its apps are in no store");

        let mut stale = snapshot();
        let plots = worked(stale.clone()).plots;
        let beta =
            stale.customers.get_mut(&name("beta")).unwrap().stages.get_mut(&StageName::production()).unwrap();
        beta.apps.values_mut().for_each(|app| app.revision = Digest::from_sha256([8; 32]));
        assert_eq!(
            unfit(&Worked { plots, ..worked(stale) }, None),
            ["beta"],
            "stored answers would be of before"
        );

        let mut operator = snapshot();
        let moved = operator.customers.remove(&name("beta")).unwrap();
        operator.customers.insert(name("operator"), moved);
        assert_eq!(unfit(&worked(operator), None), ["operator"], "no host leads to a stage of it");
    }

    #[test]
    fn other_base_domains_are_no_loss_and_hosts_that_are_gone_are_gone() {
        let before = worked(snapshot());
        let mut moved = (*before.snapshot).clone();
        moved.domains.runtime = "apps.example".into();
        moved.domains.platform = "platform.example".into();
        moved.hosts.clear();
        moved.customers.remove(&name("beta"));
        assert_eq!(unfit(&worked(moved), Some(&before)), [""; 0]);
    }
}
