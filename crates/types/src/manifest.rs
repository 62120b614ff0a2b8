//! What a developer writes in `bastide.toml`.

pub mod image;
pub mod probes;
pub mod resources;
pub mod scale;
pub mod services;
pub mod settings;

pub use image::ImageSource;
pub use probes::{Probe, Probes, StartupProbe};
pub use resources::Resources;
pub use scale::{REPLICAS_MAX, Scale};
pub use services::{Postgres, Services};
pub use settings::Setting;

use crate::{AppName, Route, waf::WafLayer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Port on which an app listens when nothing else is said.
pub const PORT: u16 = 8080;

/// The manifest. Unknown keys are errors; everything but the name and the kind has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The app itself.
    pub app: App,
    /// How many replicas run in each stage.
    #[serde(default)]
    pub scale: Scale,
    /// What each replica may use.
    #[serde(default)]
    pub resources: Resources,
    /// How Bastide finds out whether a replica has started, is ready, and lives.
    #[serde(default)]
    pub probes: Probes,
    /// Who may use which part; what no route covers needs a signed-in user.
    #[serde(default, rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Environment of the app. Names are letters, digits and `_`; `PORT` and `BASTIDE_*` are ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Settings that it reads from its environment, set in each stage. Names as in `env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, Setting>,
    /// What it has besides, in each stage its own.
    #[serde(default, skip_serializing_if = "Services::is_empty")]
    pub services: Services,
    /// What it demands of the firewall: like a policy set for the app, it may only tighten, and comes and goes with
    /// the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waf: Option<WafLayer>,
}

/// The `[app]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Name: path segment under which the app is served.
    pub name: AppName,
    /// How it runs.
    pub kind: Kind,
    /// For `binary`: program (relative to the directory) and arguments. For `image`: instead of the
    /// image's entry point and command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// For `image`: where the image is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
    /// For `image`: working directory, absolute. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Port on which the app listens; it is told in `PORT`. Default: the one that an image exposes, else 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path that answers 2xx when the app is ready. Default `/healthz` for `binary`, `/` for the others.
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
    /// An OCI image that listens on `PORT` and speaks HTTP/1.1.
    Image,
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
            (None, Kind::Static | Kind::Image) => "/",
        }
    }

    /// The port on which the app listens.
    pub fn port(&self) -> u16 {
        self.app.port.unwrap_or(PORT)
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
        if self.app.kind == Kind::Image {
            if self.app.image.is_none() {
                return fail(
                    "app.image",
                    "an image app names its image: a file or directory beside bastide.toml, or a reference \
                     such as `registry.example.com/shop@sha256:…`",
                );
            }
        } else {
            if self.app.image.is_some() || self.app.workdir.is_some() {
                return fail("app.image", "`image` and `workdir` are for apps of the kind `image`");
            }
            if let Some(program) = self.app.command.first()
                && (program.starts_with('/') || program.split('/').any(|part| part == ".."))
            {
                return fail("app.command", "the program is a path inside the directory");
            }
        }
        if self.app.command.first().is_some_and(String::is_empty)
            || self.app.command.iter().any(|word| word.contains('\0'))
        {
            return fail("app.command", "the program has a name, and no word holds NUL");
        }
        if let Some(workdir) = &self.app.workdir
            && (!workdir.starts_with('/') || workdir.contains('\0') || workdir.len() > 1024)
        {
            return fail("app.workdir", "an absolute path");
        }
        if self.app.port == Some(0) {
            return fail("app.port", "1 to 65535");
        }
        if !is_path(self.health()) {
            return fail("app.health", "a path starts with `/` and has no `..`, `//`, `?`, `#` or spaces");
        }
        if !(1..=60).contains(&self.app.grace_s) {
            return fail("app.grace_s", "1 to 60 seconds");
        }
        self.scale.check()?;
        self.resources.check()?;
        self.probes.check()?;
        check_routes(&self.routes)?;
        services::check(self)?;
        settings::check(self)?;
        if let Some(Err(fault)) = self.waf.as_ref().map(WafLayer::check) {
            return fail("waf", &fault.to_string());
        }
        for (key, value) in &self.env {
            if !is_variable(key) {
                return fail("env", "names are letters, digits and `_`, and start with no digit");
            }
            if is_ours(key) {
                return fail("env", "`PORT` and `BASTIDE_*` are set by Bastide");
            }
            if value.len() > 32 * 1024 || value.contains('\0') {
                return fail("env", "values hold at most 32 KiB and no NUL");
            }
        }
        Ok(())
    }
}

