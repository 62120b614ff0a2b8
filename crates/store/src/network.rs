//! Network settings of stages.

use crate::{CustomerStore, Result, Write, from_json, now_s, parse, to_json};
use bastide_types::{
    AppName, StageName,
    network::{CALLEE_NUMBERS, StageNetwork},
};
use std::collections::{BTreeMap, BTreeSet};

impl CustomerStore<'_> {
    /// The settings of a stage; the default when none were made.
    pub async fn network(&self, stage: &StageName) -> Result<StageNetwork> {
        let row = self
            .query("SELECT settings FROM stage_network WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_optional(&self.store.pool)
            .await?;
        row.map_or(Ok(StageNetwork::default()), |row| from_json(row.try_get(0)?))
    }

    /// The number of every app of a stage that others may call, or could before.
    pub async fn callees(&self, stage: &StageName) -> Result<BTreeMap<AppName, u8>> {
        let rows = self
            .query("SELECT app, number FROM callee WHERE customer = ? AND stage = ?")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&self.store.pool)
            .await?;
        rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?))).collect()
    }

    /// Replaces the settings of a stage, which must exist; its generation rises. Apps that others may call
    /// now get numbers.
    pub async fn set_network(
        &self,
        write: &mut Write,
        stage: &StageName,
        network: &StageNetwork,
    ) -> Result<()> {
        self.query(
            "INSERT INTO stage_network (customer, stage, settings) VALUES (?1, ?2, ?3)
             ON CONFLICT (customer, stage) DO UPDATE SET settings = ?3",
        )
        .bind(self.customer.to_string())
        .bind(stage.as_str())
        .bind(to_json(network)?)
        .execute(&mut **write)
        .await?;
        let callees: BTreeSet<_> = network.grants.iter().map(|grant| &grant.to).collect();
        self.number(write, stage, &callees).await?;
        self.raise_generation(write, stage).await
    }

    async fn number(&self, write: &mut Write, stage: &StageName, callees: &BTreeSet<&AppName>) -> Result<()> {
        for app in callees {
            self.query("UPDATE callee SET granted = ? WHERE customer = ? AND stage = ? AND app = ?")
                .bind(now_s())
                .bind(self.customer.to_string())
                .bind(stage.as_str())
                .bind(app.as_str())
                .execute(&mut **write)
                .await?;
        }
        let rows = self
            .query("SELECT app, number FROM callee WHERE customer = ? AND stage = ? ORDER BY granted, number")
            .bind(self.customer.to_string())
            .bind(stage.as_str())
            .fetch_all(&mut **write)
            .await?;
        let known: Vec<(AppName, u8)> =
            rows.iter().map(|row| Ok((parse(row.try_get(0)?)?, row.try_get(1)?))).collect::<Result<_>>()?;
        let free = CALLEE_NUMBERS.filter(|number| known.iter().all(|(_, taken)| taken != number));
        // When all are taken, those go first that nobody may call and that were granted longest ago.
        let given_up = known.iter().filter(|(app, _)| !callees.contains(app)).map(|(_, number)| *number);
        let mut numbers = free.chain(given_up);
        for app in callees.iter().filter(|app| known.iter().all(|(known, _)| known != **app)) {
            let Some(number) = numbers.next() else { break };
            self.query("DELETE FROM callee WHERE customer = ? AND stage = ? AND number = ?")
                .bind(self.customer.to_string())
                .bind(stage.as_str())
                .bind(number)
                .execute(&mut **write)
                .await?;
            self.query("INSERT INTO callee (customer, stage, app, number, granted) VALUES (?, ?, ?, ?, ?)")
                .bind(self.customer.to_string())
                .bind(stage.as_str())
                .bind(app.as_str())
                .bind(number)
                .bind(now_s())
                .execute(&mut **write)
                .await?;
        }
        Ok(())
    }
}
