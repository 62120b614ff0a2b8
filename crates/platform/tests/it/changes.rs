//! Publishing only what changed.

use crate::road::Road;
use aws_lc_rs::digest::{SHA256, digest};
use bastide_platform::build::{
    archive::{Earlier, Nothing, unpack, unpack_onto},
    images::Images,
};
use bastide_types::{
    Code, Digest, Problem, StageName,
    tree::{CHANGES, Changes, Tree},
};
use flate2::{Compression, write::GzEncoder};
use http::{Method, StatusCode};
use proptest::prelude::*;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

type Files = BTreeMap<String, Vec<u8>>;

const PUBLISH: &str = "/api/v1/apps/shop/publish";

fn sha(bytes: &[u8]) -> Digest {
    Digest::from_sha256(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

/// Packs files, after what the upload leaves away.
fn packed(changes: Option<&[u8]>, files: &Files) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    if let Some(changes) = changes {
        add(CHANGES, changes);
    }
    for (path, bytes) in files {
        add(path, bytes);
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// What these files are, by content.
fn tree(files: &Files) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    unpack(&packed(None, files)[..], dir.path()).unwrap().tree
}

/// The upload that makes `new` of `old`.
fn between(old: &Files, new: &Files) -> Vec<u8> {
    let (base, wanted) = (tree(old), tree(new));
    let changes =
        Changes { base: sha(&base.text()), tree: sha(&wanted.text()), without: base.without(&wanted) };
    let fresh = wanted.without(&base);
    let news = new.iter().filter(|(path, _)| fresh.contains(*path)).map(|(p, b)| (p.clone(), b.clone()));
    packed(Some(&serde_json::to_vec(&changes).unwrap()), &news.collect())
}

fn site(more: &[(&str, &[u8])]) -> Files {
    let manifest =
        b"[app]\nname = \"shop\"\nkind = \"static\"\n\n[[route]]\npath = \"/\"\naccess = \"public\"\n";
    let mut files: Files = more.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
    files.insert("bastide.toml".into(), manifest.to_vec());
    files
}

/// Bytes that nothing makes shorter.
fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut made = Vec::new();
    let mut last = sha(&[seed]);
    while made.len() < bytes {
        made.extend(last.as_bytes());
        last = sha(last.as_bytes());
    }
    made.truncate(bytes);
    made
}

struct Shop(Road);

impl Shop {
    async fn new() -> Self {
        Self(Road::in_world(crate::api::world().await).await)
    }

    async fn publish(&self, body: Vec<u8>) -> (StatusCode, Value) {
        let outcome = self.0.call(Method::POST, PUBLISH, body).await;
        if outcome.0 == StatusCode::ACCEPTED {
            self.0.all_ready(&StageName::development()).await;
        }
        outcome
    }

    async fn refused(&self, body: Vec<u8>) {
        let (status, problem) = self.publish(body).await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("B-BUILD-0409")), "{problem}");
    }
}

