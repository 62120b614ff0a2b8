//! Archives written byte by byte: long names, lengths that lie, bombs, damage. What honest tools write is
//! in `build`.

use bastide_platform::build::{
    archive::{ENTRIES_MAX, Entry, read_manifest, unpack},
    images::{Image, Images},
};
use bastide_types::{Problem, manifest::Kind};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::{fs, io::Write, path::Path};
use tar::EntryType;

const TOML: &[u8] = b"[app]\nname = \"shop\"\nkind = \"static\"\n";
const BINARY: &[u8] = b"[app]\nname = \"shop\"\nkind = \"binary\"\ncommand = [\"./run\"]\n";

/// An archive written byte by byte, so that it can say what no honest tool would.
pub(crate) struct Packed(Vec<u8>);

impl Packed {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn with(mut self, name: &str, kind: EntryType, mode: u32, content: &[u8]) -> Self {
        self.0.extend_from_slice(head(name, kind, mode, content.len() as u64).as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.with(name, EntryType::Regular, 0o644, content)
    }

    /// A file whose name may be longer than a header's field.
    pub(crate) fn named(self, name: &str, content: &[u8]) -> Self {
        let long = format!("{name}\0");
        self.with("././@LongLink", EntryType::GNULongName, 0, long.as_bytes()).file("short", content)
    }

    pub(crate) fn manifest(self) -> Self {
        self.file("bastide.toml", TOML)
    }

    pub(crate) fn gz(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        gz(&self.0)
    }

