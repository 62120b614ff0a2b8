//! Who is signed in where: one file of mode 0600, changed under a lock.

use anyhow::{Context, Result};
use bastide_types::Secret;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// All credentials of one user on this machine.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Credentials {
    /// Server of the last login.
    pub current: Option<String>,
    /// Credentials by address of the Platform.
    pub servers: BTreeMap<String, Credential>,
}

/// A credential for one Platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credential {
    /// A member who signed in.
    Member {
        /// Rotates with each use.
        refresh_token: Secret,
    },
    /// An API client.
    Client {
        /// Its id.
        id: String,
        /// Its secret.
        secret: Secret,
    },
}

/// The file, locked against other commands of the same user until it is dropped.
pub struct Store {
    path: PathBuf,
    _lock: File,
    /// What is in it.
    pub credentials: Credentials,
}

impl Store {
    /// Opens and locks the file in `dir`.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("credentials.lock"))?;
        lock.lock().context("cannot lock the credentials")?;
        let path = dir.join("credentials.json");
        let credentials = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; remove it and sign in again", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Credentials::default(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { path, _lock: lock, credentials })
    }

    /// Writes the file whole or not at all.
    pub fn save(&self) -> Result<()> {
        let beside = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(&self.credentials)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path).context("cannot write the credentials")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn credentials_are_kept_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        store.credentials.current = Some("https://x".into());
        store
            .credentials
            .servers
            .insert("https://x".into(), Credential::Member { refresh_token: Secret::new("r") });
        store.save().unwrap();
        drop(store);
        let mode = fs::metadata(dir.path().join("credentials.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let store = Store::open(dir.path()).unwrap();
        assert!(
            matches!(&store.credentials.servers["https://x"], Credential::Member { refresh_token } if refresh_token.expose() == "r")
        );
    }

    #[test]
    fn a_damaged_file_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("credentials.json"), "{").unwrap();
        assert!(Store::open(dir.path()).err().unwrap().to_string().contains("sign in again"));
    }
}
