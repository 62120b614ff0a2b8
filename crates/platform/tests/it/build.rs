//! Publishing: archives are checked, images are reproducible, nothing is half-created.

use bastide_platform::build::{
    archive::{Entry, read_manifest, unpack},
    images::{Image, Images},
};
use flate2::{Compression, GzBuilder};
use proptest::prelude::*;
use std::{fs, io::Write, path::Path};

const SITE: &str = "[app]\nname = \"shop\"\nkind = \"static\"\n";

/// One entry of an archive, as evil as its test wants it.
struct Packed<'a>(&'a str, &'a [u8], tar::EntryType, u64);

fn file<'a>(path: &'a str, content: &'a [u8]) -> Packed<'a> {
    Packed(path, content, tar::EntryType::Regular, 0)
}

fn pack(entries: &[Packed<'_>]) -> Vec<u8> {
    let mut tar = Vec::new();
    for Packed(path, content, kind, mtime) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_mtime(*mtime);
        header.set_size(content.len() as u64);
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    let mut gz = GzBuilder::new().mtime(7).write(Vec::new(), Compression::fast());
    gz.write_all(&tar).unwrap();
    gz.finish().unwrap()
}

fn build(packed: &[u8], dir: &Path) -> Image {
    let root = dir.join("root");
    fs::create_dir_all(&root).unwrap();
    let archive = unpack(packed, &root).unwrap();
    Images::open(&dir.join("images")).unwrap().build(&archive, &root).unwrap()
}

#[test]
fn evil_archives_are_refused_by_name() {
    let check = |entries: &[Packed<'_>], code: &str, part: &str| {
        let dir = tempfile::tempdir().unwrap();
        let problem = unpack(&pack(entries)[..], dir.path()).unwrap_err();
        assert_eq!(problem.code, code, "{problem:?}");
        assert!(problem.detail.as_deref().unwrap_or_default().contains(part), "{problem:?}");
        assert!(!dir.path().parent().unwrap().join("evil").exists());
    };
    let manifest = || file("bastide.toml", SITE.as_bytes());
    check(&[manifest(), file("../evil", b"x")], "B-BUILD-0423", "../evil");
    check(&[manifest(), file("/tmp/evil", b"x")], "B-BUILD-0423", "/tmp/evil");
    check(&[manifest(), file("a/../../evil", b"x")], "B-BUILD-0423", "leads out");
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link] {
        check(&[manifest(), Packed("l", b"", kind, 0)], "B-BUILD-0423", "link");
    }
    check(&[manifest(), Packed("d", b"", tar::EntryType::Char, 0)], "B-BUILD-0423", "device");
    check(&[manifest(), Packed("p", b"", tar::EntryType::Fifo, 0)], "B-BUILD-0423", "pipe");
    check(&[manifest(), file("a", b"1"), file("a", b"2")], "B-BUILD-0423", "twice");
    check(&[manifest(), file("a", b"1"), file("a/b", b"2")], "B-BUILD-0423", "twice");
    check(&[file("index.html", b"x")], "B-BUILD-0422", "no bastide.toml");
    let binary = "[app]\nname = \"shop\"\nkind = \"binary\"\ncommand = [\"./run\"]\n";
    check(&[file("bastide.toml", binary.as_bytes())], "B-BUILD-0424", "not in the archive");
    check(
        &[file("bastide.toml", binary.as_bytes()), file("run", b"#!/bin/sh\necho hello world\n")],
        "B-BUILD-0424",
        "script",
    );
}

#[test]
fn wrong_manifests_name_key_and_line() {
    for (text, part) in [
        ("[app]\nname = \"shop\"\nkind = \"static\"\ntypo = 1\n", "typo"),
        ("[app]\nname = \"Shop!\"\nkind = \"static\"\n", "app name"),
        ("[app]\nname = \"shop\"\nkind = \"magic\"\n", "magic"),
        ("[app\n", "line 1"),
        ("[app]\nname = \"shop\"\nkind = \"static\"\n[scale]\nreplicas = 99\n", "scale.replicas"),
    ] {
        let problem = read_manifest(text).unwrap_err();
        assert!(
            problem.code == "B-BUILD-0422" && problem.detail.as_deref().unwrap_or_default().contains(part),
            "{problem:?}"
        );
    }
}

#[test]
fn the_same_content_is_the_same_image_whatever_its_order_and_times() {
    let (one, two, other) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first =
        build(&pack(&[file("bastide.toml", SITE.as_bytes()), file("a", b"1"), file("b", b"2")]), one.path());
    let late = Packed("a", b"1", tar::EntryType::Regular, 1_700_000_000);
    let second = build(&pack(&[file("b", b"2"), late, file("bastide.toml", SITE.as_bytes())]), two.path());
    assert_eq!(first, second);
    let third = build(
        &pack(&[file("bastide.toml", SITE.as_bytes()), file("a", b"!"), file("b", b"2")]),
        other.path(),
    );
    assert_ne!(first.digest, third.digest);
}

#[tokio::test]
async fn an_image_is_an_oci_layout_that_others_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let image = build(&pack(&[file("bastide.toml", SITE.as_bytes())]), dir.path());
    let images = Images::open(&dir.path().join("images")).unwrap();
    let (bytes, length) = images.read(&image.digest, 0, 1 << 20).await.unwrap();
    assert_eq!(bytes.len() as u64, length);
    let manifest: oci_spec::image::ImageManifest = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(manifest.layers().len(), 1);
    images.write_index(&[(image.digest, "demo/shop:1".into())]).unwrap();
    let index = oci_spec::image::ImageIndex::from_file(dir.path().join("images/index.json")).unwrap();
    assert_eq!(index.manifests().len(), 1);
    assert!(dir.path().join("images/oci-layout").exists());
    assert!(images.read(&bastide_types::Digest::from_sha256([0; 32]), 0, 10).await.is_none());
}

#[test]
fn programs_become_executable_and_files_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "[app]\nname = \"shop\"\nkind = \"binary\"\ncommand = [\"./run\"]\n";
    let elf = crate::archives::program(1);
    let archive =
        unpack(&pack(&[file("bastide.toml", manifest.as_bytes()), file("run", &elf)])[..], dir.path())
            .unwrap();
    assert_eq!(archive.entries[Path::new("run")], Entry::File { executable: true });
    assert_eq!(archive.entries[Path::new("bastide.toml")], Entry::File { executable: false });
}

proptest! {
    #[test]
    fn no_bytes_make_the_unpacker_panic_or_leave_its_directory(bytes: Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut gz = GzBuilder::new().write(Vec::new(), Compression::fast());
        gz.write_all(&bytes).unwrap();
        let _ = unpack(&gz.finish().unwrap()[..], &root);
        let _ = unpack(&bytes[..], &root);
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
