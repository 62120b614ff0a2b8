//! What a developer writes in `bastide.toml`.

use crate::{AppName, Route};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The manifest. Unknown keys are errors; everything but the name and the kind has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The app itself.
    pub app: App,
    /// How many replicas run in each stage.
    #[serde(default)]
    pub scale: Scale,
    /// Who may use which part; what no route covers needs a signed-in user.
    #[serde(default, rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Environment of the app. Names are letters, digits and `_`; `PORT` and `BASTIDE_*` are ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// The `[app]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Name: path segment under which the app is served.
    pub name: AppName,
    /// How it runs.
    pub kind: Kind,
    /// For `binary`: program (relative to the directory) and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Path that answers 2xx when the app is ready. Default `/healthz` for `binary`, `/` for `static`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Seconds an app gets between SIGTERM and SIGKILL. Default 10, at most 60.
    #[serde(default = "default_grace_s")]
    pub grace_s: u32,
}

/// Kind of app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A program that listens on `PORT` and speaks HTTP/1.1.
    Binary,
    /// A directory of files, served by Bastide's own file server.
    Static,
}

/// The `[scale]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scale {
    /// Replicas per stage, spread over the zones. Default 2, at most [`REPLICAS_MAX`].
    pub replicas: u32,
}

/// Most replicas of an app in one stage.
pub const REPLICAS_MAX: u32 = 16;

impl Default for Scale {
    fn default() -> Self {
        Self { replicas: 2 }
    }
}

const fn default_grace_s() -> u32 {
    10
}

/// What is wrong with a manifest that could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ManifestError {
    /// The key, as in the file.
    pub key: String,
    /// What is wrong and what would do.
    pub problem: String,
}

impl Manifest {
    /// The readiness path, with the default of the kind.
    pub fn health(&self) -> &str {
        match (&self.app.health, self.app.kind) {
            (Some(path), _) => path,
            (None, Kind::Binary) => "/healthz",
            (None, Kind::Static) => "/",
        }
    }

    /// Checks what the types alone cannot.
    ///
    /// # Errors
    /// The first [`ManifestError`] found.
    pub fn check(&self) -> Result<(), ManifestError> {
        let fail = |key: &str, problem: &str| Err(ManifestError { key: key.into(), problem: problem.into() });
        match self.app.kind {
            Kind::Binary if self.app.command.is_empty() => {
                return fail("app.command", "a binary app names its program, such as [\"./server\"]");
            }
            Kind::Static if !self.app.command.is_empty() => {
                return fail("app.command", "a static app has no command");
            }
            _ => {}
        }
        if let Some(program) = self.app.command.first() {
            if program.starts_with('/') || program.split('/').any(|part| part == "..") {
                return fail("app.command", "the program is a path inside the directory");
            }
        }
        if !is_path(self.health()) {
            return fail("app.health", "a path starts with `/` and has no `..`, `//`, `?`, `#` or spaces");
        }
        if !(1..=60).contains(&self.app.grace_s) {
            return fail("app.grace_s", "1 to 60 seconds");
        }
        if !(1..=REPLICAS_MAX).contains(&self.scale.replicas) {
            return fail("scale.replicas", "1 to 16 replicas");
        }
        if self.routes.len() > 200 {
            return fail("route", "at most 200 routes");
        }
        for route in &self.routes {
            if !is_path(&route.path) {
                return fail(
                    "route.path",
                    "a path starts with `/` and has no `..`, `//`, `?`, `#` or spaces",
                );
            }
            if let crate::AccessRule::Roles(roles) = &route.access {
                if roles.is_empty() || roles.iter().any(|role| !is_role(role)) {
                    return fail(
                        "route.access",
                        "roles hold at least one role; a role is letters, digits, `-`, `_`",
                    );
                }
            }
        }
        for (key, value) in &self.env {
            let word = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !word || key.is_empty() || key.as_bytes()[0].is_ascii_digit() {
                return fail("env", "names are letters, digits and `_`, and start with no digit");
            }
            if key == "PORT" || key.starts_with("BASTIDE_") {
                return fail("env", "`PORT` and `BASTIDE_*` are set by Bastide");
            }
            if value.len() > 32 * 1024 || value.contains('\0') {
                return fail("env", "values hold at most 32 KiB and no NUL");
            }
        }
        Ok(())
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= 1024
        && !path.contains("//")
        && !path.split('/').any(|part| part == ".." || part == ".")
        && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%' | b'\\'))
}

fn is_role(role: &str) -> bool {
    !role.is_empty()
        && role.len() <= 64
        && role.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(json: &str) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_str(json).map_err(|e| e.to_string())?;
        manifest.check().map_err(|e| e.to_string())?;
        Ok(manifest)
    }

    #[test]
    fn a_small_manifest_gets_its_defaults() {
        let m = manifest(r#"{"app":{"name":"shop","kind":"binary","command":["./shop"]}}"#).unwrap();
        assert_eq!((m.health(), m.scale.replicas, m.app.grace_s), ("/healthz", 2, 10));
    }

    #[test]
    fn wrong_manifests_say_which_key() {
        let check = |json: &str, key: &str| {
            let error = manifest(json).unwrap_err();
            assert!(error.contains(key), "{error}");
        };
        check(r#"{"app":{"name":"shop","kind":"binary"}}"#, "app.command");
        check(r#"{"app":{"name":"shop","kind":"binary","command":["/bin/sh"]}}"#, "app.command");
        check(r#"{"app":{"name":"shop","kind":"binary","command":["../x"]}}"#, "app.command");
        check(r#"{"app":{"name":"shop","kind":"static"},"scale":{"replicas":0}}"#, "scale.replicas");
        check(r#"{"app":{"name":"shop","kind":"static"},"route":[{"path":"x"}]}"#, "route.path");
        check(r#"{"app":{"name":"shop","kind":"static"},"env":{"PORT":"1"}}"#, "env");
        check(r#"{"app":{"name":"shop","kind":"static"},"typo":1}"#, "typo");
        check(r#"{"app":{"name":"Shop!","kind":"static"}}"#, "app name");
    }
}
