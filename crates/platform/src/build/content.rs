//! Files of published directories by content, per customer: what the Build Service has need not be sent again.
//!
//! Nothing crosses customers: who knows a digest gets nothing by it, and learns nothing of others. What lies here only saves
//! bytes; whatever is missing or damaged is asked for again.

use aws_lc_rs::digest::{Context, SHA256, digest};
use bastide_types::{AppName, Code, CustomerId, Digest, Problem, tree::Tree};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Trees that are kept of each app: of its newest publishes.
const TREES_KEPT: usize = 3;
/// What nobody names is kept so long: another publish may be about to name it.
const UNNAMED_KEPT: Duration = Duration::from_hours(1);

/// The directory of all customers' content.
pub struct Content {
    dir: PathBuf,
}

impl Content {
    /// In this directory.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn files(&self, customer: CustomerId) -> PathBuf {
        self.dir.join(customer.to_string()).join("files")
    }

    fn trees(&self, customer: CustomerId, app: &AppName) -> PathBuf {
        self.dir.join(customer.to_string()).join("trees").join(app.as_str())
    }

    /// The newest tree of an app.
    pub fn newest(&self, customer: CustomerId, app: &AppName) -> Option<Tree> {
        let (_, path) = by_age(&self.trees(customer, app)).pop()?;
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// A tree of an app.
    ///
    /// # Errors
    /// [`Code::ContentUnknown`] when it is not there (any more).
    pub fn tree(&self, customer: CustomerId, app: &AppName, name: &Digest) -> Result<Tree, Problem> {
        let unknown = || Code::ContentUnknown.problem();
        let text = fs::read(self.trees(customer, app).join(name.hex())).map_err(|_| unknown())?;
        if digest_of(&text) != *name {
            return Err(unknown());
        }
        serde_json::from_slice(&text).map_err(|_| unknown())
    }

    /// Lays a file of this content at `to`, and looks whether it still is that content.
    ///
    /// # Errors
    /// [`Code::ContentUnknown`] when it is not there, or damaged.
    pub fn lay(&self, customer: CustomerId, content: &Digest, to: &Path) -> Result<(), Problem> {
        let from = self.files(customer).join(content.hex());
        let laid = || -> io::Result<bool> {
            if fs::hard_link(&from, to).is_err() {
                fs::copy(&from, to)?;
            }
            Ok(hash(to)? == *content)
        };
        match laid() {
            Ok(true) => Ok(()),
            Ok(false) => {
                let _ = fs::remove_file(&from);
                Err(Code::ContentUnknown.problem())
            }
            Err(error) => {
                tracing::debug!(%error, "content cannot be laid");
                Err(Code::ContentUnknown.problem())
            }
        }
    }

    /// Takes the files of a tree that lies at `root` and are not here yet.
    pub fn take(&self, customer: CustomerId, tree: &Tree, root: &Path) -> io::Result<()> {
        let files = self.files(customer);
        fs::create_dir_all(&files)?;
        for (path, file) in &tree.0 {
            let Some(file) = file else { continue };
            let to = files.join(file.digest.hex());
            if to.exists() {
                continue;
            }
            match fs::hard_link(root.join(path), &to) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => {
                    // Another file system: a copy that is not whole must not get the name.
                    let beside = files.join(format!("{}.new", uuid::Uuid::new_v4()));
                    fs::copy(root.join(path), &beside)?;
                    fs::rename(beside, to)?;
                }
            }
        }
        Ok(())
    }

    /// Notes that a tree was published, and forgets what no newer one names.
    pub fn note(&self, customer: CustomerId, app: &AppName, tree: &Tree) -> io::Result<()> {
        let trees = self.trees(customer, app);
        fs::create_dir_all(&trees)?;
        let text = tree.text();
        let beside = trees.join(format!("{}.new", uuid::Uuid::new_v4()));
        fs::write(&beside, &text)?;
        fs::rename(beside, trees.join(digest_of(&text).hex()))?;
        let mut known = by_age(&trees);
        known.truncate(known.len().saturating_sub(TREES_KEPT));
        for (_, old) in known {
            fs::remove_file(old)?;
        }
        self.sweep(customer)
    }

    /// Removes files that no tree of the customer names.
    fn sweep(&self, customer: CustomerId) -> io::Result<()> {
        let mut named = BTreeSet::new();
        for app in entries(&self.dir.join(customer.to_string()).join("trees")) {
            for tree in entries(&app) {
                let tree: Tree = serde_json::from_slice(&fs::read(tree)?).unwrap_or_default();
                named.extend(tree.0.into_values().flatten().map(|file| file.digest.hex()));
            }
        }
        for file in entries(&self.files(customer)) {
            let is_named =
                file.file_name().and_then(|name| name.to_str()).is_some_and(|name| named.contains(name));
            let since = fs::metadata(&file)?.modified()?;
            let is_old = SystemTime::now().duration_since(since).is_ok_and(|age| age > UNNAMED_KEPT);
            if !is_named && is_old {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }
}

/// Digest of a text.
pub(crate) fn digest_of(text: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, text).as_ref());
    Digest::from_sha256(bytes)
}

fn hash(path: &Path) -> io::Result<Digest> {
    let (mut file, mut context, mut part) =
        (fs::File::open(path)?, Context::new(&SHA256), vec![0; 64 * 1024]);
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            break;
        }
        context.update(&part[..read]);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Ok(Digest::from_sha256(bytes))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Trees of an app, the newest last.
fn by_age(dir: &Path) -> Vec<(SystemTime, PathBuf)> {
    let age = |path: PathBuf| {
        let is_tree = path.extension().is_none();
        Some((fs::metadata(&path).ok()?.modified().ok()?, path)).filter(|_| is_tree)
    };
    let mut all: Vec<_> = entries(dir).into_iter().filter_map(age).collect();
    all.sort();
    all
}
