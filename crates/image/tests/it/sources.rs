//! Images from layouts and archives: all ways lead to the same blobs, and what cannot run here is said so.

use crate::made::{Image, Layer, digest, gz, program};
use bastide_image::{Blobs, Checked, Error, Limits, check, collect};
use bastide_types::{Digest, Manifest};
use serde_json::{Value, json};
use std::{fs, path::Path};

struct Taken {
    image: Digest,
    checked: Checked,
    app: Manifest,
}

fn app() -> Manifest {
    serde_json::from_str(r#"{"app":{"name":"shop","kind":"image","image":"x"}}"#).unwrap()
}

fn take(source: &Path) -> Result<Taken, Error> {
    take_as(source, app())
}

fn take_as(source: &Path, mut app: Manifest) -> Result<Taken, Error> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    let blobs = Blobs::new(dir.path().join("blobs")).unwrap();
    let limits = Limits { bytes_max: 4 * 1024 * 1024, ..Limits::default() };
    let image = collect(source, &blobs, &limits)?;
    let checked = check(&blobs, &image, &limits, &dir.path().join("root"), &mut app)?;
    for blob in &checked.blobs {
        assert_eq!(digest(&fs::read(blobs.path(blob)).unwrap()), *blob);
    }
    Ok(Taken { image, checked, app })
}

fn layout(files: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    files.iter().fold(Layer::default(), |tar, (name, content)| tar.file(name, content)).tar()
}

fn file(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn refused(outcome: Result<Taken, Error>, says: &str) {
    match outcome {
        Ok(taken) => panic!("{} was taken, and should not because: {says}", taken.image),
        Err(error) => assert!(error.to_string().contains(says), "{error} does not say {says}"),
    }
}

#[test]
fn a_layout_and_its_archive_are_the_same_image_with_the_digest_that_it_had() {
    let image = Image::small();
    let dir = layout(&image.layout());
    let (_held, plain) = file(&archive(&image.layout()));
    let (_held, packed) = file(&gz(&archive(&image.layout())));
    for source in [dir.path(), &plain, &packed] {
        let taken = take(source).unwrap();
        assert_eq!(taken.image, image.digest());
        assert_eq!(taken.checked.blobs, image.blobs().into_iter().map(digest).collect::<Vec<_>>());
        assert_eq!((taken.app.app.command, taken.app.app.port), (vec!["app".into()], Some(3000)));
    }
}

fn saved(image: &Image, config: &str, layers: &[&str], more: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    let manifest = json!([{"Config": config, "RepoTags": ["shop:latest"], "Layers": layers}]);
    let mut files = vec![
        ("manifest.json".to_owned(), manifest.to_string().into_bytes()),
        (config.to_owned(), image.config.clone()),
    ];
    files.extend(more.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())));
    files
}

#[test]
fn an_archive_of_docker_save_is_taken_in_its_old_and_its_new_form() {
    let layer = Layer::default().program("app", &program()).tar();
    let image = Image::new(vec![(layer.clone(), layer.clone())], json!({"Entrypoint": ["/app"]}));
    let (_held, source) =
        file(&archive(&saved(&image, "c.json", &["one/layer.tar"], &[("one/layer.tar", &layer)])));
    let first = take(&source).unwrap();
    assert_eq!(first.checked.blobs.len(), 3);
    assert_eq!(take(&source).unwrap().image, first.image, "the same archive is the same image");
    // The new form is an OCI layout beside it, and that counts.
    let both = [image.layout(), saved(&image, "c.json", &["x"], &[])].concat();
    let (_held, source) = file(&archive(&both));
    assert_eq!(take(&source).unwrap().image, image.digest());
    // The same layer twice is a link in the archive.
    let image = Image::new(
        vec![(layer.clone(), layer.clone()), (layer.clone(), layer.clone())],
        json!({"Cmd": ["/app"]}),
    );
    let files = saved(&image, "c.json", &["one/layer.tar", "two/layer.tar"], &[("one/layer.tar", &layer)]);
    let tar = files.iter().fold(Layer::default(), |tar, (name, content)| tar.file(name, content));
    let (_held, source) = file(&tar.clone().link("two/layer.tar", "../one/layer.tar").tar());
    assert_eq!(take(&source).unwrap().checked.blobs.len(), 4);
    // A link that leads out of the archive, or in a circle, is nothing.
    for target in ["../../../../etc/passwd", "/etc/passwd", "layer.tar", "../two/layer.tar"] {
        let (_held, source) = file(&tar.clone().link("two/layer.tar", target).tar());
        refused(take(&source), "`two/layer.tar` is missing");
    }
    let two = json!([{"Config": "a", "Layers": []}, {"Config": "b", "Layers": []}]);
    let (_held, source) = file(&Layer::default().file("manifest.json", two.to_string().as_bytes()).tar());
    refused(take(&source), "holds 2 images");
}

