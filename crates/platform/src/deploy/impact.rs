//! What a deployment would do, before it is done: blockers stop it, warnings inform.

use super::scaler;
use crate::{
    ApiError, App, services, settings,
    waf::{Office, Place, judge},
};
use bastide_store::{CustomerStore, RevisionRow};
use bastide_types::{
    AccessRule, AppId, AppName, Code, Manifest, StageName, access::route_for, node::Isolation, waf::LayerBy,
};
use serde::Serialize;

/// What is found about a deployment.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub(crate) struct Impact {
    /// These stop it.
    pub(crate) blockers: Vec<Finding>,
    /// These are worth knowing.
    pub(crate) warnings: Vec<String>,
}

/// A blocker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Finding {
    /// The code that the refusal has.
    #[schema(value_type = String)]
    code: Code,
    /// What it is about, for people.
    what: String,
}

impl Impact {
    fn block(&mut self, error: ApiError) {
        let code = Code::from_text(&error.0.code).unwrap_or(Code::Internal);
        let what = error.0.detail.unwrap_or_else(|| error.0.title.into_owned());
        self.blockers.push(Finding { code, what });
    }

    pub(super) fn warn(&mut self, what: String) {
        self.warnings.push(what);
    }

    /// Refuses what is blocked, with the first blocker's code and the words of all.
    pub(crate) fn demand_free(&self) -> Result<(), ApiError> {
        let Some(first) = self.blockers.first() else { return Ok(()) };
        let all: Vec<_> = self.blockers.iter().map(|one| one.what.as_str()).collect();
        Err(ApiError::because(first.code, all.join("; ")))
    }
}

/// What deploying a revision to a stage would do.
pub(crate) async fn of_deployment(
    app: &App,
    own: &CustomerStore<'_>,
    stage: &StageName,
    revision: &RevisionRow,
) -> Result<Impact, ApiError> {
    let mut impact = Impact::default();
    if !revision.vouched {
        impact.block(ApiError::new(Code::RevisionChanged));
    }
    let stages = own.stage_names().await?;
    if let Err(error) = isolated(app, &stages, stage) {
        impact.block(error);
    }
    if own.is_deploying(stage, revision.app).await? {
        impact.block(ApiError::new(Code::DeployBusy));
    }
    let offered = services::offered(app, &revision.manifest);
    for found in [offered, scaler::at_begin(app, own, stage, revision).await.map(drop)] {
        match found {
            // Our own faults are no finding.
            Err(error) if error.0.status >= 500 => return Err(error),
            Err(error) => impact.block(error),
            Ok(()) => {}
        }
    }
    policy(app, own, stage, revision, &mut impact).await?;
    let set = own.settings(stage, revision.app).await?;
    if let Err(error) = settings::demand(&revision.manifest, &set) {
        impact.block(error);
    }
    settings::oddities(&revision.manifest, &set).into_iter().for_each(|what| impact.warn(what));
    let serving = own.serving(stage).await?.get(&revision.app).copied();
    if let Some(number) = serving
        && let Some(before) = own.revision(revision.app, number).await?
    {
        if number == revision.number {
            impact.warn(format!("revision {number} serves in {stage} already"));
        }
        compare(&before.manifest, &revision.manifest, &mut impact);
    }
    Ok(impact)
}

/// Apps run in the last stage only where they are isolated.
pub(super) fn isolated(app: &App, stages: &[StageName], stage: &StageName) -> Result<(), ApiError> {
    if app.config.isolation != Isolation::None || stages.len() < 2 || stages.last() != Some(stage) {
        return Ok(());
    }
    let why = format!("`{stage}` is the last stage; apps run there only where they are isolated");
    Err(ApiError::because(Code::IsolationMissing, why))
}

/// The policy that a revision brings may tighten what is said above it, and nothing else.
async fn policy(
    app: &App,
    own: &CustomerStore<'_>,
    stage: &StageName,
    revision: &RevisionRow,
    impact: &mut Impact,
) -> Result<(), ApiError> {
    let Some(layer) = &revision.manifest.waf else { return Ok(()) };
    let office = Office::of(app).await?;
    let place = Place { app: Some(revision.app), by: LayerBy::Customer };
    let above = office.above(&own.waf_layers(stage).await?, place);
    if let Err(error) = judge(&above, layer, LayerBy::Customer, &office.allowed) {
        impact.block(error);
    }
    Ok(())
}

