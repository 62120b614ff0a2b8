//! What becomes of a revision after its publish: promoted, rolled back, taken out.

use super::{
    announce, begin,
    impact::{self, Impact},
    reconciler::DRAIN_AFTER_S,
    version::{self, Version},
};
use crate::{ApiError, App, caller::Caller};
use bastide_store::{AppRow, CustomerStore, RevisionRow, StoreError, now_s};
use bastide_types::{AppName, Code, StageName};
use uuid::Uuid;

/// How many turns of a stage are looked at for a revision to go back to.
pub(crate) const TURNS: u32 = 50;

/// What was asked of a deployment, and what would become of it.
pub(crate) struct Planned<'a> {
    pub(crate) kind: &'static str,
    pub(crate) app: AppRow,
    pub(crate) stage: &'a StageName,
    pub(crate) revision: RevisionRow,
    /// Version to give to it.
    pub(crate) version: Option<Version>,
    pub(crate) impact: Impact,
}

/// A promote: the revision of the stage before.
pub(crate) async fn promote<'a>(
    app: &App,
    own: &CustomerStore<'_>,
    name: &AppName,
    stage: &'a StageName,
    asked: Option<Version>,
) -> Result<Planned<'a>, ApiError> {
    let found = find(own, name).await?;
    let stages = own.stage_names().await?;
    let position = position(&stages, stage)?;
    // Whatever else stands in the way: this stays.
    impact::isolated(app, &stages, stage)?;
    let before = before(&stages, stage).ok_or_else(|| {
        ApiError::because(Code::StageOrder, format!("`{stage}` is the first stage: publish deploys to it"))
    })?;
    let number = own.serving(before).await?.get(&found.id).copied();
    let number = number.ok_or_else(|| {
        ApiError::because(Code::StageOrder, format!("`{name}` does not serve in `{before}`"))
    })?;
    let mut revision = own.revision(found.id, number).await?.ok_or_else(|| ApiError::new(Code::Internal))?;
    let is_last = position + 1 == stages.len();
    if asked.is_some() && !is_last {
        return Err(ApiError::because(Code::InputInvalid, "version: revisions get one in the last stage"));
    }
    let version = if is_last { version_of(own, &revision, asked).await? } else { None };
    if let Some(version) = version {
        revision.version = Some(version.to_string());
    }
    let impact = impact::of_deployment(app, own, stage, &revision).await?;
    Ok(Planned { kind: "promote", app: found, stage, revision, version, impact })
}

/// The stage before another one: what is promoted comes from there.
pub(crate) fn before<'s>(stages: &'s [StageName], stage: &StageName) -> Option<&'s StageName> {
    let position = stages.iter().position(|known| known == stage)?;
    position.checked_sub(1).and_then(|before| stages.get(before))
}

/// The version that a revision gets in the last stage; none when it has one.
async fn version_of(
    own: &CustomerStore<'_>,
    revision: &RevisionRow,
    asked: Option<Version>,
) -> Result<Option<Version>, ApiError> {
    let invalid = |why: String| ApiError::because(Code::InputInvalid, why);
    if let Some(has) = &revision.version {
        let same = asked.is_none_or(|asked| asked.to_string() == *has);
        return if same {
            Ok(None)
        } else {
            Err(invalid(format!("version: this revision is {has} already")))
        };
    }
    let known = own.versions(revision.app).await?;
    let known: Vec<Version> = known.iter().filter_map(|text| text.parse().ok()).collect();
    let chosen = version::choose(&known, asked);
    chosen.map(Some).map_err(|last| invalid(format!("version: above {last}, the last one")))
}