#[test]
fn of_an_index_the_image_for_this_machine_is_taken() {
    let (ours, other) = (Image::small(), Image::new(vec![], Value::Null));
    let platform = format!("linux/{}", bastide_image::architecture());
    let entry = |image: &Image, platform: &str| {
        serde_json::from_slice::<Value>(&image.index(Some(platform))).unwrap()["manifests"][0].clone()
    };
    let inner =
        json!({"schemaVersion": 2, "manifests": [entry(&other, "linux/riscv64"), entry(&ours, &platform)]})
            .to_string();
    let outer = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(inner.as_bytes()).to_string(), "size": inner.len(),
    }]});
    let mut files = ours.layout();
    files[1].1 = outer.to_string().into_bytes();
    files.push((format!("blobs/sha256/{}", digest(inner.as_bytes()).hex()), inner.clone().into_bytes()));
    assert_eq!(take(layout(&files).path()).unwrap().image, ours.digest());
    files[1].1 = other.index(Some("linux/riscv64"));
    refused(take(layout(&files).path()), "only for: linux/riscv64");
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let image = Image::small();
    for (number, says) in
        [(2, "another digest"), (3, "another digest"), (4, "another digest"), (5, "another digest")]
    {
        let mut files = image.layout();
        files[number].1.push(b' ');
        refused(take(layout(&files).path()), says);
        files.remove(number);
        refused(take(layout(&files).path()), "missing");
    }
    // A layer that is whole, but not the one that the configuration describes.
    let (one, two) = (Layer::default().program("app", &program()), Layer::default().file("x", b"x"));
    let swapped = Image::new(vec![(one.gz(), two.tar())], json!({"Cmd": ["/app"]}));
    refused(take(layout(&swapped.layout()).path()), "does not hold what its configuration says");
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let with = |change: fn(&mut Value)| {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        let manifest = manifest.to_string().into_bytes();
        let mut files = image.layout();
        let name = format!("blobs/sha256/{}", digest(&manifest).hex());
        let entry = json!({"digest": digest(&manifest).to_string(), "size": manifest.len()});
        files[1].1 = json!({"manifests": [entry]}).to_string().into_bytes();
        files.push((name, manifest));
        take(layout(&files).path())
    };
    with(|_| {}).unwrap();
    refused(with(|m| m["layers"][0]["size"] = 1.into()), "not as long");
    refused(with(|m| drop(m["layers"].as_array_mut().unwrap().pop())), "different numbers");
    refused(with(|m| m["layers"] = json!([])), "no layers");
    refused(with(|m| m["manifests"] = json!([])), "nothing is both");
}

