//! Versions of imported rules: one directory each, named by the digest of what it holds; a file says which one
//! is current and which one was before. What is current changes in one step.

use super::{Found, Origin};
use crate::Error;
use aws_lc_rs::digest::{Context, SHA256};
use bastide_types::Digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

pub mod archive;

/// Name of the file that says which version is current.
const POINTER: &str = "current.json";

/// A directory of versions.
#[derive(Debug, Clone)]
pub struct Versions {
    dir: PathBuf,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Digest of its files.
    pub digest: Digest,
    /// Where it lies.
    pub dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pointer {
    current: Digest,
    previous: Option<Digest>,
}

/// Files of a rule set by their paths within it.
pub type Contents = BTreeMap<String, Vec<u8>>;

impl Versions {
    /// Versions below `dir`, which need not be there.
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The version in force.
    ///
    /// # Errors
    /// When the directory is damaged.
    pub fn current(&self) -> Result<Option<Version>, Error> {
        Ok(self.pointer()?.map(|pointer| self.version(pointer.current)))
    }

    /// The version before it.
    ///
    /// # Errors
    /// When the directory is damaged.
    pub fn previous(&self) -> Result<Option<Version>, Error> {
        Ok(self.pointer()?.and_then(|pointer| pointer.previous).map(|digest| self.version(digest)))
    }

    /// Keeps files as a version, without making it current.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep(&self, contents: &Contents) -> Result<Version, Error> {
        let version = self.version(digest_of(contents));
        if version.verify().is_ok() {
            return Ok(version);
        }
        if version.dir.exists() {
            // Somebody changed it; what is imported now is what it should be.
            fs::remove_dir_all(&version.dir).map_err(|error| Error::file(&version.dir, error))?;
        }
        let unfinished = self.dir.join(format!("unfinished-{}", std::process::id()));
        let write = || -> io::Result<()> {
            for (path, bytes) in contents {
                let file = unfinished.join(path);
                fs::create_dir_all(file.parent().unwrap_or(&unfinished))?;
                fs::write(file, bytes)?;
            }
            fs::rename(&unfinished, &version.dir)
        };
        let written = write();
        if written.is_err() {
            // The error is told; what is left over is taken away as far as it can be.
            let _ = fs::remove_dir_all(&unfinished);
        }
        written.map_err(|error| Error::file(&version.dir, error))?;
        Ok(version)
    }

