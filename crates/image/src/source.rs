//! Where images come from: an OCI layout (a directory), an OCI archive (the same as a tar), a `docker save`
//! archive. Each ends as blobs and the digest of a manifest. Nothing is believed but digests.

use crate::{
    Blobs, DOCUMENT_BYTES_MAX, Descriptor, Error, Limits, Manifest, Parsed, Result,
    blobs::digest_of,
    choose, compression,
    error::{refused, shown},
    heads::{self, Bounded},
    parse,
};
use bastide_types::Digest;
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};
use tar::EntryType;

/// Entries of an archive that holds blobs.
const ARCHIVE_ENTRIES_MAX: usize = 10_000;
/// Indexes within indexes.
const INDEX_DEPTH_MAX: usize = 4;
/// Links within a `docker save` archive, one after the other.
const LINKS_MAX: usize = 8;
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Takes the image at `source` into `blobs`, and gives the digest of its manifest.
///
/// # Errors
/// [`Error::Refused`] and [`Error::TooLarge`] say what is wrong with it.
pub fn collect(source: &Path, blobs: &Blobs, limits: &Limits) -> Result<Digest> {
    let meta = match source.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refused("app.image names a file or directory that is not there");
        }
        other => other.map_err(Error::file(source))?,
    };
    if meta.is_dir() {
        return layout(&Directory(source.to_owned()), blobs, limits);
    }
    if !meta.is_file() {
        return refused("app.image names neither a file nor a directory");
    }
    let archive = Archive::open(source, blobs, limits)?;
    if archive.holds("index.json") {
        layout(&archive, blobs, limits)
    } else if archive.holds("manifest.json") {
        docker(&archive, blobs, limits)
    } else {
        refused("it is neither an OCI archive (no index.json) nor a `docker save` archive (no manifest.json)")
    }
}

/// Files by name.
trait Files {
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>>;

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let file = self
            .open(name)?
            .ok_or_else(|| Error::Refused(format!("`{}` is missing", shown(name.as_bytes()))))?;
        let mut content = Vec::new();
        file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut content).map_err(heads::broken)?;
        if content.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(Error::TooLarge(format!("`{}` is larger than 1 MiB", shown(name.as_bytes()))));
        }
        Ok(content)
    }
}

/// OCI image layout 1.0: `index.json` names what `blobs/sha256` holds.
fn layout(files: &dyn Files, blobs: &Blobs, limits: &Limits) -> Result<Digest> {
    let index = files.document("index.json")?;
    let Parsed::Index(mut index) = parse(&index)? else { return refused("index.json is no index") };
    for _ in 0..INDEX_DEPTH_MAX {
        let descriptor = choose(&index)?;
        let document = files.document(&name(&descriptor))?;
        if digest_of(&document) != descriptor.digest {
            return refused(format!("the content of {} has another digest", descriptor.digest.short()));
        }
        match parse(&document)? {
            Parsed::Index(inner) => index = inner,
            Parsed::Manifest(manifest) => {
                blobs.put(&mut document.as_slice(), Some(&descriptor.digest), DOCUMENT_BYTES_MAX)?;
                contents(files, &manifest, blobs, limits)?;
                return Ok(descriptor.digest);
            }
        }
    }
    refused(format!("more than {INDEX_DEPTH_MAX} indexes lie within each other"))
}

fn contents(files: &dyn Files, manifest: &Manifest, blobs: &Blobs, limits: &Limits) -> Result<()> {
    if manifest.layers.len() > limits.layers_max {
        return Err(Error::TooLarge(format!("it has more than {} layers", limits.layers_max)));
    }
    // The bound on the whole: packed, layers are not larger than unpacked ones may be.
    let mut left = limits.bytes_max;
    for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
        let Some(mut content) = files.open(&name(descriptor))? else {
            return refused(format!("the content of {} is missing", descriptor.digest.short()));
        };
        let (_, bytes) = blobs.put(&mut content, Some(&descriptor.digest), left)?;
        left -= bytes;
    }
    Ok(())
}

fn name(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest.hex())
}