#[test]
fn an_image_that_cannot_run_here_is_refused_with_the_reason() {
    let built = |layer: Layer, execution: Value| {
        let image = Image::new(vec![(layer.gz(), layer.tar())], execution);
        take(layout(&image.layout()).path())
    };
    let run = |layer: Layer, command: &str| built(layer, json!({"Cmd": [command]}));
    let l = Layer::default;
    run(l().program("bin/app", &program()), "app").unwrap();
    run(l().program("bin/app", &program()).link("app", "/bin/app"), "/app").unwrap();
    run(l().program("opt/x/app", &program()).link("bin", "opt/x"), "app").unwrap();
    built(l().program("srv/app", &program()), json!({"Cmd": ["./app"], "WorkingDir": "/srv"})).unwrap();
    built(l().program("x/app", &program()), json!({"Cmd": ["app"], "Env": ["PATH=/x"]})).unwrap();
    refused(
        built(l().program("bin/app", &program()), json!({"Cmd": ["app"], "Env": ["PATH=/x"]})),
        "is not there",
    );
    refused(run(l().program("other", &program()), "app"), "in no directory of its PATH");
    refused(run(l().file("app", &program()), "/app"), "not an executable file");
    refused(run(l().dir("app"), "/app"), "not an executable file");
    refused(run(l().link("app", "/bin/sh"), "/app"), "is not there");
    refused(run(l().program("app", b"MZ"), "/app"), "not an ELF program");
    let mut foreign = program();
    foreign[18] = 40;
    refused(run(l().program("app", &foreign), "/app"), "not for 64-bit");
    let mut dynamic = program();
    dynamic[64] = 3;
    dynamic[72..80].copy_from_slice(&200u64.to_le_bytes());
    dynamic[96..104].copy_from_slice(&11u64.to_le_bytes());
    dynamic[200..211].copy_from_slice(b"/lib/ld.so\0");
    refused(run(l().program("app", &dynamic), "/app"), "needs `/lib/ld.so`, which is not in the image");
    run(l().program("app", &dynamic).file("usr/lib/ld.so", b"x").link("lib", "usr/lib"), "/app").unwrap();
    refused(run(l().program("app", b"#!/bin/sh\necho"), "/app"), "needs `/bin/sh`");
    run(l().program("app", b"#! /bin/sh -e\necho").program("bin/sh", &program()), "/app").unwrap();
    refused(built(l().program("app", &program()), json!({})), "set app.command");
    let own: Manifest = serde_json::from_str(
        r#"{"app":{"name":"shop","kind":"image","image":"x","command":["/app","serve"]}}"#,
    )
    .unwrap();
    let image = Image::new(
        vec![(l().program("app", &program()).tar(), l().program("app", &program()).tar())],
        json!({}),
    );
    assert_eq!(take_as(layout(&image.layout()).path(), own).unwrap().app.app.command, ["/app", "serve"]);
    // For another machine, said only by the configuration.
    let config =
        String::from_utf8(Image::small().config).unwrap().replace(bastide_image::architecture(), "s390x");
    let small = Image::small();
    let mut manifest: Value = serde_json::from_slice(&small.manifest).unwrap();
    manifest["config"]["digest"] = digest(config.as_bytes()).to_string().into();
    let moved = Image {
        manifest: manifest.to_string().into_bytes(),
        config: config.into_bytes(),
        layers: small.layers,
    };
    refused(take(layout(&moved.layout()).path()), "was made for linux/s390x");
    // An evil layer is named with its fault.
    refused(run(l().program("app", &program()).file("../x", b""), "/app"), "leads out of the image");
}

#[test]
fn what_is_no_image_is_refused() {
    let (_held, source) = file(&Layer::default().file("x", b"1").tar());
    refused(take(&source), "neither an OCI archive");
    for bytes in [&b"no archive"[..], b"", &gz(b"no archive")] {
        let (_held, source) = file(bytes);
        assert!(take(&source).is_err());
    }
    let dir = tempfile::tempdir().unwrap();
    refused(take(dir.path()), "`index.json` is missing");
    refused(take(&dir.path().join("none")), "not there");
    std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
    refused(take(&dir.path().join("link")), "neither a file nor a directory");
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("index.json")).unwrap();
    refused(take(dir.path()), "`index.json` is missing");
    let bomb = vec![0; 1 << 20];
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    (0..20).for_each(|_| std::io::Write::write_all(&mut packer, &bomb).unwrap());
    let (_held, source) = file(&packer.finish().unwrap());
    refused(take(&source), "too much");
}
