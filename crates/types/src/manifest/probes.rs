//! The `[probes]` table: three questions asked of every replica over HTTP.
//!
//! *startup*: has it begun? Asked often until the first good answer; too late, and it is replaced.
//! *readiness*: may it get requests? Not ready is out of rotation at once, and nothing else happens.
//! *liveness*: does it live? A replica that does not is replaced.
//!
//! Without a path of its own, liveness asks the path of readiness and takes *any* HTTP answer for a sign
//! of life: an app that says 503 because its database is away is not ready, but a new process would not help.

use super::{Manifest, ManifestError, is_path};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The `[probes]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probes {
    /// Until the first good answer.
    pub startup: StartupProbe,
    /// Whether it may get requests.
    pub readiness: Probe,
    /// Whether it lives.
    pub liveness: Probe,
}

/// `[probes.startup]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StartupProbe {
    /// Path that answers 2xx. Default: `app.health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Milliseconds between two questions. Default 100.
    pub interval_ms: u32,
    /// Milliseconds to wait for an answer. Default 2000.
    pub timeout_ms: u32,
    /// Seconds within which a good answer must come. Default 60.
    pub limit_s: u32,
}

/// `[probes.readiness]` and `[probes.liveness]`; what is not said has the default of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Path that answers 2xx. Default: `app.health`; for liveness any HTTP answer there will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Milliseconds between two questions. Default 2000 for readiness, 10 000 for liveness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
    /// Milliseconds to wait for an answer. Default 2000 for readiness, 5000 for liveness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// Bad answers in a row after which it is not ready, or not alive. Default 2 for readiness, 3 for liveness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
}

impl Default for StartupProbe {
    fn default() -> Self {
        Self { path: None, interval_ms: 100, timeout_ms: 2000, limit_s: 60 }
    }
}

/// What is asked, with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Path.
    pub path: String,
    /// Whether any HTTP answer will do, or only 2xx.
    pub any_answer: bool,
    /// Pause between two questions.
    pub interval: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Bad answers in a row that decide.
    pub failures: u32,
}

impl Manifest {
    /// The question until a replica has started, and the time that it has for that.
    pub fn startup(&self) -> (Question, Duration) {
        let probe = &self.probes.startup;
        let question = Question {
            path: probe.path.clone().unwrap_or_else(|| self.health().to_owned()),
            any_answer: false,
            interval: millis(probe.interval_ms),
            timeout: millis(probe.timeout_ms),
            failures: 1,
        };
        (question, Duration::from_secs(probe.limit_s.into()))
    }

    /// The question whether a replica may get requests.
    pub fn readiness(&self) -> Question {
        self.question(&self.probes.readiness, 2000, 2000, 2, false)
    }

    /// The question whether a replica lives.
    pub fn liveness(&self) -> Question {
        self.question(&self.probes.liveness, 10_000, 5000, 3, true)
    }

    fn question(
        &self,
        probe: &Probe,
        interval_ms: u32,
        timeout_ms: u32,
        failures: u32,
        lenient: bool,
    ) -> Question {
        let path = probe.path.clone().or_else(|| self.probes.readiness.path.clone());
        Question {
            any_answer: lenient && probe.path.is_none(),
            path: path.unwrap_or_else(|| self.health().to_owned()),
            interval: millis(probe.interval_ms.unwrap_or(interval_ms)),
            timeout: millis(probe.timeout_ms.unwrap_or(timeout_ms)),
            failures: probe.failures.unwrap_or(failures),
        }
    }
}

fn millis(number: u32) -> Duration {
    Duration::from_millis(number.into())
}

impl Probes {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        let fail = |probe: &str, key: &str, problem: &str| {
            Err(ManifestError { key: format!("probes.{probe}.{key}"), problem: problem.into() })
        };
        let startup = &self.startup;
        let rest = [("readiness", &self.readiness), ("liveness", &self.liveness)];
        let all = std::iter::once((
            "startup",
            &startup.path,
            Some(startup.interval_ms),
            Some(startup.timeout_ms),
            None,
        ))
        .chain(rest.map(|(name, p)| (name, &p.path, p.interval_ms, p.timeout_ms, p.failures)));
        for (probe, path, interval_ms, timeout_ms, failures) in all {
            if path.as_deref().is_some_and(|path| !is_path(path)) {
                return fail(
                    probe,
                    "path",
                    "a path starts with `/` and has no `..`, `//`, `?`, `#` or spaces",
                );
            }
            // An app's own question must not become a load on the node.
            if interval_ms.is_some_and(|ms| !(50..=300_000).contains(&ms)) {
                return fail(probe, "interval_ms", "50 to 300000 milliseconds");
            }
            if timeout_ms.is_some_and(|ms| !(50..=60_000).contains(&ms)) {
                return fail(probe, "timeout_ms", "50 to 60000 milliseconds");
            }
            if failures.is_some_and(|failures| !(1..=100).contains(&failures)) {
                return fail(probe, "failures", "1 to 100 bad answers in a row");
            }
        }
        if !(1..=3600).contains(&startup.limit_s) {
            return fail("startup", "limit_s", "1 to 3600 seconds");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(probes: &str) -> Result<Manifest, String> {
        let text = format!(
            r#"{{"app":{{"name":"shop","kind":"binary","command":["./x"],"health":"/up"}},"probes":{probes}}}"#
        );
        let manifest: Manifest = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        manifest.check().map_err(|error| error.to_string())?;
        Ok(manifest)
    }

    #[test]
    fn everything_follows_from_the_health_path() {
        let m = manifest("{}").unwrap();
        let (startup, limit) = m.startup();
        assert_eq!((startup.path.as_str(), startup.interval, limit.as_secs()), ("/up", millis(100), 60));
        assert_eq!((m.readiness().path.as_str(), m.readiness().any_answer), ("/up", false));
        assert_eq!((m.liveness().path.as_str(), m.liveness().any_answer), ("/up", true));
    }

    #[test]
    fn a_path_of_its_own_makes_liveness_strict() {
        let m =
            manifest(r#"{"readiness":{"path":"/r","failures":1},"liveness":{"interval_ms":500}}"#).unwrap();
        assert_eq!((m.readiness().path.as_str(), m.readiness().failures), ("/r", 1));
        assert_eq!((m.liveness().path.as_str(), m.liveness().any_answer), ("/r", true));
        let m = manifest(r#"{"liveness":{"path":"/l"}}"#).unwrap();
        assert_eq!((m.liveness().path.as_str(), m.liveness().any_answer), ("/l", false));
    }

    #[test]
    fn wrong_probes_say_which_key() {
        for (json, key) in [
            (r#"{"startup":{"limit_s":0}}"#, "probes.startup.limit_s"),
            (r#"{"startup":{"interval_ms":1}}"#, "probes.startup.interval_ms"),
            (r#"{"readiness":{"timeout_ms":100000}}"#, "probes.readiness.timeout_ms"),
            (r#"{"liveness":{"failures":0}}"#, "probes.liveness.failures"),
            (r#"{"liveness":{"path":"no"}}"#, "probes.liveness.path"),
            (r#"{"other":{}}"#, "other"),
        ] {
            assert!(manifest(json).unwrap_err().contains(key), "{json}");
        }
    }
}
