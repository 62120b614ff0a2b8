//! Certificates for the world, read from files and read again when the files change: no restart, no pause.

use crate::{Error, config::CertificateFile};
use bastide_tls::CertificateStore;
use std::{fs, path::Path, sync::Arc, time::Duration};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// The files and what was last taken from them.
pub(crate) struct Files {
    store: Arc<CertificateStore>,
    files: Vec<(CertificateFile, Pair)>,
}

/// Certificate chain and key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    certificate: String,
    key: String,
}

impl Files {
    /// Reads all of them.
    ///
    /// # Errors
    /// When one cannot be read or used: an edge does not start with fewer certificates than it should have.
    pub(crate) fn load(files: &[CertificateFile], store: Arc<CertificateStore>) -> Result<Self, Error> {
        let mut loaded = Vec::new();
        for file in files {
            let pair = Pair::read(file)?;
            store.insert(&pair.certificate, &pair.key)?;
            loaded.push((file.clone(), pair));
        }
        Ok(Self { store, files: loaded })
    }

    /// Takes what has changed. What cannot be used changes nothing: the one that serves stays, and the next
    /// look may find both files written.
    fn look(&mut self) {
        for (file, taken) in &mut self.files {
            let outcome = Pair::read(file).and_then(|pair| {
                if pair != *taken {
                    let names = self.store.insert(&pair.certificate, &pair.key)?;
                    tracing::info!(?names, "a certificate was replaced");
                    *taken = pair;
                }
                Ok(())
            });
            if let Err(error) = outcome {
                tracing::warn!(file = %file.cert_file.display(), error = chain(&error), "a certificate is not taken; the old one stays");
            }
        }
    }

    /// Looks again and again.
    pub(crate) async fn watch(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A few small files: reading them takes no longer than asking whether they changed.
            self.look();
        }
    }
}

impl Pair {
    fn read(file: &CertificateFile) -> Result<Self, Error> {
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| Error::file(path, error));
        Ok(Self { certificate: read(&file.cert_file)?, key: read(&file.key_file)? })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_tls::LocalCa;
    use time::OffsetDateTime;

    #[test]
    fn a_changed_pair_is_taken_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let ca = LocalCa::create_public(&["localhost".into()], now).unwrap();
        let issue = |name: &str| ca.issue_site(&[name.into()], now).unwrap();
        let file = CertificateFile { cert_file: dir.path().join("c"), key_file: dir.path().join("k") };
        let (first, second) = (issue("a.localhost"), issue("b.localhost"));
        first.write(&file.cert_file, &file.key_file).unwrap();
        let store = CertificateStore::new();
        let mut files = Files::load(std::slice::from_ref(&file), store.clone()).unwrap();
        assert!(store.site_of("a.localhost").is_some());
        // Only the key is there yet.
        fs::write(&file.key_file, second.key_pem.expose()).unwrap();
        files.look();
        assert!(store.site_of("b.localhost").is_none() && store.site_of("a.localhost").is_some());
        fs::write(&file.cert_file, &second.certificate_pem).unwrap();
        files.look();
        assert!(store.site_of("b.localhost").is_some());
        fs::remove_file(&file.cert_file).unwrap();
        files.look();
        assert!(store.site_of("b.localhost").is_some());
    }
}
