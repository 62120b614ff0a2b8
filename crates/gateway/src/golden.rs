//! Golden requests: whether a view leads where the objects of its Snapshot say, asked before it is in force, in the same
//! way as requests are.

use crate::{
    path::CanonicalPath,
    site::{self, Target},
    view::View,
};
use bastide_balancer::AppKey;
use bastide_bus::snapshot::Unfit;
use bastide_types::{
    access::route_for,
    snapshot::{Leads, Place},
};
use std::collections::BTreeMap;

/// Asks for every place, and in each for every app and every route of it: customer, stage, app, rule, issuer, replicas.
///
/// # Errors
/// The customers at whose places something else stands than they have in the Snapshot.
pub(crate) fn ask(view: &View, before: Option<&View>) -> Result<(), Unfit> {
    let mut unfit = BTreeMap::new();
    for place in view.snapshot.places() {
        if let Err(why) = ask_at(view, &place) {
            unfit.entry(place.customer_name.clone()).or_insert(why);
        }
    }
    // What was served, and still is in the Snapshot, must still be there.
    let served = before.into_iter().flat_map(|before| before.snapshot.places());
    for place in served.filter(|place| place.is_still_in(&view.snapshot)) {
        if view.snapshot.site(&place.host).is_none() {
            let why = format!("{} was served and would not be any more", place.host);
            unfit.entry(place.customer_name.clone()).or_insert(why);
        }
    }
    if unfit.is_empty() { Ok(()) } else { Err(Unfit::Customers(unfit)) }
}

fn ask_at(view: &View, place: &Place<'_>) -> Result<(), String> {
    let domains = &view.snapshot.domains;
    let Leads::Stage { name, stage, root, .. } = place.leads else {
        let Target::Platform { customer, .. } = found(view, place, "/")? else {
            return Err(format!("{} does not lead to the Platform", place.host));
        };
        let issuer = domains.member_issuer(place.customer_name);
        return expect(
            customer.id == place.customer.id && customer.issuer.url == issuer,
            place,
            "its members",
        );
    };
    let own = found(view, place, "/.bastide/")?;
    expect(matches!(own, Target::Own { .. }), place, "the gateway's own pages")?;
    let issuer = domains.stage_issuer(place.customer_name, name);
    expect(stage.issuer.url == issuer, place, "users of this stage")?;
    for (app_name, app, before) in place.apps() {
        // The edge puts the app's name before the path where a host serves only one.
        let before = if root.is_some() { format!("/{app_name}") } else { before };
        for below in Place::paths(app) {
            let target = found(view, place, &format!("{before}{below}"))?;
            let right = match &target {
                Target::App(found) => {
                    (found.customer.id, &found.stage_name, found.app.id) == (place.customer.id, name, app.id)
                        && found.routes() == [route_for(&app.routes, below); 2]
                        && found.issuer() == &stage.issuer
                        && found.is_root == root.is_some()
                }
                _ => false,
            };
            expect(right, place, &format!("the app {app_name} by its own rules"))?;
        }
        let key = AppKey { customer: place.customer.id, stage: name.clone(), app: app.id };
        let zones = view.directory.zones(&key).ok_or_else(|| format!("{app_name} is in no directory"))?;
        let mut ready = zones.values().flatten();
        expect(
            ready.all(|endpoint| app.replicas.contains_key(&endpoint.replica)),
            place,
            "its own replicas",
        )?;
    }
    Ok(())
}

fn found<'v>(view: &'v View, place: &Place<'_>, path: &str) -> Result<Target<'v>, String> {
    let nowhere = || format!("{}{path} leads nowhere", place.host);
    let path = CanonicalPath::of(path).ok_or_else(nowhere)?;
    site::find(&view.snapshot, &place.host, &path).map_err(|_| nowhere())
}

fn expect(right: bool, place: &Place<'_>, what: &str) -> Result<(), String> {
    if right { Ok(()) } else { Err(format!("{} does not lead to {what}", place.host)) }
}
