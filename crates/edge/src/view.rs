//! What the edge knows at one moment: a Snapshot and who is ready. Replaced whole.

use crate::{cache::Plot, canonical::canonical};
use bastide_balancer::{AppKey, Directory};
use bastide_bus::facts::Facts;
use bastide_cache::{Cache, Scope, Site};
use bastide_types::Snapshot;
use std::{collections::HashMap, sync::Arc};

/// One consistent view.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) directory: Directory,
    pub(crate) plots: Arc<Plots>,
}

/// What the cache knows of each app, made once per Snapshot.
pub(crate) type Plots = HashMap<AppKey, Arc<Plot>>;

impl View {
    pub(crate) fn new(snapshot: Arc<Snapshot>, facts: &Facts, plots: Arc<Plots>) -> Self {
        let directory = Directory::build(&snapshot, facts);
        Self { snapshot, directory, plots }
    }
}

/// The plots of all apps: keys hold customer, stage, app and revision, so that a publish makes what is stored
/// of the revision before it unreachable.
pub(crate) fn plots(snapshot: &Snapshot, cache: &Cache) -> Arc<Plots> {
    let mut plots = Plots::new();
    for customer in snapshot.customers.values() {
        for (stage_name, stage) in &customer.stages {
            for (app_name, app) in &stage.apps {
                let key = AppKey { customer: customer.id, stage: stage_name.clone(), app: app.id };
                let (customer, app_id) = (customer.id.to_string(), app.id.to_string());
                let revision = app.revision.to_string();
                let plot = Plot {
                    space: cache.space(&customer, &[&customer, stage_name.as_str(), &app_id]),
                    scope: Scope::new(&[&customer, stage_name.as_str(), &app_id, &revision]),
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
