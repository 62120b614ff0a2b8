//! What the edge knows at one moment: a Snapshot and who is ready. Replaced whole.

use crate::{bans::Bans, cache::Plot, canonical::canonical, custom::Made, front::Fronts, waf::force::Sites};
use bastide_balancer::{AppKey, Directory};
use bastide_bus::facts::Facts;
use bastide_cache::{Cache, Scope, Site, Space};
use bastide_types::{Purge, Purges, Snapshot};
use std::{collections::HashMap, ops::Deref, sync::Arc};

/// One consistent view.
pub(crate) struct View {
    worked: Worked,
    pub(crate) directory: Directory,
}

/// What is worked out once for a Snapshot. Making it changes nothing; [`crate::station`] brings it into force.
#[derive(Clone)]
pub(crate) struct Worked {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) plots: Arc<Plots>,
    /// WAF policies in force.
    pub(crate) waf: Arc<Sites>,
    /// Sources that are not served.
    pub(crate) bans: Arc<Bans>,
    /// What customers want to happen at their hosts.
    pub(crate) fronts: Arc<Fronts>,
    /// Certificates of custom domains.
    pub(crate) custom: Arc<Made>,
}

/// What the cache knows of each app, made once per Snapshot.
pub(crate) type Plots = HashMap<AppKey, Arc<Plot>>;

impl View {
    pub(crate) fn new(worked: Worked, facts: &Facts) -> Self {
        let directory = Directory::build(&worked.snapshot, facts);
        Self { worked, directory }
    }
}

impl Deref for View {
    type Target = Worked;
    fn deref(&self) -> &Worked {
        &self.worked
    }
}

impl Worked {
    /// Brings the purges of the Snapshot into force.
    pub(crate) fn purge(&self, cache: &Cache) {
        for customer in self.snapshot.customers.values() {
            for (stage_name, stage) in &customer.stages {
                for app in stage.apps.values() {
                    let key = AppKey { customer: customer.id, stage: stage_name.clone(), app: app.id };
                    if let Some(plot) = self.plots.get(&key) {
                        purge(cache, &plot.space, &app.purges);
                    }
                }
            }
        }
    }
}

/// Brings purges into force that are not yet. Addresses get the one spelling that keys have.
fn purge(cache: &Cache, space: &Space, purges: &Purges) {
    let spelled = |target: &str| {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = canonical(path).ok()?;
        Some(query.map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
    };
    let list: Vec<_> = purges
        .list
        .iter()
        .map(|(number, purge)| {
            let purge = match purge {
                Purge::Url(target) => spelled(target).map(Purge::Url),
                Purge::Prefix(target) => spelled(target).map(Purge::Prefix),
                Purge::All | Purge::Group(_) => Some(purge.clone()),
            };
            // What has no spelling here is not told apart from anything: everything goes.
            (*number, purge.unwrap_or(Purge::All))
        })
        .collect();
    cache.apply_purges(space, &list, purges.before);
}

/// The plots of all apps: keys hold customer, stage, app, revision and the security fields of the stage, so that a
/// publish, or other fields, make what is stored unreachable.
pub(crate) fn plots(snapshot: &Snapshot, cache: &Cache, fronts: &Fronts) -> Arc<Plots> {
    let mut plots = Plots::new();
    for customer in snapshot.customers.values() {
        for (stage_name, stage) in &customer.stages {
            let fields = fronts.of(customer.id, stage_name).fields.mark().to_string();
            for (app_name, app) in &stage.apps {
                let key = AppKey { customer: customer.id, stage: stage_name.clone(), app: app.id };
                let (customer, app_id) = (customer.id.to_string(), app.id.to_string());
                let revision = app.revision.to_string();
                let plot = Plot {
                    space: cache.space(&customer, &[&customer, stage_name.as_str(), &app_id]),
                    scope: Scope::new(&[&customer, stage_name.as_str(), &app_id, &revision, &fields]),
                    site: Site::customer(),
                    mark: Some(revision),
                    path: format!("/{app_name}"),
                    canonical: |path| canonical(path).ok(),
                };
                plots.insert(key, Arc::new(plot));
            }
        }
    }
    Arc::new(plots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_cache::{Ask, Exchange, Key, Moment, admit::admit};
    use http::{HeaderMap, Method, StatusCode, header};

    fn fill(cache: &Cache, space: &Arc<Space>, target: &str) -> Key {
        let key = Key::new(&Scope::new(&["acme"]), "https", "h", target);
        let (asked, site, now) = (HeaderMap::new(), Site::customer(), Moment::default());
        let headers = [(header::CACHE_CONTROL, "max-age=60".parse().unwrap())].into_iter().collect();
        let exchange = Exchange { requested: now, received: now, if_range: false };
        let draft =
            admit(&site, &Ask::new(&Method::GET, &asked, &site), StatusCode::OK, &headers, exchange).unwrap();
        let stored = draft.finish("body".into(), None).unwrap();
        cache.store(space, &key, stored, cache.begin(&key)).unwrap();
        key
    }

    #[test]
    fn purges_of_the_snapshot_mean_what_keys_spell() {
        let cache = Cache::new(bastide_cache::Limits::default());
        let space = cache.space("acme", &["acme", "test", "shop"]);
        let keys = ["/shop/a%20b?x=%31", "/shop/css/x", "/shop/~y", "/shop/z"]
            .map(|target| fill(&cache, &space, target));
        let list = vec![
            (3, Purge::Url("/shop/./a%20b?x=%31".into())),
            (4, Purge::Prefix("/shop//css/".into())),
            (5, Purge::Url("/shop/%7ey".into())),
        ];
        purge(&cache, &space, &Purges { before: 0, list: list.clone() });
        let left = || keys.clone().map(|key| cache.peek(&key).is_some());
        assert_eq!(left(), [false, false, false, true]);
        fill(&cache, &space, "/shop/css/x");
        purge(&cache, &space, &Purges { before: 2, list: list.clone() });
        assert_eq!(left(), [false, true, false, true], "what is in force is not applied again");
        purge(&cache, &space, &Purges { before: 9, list: vec![] });
        assert_eq!(left(), [false; 4], "some were missed");
        fill(&cache, &space, "/shop/z");
        purge(&cache, &space, &Purges { before: 9, list: vec![(10, Purge::Url("/shop/%zz".into()))] });
        assert_eq!(left(), [false; 4], "what cannot be told apart means everything");
    }
}
