//! Which release of rules `bastide waf update` takes: the one that the operator named last, or else the one that this
//! version of Bastide names.

use crate::{files, layout::Layout};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The release that `docs/waf-conformance.md` has results of.
const RELEASE: &str =
    "https://github.com/coreruleset/coreruleset/releases/download/v4.28.0/coreruleset-4.28.0-minimal.tar.gz";
const RELEASE_SHA256: &str = "fca67fe46adafeeee61b9d1a03f38c25b9b2a799577df03fa51d99589e6d03b9";

/// A release: where it is, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pinned {
    /// Address (https) or file.
    pub(super) from: String,
    /// SHA-256 of the archive, 64 lower-case hexadecimal digits.
    pub(super) sha256: String,
}

impl Pinned {
    /// The one that this version of Bastide names. It is never remembered, so that the next version may name another.
    pub(super) fn ours() -> Self {
        Self { from: RELEASE.into(), sha256: RELEASE_SHA256.into() }
    }

    /// The one that is wanted here: the one named last, or ours.
    ///
    /// # Errors
    /// When what was remembered cannot be read.
    pub(super) fn wanted(layout: &Layout) -> Result<Self> {
        Ok(files::read_json(&file(layout))?.unwrap_or_else(Self::ours))
    }

    /// Remembers the operator's choice; ours is what is left without one.
    ///
    /// # Errors
    /// When the file cannot be written or removed.
    pub(super) fn remember(&self, layout: &Layout) -> Result<()> {
        let file = file(layout);
        if *self != Self::ours() {
            return files::write_private(&file, &serde_json::to_vec_pretty(self)?);
        }
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn file(layout: &Layout) -> std::path::PathBuf {
    layout.waf_versions().join("pinned.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_wanted_until_another_is_named_and_again_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        files::private_dir(&layout.waf_versions()).unwrap();
        assert_eq!(Pinned::wanted(&layout).unwrap(), Pinned::ours());
        let other = Pinned { from: "https://rules.example/set.tar.gz".into(), sha256: "0".repeat(64) };
        other.remember(&layout).unwrap();
        assert_eq!(Pinned::wanted(&layout).unwrap(), other);
        for _ in 0..2 {
            Pinned::ours().remember(&layout).unwrap();
            assert_eq!(Pinned::wanted(&layout).unwrap(), Pinned::ours());
        }
        std::fs::write(file(&layout), "{").unwrap();
        assert!(Pinned::wanted(&layout).is_err(), "what cannot be read is not taken for no choice");
    }

    #[test]
    fn ours_is_fetched_over_https_and_has_a_digest() {
        let ours = Pinned::ours();
        assert!(ours.from.starts_with("https://") && ours.from.ends_with(".tar.gz"));
        assert_eq!(super::super::rules::sha256(&ours.sha256), Ok(ours.sha256));
    }
}
