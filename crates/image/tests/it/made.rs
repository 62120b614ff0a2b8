//! Layers and images written byte by byte, so that they can say what no honest tool would.

use bastide_image::{Error, Limits, Unpacker};
use bastide_types::Digest;
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use std::{fs, io::Write, path::Path};
use tar::EntryType;

/// A tar under construction.
#[derive(Default, Clone)]
pub struct Layer(pub Vec<u8>);

impl Layer {
    pub fn entry(mut self, name: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) -> Self {
        self.0.extend_from_slice(&head(name, kind, mode, link, content.len() as u64));
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, 0o644, "", content)
    }
    pub fn program(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, 0o755, "", content)
    }
    pub fn dir(self, name: &str) -> Self {
        self.entry(name, EntryType::Directory, 0o755, "", b"")
    }
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, 0o777, target, b"")
    }
    pub fn hard(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Link, 0o644, target, b"")
    }
    /// A pax header for the next entry.
    pub fn pax(self, key: &str, value: &[u8]) -> Self {
        let body = [format!(" {key}=").as_bytes(), value, b"\n"].concat();
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        let record = [length.to_string().as_bytes(), &body].concat();
        self.entry("pax", EntryType::XHeader, 0, "", &record)
    }
    pub fn tar(&self) -> Vec<u8> {
        [self.0.as_slice(), &[0; 1024]].concat()
    }
    pub fn gz(&self) -> Vec<u8> {
        gz(&self.tar())
    }
    pub fn zstd(&self) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(self.tar().as_slice(), ruzstd::encoding::CompressionLevel::Fastest)
    }
}

pub fn head(name: &str, kind: EntryType, mode: u32, link: &str, size: u64) -> [u8; 512] {
    let mut head = tar::Header::new_gnu();
    head.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    head.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    head.set_entry_type(kind);
    head.set_mode(mode);
    head.set_size(size);
    head.set_uid(1000);
    head.set_mtime(1_700_000_000);
    head.set_cksum();
    *head.as_bytes()
}

pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

pub fn digest(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    Digest::from_sha256(out)
}

pub const LIMITS: Limits = Limits { bytes_max: 1024 * 1024, entries_max: 200, layers_max: 8 };

/// A place to unpack to, with something beside it that must stay as it is.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        Self { dir }
    }
    pub fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }
    pub fn outside(&self) -> std::path::PathBuf {
        self.dir.path().join("outside")
    }
    pub fn unpack(&self, layers: &[Vec<u8>]) -> Result<Vec<Digest>, Error> {
        let outcome = Unpacker::new(&self.root(), LIMITS)
            .and_then(|mut unpacker| layers.iter().map(|layer| unpacker.layer(layer.as_slice())).collect());
        self.untouched();
        outcome
    }
    /// Nothing outside the root has changed, and nothing inside has special rights.
    pub fn untouched(&self) {
        assert_eq!(names(self.dir.path()), ["outside", "root"]);
        assert_eq!(names(&self.outside()), ["secret"]);
        let secret = self.outside().join("secret");
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        let meta = fs::symlink_metadata(&secret).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&meta), 1, "it has got a second name");
        assert_eq!(mode(&secret) & 0o170_000, 0o100_000);
        inside(&self.root());
    }
    /// Paths below the root with what is there.
    pub fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.root(), "", &mut found);
        found.sort();
        found
    }
}

fn inside(dir: &Path) {
    for name in names(dir) {
        let path = dir.join(name);
        match mode(&path) {
            mode if mode & 0o170_000 == 0o120_000 => {}
            0o040_755 => inside(&path),
            // A file that was being written when an error came has no rights for others yet.
            0o100_444 | 0o100_555 | 0o100_600 => {}
            mode => panic!("{}: {mode:o}", path.display()),
        }
    }
}

fn list(dir: &Path, below: &str, found: &mut Vec<String>) {
    for name in names(dir) {
        let (path, shown) = (dir.join(&name), format!("{below}{}", name.to_string_lossy()));
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.push(format!("{shown}/"));
            list(&path, &format!("{shown}/"), found);
        } else if meta.is_symlink() {
            found.push(format!("{shown} -> {}", fs::read_link(&path).unwrap().display()));
        } else {
            found.push(format!("{shown} = {}", fs::read_to_string(&path).unwrap()));
        }
    }
}

pub fn mode(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&fs::symlink_metadata(path).unwrap())
}

pub fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// The smallest static program for this machine: a header that says so.
pub fn program() -> Vec<u8> {
    let mut bytes = vec![0; 256];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[16..18].copy_from_slice(&2u16.to_le_bytes());
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    bytes[64..68].copy_from_slice(&1u32.to_le_bytes());
    bytes
}

/// The parts of an image: name and content of each blob, and the digest of the manifest.
pub struct Image {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// Layers with the content that they unpack to.
    pub fn new(layers: Vec<(Vec<u8>, Vec<u8>)>, execution: serde_json::Value) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|(_, tar)| digest(tar).to_string()).collect();
        let config = json!({
            "architecture": bastide_image::architecture(), "os": "linux", "config": execution,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let layers: Vec<_> = layers.into_iter().map(|(packed, _)| packed).collect();
        let described = |bytes: &[u8], kind: &str| json!({"mediaType": kind, "digest": digest(bytes).to_string(), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "config": described(&config, "application/vnd.oci.image.config.v1+json"),
            "layers": layers.iter().map(|layer| described(layer, "application/vnd.oci.image.layer.v1.tar+gzip")).collect::<Vec<_>>(),
        });
        Self { manifest: manifest.to_string().into_bytes(), config, layers }
    }

    /// A program in a layer of its own over some files.
    pub fn small() -> Self {
        let base = Layer::default().dir("bin").file("etc/motd", b"hello");
        let app = Layer::default().program("bin/app", &program());
        Self::new(
            vec![(base.gz(), base.tar()), (app.zstd(), app.tar())],
            json!({"Cmd": ["app"], "ExposedPorts": {"3000/tcp": {}}}),
        )
    }

    pub fn digest(&self) -> Digest {
        digest(&self.manifest)
    }

    pub fn blobs(&self) -> Vec<&[u8]> {
        [&self.manifest, &self.config].into_iter().chain(&self.layers).map(Vec::as_slice).collect()
    }

    /// An index that names it, for this machine or for `platform`.
    pub fn index(&self, platform: Option<&str>) -> Vec<u8> {
        let mut described = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.digest().to_string(), "size": self.manifest.len(),
        });
        if let Some((os, architecture)) = platform.and_then(|platform| platform.split_once('/')) {
            described["platform"] = json!({"os": os, "architecture": architecture});
        }
        json!({"schemaVersion": 2, "manifests": [described]}).to_string().into_bytes()
    }

    /// Name and content of each file of its OCI layout.
    pub fn layout(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![
            ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".into(), self.index(None)),
        ];
        files.extend(
            self.blobs()
                .into_iter()
                .map(|blob| (format!("blobs/sha256/{}", digest(blob).hex()), blob.to_vec())),
        );
        files
    }
}