#[tokio::test]
async fn after_one_changed_file_that_file_travels_and_less_than_ten_kilobytes() {
    let shop = Shop::new().await;
    let mut old = site(&[]);
    for number in 0..600_u16 {
        old.insert(format!("assets/{}/{number}.js", number % 50), noise(number as u8, 300));
    }
    let (status, first) = shop.publish(packed(None, &old)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    let mut new = old.clone();
    let changed = noise(77, 100_000);
    new.insert("assets/7/7.js".into(), changed.clone());
    let small = between(&old, &new);
    assert!(small.len() <= changed.len() + 10 * 1024, "{} bytes", small.len());
    let (status, second) = shop.publish(small).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{second}");
    assert_ne!(first["image"], second["image"]);
    // The same as if everything had travelled.
    let (_, whole) = shop.publish(packed(None, &new)).await;
    assert_eq!(whole["image"], second["image"]);
    // Whoever remembers nothing asks.
    let (status, content) = shop.0.call(Method::GET, "/api/v1/apps/shop/content", "").await;
    assert_eq!(status, StatusCode::OK, "{content}");
    let known: Tree = serde_json::from_value(content["files"].clone()).unwrap();
    assert_eq!(known, tree(&new));
}

#[tokio::test]
async fn what_is_not_there_damaged_or_somebody_elses_is_asked_for_again() {
    let shop = Shop::new().await;
    let old = site(&[("index.html", b"one"), ("style.css", b"two")]);
    let new = site(&[("index.html", b"three"), ("style.css", b"two")]);
    shop.refused(between(&old, &new)).await;
    assert_eq!(shop.publish(packed(None, &old)).await.0, StatusCode::ACCEPTED);
    // Another outcome than the upload says.
    let mut lie: Changes = Changes { base: sha(&tree(&old).text()), tree: sha(b"x"), without: [].into() };
    shop.refused(packed(Some(&serde_json::to_vec(&lie).unwrap()), &Files::new())).await;
    lie.base = sha(b"y");
    shop.refused(packed(Some(&serde_json::to_vec(&lie).unwrap()), &Files::new())).await;
    for junk in [&b"{"[..], b"[]", b"{\"base\":1}"] {
        let (status, problem) = shop.publish(packed(Some(junk), &old)).await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (422, Some("B-BUILD-0423")), "{problem}");
    }
    // Another customer knows the digests, and gets nothing by them.
    let world = &shop.0.world;
    let beta = world.app.store.customer_named(&bastide_types::CustomerName::new("beta").unwrap()).await;
    let bob = world.assertion(beta.unwrap().unwrap().id, &["developer"]);
    let (status, problem) = world.call("beta", Method::POST, PUBLISH, Some(&bob), between(&old, &new)).await;
    assert_eq!((status.as_u16(), problem.contains("B-BUILD-0409")), (409, true), "{problem}");
    let (status, _) = world.call("beta", Method::GET, "/api/v1/apps/shop/content", Some(&bob), "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // A disk that lost a bit.
    let style = find(&world.at("images/content"), &sha(b"two").hex());
    fs::write(&style, b"tw0").unwrap();
    shop.refused(between(&old, &new)).await;
    assert!(!style.exists(), "it is not believed again");
    assert_eq!(shop.publish(packed(None, &new)).await.0, StatusCode::ACCEPTED);
    assert_eq!(
        shop.publish(between(&new, &old)).await.0,
        StatusCode::ACCEPTED,
        "what came whole is known again"
    );
}

fn find(dir: &Path, name: &str) -> PathBuf {
    let entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let here = entries.iter().find(|path| path.file_name().unwrap() == name).cloned();
    here.or_else(|| {
        let dirs = entries.iter().filter(|path| path.is_dir());
        dirs.map(|dir| find(dir, name)).find(|path| path.exists())
    })
    .unwrap_or_default()
}

/// What was unpacked before, kept as it lies there.
struct Before {
    tree: Tree,
    root: PathBuf,
}

impl Earlier for Before {
    fn tree(&self, name: &Digest) -> Result<Tree, Problem> {
        if *name == sha(&self.tree.text()) {
            Ok(self.tree.clone())
        } else {
            Err(Code::ContentUnknown.problem())
        }
    }
    fn lay(&self, content: &Digest, to: &Path) -> Result<(), Problem> {
        let has = |(path, file): (&String, &Option<bastide_types::tree::TreeFile>)| {
            file.as_ref().filter(|file| file.digest == *content).map(|_| self.root.join(path))
        };
        let from = self.tree.0.iter().find_map(has).ok_or_else(|| Code::ContentUnknown.problem())?;
        fs::copy(from, to).map(drop).map_err(|_| Code::Internal.problem())
    }
}

fn files() -> impl Strategy<Value = Files> {
    let path = "[ab](/[ab]){0,2}\\.[xy]";
    proptest::collection::btree_map(path, proptest::collection::vec(any::<u8>(), 0..20), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn changes_make_the_same_image_as_the_whole(old in files(), new in files()) {
        let with = |files: Files| {
            let mut all = site(&[]);
            all.extend(files);
            all
        };
        let (old, new) = (with(old), with(new));
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (before, onto, whole) = (place("before"), place("onto"), place("whole"));
        let tree = unpack(&packed(None, &old)[..], &before).unwrap().tree;
        let by_changes =
            unpack_onto(&between(&old, &new)[..], &onto, &Before { tree, root: before }).unwrap();
        let all = unpack(&packed(None, &new)[..], &whole).unwrap();
        prop_assert_eq!(&by_changes.entries, &all.entries);
        let images = Images::open(&dir.path().join("images")).unwrap();
        prop_assert_eq!(images.build(&by_changes, &onto).unwrap(), images.build(&all, &whole).unwrap());
    }

    #[test]
    fn no_text_about_changes_makes_the_unpacker_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let _ = unpack_onto(&packed(Some(&text), &Files::new())[..], dir.path(), &Nothing);
    }
}