/// What users of an app will notice.
fn compare(before: &Manifest, after: &Manifest, impact: &mut Impact) {
    let paths = before.routes.iter().chain(&after.routes).map(|route| route.path.as_str());
    let paths: std::collections::BTreeSet<_> = paths.chain(["/"]).collect();
    for path in paths {
        let (was, now) = (&route_for(&before.routes, path).access, &route_for(&after.routes, path).access);
        if opens(was, now) {
            impact.warn(format!("{path} will be open to more people than now"));
        } else if was != now {
            impact.warn(format!("{path} will be open to fewer people than now"));
        }
    }
    if before.services.postgres.is_some() && after.services.postgres.is_none() {
        impact.warn("it will have no database any more; the data stays".to_owned());
    }
    let (was, now) = (before.scale.range(), after.scale.range());
    if now.end() < was.start() {
        impact.warn(format!("at most {} replicas instead of at least {}", now.end(), was.start()));
    }
    let (was, now) = (before.resources.memory_mb, after.resources.memory_mb);
    if now < was {
        impact.warn(format!("each replica may use {now} MB of memory instead of {was} MB"));
    }
    if before.waf.is_some() && after.waf != before.waf {
        impact.warn("its firewall policy will be another".to_owned());
    }
}

/// Whether the second rule lets somebody in whom the first does not.
fn opens(from: &AccessRule, to: &AccessRule) -> bool {
    match (from, to) {
        (AccessRule::Public, _)
        | (AccessRule::Authenticated, AccessRule::Authenticated | AccessRule::Roles(_)) => false,
        (_, AccessRule::Public) | (AccessRule::Roles(_), AccessRule::Authenticated) => true,
        (AccessRule::Roles(before), AccessRule::Roles(now)) => now.iter().any(|role| !before.contains(role)),
    }
}

/// What taking an app out of a stage would do.
pub(crate) async fn of_undeploy(
    own: &CustomerStore<'_>,
    stage: &StageName,
    (app, name): (AppId, &AppName),
) -> Result<Impact, ApiError> {
    let mut impact = Impact::default();
    if own.is_deploying(stage, app).await? {
        impact.block(ApiError::new(Code::DeployBusy));
    }
    for grant in own.network(stage).await?.grants {
        if grant.to == *name {
            impact.warn(format!("{} calls it, and will find nothing", grant.from));
        }
    }
    for domain in own.served_domains().await? {
        if domain.stage == *stage && domain.app.as_ref() == Some(name) {
            impact.warn(format!("{} leads to it, and will lead nowhere", domain.name));
        }
    }
    Ok(impact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn warnings(before: Value, after: Value) -> Vec<String> {
        let manifest = |mut value: Value| {
            value["app"] = json!({ "name": "shop", "kind": "static" });
            serde_json::from_value::<Manifest>(value).unwrap()
        };
        let mut impact = Impact::default();
        compare(&manifest(before), &manifest(after), &mut impact);
        impact.warnings
    }

    #[test]
    fn what_people_will_notice_is_said() {
        let check = |before: Value, after: Value, parts: &[&str]| {
            let found = warnings(before.clone(), after.clone());
            assert_eq!(found.len(), parts.len(), "{before} {after}: {found:?}");
            for (found, part) in found.iter().zip(parts) {
                assert!(found.contains(part), "{before} {after}: {found}");
            }
        };
        let open = || json!({ "route": [{ "path": "/", "access": "public" }] });
        let roles = |roles: &[&str]| json!({ "route": [{ "path": "/admin", "access": { "roles": roles } }] });
        check(json!({}), json!({}), &[]);
        check(open(), json!({}), &["/ will be open to fewer"]);
        check(json!({}), open(), &["/ will be open to more"]);
        check(roles(&["a"]), json!({}), &["/admin will be open to more"]);
        check(json!({}), roles(&["a"]), &["/admin will be open to fewer"]);
        check(roles(&["a"]), roles(&["a", "b"]), &["/admin will be open to more"]);
        check(roles(&["a", "b"]), roles(&["a"]), &["/admin will be open to fewer"]);
        check(json!({ "scale": { "replicas": 3 } }), json!({ "scale": { "replicas": 1 } }), &["at most 1"]);
        check(json!({ "resources": { "memory_mb": 512 } }), json!({}), &["256 MB"]);
        check(json!({ "waf": { "paranoia": 2 } }), json!({}), &["firewall"]);
        check(json!({}), json!({ "waf": { "paranoia": 2 } }), &[]);
    }

    #[test]
    fn the_first_blocker_names_the_code_and_all_are_said() {
        let mut impact = Impact::default();
        impact.demand_free().unwrap();
        impact.block(ApiError::new(Code::DeployBusy));
        impact.block(ApiError::because(Code::QuotaExceeded, "3 of 3"));
        let problem = impact.demand_free().unwrap_err().0;
        assert_eq!(problem.code, Code::DeployBusy.as_str());
        assert!(problem.detail.unwrap().contains("3 of 3"));
    }
}
