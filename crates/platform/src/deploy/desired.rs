//! What should run in a stage, as its agent gets it.

use crate::{ApiError, App, services};
use bastide_store::StageRow;
use bastide_types::{
    message::{DesiredReplica, StageState},
    settings::AppSettings,
};
use std::collections::BTreeSet;

/// The desired state of a stage.
pub(crate) async fn state(app: &App, stage: &StageRow) -> Result<StageState, ApiError> {
    let own = app.store.customer(stage.customer);
    let serving = own.serving(&stage.name).await?;
    let logins = own.postgres(&stage.name).await?;
    let mut replicas = Vec::new();
    let revisions = own.revisions_in(&stage.name).await?;
    for replica in own.replicas(&stage.name).await? {
        let Some(revision) = revisions.get(&(replica.app, replica.revision)) else { continue };
        if !revision.vouched {
            tracing::error!(customer = %stage.customer_name, app = %replica.app, revision = revision.number, "a revision is not what was published; it does not run");
            continue;
        }
        // What a replica needs comes first; it is told to the agent when that is there.
        let Some(mut services) = services::of_replica(&revision.manifest, &logins, replica.app, replica.id)
        else {
            continue;
        };
        services.settings_version = (replica.settings > 0).then_some(replica.settings);
        replicas.push(DesiredReplica {
            id: replica.id,
            app: replica.app,
            app_name: revision.manifest.app.name.clone(),
            revision: revision.digest,
            revision_number: revision.number,
            zone: replica.zone,
            image: revision.image,
            manifest: revision.manifest.clone(),
            draining: replica.drain_at == Some(0),
            assertion_keys: app.assertion_jwks.clone(),
            serving: serving.get(&replica.app) == Some(&replica.revision),
            services,
        });
    }
    let versions: BTreeSet<_> = replicas
        .iter()
        .filter_map(|replica| Some((replica.app, replica.services.settings_version?)))
        .collect();
    let mut settings = Vec::new();
    for (app, version) in versions {
        let values = own.settings_at(&stage.name, app, version).await?;
        settings.push(AppSettings { app, version, values });
    }
    let uses_postgres = replicas.iter().any(|replica| replica.services.postgres.is_some());
    let postgres = app.postgres.as_ref().filter(|_| uses_postgres).map(|admin| admin.server().clone());
    Ok(StageState {
        account: stage.account.clone(),
        generation: stage.generation,
        customer: stage.customer_name.clone(),
        stage: stage.name.clone(),
        replicas,
        network: own.network(&stage.name).await?,
        callees: own.callees(&stage.name).await?,
        postgres,
        settings,
    })
}
