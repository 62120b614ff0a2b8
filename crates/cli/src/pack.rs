//! Packs a directory for publishing: the same directory gives the same bytes.

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use bastide_types::{
    Digest, Manifest,
    manifest::ImageSource,
    tree::{CHANGES, Changes, Tree, TreeFile},
};
use flate2::{Compression, GzBuilder};
use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Most bytes of all files together, as the Build Service accepts them.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most entries.
const ENTRIES_MAX: usize = 20_000;

/// Packs the directory as a gzipped tar.
///
/// # Errors
/// When there is no `bastide.toml`, or something in it is neither a plain file nor a directory.
pub fn pack(dir: &Path) -> Result<Vec<u8>> {
    let entries = entries(dir)?;
    packed(dir, entries.iter().map(PathBuf::as_path), None)
}

/// Packs what of a directory the Build Service does not have: `tree` is what it holds, `base` what was published before.
pub fn pack_changes(dir: &Path, tree: &Tree, base: &Tree) -> Result<Vec<u8>> {
    let changes =
        Changes { base: digest(&base.text()), tree: digest(&tree.text()), without: base.without(tree) };
    let news = tree.without(base);
    packed(dir, news.iter().map(Path::new), Some(&changes))
}

/// What a directory holds, by content.
///
/// # Errors
/// As [`pack`].
pub fn tree(dir: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    for path in entries(dir)? {
        let full = dir.join(&path);
        let meta = fs::symlink_metadata(&full).with_context(|| format!("cannot read {}", full.display()))?;
        let file = if meta.is_dir() { None } else { Some(file(&full, &meta)?) };
        tree.0.insert(path.to_string_lossy().into_owned(), file);
    }
    Ok(tree)
}

fn file(path: &Path, meta: &fs::Metadata) -> Result<TreeFile> {
    let (mut context, mut part, mut size) = (digest::Context::new(&digest::SHA256), vec![0; 64 * 1024], 0);
    let mut file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            break;
        }
        context.update(&part[..read]);
        size += read as u64;
    }
    let executable = is_executable(meta);
    Ok(TreeFile { digest: as_digest(&context.finish()), size, executable })
}

/// Digest of some bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    as_digest(&digest::digest(&digest::SHA256, bytes))
}

fn as_digest(found: &digest::Digest) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(found.as_ref());
    Digest::from_sha256(bytes)
}

fn is_executable(meta: &fs::Metadata) -> bool {
    meta.permissions().mode() & 0o111 != 0
}

/// Paths of what belongs to the app, in order.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.join("bastide.toml").is_file() {
        bail!(
            "{} holds no bastide.toml. This is the smallest one:\n\n  [app]\n  name = \"my-app\"\n  kind = \"static\"\n\n  [[route]]\n  path = \"/\"\n  access = \"public\"\n",
            dir.display()
        );
    }
    let ignored = Ignored::read(dir)?;
    let mut entries = Vec::new();
    collect(dir, Path::new(""), &ignored, &mut entries)?;
    entries.sort();
    // Beside an image often lies what it was built from; only the image is the app.
    if let Some(wanted) = image_only(dir) {
        entries
            .retain(|path| wanted.iter().any(|wanted| path.starts_with(wanted) || wanted.starts_with(path)));
    }
    Ok(entries)
}

fn packed<'p>(
    dir: &Path,
    entries: impl Iterator<Item = &'p Path>,
    changes: Option<&Changes>,
) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::default()));
    if let Some(changes) = changes {
        let text = serde_json::to_vec(changes)?;
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, CHANGES, &text[..])?;
    }
    let mut total = 0;
    for entry in entries {
        total += append(&mut archive, dir, entry, BYTES_MAX - total)?;
    }
    Ok(archive.into_inner()?.finish()?)
}

/// What of the directory belongs to an app of the kind `image`; `None` for the other kinds, and for a manifest
/// that the Build Service will refuse.
fn image_only(dir: &Path) -> Option<Vec<PathBuf>> {
    let text = fs::read_to_string(dir.join("bastide.toml")).ok()?;
    let manifest: Manifest = toml::from_str(&text).ok()?;
    let mut wanted = vec![PathBuf::from("bastide.toml")];
    match manifest.app.image? {
        ImageSource::Path(path) => wanted.push(path.into()),
        ImageSource::Registry(_) => {}
    }
    Some(wanted)
}

fn collect(root: &Path, below: &Path, ignored: &Ignored, entries: &mut Vec<PathBuf>) -> Result<()> {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if ignored.covers(&path) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            bail!("{} is a link; an app holds plain files and directories only", root.join(&path).display());
        }
        if !kind.is_file() && !kind.is_dir() {
            bail!("{} is neither a file nor a directory", root.join(&path).display());
        }
        if path.to_str().is_none() {
            bail!("{} has a name that is not UTF-8", root.join(&path).display());
        }
        entries.push(path.clone());
        if entries.len() > ENTRIES_MAX {
            bail!("more than {ENTRIES_MAX} files; list what does not belong in .bastideignore");
        }
        if kind.is_dir() {
            collect(root, &path, ignored, entries)?;
        }
    }
    Ok(())
}