/// `docker save`: `manifest.json` names a configuration and plain layers. An OCI manifest is made for them; the
/// same archive gives the same digest.
fn docker(archive: &Archive, blobs: &Blobs, limits: &Limits) -> Result<Digest> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Saved {
        config: String,
        layers: Vec<String>,
    }
    let saved: Vec<Saved> = serde_json::from_slice(&archive.document("manifest.json")?)
        .map_err(|error| Error::Refused(format!("manifest.json cannot be read: {error}")))?;
    let [saved] = saved.as_slice() else {
        return refused(format!("it holds {} images; save one", saved.len()));
    };
    if saved.layers.len() > limits.layers_max {
        return Err(Error::TooLarge(format!("it has more than {} layers", limits.layers_max)));
    }
    let config = archive.document(&saved.config)?;
    let (config, config_bytes) = blobs.put(&mut config.as_slice(), None, DOCUMENT_BYTES_MAX)?;
    let mut left = limits.bytes_max.saturating_add(ARCHIVE_ENTRIES_MAX as u64 * 1024);
    let mut layers = Vec::new();
    for layer in &saved.layers {
        let Some(mut content) = archive.open(layer)? else {
            return refused(format!("`{}` is missing", shown(layer.as_bytes())));
        };
        let (digest, bytes) = blobs.put(&mut content, None, left)?;
        left -= bytes;
        layers.push(json!({"mediaType": LAYER, "digest": digest.to_string(), "size": bytes}));
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.to_string(),
            "size": config_bytes,
        },
        "layers": layers,
    });
    let (digest, _) = blobs.put(&mut manifest.to_string().as_bytes(), None, DOCUMENT_BYTES_MAX)?;
    Ok(digest)
}

/// A directory that the Build Service unpacked itself: it holds plain files and directories only.
struct Directory(PathBuf);

impl Files for Directory {
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>> {
        let path = Path::new(name);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Ok(None);
        }
        let path = self.0.join(path);
        // Nothing here is a link, and nothing that is one is followed.
        match path.symlink_metadata() {
            Ok(meta) if meta.is_file() => {
                Ok(Some(Box::new(BufReader::new(File::open(&path).map_err(Error::file(&path))?))))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file(&path)(error)),
        }
    }
}

/// A tar, its members found by name.
struct Archive {
    path: PathBuf,
    members: HashMap<String, Member>,
}

enum Member {
    File {
        position: u64,
        size: u64,
    },
    /// Older `docker save` links a layer that comes twice.
    Link(String),
}

impl Archive {
    fn open(source: &Path, blobs: &Blobs, limits: &Limits) -> Result<Self> {
        let mut file = File::open(source).map_err(Error::file(source))?;
        let mut magic = [0; 4];
        let read = file.read(&mut magic).map_err(Error::file(source))?;
        file.rewind().map_err(Error::file(source))?;
        let mut path = source.to_owned();
        if read < 4 || compression::is_packed(&magic) {
            // Members are read by their place, so a packed archive is unpacked first.
            path = blobs.dir().join("archive");
            let mut plain = File::create(&path).map_err(Error::file(&path))?;
            let content = compression::unpacked(file).map_err(heads::broken)?;
            let mut content = Bounded { inner: content, left: limits.bytes_max.saturating_mul(2) };
            io::copy(&mut content, &mut plain).map_err(heads::broken)?;
            file = File::open(&path).map_err(Error::file(&path))?;
        }
        let mut members = HashMap::new();
        heads::each(BufReader::new(file), ARCHIVE_ENTRIES_MAX, |head, _| {
            let Some(name) = plain(&head.path) else { return Ok(()) };
            let member = match head.kind {
                EntryType::Regular => Member::File { position: head.position, size: head.size },
                EntryType::Symlink | EntryType::Link => {
                    let from = if head.kind == EntryType::Symlink {
                        name.rsplit_once('/').map_or("", |(dir, _)| dir)
                    } else {
                        ""
                    };
                    match beside(from, &head.link) {
                        Some(target) => Member::Link(target),
                        None => return Ok(()),
                    }
                }
                _ => return Ok(()),
            };
            members.insert(name, member);
            Ok(())
        })?;
        Ok(Self { path, members })
    }

    fn holds(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }
}

impl Files for Archive {
    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>> {
        let mut name = name.strip_prefix("./").unwrap_or(name);
        for _ in 0..LINKS_MAX {
            match self.members.get(name) {
                None => return Ok(None),
                Some(Member::Link(target)) => name = target,
                Some(Member::File { position, size }) => {
                    let mut file = File::open(&self.path).map_err(Error::file(&self.path))?;
                    file.seek(SeekFrom::Start(*position)).map_err(Error::file(&self.path))?;
                    return Ok(Some(Box::new(BufReader::new(file.take(*size)))));
                }
            }
        }
        Ok(None)
    }
}

/// A member's name without `./`; `None` when it is no plain UTF-8 path.
fn plain(path: &[u8]) -> Option<String> {
    beside("", path)
}

/// The path that a link in `dir` leads to, by name alone.
fn beside(dir: &str, link: &[u8]) -> Option<String> {
    let link = std::str::from_utf8(link).ok()?;
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
