//! Exclusions that a policy adds to rules already compiled: a rule, one of its targets, a path.
//!
//! They are applied while a request runs, so that policies which differ only in them share one program.
//! Whether an exclusion is wise is not judged here; whoever keeps policies does that.

use crate::{
    LoadError,
    action::{Ctl, Which, id_range},
    error::Place,
    transform::Transform,
    variable,
};
use std::sync::Arc;

/// What a policy leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// Rules: an id, a range such as `942100-942199`, or `tag:` and a tag.
    pub rules: String,
    /// One target, such as `ARGS:comment`; all of the rule when missing.
    pub target: Option<String>,
    /// A path, or with `*` at its end the begin of one; every path when missing.
    pub path: Option<String>,
}

/// An exclusion, ready to be applied.
pub(crate) struct Applied {
    path: Option<Path>,
    ctl: Ctl,
}

struct Path {
    text: Vec<u8>,
    is_prefix: bool,
}

impl Applied {
    pub(crate) fn compile(exclusion: &Exclusion, number: usize) -> Result<Self, LoadError> {
        let place = Place { file: "exclusion".into(), line: number };
        let target = exclusion.target.as_deref();
        let mut targets = match target {
            Some(target) => variable::parse(&place, target.as_bytes())?,
            None => Vec::new(),
        };
        if targets.len() > 1 || targets.iter().any(|target| target.count || target.exclude) {
            return Err(place.syntax("an exclusion names one target"));
        }
        if targets.iter().any(variable::Target::is_pattern) {
            return Err(place.unsupported("a pattern as target of an exclusion"));
        }
        let which = match exclusion.rules.strip_prefix("tag:") {
            Some("") => return Err(place.syntax("the tag is empty")),
            Some(tag) => Which::Tag(tag.into()),
            None => {
                let (from, to) = id_range(&place, &exclusion.rules)?;
                Which::Ids(from, to)
            }
        };
        let ctl = match targets.pop() {
            Some(target) => Ctl::RemoveTarget(which, Arc::new(target)),
            None => Ctl::Remove(which),
        };
        let path = exclusion.path.as_deref().map(|path| match path.strip_suffix('*') {
            Some(begin) => Path { text: begin.into(), is_prefix: true },
            None => Path { text: path.into(), is_prefix: false },
        });
        Ok(Self { path, ctl })
    }

    /// What is done for a request of this path, if this is for it.
    pub(crate) fn ctl_for(&self, file: &[u8]) -> Option<&Ctl> {
        let Some(path) = &self.path else { return Some(&self.ctl) };
        // Rules see the path as it was sent, the router its canonical form: both must be meant, or
        // `/excluded/../elsewhere` would carry the exclusion elsewhere.
        (path.is(file) && path.is(&Transform::NormalizePath.of(file))).then_some(&self.ctl)
    }
}

impl Path {
    fn is(&self, path: &[u8]) -> bool {
        if self.is_prefix { path.starts_with(&self.text) } else { path == self.text }
    }
}
