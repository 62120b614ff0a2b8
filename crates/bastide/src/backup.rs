//! `bastide backup` and `bastide restore`: one file with all that an installation cannot make anew.
//!
//! That is the authorities, the keys, the broker's accounts, the database, the images and the imported WAF rules. Whatever
//! follows from these, certificates of roles, configurations, the last good states of edges and agents, is not in it.

use crate::{
    args::{BackupArgs, RestoreArgs},
    files,
    layout::Layout,
};
use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use bastide_platform::config::Database;
use bastide_store::{Kek, Store, copy_database};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};

/// What is in a backup, below the data directory.
const KEPT: &[&str] = &[
    "ca",
    "keys",
    "nats/issuers.json",
    "nats/authority.json",
    "platform/bastide.db",
    "platform/images",
    "waf",
];
/// The last entry: what was written before it.
const CONTENTS: &str = "backup.json";
/// Version of the format.
const FORMAT: u32 = 1;
/// Longest table of contents.
const CONTENTS_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    format: u32,
    /// Version of the executable.
    version: String,
    /// Seconds since 1970.
    made_at: i64,
    /// SHA-256 of each file, by path.
    files: BTreeMap<String, String>,
}

/// Writes a backup. The installation may run.
pub async fn backup(layout: &Layout, args: &BackupArgs) -> Result<()> {
    refuse_a_server(layout)?;
    let database = database(layout.root());
    ensure!(database.exists(), "there is no installation in {}", layout.root().display());
    let out = File::options().write(true).create_new(true).mode(0o600).open(&args.file);
    let out = out.with_context(|| format!("cannot create {}", args.file.display()))?;
    let written = write(layout, &database, out).await;
    match written {
        Ok(files) => {
            println!(
                "Wrote {} ({files} files). Whoever has it has every key of this installation: keep it as safe as those.",
                args.file.display()
            );
            println!("Databases of apps are not in it; they are on their own server.");
            Ok(())
        }
        Err(error) => {
            let _ = fs::remove_file(&args.file);
            Err(error)
        }
    }
}

async fn write(layout: &Layout, database: &Path, out: File) -> Result<usize> {
    // The database first: what its rows name lies on disk already, and stays.
    let copy = layout.platform().join(format!("backup-{}.db", std::process::id()));
    let _ = fs::remove_file(&copy);
    copy_database(database, &copy).await.context("cannot copy the database")?;
    let mut archive = Archive { tar: tar::Builder::new(out), files: BTreeMap::new() };
    let added = archive.add_all(layout.root(), &copy);
    fs::remove_file(&copy)?;
    added?;
    archive.finish()
}

/// The archive that is written.
struct Archive {
    tar: tar::Builder<File>,
    files: BTreeMap<String, String>,
}

impl Archive {
    fn add_all(&mut self, root: &Path, database: &Path) -> Result<()> {
        for kept in KEPT {
            let path = if kept.ends_with(".db") { database.to_owned() } else { root.join(kept) };
            for (path, name) in files_at(&path, kept)? {
                self.add(&path, &name)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, name: &str) -> Result<()> {
        let reading = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(reading)?;
        let bytes = file.metadata()?.len();
        let mut hashed = Hashed { inner: file.take(bytes), hash: Hash::new(&SHA256) };
        let mut header = header(bytes);
        self.tar.append_data(&mut header, name, &mut hashed).with_context(reading)?;
        self.files.insert(name.to_owned(), hashed.digest());
        Ok(())
    }

    fn finish(mut self) -> Result<usize> {
        let count = self.files.len();
        let contents = Contents {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            made_at: bastide_store::now_s(),
            files: self.files,
        };
        let contents = serde_json::to_vec(&contents)?;
        let mut header = header(contents.len() as u64);
        self.tar.append_data(&mut header, CONTENTS, &contents[..])?;
        self.tar.into_inner()?.sync_all()?;
        Ok(count)
    }
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header
}

/// Regular files at and below a path, each with its name in the archive. What is gone meanwhile, or never was, is left out.
fn files_at(path: &Path, name: &str) -> Result<Vec<(PathBuf, String)>> {
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if about.is_file() {
        return Ok(vec![(path.to_owned(), name.to_owned())]);
    }
    let mut found = Vec::new();
    if about.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let below = format!("{name}/{}", entry.file_name().to_string_lossy());
            found.extend(files_at(&entry.path(), &below)?);
        }
    }
    found.sort();
    Ok(found)
}