    fn refused(self) -> Problem {
        unpacked(self.gz()).unwrap_err()
    }
}

fn head(name: &str, kind: EntryType, mode: u32, size: u64) -> tar::Header {
    let mut head = tar::Header::new_gnu();
    head.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    head.set_entry_type(kind);
    head.set_mode(mode);
    head.set_size(size);
    head.set_mtime(1_700_000_000);
    head.set_cksum();
    head
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn unpacked(packed: impl AsRef<[u8]>) -> Result<(), Problem> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let result = unpack(packed.as_ref(), &root);
    // Whatever was said: nothing lies beside the root.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    result.map(drop)
}

fn built(packed: &[u8], images: &Path) -> Image {
    let root = tempfile::tempdir().unwrap();
    let archive = unpack(packed, root.path()).unwrap();
    Images::open(images).unwrap().build(&archive, root.path()).unwrap()
}

#[test]
fn every_kind_of_entry_but_files_and_directories_is_refused() {
    let check = |name: &str, kind: EntryType, code: &str, says: &str| {
        let problem = Packed::new().manifest().with(name, kind, 0o644, b"").refused();
        let detail = problem.detail.clone().unwrap_or_default();
        assert_eq!(problem.code, code, "{name}: {detail}");
        assert!(detail.contains(says), "{name}: {detail}");
    };
    let invalid = "B-BUILD-0423";
    check("../evil", EntryType::Regular, invalid, "leads out");
    check("a/../../evil", EntryType::Regular, invalid, "leads out");
    check("..", EntryType::Directory, invalid, "leads out");
    check("/etc/passwd", EntryType::Regular, invalid, "leads out");
    check("link", EntryType::Symlink, invalid, "a link");
    check("link", EntryType::Link, invalid, "a link");
    check("disk", EntryType::Block, invalid, "a device");
    check("tty", EntryType::Char, invalid, "a device");
    check("pipe", EntryType::Fifo, invalid, "a pipe");
    check("holes", EntryType::GNUSparse, invalid, "neither a file");
    check("other", EntryType::new(b'V'), invalid, "neither a file");
    check("bastide.toml", EntryType::Regular, invalid, "there twice");
    check("./bastide.toml", EntryType::Regular, invalid, "there twice");
    check("bastide.toml/x", EntryType::Regular, invalid, "there twice");
    check("bastide.toml", EntryType::Directory, invalid, "there twice");
    check("bell\u{7}", EntryType::Regular, invalid, "not a plain UTF-8 name");
}

#[test]
fn a_long_name_that_leads_out_is_refused_in_both_forms() {
    let evil = format!("{}../../evil", "a/".repeat(60));
    let gnu = Packed::new().manifest().with(
        "././@LongLink",
        EntryType::GNULongName,
        0,
        format!("{}evil\0", "../".repeat(50)).as_bytes(),
    );
    assert!(gnu.file("short", b"").refused().detail.unwrap().contains("leads out"));
    let record = format!(" path={evil}\n");
    let record = format!("{}{record}", record.len() + 3);
    let pax = Packed::new().manifest().with("pax", EntryType::XHeader, 0, record.as_bytes());
    assert!(pax.file("short", b"").refused().detail.unwrap().contains("leads out"));
}

#[test]
fn an_entry_with_two_lengths_is_refused() {
    let pax = Packed::new().manifest().with("pax", EntryType::XHeader, 0, b"12 size=999\n");
    assert!(pax.file("short", b"x").refused().detail.unwrap().contains("two lengths"));
}

#[test]
fn names_of_honest_tools_are_read() {
    let long = format!("{}/x", "d".repeat(150));
    let record = format!(" path={long}\n");
    let record = format!("{}{record}", record.len() + 3);
    let packed = Packed::new()
        .with("pax_global_header", EntryType::XGlobalHeader, 0, b"13 comment=x\n")
        .with("./", EntryType::Directory, 0o755, b"")
        .manifest()
        .with("pax", EntryType::XHeader, 0, record.as_bytes())
        .file("short", b"pax")
        .with("././@LongLink", EntryType::GNULongName, 0, format!("{long}y\0").as_bytes())
        .file("short", b"gnu")
        .gz();
    let dir = tempfile::tempdir().unwrap();
    let archive = unpack(packed.as_slice(), dir.path()).unwrap();
    assert_eq!(archive.manifest.app.kind, Kind::Static);
    assert_eq!(fs::read(dir.path().join(&long)).unwrap(), b"pax");
    assert_eq!(fs::read(dir.path().join(format!("{long}y"))).unwrap(), b"gnu");
}

#[test]
fn what_unpacks_to_too_much_is_refused_before_it_is_read() {
    // The header alone says 2 GiB: nothing of it is there, and nothing of it is read.
    let mut bomb = Packed::new().manifest();
    bomb.0.extend_from_slice(head("bomb", EntryType::Regular, 0o644, 2 << 30).as_bytes());
    assert_eq!(bomb.refused().code, "B-BUILD-0413");
    // A name of half a GiB must not be held in memory, though it is below the limit of the whole.
    let mut bomb = Packed::new().manifest();
    bomb.0.extend_from_slice(head("././@LongLink", EntryType::GNULongName, 0, 512 << 20).as_bytes());
    assert!(bomb.refused().detail.unwrap().contains("longer than 255"));
    let long = format!("{}x", "d/".repeat(130));
    let packed = Packed::new().manifest().with(
        "././@LongLink",
        EntryType::GNULongName,
        0,
        format!("{long}\0").as_bytes(),
    );
    assert!(packed.file("short", b"").refused().detail.unwrap().contains("longer than 255"));
}

#[test]
fn too_many_entries_are_refused_also_when_all_are_the_same() {
    let mut packed = Packed::new().manifest();
    let same = head("./", EntryType::Directory, 0o755, 0);
    for _ in 0..=3 * ENTRIES_MAX {
        packed.0.extend_from_slice(same.as_bytes());
    }
    assert_eq!(packed.refused().code, "B-BUILD-0413");
    let mut packed = Packed::new().manifest();
    for number in 0..=ENTRIES_MAX {
        packed.0.extend_from_slice(head(&format!("d{number}"), EntryType::Directory, 0o755, 0).as_bytes());
    }
    assert_eq!(packed.refused().code, "B-BUILD-0413");
}

#[test]
fn a_cut_upload_is_refused() {
    let whole = Packed::new().manifest().file("index.html", &[b'x'; 4000]).gz();
    let mut cut = 0;
    for length in (0..whole.len() - 1).step_by(7) {
        cut += usize::from(unpacked(&whole[..length]).is_err());
    }
    // What is cut behind the last entry has lost nothing.
    assert!(cut * 7 + 40 > whole.len(), "{cut} of {}", whole.len());
    let problem = unpacked(b"this is no archive").unwrap_err();
    assert_eq!(problem.code, "B-BUILD-0423");
}

#[test]
fn a_manifest_that_never_ends_is_refused() {
    let huge = format!("#{}", "x".repeat(300_000));
    let problem = Packed::new().file("bastide.toml", huge.as_bytes()).refused();
    assert_eq!(problem.code, "B-BUILD-0422");
    assert!(problem.detail.unwrap().contains("256 KiB"));
}

#[test]
fn the_program_of_a_binary_app_must_run_here() {
    let check = |name: &str, content: &[u8], says: &str| {
        let problem = Packed::new().file("bastide.toml", BINARY).file(name, content).refused();
        assert_eq!(problem.code, "B-BUILD-0424");
        let detail = problem.detail.unwrap();
        assert!(detail.contains(says), "{detail}");
    };
    check("other", b"", "not in the archive");
    check("run/file", b"", "not in the archive");
    check("run", b"", "not an ELF program");
    check("run", b"#!/bin/sh\necho\n", "is a script");
    check("run", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x08\0 a MIPS program", "not for 64-bit");
    check("run", b"MZ\x90\0 a program for another system", "not an ELF program");
    check("run", &program(3), "asks for `/lib64/ld.so`");
}

#[test]
fn a_program_may_bring_its_own_loader() {
    let packed =
        Packed::new().file("bastide.toml", BINARY).file("run", &program(3)).file("lib64/ld.so", b"x").gz();
    let root = tempfile::tempdir().unwrap();
    let archive = unpack(packed.as_slice(), root.path()).unwrap();
    assert_eq!(archive.entries[Path::new("lib64/ld.so")], Entry::File { executable: true });
    let elsewhere =
        Packed::new().file("bastide.toml", BINARY).file("run", &program(3)).file("lib/ld.so", b"x");
    assert_eq!(elsewhere.refused().code, "B-BUILD-0424");
}

/// A program for this machine of one header: of kind 1 it is static, of kind 3 it names a loader.
pub(crate) fn program(header: u32) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[16..18].copy_from_slice(&2u16.to_le_bytes());
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    bytes[64..68].copy_from_slice(&header.to_le_bytes());
    bytes[72..80].copy_from_slice(&200u64.to_le_bytes());
    bytes[96..104].copy_from_slice(&13u64.to_le_bytes());
    bytes[200..213].copy_from_slice(b"/lib64/ld.so\0");
    bytes
}

#[test]
fn a_program_becomes_executable_and_loses_every_special_bit() {
    let packed = Packed::new()
        .file("bastide.toml", BINARY)
        .with("run", EntryType::Regular, 0o6644, &program(1))
        .with("helper", EntryType::Regular, 0o4755, b"x")
        .gz();
    let (root, images) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let archive = unpack(packed.as_slice(), root.path()).unwrap();
    assert_eq!(archive.entries[Path::new("run")], Entry::File { executable: true });
    let image = built(&packed, images.path());
    let mut layer = layer(&image, images.path());
    let modes: Vec<_> = layer
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let head = entry.header();
            assert_eq!((head.mtime().unwrap(), head.uid().unwrap(), head.gid().unwrap()), (0, 0, 0));
            (entry.path().unwrap().display().to_string(), head.mode().unwrap())
        })
        .collect();
    let modes: Vec<_> = modes.iter().map(|(name, mode)| (name.as_str(), *mode)).collect();
    assert_eq!(modes, [("bastide.toml", 0o644), ("helper", 0o755), ("run", 0o755)]);
}

