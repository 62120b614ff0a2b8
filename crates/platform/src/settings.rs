//! The Config Service: settings and secrets of apps in stages.
//!
//! Replicas get them as environment variables when they start. A change is a deployment of the revision that serves, with
//! new replicas that have the new values; so the old ones serve until those are ready, and a change that an app cannot
//! start with takes nothing away.

use crate::{ApiError, App, caller::Caller, deploy, permissions::Permission};
use bastide_store::{CustomerStore, SettingRow, SettingsChange, StoreError, Write};
use bastide_types::{
    AppId, AppName, Code, Manifest, Secret, StageName,
    service::POSTGRES_VARIABLES,
    settings::{APP_BYTES_MAX, COUNT_MAX, STAGE_BYTES_MAX, check_name, check_value},
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Letters of a fingerprint that people see.
pub(crate) const FINGERPRINT_LETTERS: usize = 8;

/// What is asked for.
pub(crate) struct Asked {
    pub(crate) app: AppName,
    pub(crate) stage: StageName,
    pub(crate) secret: bool,
    pub(crate) set: BTreeMap<String, Secret>,
    pub(crate) unset: BTreeSet<String>,
    /// Say what would happen, and do nothing.
    pub(crate) dry_run: bool,
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The newest version.
    pub(crate) version: u32,
    /// What is other than before.
    pub(crate) set: Vec<String>,
    /// What was there and is no more.
    pub(crate) unset: Vec<String>,
    /// What brings it to the replicas; none where the app does not serve.
    pub(crate) operation: Option<Uuid>,
    /// Revision that serves.
    pub(crate) revision: Option<u32>,
    /// What is worth knowing.
    pub(crate) warnings: Vec<String>,
}

impl Asked {
    /// The permission that it needs.
    fn permission(&self) -> Permission {
        if self.secret { Permission::SecretsWrite } else { Permission::SettingsWrite }
    }

    /// Checks what needs no database.
    fn check(&self) -> Result<(), ApiError> {
        for name in self.set.keys().chain(&self.unset) {
            check_name(name).map_err(|error| invalid(format!("{}: {error}", said(name))))?;
        }
        if let Some(both) = self.unset.iter().find(|name| self.set.contains_key(*name)) {
            return Err(invalid(format!("{both}: it cannot be set and removed at once")));
        }
        for (name, value) in &self.set {
            check_value(value.expose()).map_err(|error| invalid(format!("{name}: {error}")))?;
        }
        Ok(())
    }

    /// Refuses to touch secrets as settings, and the other way round.
    fn check_kinds(&self, known: &[SettingRow]) -> Result<(), ApiError> {
        let named = |row: &&SettingRow| self.set.contains_key(&row.name) || self.unset.contains(&row.name);
        match known.iter().filter(named).find(|row| row.secret != self.secret) {
            None => Ok(()),
            Some(row) if row.secret => {
                Err(invalid(format!("{}: it is a secret; remove it as one first", row.name)))
            }
            Some(row) => Err(invalid(format!("{}: it is a setting; remove it as one first", row.name))),
        }
    }

    /// Refuses what would be too much.
    fn check_size(&self, known: &[SettingRow], others: u64) -> Result<(), ApiError> {
        let stays = |row: &&SettingRow| !self.set.contains_key(&row.name) && !self.unset.contains(&row.name);
        let stays: Vec<_> = known.iter().filter(stays).map(|row| row.bytes).collect();
        let (count, new) = (stays.len() + self.set.len(), self.set.iter());
        let new: usize = new.map(|(name, value)| name.len() + value.expose().len()).sum();
        let bytes = stays.iter().sum::<u64>() + new as u64;
        if count > COUNT_MAX {
            return Err(invalid(format!("an app has at most {COUNT_MAX} settings and secrets in a stage")));
        }
        if bytes > APP_BYTES_MAX as u64 {
            let most = APP_BYTES_MAX / 1024;
            return Err(invalid(format!("an app's settings and secrets have at most {most} KiB in a stage")));
        }
        if bytes + others > STAGE_BYTES_MAX as u64 {
            let most = STAGE_BYTES_MAX / 1024;
            return Err(invalid(format!(
                "settings and secrets of all apps of a stage have at most {most} KiB"
            )));
        }
        Ok(())
    }
}

/// Changes settings or secrets of an app in a stage, and begins to bring them to its replicas.
pub(crate) async fn change(app: &App, caller: &Caller, asked: &Asked) -> Result<Outcome, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let own = caller.store(app);
    if !own.stage_names().await?.contains(&asked.stage) {
        return Err(unknown());
    }
    caller.demand_sign_in(app, asked.permission(), Some(&asked.stage)).await?;
    asked.check()?;
    let found = own.app_named(&asked.app).await?;
    let mut write = app.store.write().await?;
    let id = match found {
        Some(found) => found.id,
        // What an app needs is set before it is published for the first time.
        None if caller.may(Permission::AppsPublish) && !asked.set.is_empty() => {
            own.ensure_app(&mut write, &asked.app).await?
        }
        None => return Err(unknown()),
    };
    let outcome = change_in(app, caller, &own, &mut write, id, asked).await?;
    if asked.dry_run {
        return Ok(Outcome { operation: None, ..outcome });
    }
    write.commit().await.map_err(StoreError::from)?;
    if outcome.operation.is_some() {
        deploy::announce(app, caller.customer.id, &asked.stage).await?;
    }
    Ok(outcome)
}

