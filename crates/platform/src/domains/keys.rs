//! Private keys for the edges: each is sealed once for each edge and kept, so that all replicas make the same Snapshot.

use crate::{ApiError, App};
use bastide_store::StoreError;

/// Seals what some edge does not have yet, and forgets what was sealed for edges that are gone.
pub(super) async fn seal(app: &App) -> Result<(), ApiError> {
    let known: Vec<String> = app.domains.edges.iter().map(bastide_tls::SealingPublic::id).collect();
    for (edge, id) in app.domains.edges.iter().zip(&known) {
        for key in app.store.keys_unsealed(id).await? {
            let sealed =
                edge.seal(key.name.as_str(), &key.key).map_err(|error| ApiError::internal(&error))?;
            let mut write = app.store.write().await?;
            app.store.customer(key.customer).put_sealed_key(&mut write, &key, id, &sealed).await?;
            write.commit().await.map_err(StoreError::from)?;
            app.wake.notify_one();
        }
    }
    if app.store.has_other_edges(&known).await? {
        let mut write = app.store.write().await?;
        app.store.forget_edges(&mut write, &known).await?;
        write.commit().await.map_err(StoreError::from)?;
    }
    Ok(())
}
