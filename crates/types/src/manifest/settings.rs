//! The `[settings]` table: which settings an app knows, and which it cannot do without.

use super::{Manifest, ManifestError};
use crate::settings;
use serde::{Deserialize, Serialize};

/// Most entries.
const ENTRIES_MAX: usize = 200;
/// Longest description.
const ABOUT_CHARS_MAX: usize = 400;

/// A setting that an app reads from its environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Setting {
    /// Whether the app cannot do without it: where it is not set, no revision that says so is deployed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Whether it is to be set as a secret.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// What it is in stages where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What it is for, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub about: String,
}

pub(super) fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    let fail = |name: &str, problem: String| Err(ManifestError { key: format!("settings.{name}"), problem });
    if manifest.settings.len() > ENTRIES_MAX {
        return Err(ManifestError { key: "settings".into(), problem: format!("at most {ENTRIES_MAX}") });
    }
    for (name, setting) in &manifest.settings {
        if let Err(error) = settings::check_name(name) {
            return fail(name, error.to_string());
        }
        if manifest.env.contains_key(name) {
            return fail(name, "it is in [env] too: what is in both has two values".into());
        }
        if setting.about.chars().count() > ABOUT_CHARS_MAX {
            return fail(name, format!("`about` has at most {ABOUT_CHARS_MAX} characters"));
        }
        let Some(default) = &setting.default else { continue };
        if setting.required || setting.secret {
            return fail(name, "what is required or a secret has no default".into());
        }
        if let Err(error) = settings::check_value(default) {
            return fail(name, error.to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(settings: Value) -> Result<Manifest, String> {
        let value = json!({
            "app": { "name": "shop", "kind": "static" }, "env": { "COLOR": "red" }, "settings": settings,
        });
        let manifest: Manifest = serde_json::from_value(value).map_err(|error| error.to_string())?;
        manifest.check().map_err(|error| error.to_string())?;
        Ok(manifest)
    }

    #[test]
    fn a_setting_is_required_or_has_a_default_or_neither() {
        let manifest = read(json!({
            "KEY": { "required": true, "secret": true }, "LEVEL": { "default": "info", "about": "How much is said." }, "FREE": {},
        }));
        let manifest = manifest.unwrap();
        assert!(manifest.settings["KEY"].required && manifest.settings["FREE"].default.is_none());
        let again: Manifest = serde_json::from_str(&serde_json::to_string(&manifest).unwrap()).unwrap();
        assert_eq!(again, manifest);
        let without = serde_json::to_string(&read(json!({})).unwrap()).unwrap();
        assert!(!without.contains("settings"), "older revisions keep their digest: {without}");
        for (settings, part) in [
            (json!({ "PORT": {} }), "settings.PORT"),
            (json!({ "A-B": {} }), "settings.A-B"),
            (json!({ "COLOR": {} }), "[env]"),
            (json!({ "A": { "required": true, "default": "x" } }), "no default"),
            (json!({ "A": { "secret": true, "default": "x" } }), "no default"),
            (json!({ "A": { "default": "x\u{0}" } }), "NUL"),
            (json!({ "A": { "about": "x".repeat(401) } }), "400"),
            (json!({ "A": { "value": "x" } }), "value"),
        ] {
            let error = read(settings.clone()).unwrap_err();
            assert!(error.contains(part), "{settings}: {error}");
        }
    }
}
