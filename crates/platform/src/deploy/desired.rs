//! What should run in a stage, as its agent gets it.

use crate::{ApiError, App};
use bastide_store::StageRow;
use bastide_types::{
    message::{DesiredReplica, StageState},
    service::Services,
};

/// The desired state of a stage.
pub(crate) async fn state(app: &App, stage: &StageRow) -> Result<StageState, ApiError> {
    let own = app.store.customer(stage.customer);
    let serving = own.serving(&stage.name).await?;
    let mut replicas = Vec::new();
    for replica in own.replicas(&stage.name).await? {
        let Some(revision) = own.revision(replica.app, replica.revision).await? else { continue };
        replicas.push(DesiredReplica {
            id: replica.id,
            app: replica.app,
            app_name: revision.manifest.app.name.clone(),
            revision: revision.digest,
            revision_number: revision.number,
            zone: replica.zone,
            image: revision.image,
            manifest: revision.manifest,
            draining: replica.drain_at == Some(0),
            assertion_keys: app.assertion_jwks.clone(),
            serving: serving.get(&replica.app) == Some(&replica.revision),
            services: Services::default(),
        });
    }
    Ok(StageState {
        account: stage.account.clone(),
        generation: stage.generation,
        customer: stage.customer_name.clone(),
        stage: stage.name.clone(),
        replicas,
        network: own.network(&stage.name).await?,
        callees: own.callees(&stage.name).await?,
        postgres: None,
    })
}
