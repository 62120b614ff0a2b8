//! What a published directory holds, by content: so that a publish sends only what the Build Service does not have.
//!
//! An upload may begin with an entry [`CHANGES`] that names a tree which the Build Service has, and what of it is gone or
//! other now. The rest of the upload is what is new.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Path of the first entry of an upload that says what changed.
pub const CHANGES: &str = ".bastide/changes.json";
/// Most bytes of that entry.
pub const CHANGES_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TreeFile {
    /// Its content.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// A directory: files by their paths, `null` for directories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tree(pub BTreeMap<String, Option<TreeFile>>);

/// What became of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// The tree that the Build Service has: the digest of [`Tree::text`].
    pub base: Digest,
    /// What it shall be with the changes.
    pub tree: Digest,
    /// Paths of it that are gone, or that the upload brings anew.
    #[serde(default)]
    pub without: BTreeSet<String>,
}

impl Tree {
    /// The text whose digest names the tree.
    pub fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a tree is plain data")
    }

    /// Paths of this tree that another one has not, or has with other content.
    pub fn without(&self, other: &Self) -> BTreeSet<String> {
        let differs = |path: &&String| other.0.get(*path) != self.0.get(*path);
        self.0.keys().filter(differs).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, Option<u8>)]) -> Tree {
        let file =
            |content: u8| TreeFile { digest: Digest::from_sha256([content; 32]), size: 1, executable: false };
        Tree(files.iter().map(|(path, content)| ((*path).to_owned(), content.map(file))).collect())
    }

    #[test]
    fn what_is_gone_or_other_is_named_and_nothing_else() {
        let old = tree(&[("a", Some(1)), ("b", Some(2)), ("c", Some(3)), ("d", None)]);
        let new = tree(&[("a", Some(1)), ("b", Some(9)), ("d", None), ("e", Some(5))]);
        assert_eq!(old.without(&new), ["b", "c"].map(str::to_owned).into());
        assert_eq!(new.without(&old), ["b", "e"].map(str::to_owned).into());
        assert!(old.without(&old).is_empty());
    }

    #[test]
    fn a_tree_reads_back_and_its_text_is_one() {
        let one = tree(&[("a/b", Some(1)), ("a", None)]);
        let again: Tree = serde_json::from_slice(&one.text()).unwrap();
        assert_eq!((again.text(), &again), (one.text(), &one));
    }
}