/// A roll back: to the revision that served before, or to one that served once.
pub(crate) async fn roll_back<'a>(
    app: &App,
    own: &CustomerStore<'_>,
    name: &AppName,
    stage: &'a StageName,
    to: Option<u32>,
) -> Result<Planned<'a>, ApiError> {
    let found = find(own, name).await?;
    position(&own.stage_names().await?, stage)?;
    let serving = own.serving(stage).await?.get(&found.id).copied();
    let turns = own.served(stage, found.id, TURNS).await?;
    let mut known = turns.iter().filter_map(|turn| turn.revision).filter(|number| Some(*number) != serving);
    let number = match to {
        None => known.next(),
        Some(to) => known.find(|number| *number == to),
    };
    let number = number.ok_or_else(|| {
        let which = to.map_or_else(|| "no other revision".to_owned(), |to| format!("revision {to} never"));
        let why = format!("{which} of `{name}` served in `{stage}` before, or it serves now");
        ApiError::because(Code::NothingBefore, why)
    })?;
    let revision = own.revision(found.id, number).await?.ok_or_else(|| ApiError::new(Code::Internal))?;
    let mut impact = impact::of_deployment(app, own, stage, &revision).await?;
    // Settings are the stage's: none comes back with a revision, so what differs is said.
    let then = turns.iter().find(|turn| turn.revision == Some(number)).map_or(0, |turn| turn.settings);
    let changed = own.settings_changed_since(stage, found.id, then).await?;
    if !changed.is_empty() {
        let changed = changed.join(", ");
        impact.warn(format!(
            "settings stay as they are; since revision {number} served, these were changed: {changed}"
        ));
    }
    Ok(Planned { kind: "rollback", app: found, stage, revision, version: None, impact })
}

/// Begins what is planned, if nothing blocks it.
pub(crate) async fn start(app: &App, caller: &Caller, planned: &Planned<'_>) -> Result<Uuid, ApiError> {
    planned.impact.demand_free()?;
    let own = caller.store(app);
    let Planned { kind, stage, revision, .. } = planned;
    let mut write = app.store.write().await?;
    if let Some(version) = planned.version {
        own.set_version(&mut write, revision.app, revision.number, &version.to_string()).await?;
    }
    let operation = begin(app, &mut write, &own, kind, stage, revision, &caller.who.sub).await?;
    write.commit().await.map_err(StoreError::from)?;
    announce(app, caller.customer.id, stage).await?;
    Ok(operation)
}

/// What taking an app out of a stage would do.
pub(crate) async fn plan_undeploy<'a>(
    own: &CustomerStore<'_>,
    name: &AppName,
    stage: &'a StageName,
) -> Result<Planned<'a>, ApiError> {
    let found = find(own, name).await?;
    position(&own.stage_names().await?, stage)?;
    let number = own.serving(stage).await?.get(&found.id).copied();
    let number = number.ok_or_else(|| {
        ApiError::because(Code::NothingBefore, format!("`{name}` does not serve in `{stage}`"))
    })?;
    let revision = own.revision(found.id, number).await?.ok_or_else(|| ApiError::new(Code::Internal))?;
    let impact = impact::of_undeploy(own, stage, (found.id, name)).await?;
    Ok(Planned { kind: "undeploy", app: found, stage, revision, version: None, impact })
}

/// Takes an app out of a stage. Its data, settings and revisions stay.
pub(crate) async fn undeploy(app: &App, caller: &Caller, planned: &Planned<'_>) -> Result<Uuid, ApiError> {
    planned.impact.demand_free()?;
    let own = caller.store(app);
    let Planned { stage, revision, app: row, .. } = planned;
    let now = now_s();
    let grace = i64::from(revision.manifest.app.grace_s) + i64::from(app.config.deploy_timeout_s);
    let mut write = app.store.write().await?;
    let (what, when) = ((row.id, revision.number), (now + DRAIN_AFTER_S, now + DRAIN_AFTER_S + grace));
    let id = own.begin_undeploy(&mut write, stage, what, when).await.map_err(|error| match error {
        StoreError::Taken => ApiError::new(Code::DeployBusy),
        other => other.into(),
    })?;
    let step = format!("revision {} serves no more in {stage}", revision.number);
    own.set_step(&mut write, id, "switch", "finished", &step).await?;
    let detail = format!("{} revision {} from {stage}", row.name, revision.number);
    own.audit(&mut write, &caller.who.sub, "app.undeploy", &detail).await?;
    write.commit().await.map_err(StoreError::from)?;
    announce(app, caller.customer.id, stage).await?;
    Ok(id)
}

async fn find(own: &CustomerStore<'_>, name: &AppName) -> Result<AppRow, ApiError> {
    own.app_named(name).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))
}

fn position(stages: &[StageName], stage: &StageName) -> Result<usize, ApiError> {
    let position = stages.iter().position(|known| known == stage);
    position.ok_or_else(|| ApiError::because(Code::InputInvalid, format!("there is no stage `{stage}`")))
}