fn append<W: Write>(archive: &mut tar::Builder<W>, root: &Path, path: &Path, left: u64) -> Result<u64> {
    let full = root.join(path);
    let meta = fs::symlink_metadata(&full).with_context(|| format!("cannot read {}", full.display()))?;
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    if meta.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        archive.append_data(&mut header, path, std::io::empty())?;
        return Ok(0);
    }
    if meta.len() > left {
        bail!("{} holds more than {} MiB", root.display(), BYTES_MAX / 1024 / 1024);
    }
    header.set_mode(if is_executable(&meta) { 0o755 } else { 0o644 });
    header.set_size(meta.len());
    let file = fs::File::open(&full).with_context(|| format!("cannot read {}", full.display()))?;
    // A file that grows while it is read must not spill into the next entry.
    archive.append_data(&mut header, path, file.take(meta.len()))?;
    Ok(meta.len())
}

/// What `.bastideignore` names: one path or name a line, `*` at the end or the start of a name allowed.
/// `.git` and the file itself never belong to an app.
struct Ignored(Vec<String>);

impl Ignored {
    fn read(dir: &Path) -> Result<Self> {
        let mut patterns = vec![".git".to_owned(), ".bastideignore".to_owned()];
        match fs::read_to_string(dir.join(".bastideignore")) {
            Ok(text) => patterns.extend(
                text.lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty() && !line.starts_with('#'))
                    .map(|line| line.trim_end_matches('/').to_owned()),
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("cannot read .bastideignore"),
        }
        Ok(Self(patterns))
    }

    fn covers(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.0.iter().any(|pattern| {
            if pattern.contains('/') {
                return path == Path::new(pattern.trim_start_matches('/'));
            }
            match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
                (Some(end), _) => name.ends_with(end),
                (_, Some(start)) => name.starts_with(start),
                _ => name == pattern,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bastide.toml"), "[app]").unwrap();
        fs::create_dir(dir.path().join("css")).unwrap();
        fs::write(dir.path().join("css/a.css"), "a").unwrap();
        fs::write(dir.path().join("index.html"), "x").unwrap();
        dir
    }

    fn names(packed: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn the_same_directory_gives_the_same_bytes() {
        let (one, two) = (site(), site());
        let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        fs::File::open(two.path().join("index.html")).unwrap().set_times(times).unwrap();
        assert_eq!(pack(one.path()).unwrap(), pack(two.path()).unwrap());
        assert_eq!(names(&pack(one.path()).unwrap()), ["bastide.toml", "css", "css/a.css", "index.html"]);
    }

    #[test]
    fn after_one_change_one_file_is_packed_and_little_more() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bastide.toml"), "[app]").unwrap();
        for number in 0..2000 {
            fs::create_dir_all(dir.path().join(format!("d{}", number % 40))).unwrap();
            fs::write(dir.path().join(format!("d{}/f{number}", number % 40)), number.to_string()).unwrap();
        }
        let base = tree(dir.path()).unwrap();
        assert_eq!(names(&pack_changes(dir.path(), &base, &base).unwrap()), [CHANGES]);
        fs::write(dir.path().join("d7/f7"), "other").unwrap();
        fs::remove_file(dir.path().join("d8/f8")).unwrap();
        let now = tree(dir.path()).unwrap();
        let packed = pack_changes(dir.path(), &now, &base).unwrap();
        assert_eq!(names(&packed), [CHANGES, "d7/f7"]);
        assert!(packed.len() < 1024, "{}", packed.len());
    }

    #[test]
    fn what_is_ignored_stays_behind() {
        let dir = site();
        fs::write(dir.path().join(".bastideignore"), "# notes\n*.css\n").unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        assert_eq!(names(&pack(dir.path()).unwrap()), ["bastide.toml", "css", "index.html"]);
    }

    #[test]
    fn beside_an_image_nothing_is_packed() {
        let dir = site();
        let manifest =
            |image: &str| format!("[app]\nname = \"shop\"\nkind = \"image\"\nimage = \"{image}\"\n");
        fs::create_dir_all(dir.path().join("out/oci/blobs")).unwrap();
        fs::write(dir.path().join("out/oci/index.json"), "{}").unwrap();
        fs::write(dir.path().join("out/other"), "x").unwrap();
        fs::write(dir.path().join("bastide.toml"), manifest("./out/oci")).unwrap();
        let packed = names(&pack(dir.path()).unwrap());
        assert_eq!(packed, ["bastide.toml", "out", "out/oci", "out/oci/blobs", "out/oci/index.json"]);
        let pulled = manifest(&format!("a.example/x@sha256:{}", "0".repeat(64)));
        fs::write(dir.path().join("bastide.toml"), pulled).unwrap();
        assert_eq!(names(&pack(dir.path()).unwrap()), ["bastide.toml"]);
    }

    #[test]
    fn links_are_refused_by_name() {
        let dir = site();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("leak")).unwrap();
        let error = pack(dir.path()).unwrap_err().to_string();
        assert!(error.contains("leak") && error.contains("link"), "{error}");
    }

    #[test]
    fn a_directory_without_a_manifest_gets_an_example() {
        let dir = tempfile::tempdir().unwrap();
        assert!(pack(dir.path()).unwrap_err().to_string().contains("[app]"));
    }
}
