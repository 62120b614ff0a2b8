//! Rule sets from disk, for our engine and for the other one.

use anyhow::{Context, Result, bail};
use bastide_waf::{Files, RuleSet, Settings, Source};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where Debian puts its rules.
const DEBIAN: (&str, &str) = ("/etc/modsecurity/crs/crs-setup.conf", "/usr/share/modsecurity-crs/rules");

/// Where rules come from.
#[derive(clap::Args)]
pub struct Place {
    /// Checkout of a rule set with `crs-setup.conf.example` and `rules`; Debian's package otherwise
    #[arg(long)]
    checkout: Option<PathBuf>,
}

impl Place {
    /// The set-up file, then the rules in their order.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let (setup, dir) = match &self.checkout {
            Some(checkout) => (checkout.join("crs-setup.conf.example"), checkout.join("rules")),
            None => (DEBIAN.0.into(), DEBIAN.1.into()),
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "conf") {
                files.push(path);
            }
        }
        if files.is_empty() {
            bail!("{} holds no rules", dir.display());
        }
        files.sort();
        files.insert(0, setup);
        Ok(files)
    }

    /// The same files, read.
    pub fn sources(&self) -> Result<Vec<Source>> {
        let read = |path: PathBuf| {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            Ok(Source { name: path.display().to_string(), bytes })
        };
        self.files()?.into_iter().map(read).collect()
    }

    /// Compiled for our engine.
    pub fn compile(&self, settings: &Settings) -> Result<RuleSet> {
        Ok(RuleSet::compile(&self.sources()?, &Beside, settings)?)
    }
}

/// Data files lie beside the rules that name them.
struct Beside;

impl Files for Beside {
    fn read(&self, from: &str, path: &str) -> Result<Vec<u8>, String> {
        let beside = Path::new(from).parent().unwrap_or(Path::new("."));
        fs::read(beside.join(path)).map_err(|error| format!("{path}: {error}"))
    }

    fn expand(&self, _: &str, _: &str) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}
