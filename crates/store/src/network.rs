//! Network settings of stages.

use crate::{CustomerStore, Result, Write, from_json, to_json};
use bastide_types::{StageName, network::StageNetwork};
use sqlx::Row;

impl CustomerStore<'_> {
    /// The settings of a stage; the default when none were made.
    pub async fn network(&self, stage: &StageName) -> Result<StageNetwork> {
        let row = sqlx::query("SELECT settings FROM stage_network WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_optional(&self.store.pool)
            .await?;
        row.map_or(Ok(StageNetwork::default()), |row| from_json(row.try_get(0)?))
    }

    /// Replaces the settings of a stage, which must exist; its generation rises.
    pub async fn set_network(
        &self,
        write: &mut Write,
        stage: &StageName,
        network: &StageNetwork,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO stage_network (customer, stage, settings) VALUES (?1, ?2, ?3)
             ON CONFLICT (customer, stage) DO UPDATE SET settings = ?3",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(to_json(network)?)
        .execute(&mut **write)
        .await?;
        self.raise_generation(write, stage).await
    }
}