/// Puts a backup back, where nothing runs.
pub async fn restore(layout: &Layout, args: &RestoreArgs) -> Result<()> {
    refuse_a_server(layout)?;
    files::private_dir(&layout.run())?;
    let _lock = crate::up::lock(layout)?;
    let taken = KEPT.iter().map(|kept| layout.root().join(kept)).any(|path| path.exists());
    ensure!(
        !taken || args.replace,
        "{} holds an installation; say --replace to put the backup in its place",
        layout.root().display()
    );
    let staging = layout.root().join(format!("restore-{}", std::process::id()));
    files::private_dir(&staging)?;
    let outcome = put_back(layout, args, &staging).await;
    let _ = fs::remove_dir_all(&staging);
    let (contents, epoch, aside) = outcome?;
    println!("Restored {} files of {} (epoch {epoch}).", contents.files.len(), moment(contents.made_at));
    if let Some(aside) = aside {
        println!("What was here before lies in {}.", aside.display());
    }
    println!("Everybody signs in again. `bastide up` starts it.");
    Ok(())
}

async fn put_back(
    layout: &Layout,
    args: &RestoreArgs,
    staging: &Path,
) -> Result<(Contents, u64, Option<PathBuf>)> {
    let file = File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let contents =
        unpack(file, staging).with_context(|| format!("{} is no whole backup", args.file.display()))?;
    let key = fs::read(staging.join("keys/kek")).context("the backup has no key for its database")?;
    let store =
        Store::open(&database(staging), Kek::new(&key)?).await.context("the database cannot be opened")?;
    let epoch = store.begin_next_life().await?;
    store.close().await;
    for left in ["bastide.db-wal", "bastide.db-shm", "bastide.lock"] {
        let _ = fs::remove_file(staging.join("platform").join(left));
    }
    let aside = set_aside(layout)?;
    for kept in KEPT {
        let (from, to) = (staging.join(kept), layout.root().join(kept));
        if from.exists() {
            files::private_dir(to.parent().context("a file has a directory")?)?;
            fs::rename(&from, &to).with_context(|| format!("cannot put {} in place", to.display()))?;
        }
    }
    Ok((contents, epoch, aside))
}

/// Moves what a backup would replace out of the way.
fn set_aside(layout: &Layout) -> Result<Option<PathBuf>> {
    let aside = layout.root().join(format!("before-restore-{}", bastide_store::now_s()));
    let mut moved = false;
    for dir in ["ca", "keys", "nats", "platform", "waf", "certificates"] {
        let from = layout.root().join(dir);
        if from.exists() {
            files::private_dir(&aside)?;
            fs::rename(&from, aside.join(dir)).with_context(|| format!("cannot move {}", from.display()))?;
            moved = true;
        }
    }
    Ok(moved.then_some(aside))
}

/// Unpacks into an empty directory. Only regular files at places that a backup has are taken, and all of them must be those that
/// the table at its end names.
fn unpack(archive: impl Read, into: &Path) -> Result<Contents> {
    let (mut found, mut contents) = (BTreeMap::new(), None);
    let mut tar = tar::Archive::new(archive);
    for entry in tar.entries()? {
        let mut entry = entry?;
        ensure!(contents.is_none(), "something follows its end");
        let path = entry.path()?.into_owned();
        let name = path.to_str().context("a name is no text")?.to_owned();
        ensure!(entry.header().entry_type().is_file(), "{name} is no regular file");
        if name == CONTENTS {
            let read: Contents = serde_json::from_reader(entry.take(CONTENTS_BYTES_MAX))?;
            ensure!(read.format == FORMAT, "it is of format {}; this version reads {FORMAT}", read.format);
            contents = Some(read);
            continue;
        }
        ensure!(is_kept(&path), "{name} does not belong into a backup");
        let to = into.join(&path);
        files::private_dir(to.parent().context("a file has a directory")?)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&to)?;
        let mut hashed = Hashed { inner: &mut entry, hash: Hash::new(&SHA256) };
        io::copy(&mut hashed, &mut file)?;
        file.flush()?;
        file.sync_all()?;
        found.insert(name, hashed.digest());
    }
    let contents = contents.context("its end is missing")?;
    if contents.files != found {
        bail!("its files are not those that it names");
    }
    Ok(contents)
}

/// Begins a new life with a database that was put back by other means than [`restore`].
pub async fn new_life(layout: &Layout) -> Result<()> {
    files::private_dir(&layout.run())?;
    let _lock = crate::up::lock(layout)?;
    let config = config(layout)?;
    let config =
        config.with_context(|| format!("there is no installation in {}", layout.root().display()))?;
    let kek = bastide_platform::kek::of(&config).await?;
    let store = config.database.open(kek).await.context("the database cannot be opened")?;
    let epoch = store.begin_next_life().await?;
    store.close().await;
    println!("A new life has begun (epoch {epoch}). Everybody signs in again. `bastide up` starts it.");
    Ok(())
}