async fn change_in(
    app: &App,
    caller: &Caller,
    own: &CustomerStore<'_>,
    write: &mut Write,
    id: AppId,
    asked: &Asked,
) -> Result<Outcome, ApiError> {
    let stage = &asked.stage;
    let known = own.settings_in(write, stage, id).await?;
    asked.check_kinds(&known)?;
    asked.check_size(&known, own.settings_bytes_of_others(write, stage, id).await?)?;
    let before: BTreeMap<&str, &SettingRow> = known.iter().map(|row| (row.name.as_str(), row)).collect();
    let print = |name: &str, value: &Secret| own.setting_fingerprint(stage, id, name, value);
    let is_other = |(name, value): &(&String, &Secret)| {
        before.get(name.as_str()).is_none_or(|row| row.fingerprint != print(name, value))
    };
    let set: BTreeMap<&str, &Secret> =
        asked.set.iter().filter(is_other).map(|(name, value)| (name.as_str(), value)).collect();
    let unset: Vec<&str> =
        asked.unset.iter().map(String::as_str).filter(|name| before.contains_key(name)).collect();
    let mut outcome = Outcome {
        version: own.settings_version(stage, id).await?,
        set: set.keys().map(|name| (*name).to_owned()).collect(),
        unset: unset.iter().map(|name| (*name).to_owned()).collect(),
        revision: own.serving(stage).await?.get(&id).copied(),
        ..Outcome::default()
    };
    let changes = !set.is_empty() || !unset.is_empty();
    if changes {
        // A revision that is on its way has the values of before.
        if own.is_deploying(stage, id).await? {
            return Err(ApiError::new(Code::DeployBusy));
        }
        let old: BTreeMap<_, _> = set
            .keys()
            .chain(&unset)
            .filter_map(|name| Some(((*name).to_owned(), short(&before.get(name)?.fingerprint))))
            .collect();
        let new: BTreeMap<_, _> =
            set.iter().map(|(name, value)| ((*name).to_owned(), short(&print(name, value)))).collect();
        let change = SettingsChange { set, unset, secret: asked.secret, who: &caller.who.sub };
        outcome.version = own.change_settings(write, stage, id, &change).await?;
        let what = if asked.secret { "app.secrets" } else { "app.settings" };
        let detail = format!("{} in {stage}: version {}", asked.app, outcome.version);
        caller.note_change(own, write, (what, &detail), Some(&old), Some(&new)).await?;
    }
    let Some(number) = outcome.revision else { return Ok(outcome) };
    // What a deployment failed with before is tried again.
    if !changes && own.settings_serving(stage).await?.get(&id) == Some(&outcome.version) {
        return Ok(outcome);
    }
    let revision = own.revision(id, number).await?.ok_or_else(|| ApiError::new(Code::Internal))?;
    outcome.warnings = oddities(&revision.manifest, &own.settings_in(write, stage, id).await?);
    let begun = deploy::begin(app, write, own, "settings", stage, &revision, &caller.who.sub).await?;
    outcome.operation = Some(begun);
    Ok(outcome)
}

/// Refuses a revision where something is missing that it cannot do without.
///
/// # Errors
/// [`Code::SettingMissing`].
pub(crate) fn demand(manifest: &Manifest, set: &[SettingRow]) -> Result<(), ApiError> {
    let is_there = |name: &String| set.iter().any(|row| row.name == *name);
    let missing = manifest.settings.iter().filter(|(name, setting)| setting.required && !is_there(name));
    let missing: Vec<_> = missing.map(|(name, _)| name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!("[settings] of `{}` requires {}", manifest.app.name, missing.join(", "));
    Err(ApiError::because(Code::SettingMissing, why))
}

/// What is worth knowing about what is set.
pub(crate) fn oddities(manifest: &Manifest, set: &[SettingRow]) -> Vec<String> {
    let mut found = Vec::new();
    for row in set {
        let name = &row.name;
        if !row.secret && manifest.settings.get(name).is_some_and(|setting| setting.secret) {
            found.push(format!("{name} is set as a setting, and the manifest wants a secret"));
        }
        let of_service = manifest
            .services
            .postgres
            .as_ref()
            .is_some_and(|own| own.env == *name || POSTGRES_VARIABLES.contains(&name.as_str()));
        if of_service {
            found.push(format!("{name} is set, but [services.postgres] sets it too and wins"));
        }
    }
    found
}

/// A fingerprint for people.
pub(crate) fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(FINGERPRINT_LETTERS).collect()
}