    /// Makes a version current. The one that was stays as the previous one; older ones go.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn activate(&self, version: &Version) -> Result<(), Error> {
        let before = self.pointer()?;
        let previous = match before {
            Some(before) if before.current == version.digest => before.previous,
            Some(before) => Some(before.current),
            None => None,
        };
        self.point(&Pointer { current: version.digest, previous })
    }

    /// Takes a version away, unless it is current or the one before.
    ///
    /// # Errors
    /// When the directory is damaged or the files cannot be removed.
    pub fn forget(&self, version: &Version) -> Result<(), Error> {
        let pointer = self.pointer()?;
        let is_kept = pointer
            .is_some_and(|pointer| [Some(pointer.current), pointer.previous].contains(&Some(version.digest)));
        if is_kept {
            return Ok(());
        }
        fs::remove_dir_all(&version.dir).map_err(|error| Error::file(&version.dir, error))
    }

    /// Goes back to the previous version; the current one becomes the previous one.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub fn roll_back(&self) -> Result<Version, Error> {
        let none = || Error::NoRules { path: self.dir.clone(), why: "there is no version before".into() };
        let pointer = self.pointer()?.ok_or_else(none)?;
        let previous = pointer.previous.ok_or_else(none)?;
        self.point(&Pointer { current: previous, previous: Some(pointer.current) })?;
        Ok(self.version(previous))
    }

    fn version(&self, digest: Digest) -> Version {
        Version { dir: self.dir.join(digest.hex()), digest }
    }

    fn pointer(&self) -> Result<Option<Pointer>, Error> {
        let file = self.dir.join(POINTER);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(file, error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| Error::file(file, error))
    }

    fn point(&self, pointer: &Pointer) -> Result<(), Error> {
        let (file, new) = (self.dir.join(POINTER), self.dir.join(format!("{POINTER}.new")));
        let text = serde_json::to_vec(pointer).map_err(|error| Error::file(&file, error))?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &file))
            .map_err(|error| Error::file(&file, error))?;
        self.sweep(pointer);
        Ok(())
    }

    /// Takes versions away that nothing points to.
    fn sweep(&self, pointer: &Pointer) {
        let kept = [Some(pointer.current), pointer.previous].map(|digest| digest.map(|digest| digest.hex()));
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_version = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
            if is_version && !kept.iter().flatten().any(|kept| *kept == name) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Version {
    /// Its rules. Only names are looked at.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn found(&self) -> Result<Found, Error> {
        let paths = list(&self.dir).map_err(|error| Error::file(&self.dir, error))?;
        let files = archive::order(paths.iter()).map(|path| self.dir.join(path)).collect();
        Ok(Found { origin: Origin::Imported(self.clone()), files })
    }

    /// Whether it is what its name says.
    ///
    /// # Errors
    /// When files are missing, or others than were imported.
    pub fn verify(&self) -> Result<(), Error> {
        let read = || -> io::Result<Contents> {
            let one = |path: String| Ok((path.clone(), super::read_bounded(&self.dir.join(path))?));
            list(&self.dir)?.into_iter().map(one).collect()
        };
        if digest_of(&read().map_err(|error| Error::file(&self.dir, error))?) == self.digest {
            return Ok(());
        }
        let why = "the files are not those that were imported".to_owned();
        Err(Error::NoRules { path: self.dir.clone(), why })
    }
}

/// Paths of all files below a directory, within it.
fn list(dir: &Path) -> io::Result<Vec<String>> {
    let (mut paths, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
                continue;
            }
            let path = entry.path();
            paths.push(path.strip_prefix(dir).map_err(io::Error::other)?.display().to_string());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Lengths keep names and contents apart.
fn digest_of(contents: &Contents) -> Digest {
    let mut context = Context::new(&SHA256);
    for (path, bytes) in contents {
        for part in [path.as_bytes(), bytes.as_slice()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    let mut sha = [0; 32];
    sha.copy_from_slice(context.finish().as_ref());
    Digest::from_sha256(sha)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(rule: &str) -> Contents {
        [("rules/a.conf".to_owned(), rule.as_bytes().to_vec())].into()
    }

    #[test]
    fn one_version_back_is_kept_and_can_be_returned_to() {
        let dir = tempfile::tempdir().unwrap();
        let versions = Versions::open(&dir.path().join("waf"));
        assert_eq!(versions.current().unwrap(), None);
        assert!(versions.roll_back().is_err());
        let kept: Vec<Version> = ["a", "b", "c"]
            .map(|rule| {
                let version = versions.keep(&contents(rule)).unwrap();
                versions.activate(&version).unwrap();
                version
            })
            .into();
        assert_eq!(versions.current().unwrap().as_ref(), Some(&kept[2]));
        assert_eq!(versions.previous().unwrap().as_ref(), Some(&kept[1]));
        assert!(!kept[0].dir.exists() && kept[1].dir.exists());
        versions.activate(&kept[2]).unwrap();
        assert_eq!(versions.previous().unwrap().as_ref(), Some(&kept[1]), "twice is once");
        assert_eq!(versions.roll_back().unwrap(), kept[1]);
        assert_eq!(versions.roll_back().unwrap(), kept[2]);
    }

    #[test]
    fn a_version_that_somebody_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let versions = Versions::open(dir.path());
        let version = versions.keep(&contents("a")).unwrap();
        assert_eq!(version.found().unwrap().files, [version.dir.join("rules/a.conf")]);
        version.verify().unwrap();
        fs::write(version.dir.join("rules/a.conf"), "b").unwrap();
        assert!(version.verify().is_err() && version.found().unwrap().read().is_err());
        versions.keep(&contents("a")).unwrap().verify().unwrap();
    }
}