fn layer(image: &Image, images: &Path) -> tar::Archive<flate2::read::GzDecoder<fs::File>> {
    let file = fs::File::open(images.join("blobs/sha256").join(image.blobs[2].hex())).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(file))
}

#[test]
fn the_same_content_is_the_same_image_whether_or_not_directories_are_named() {
    let images = tempfile::tempdir().unwrap();
    let one = Packed::new()
        .manifest()
        .with("css", EntryType::Directory, 0o700, b"")
        .file("css/a.css", b"a")
        .file("index.html", b"x");
    // Another order, other times, no entry for the directory, other packing.
    let mut two = Packed::new().with("./index.html", EntryType::Regular, 0o600, b"x").file("css/a.css", b"a");
    let mut old = head("bastide.toml", EntryType::Regular, 0o664, TOML.len() as u64);
    old.set_mtime(1);
    old.set_uid(1000);
    old.set_cksum();
    two.0.extend_from_slice(old.as_bytes());
    two.0.extend_from_slice(TOML);
    two.0.resize(two.0.len().next_multiple_of(512), 0);
    let (one, two) = (one.gz(), two.gz());
    assert_ne!(one, two);
    let first = built(&one, images.path());
    assert_eq!(first, built(&two, images.path()));
    let other = Packed::new().manifest().file("css/a.css", b"a").file("index.html", b"y").gz();
    assert_ne!(first.digest, built(&other, images.path()).digest);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_damage_to_an_archive_makes_it_panic_or_leave_its_root(
        at in 0_usize..3072,
        with in proptest::collection::vec(any::<u8>(), 1..64),
        mend: bool,
    ) {
        let mut bytes = Packed::new().manifest().file("a/b", b"content").with("d", EntryType::Directory, 0o755, b"").0;
        for (offset, byte) in with.into_iter().enumerate() {
            let place = (at + offset) % bytes.len();
            bytes[place] = byte;
        }
        if mend {
            // With a right checksum the damage gets past the first check.
            for block in [0, 1024, 2048] {
                let mut head = tar::Header::new_gnu();
                head.as_mut_bytes().copy_from_slice(&bytes[block..block + 512]);
                head.set_cksum();
                bytes[block..block + 512].copy_from_slice(head.as_bytes());
            }
        }
        let _ = unpacked(gz(&bytes));
    }

    #[test]
    fn no_text_makes_the_manifest_reader_panic(text in "\\PC{0,400}") {
        let _ = read_manifest(&text);
    }
}