/// How the Platform was set up at the last start.
fn config(layout: &Layout) -> Result<Option<bastide_platform::Config>> {
    files::read_json(&layout.config("platform-1"))
}

/// A database on a server is not in this directory, and no part of what is here is a backup without it.
fn refuse_a_server(layout: &Layout) -> Result<()> {
    if let Some(Database::Server(_)) = config(layout)?.map(|config| config.database) {
        bail!(
            "the database of this installation is on a PostgreSQL server: copy it with pg_dump, and {} with what copies files; \
             both are put back together (docs/database.md)",
            layout.root().display()
        );
    }
    Ok(())
}

fn is_kept(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
        && KEPT.iter().any(|kept| path.starts_with(kept))
}

fn database(root: &Path) -> PathBuf {
    root.join("platform/bastide.db")
}

fn moment(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds).map_or_else(
        |_| format!("second {seconds}"),
        |at| format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute()),
    )
}

/// A reader that hashes what is read.
struct Hashed<R> {
    inner: R,
    hash: Hash,
}

impl<R> Hashed<R> {
    fn digest(self) -> String {
        self.hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of these files that states its contents, changed by `state`.
    fn archive(files: &[(&str, &str)], state: impl FnOnce(&mut Contents)) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut contents =
            Contents { format: FORMAT, version: "x".into(), made_at: 0, files: BTreeMap::new() };
        for (name, text) in files {
            let mut header = header(text.len() as u64);
            // As somebody would write it who wants it elsewhere: no checks of the writer.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, text.as_bytes()).unwrap();
            let mut hashed = Hashed { inner: text.as_bytes(), hash: Hash::new(&SHA256) };
            io::copy(&mut hashed, &mut io::sink()).unwrap();
            contents.files.insert((*name).into(), hashed.digest());
        }
        state(&mut contents);
        let contents = serde_json::to_vec(&contents).unwrap();
        let mut header = header(contents.len() as u64);
        tar.append_data(&mut header, CONTENTS, &contents[..]).unwrap();
        tar.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Result<(tempfile::TempDir, Contents)> {
        let dir = tempfile::tempdir().unwrap();
        let contents = unpack(bytes, dir.path())?;
        Ok((dir, contents))
    }

    #[test]
    fn what_was_written_is_read_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let files =
            [("keys/kek", "secret"), ("platform/images/blobs/sha256/aa", "blob"), ("waf/x.conf", "rule")];
        let (dir, contents) = unpacked(&archive(&files, |_| ())).unwrap();
        assert_eq!(contents.files.len(), 3);
        for (name, text) in files {
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), text);
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn nothing_leaves_its_directory_or_lies_where_no_backup_has_anything() {
        for name in [
            "../keys/kek",
            "/etc/passwd",
            "keys/../../x",
            "run/up.lock",
            "state/edge/snapshot.json",
            "kek",
            "keysx/kek",
        ] {
            let refused = unpacked(&archive(&[(name, "x")], |_| ())).map(drop).unwrap_err();
            let why = format!("{refused:#}");
            assert!(why.contains("does not belong") || why.contains(".."), "{name}: {why}");
        }
    }

    #[test]
    fn a_backup_that_was_cut_or_changed_is_not_put_back() {
        let files = [("keys/kek", "secret"), ("waf/x.conf", "rule")];
        let whole = archive(&files, |_| ());
        for length in (0..whole.len() - 1024).step_by(97) {
            assert!(unpacked(&whole[..length]).is_err(), "cut at {length}");
        }
        assert!(unpacked(&archive(&files, |contents| contents.format = 2)).is_err());
        assert!(unpacked(&archive(&files, |contents| drop(contents.files.remove("keys/kek")))).is_err());
        let other = |contents: &mut Contents| drop(contents.files.insert("waf/x.conf".into(), "00".into()));
        assert!(unpacked(&archive(&files, other)).is_err());
        let twice = [("keys/kek", "secret"), ("keys/kek", "other")];
        assert!(unpacked(&archive(&twice, |_| ())).is_err());
        let mut link = tar::Builder::new(Vec::new());
        let mut header = header(0);
        header.set_entry_type(tar::EntryType::Symlink);
        link.append_link(&mut header, "keys/kek", "/etc/passwd").unwrap();
        assert!(unpacked(&link.into_inner().unwrap()).is_err());
    }
}