/// Checks what the types alone cannot say of the routes of an app.
///
/// # Errors
/// The first [`ManifestError`] found.
pub fn check_routes(routes: &[Route]) -> Result<(), ManifestError> {
    let fail = |key: &str, problem: &str| Err(ManifestError { key: key.into(), problem: problem.into() });
    if routes.len() > 200 {
        return fail("route", "at most 200 routes");
    }
    for route in routes {
        if !is_path(&route.path) {
            return fail("route.path", "a path starts with `/` and has no `..`, `//`, `?`, `#` or spaces");
        }
        if let crate::AccessRule::Roles(roles) = &route.access
            && (roles.is_empty() || roles.iter().any(|role| !is_role(role)))
        {
            return fail("route.access", "roles hold at least one role; a role is letters, digits, `-`, `_`");
        }
    }
    for route in routes {
        let Some(step_up) = route.step_up() else { continue };
        if route.access == crate::AccessRule::Public {
            return fail("route.acr", "`acr` and `max_age_s` are for parts that need a signed-in user");
        }
        if !step_up.is_sound() {
            return fail("route.acr", "`acr` is password, mfa or passkey, `max_age_s` 60 to 86400");
        }
    }
    Ok(())
}

pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= 1024
        && !path.contains("//")
        && !path.split('/').any(|part| part == ".." || part == ".")
        && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%' | b'\\'))
}

pub(crate) fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.as_bytes().first().is_some_and(|b| !b.is_ascii_digit())
}

pub(crate) fn is_ours(name: &str) -> bool {
    name == "PORT" || name.starts_with("BASTIDE_")
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
        assert_eq!((m.health(), m.scale.range(), m.app.grace_s), ("/healthz", 2..=2, 10));
        assert_eq!((m.port(), m.resources.memory_mb), (8080, 256));
        let m = manifest(r#"{"app":{"name":"shop","kind":"image","image":"oci","port":3000}}"#).unwrap();
        assert_eq!((m.health(), m.port(), m.app.command.len()), ("/", 3000, 0));
        let again: Manifest = serde_json::from_str(&serde_json::to_string(&m).unwrap()).unwrap();
        assert_eq!(again, m);
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
        check(r#"{"app":{"name":"shop","kind":"image"}}"#, "app.image");
        check(r#"{"app":{"name":"shop","kind":"static","image":"x"}}"#, "app.image");
        check(r#"{"app":{"name":"shop","kind":"static","port":0}}"#, "app.port");
        check(r#"{"app":{"name":"shop","kind":"image","image":"x","workdir":"tmp"}}"#, "app.workdir");
        check(r#"{"app":{"name":"shop","kind":"static"},"scale":{"replicas":0}}"#, "scale.replicas");
        check(
            r#"{"app":{"name":"shop","kind":"static"},"resources":{"memory_mb":1}}"#,
            "resources.memory_mb",
        );
        check(
            r#"{"app":{"name":"shop","kind":"static"},"probes":{"liveness":{"path":"x"}}}"#,
            "probes.liveness",
        );
        check(r#"{"app":{"name":"shop","kind":"static"},"route":[{"path":"x"}]}"#, "route.path");
        check(r#"{"app":{"name":"shop","kind":"static"},"env":{"PORT":"1"}}"#, "env");
        check(r#"{"app":{"name":"shop","kind":"static"},"waf":{"paranoia":9}}"#, "waf");
        check(r#"{"app":{"name":"shop","kind":"static"},"typo":1}"#, "typo");
        check(r#"{"app":{"name":"Shop!","kind":"static"}}"#, "app name");
    }
}