/// A name that may be anything, for people.
fn said(name: &str) -> String {
    name.chars().take(40).collect::<String>().escape_debug().to_string()
}

fn invalid(why: String) -> ApiError {
    ApiError::because(Code::InputInvalid, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn manifest(settings: Value) -> Manifest {
        let value = json!({
            "app": { "name": "shop", "kind": "binary", "command": ["./shop"] }, "settings": settings,
            "services": { "postgres": {} },
        });
        serde_json::from_value(value).unwrap()
    }

    fn row(name: &str, secret: bool, bytes: u64) -> SettingRow {
        SettingRow {
            name: name.into(),
            secret,
            value: None,
            bytes,
            fingerprint: String::new(),
            since: 1,
            who: String::new(),
            at: 0,
        }
    }

    fn asked(set: &[(&str, &str)], unset: &[&str]) -> Asked {
        Asked {
            app: AppName::new("shop").unwrap(),
            stage: StageName::test(),
            secret: false,
            set: set.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect(),
            unset: unset.iter().map(|name| (*name).to_owned()).collect(),
            dry_run: false,
        }
    }

    #[test]
    fn what_is_required_and_not_set_is_named() {
        let needs = manifest(json!({ "A": { "required": true }, "B": { "required": true }, "C": {} }));
        let problem = demand(&needs, &[row("B", true, 1)]).unwrap_err().0;
        assert_eq!(problem.code, Code::SettingMissing.as_str());
        assert!(problem.detail.unwrap().ends_with("requires A"));
        demand(&needs, &[row("A", false, 1), row("B", true, 1)]).unwrap();
    }

    #[test]
    fn what_is_odd_is_said() {
        let found = oddities(
            &manifest(json!({ "KEY": { "secret": true } })),
            &[
                row("KEY", false, 1),
                row("DATABASE_URL", true, 1),
                row("PGHOST", false, 1),
                row("X", false, 1),
            ],
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(oddities(&manifest(json!({ "KEY": { "secret": true } })), &[row("KEY", true, 1)]).is_empty());
    }

    #[test]
    fn names_values_kinds_and_sizes_are_checked() {
        asked(&[("A", "x")], &["B"]).check().unwrap();
        for bad in [
            asked(&[("A-", "x")], &[]),
            asked(&[("A", "x\0")], &[]),
            asked(&[], &["PORT"]),
            asked(&[("A", "x")], &["A"]),
        ] {
            assert_eq!(bad.check().unwrap_err().0.code, Code::InputInvalid.as_str());
        }
        let is_good = |asked: &Asked, known: &[SettingRow]| asked.check_kinds(known).is_ok();
        assert!(is_good(&asked(&[("A", "x")], &[]), &[row("A", false, 1), row("B", true, 1)]));
        assert!(!is_good(&asked(&[("A", "x")], &[]), &[row("A", true, 1)]));
        assert!(!is_good(&asked(&[], &["A"]), &[row("A", true, 1)]));
        let secret = Asked { secret: true, ..asked(&[("A", "x")], &[]) };
        assert!(!is_good(&secret, &[row("A", false, 1)]) && is_good(&secret, &[row("A", true, 1)]));

        let (app, stage) = (APP_BYTES_MAX as u64, STAGE_BYTES_MAX as u64);
        let fits = |asked: &Asked, known: &[SettingRow], others| asked.check_size(known, others).is_ok();
        let two = asked(&[("A", "x")], &["C"]);
        assert!(fits(&two, &[row("B", false, app - 2)], 0));
        assert!(!fits(&two, &[row("B", false, app - 1)], 0));
        assert!(fits(&two, &[row("A", false, app), row("C", false, app)], stage - 2), "they go");
        assert!(!fits(&two, &[], stage - 1));
        let many: Vec<_> = (0..COUNT_MAX).map(|n| row(&format!("N{n}"), false, 1)).collect();
        assert!(!fits(&two, &many, 0) && fits(&two, &many[1..], 0));
    }
}
