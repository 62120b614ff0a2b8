//! Images that were built elsewhere: uploaded or pulled, checked, and kept with the digest that they have.

use crate::{
    api::{world_of, world_with},
    archives::Packed,
    made::{Image, Layer, digest},
    road::{Road, text},
};
use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use bastide_bus::PlatformHandler;
use bastide_platform::config::Registry;
use bastide_types::{Digest, StageName};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    sync::{Arc, Mutex},
};

const TOKEN: &str = "a-token";

/// A registry on loopback with the images that it was given.
#[derive(Clone)]
struct Shelf {
    host: String,
    blobs: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Shelf {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let shelf = Self { host, blobs: Arc::default(), asked: Arc::default() };
        let router = Router::new()
            .route("/token", get(Self::token))
            .route("/v2/team/shop/{kind}/{digest}", get(Self::content))
            .route("/store/{digest}", get(Self::stored))
            .with_state(shelf.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        shelf
    }

    fn put(&self, content: &[u8]) -> Digest {
        self.blobs.lock().unwrap().insert(digest(content).to_string(), content.to_vec());
        digest(content)
    }

    fn put_image(&self, image: &Image) -> Digest {
        for blob in image.blobs() {
            self.put(blob);
        }
        image.digest()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    async fn token(uri: http::Uri) -> Response {
        let query = uri.query().unwrap_or_default();
        assert_eq!(query, "scope=repository%3Ateam%2Fshop%3Apull&service=shelf");
        axum::Json(json!({ "token": TOKEN })).into_response()
    }

    async fn content(
        State(shelf): State<Self>,
        Path((kind, name)): Path<(String, String)>,
        headers: HeaderMap,
    ) -> Response {
        shelf.asked.lock().unwrap().push(format!("{kind} {}", &name[7..19]));
        if headers.get(header::AUTHORIZATION).is_none_or(|value| value != &format!("Bearer {TOKEN}")) {
            let challenge = format!(r#"Bearer realm="http://{}/token",service="shelf""#, shelf.host);
            return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
        }
        match (kind.as_str(), shelf.blobs.lock().unwrap().get(&name)) {
            (_, None) => StatusCode::NOT_FOUND.into_response(),
            ("manifests", Some(content)) => content.clone().into_response(),
            // Blobs lie elsewhere: under another name that no token is for.
            _ => {
                let port = shelf.host.rsplit_once(':').unwrap().1;
                Redirect::temporary(&format!("http://localhost:{port}/store/{name}")).into_response()
            }
        }
    }

    async fn stored(State(shelf): State<Self>, Path(name): Path<String>, headers: HeaderMap) -> Response {
        assert!(!headers.contains_key(header::AUTHORIZATION), "the token is for the registry alone");
        let content = shelf.blobs.lock().unwrap().get(&name).cloned();
        content.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
    }

    /// A world whose operator named this registry, and the store of its blobs.
    async fn road(&self) -> Road {
        let port = self.host.rsplit_once(':').unwrap().1;
        let named = |host: String| Registry {
            host,
            plain_http: true,
            ca_file: None,
            username: None,
            password_file: None,
        };
        let registries = vec![named(self.host.clone()), named(format!("localhost:{port}"))];
        Road::in_world(world_of(|config| config.registries = registries).await).await
    }

    fn reference(&self, digest: &Digest) -> String {
        format!("{}/team/shop@{digest}", self.host)
    }
}

fn toml(image: &str, more: &str) -> String {
    format!("[app]\nname = \"shop\"\nkind = \"image\"\nimage = \"{image}\"\n{more}")
}

async fn publish(road: &Road, archive: Packed) -> (StatusCode, Value) {
    road.call(Method::POST, "/api/v1/apps/shop/publish", archive.gz()).await
}

async fn publish_reference(road: &Road, reference: &str) -> (StatusCode, Value) {
    publish(road, Packed::new().file("bastide.toml", toml(reference, "").as_bytes())).await
}

/// Every file that the Build Service keeps.
fn kept(road: &Road) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for dir in ["images/blobs/sha256", "images/pulls", "work"] {
        for entry in fs::read_dir(road.world.at(dir)).into_iter().flatten().flatten() {
            all.insert(entry.path().display().to_string());
        }
    }
    all
}

#[tokio::test]
async fn an_uploaded_image_keeps_its_digest_through_the_stages_and_says_how_it_runs() {
    let road = Road::in_world(world_with(60).await).await;
    let image = Image::small();
    let mut archive = Packed::new().file("bastide.toml", toml("./oci", "[env]\nA = \"1\"\n").as_bytes());
    for (name, content) in image.layout() {
        archive = archive.named(&format!("oci/{name}"), &content);
    }
    let (status, begun) = publish(&road, archive).await;
    assert_eq!(
        (status, text(&begun["image"])),
        (StatusCode::ACCEPTED, image.digest().to_string()),
        "{begun}"
    );
    let development = StageName::development();
    let desired = road.desired(&development).await;
    let app = &desired.replicas[0].manifest;
    assert_eq!(
        (app.app.command.clone(), app.port(), app.env["A"].as_str()),
        (vec!["app".to_owned()], 3000, "1")
    );
    // The stage may read all that it needs, and gets what was uploaded.
    let account = road.stage("acme", &development).await.account;
    for blob in image.blobs() {
        let (read, _) = road.services.blob(&account, &digest(blob), 0, 1 << 20).await.unwrap();
        assert_eq!(read, blob);
    }
    road.all_ready(&development).await;
    let (_, promoted) = road.promote("test").await;
    assert_eq!(text(&promoted["image"]), image.digest().to_string());
    assert_eq!(road.desired(&StageName::test()).await.replicas[0].manifest, *app);
}

#[tokio::test]
async fn an_archive_is_taken_like_a_layout() {
    let road = Road::in_world(world_with(60).await).await;
    let image = Image::small();
    let tar =
        image.layout().iter().fold(Layer::default(), |tar, (name, content)| tar.file(name, content)).tar();
    let archive = Packed::new().file("bastide.toml", toml("shop.tar", "").as_bytes()).file("shop.tar", &tar);
    let (status, begun) = publish(&road, archive).await;
    assert_eq!(
        (status, text(&begun["image"])),
        (StatusCode::ACCEPTED, image.digest().to_string()),
        "{begun}"
    );
}

#[tokio::test]
async fn an_image_that_is_not_acceptable_is_refused_and_leaves_nothing() {
    let road = Road::in_world(world_with(60).await).await;
    let before = kept(&road);
    let refused = async |files: &[(String, Vec<u8>)], source: &str, code: &str, says: &str| {
        let archive = files.iter().fold(
            Packed::new().file("bastide.toml", toml(source, "").as_bytes()),
            |archive, (name, content)| archive.named(&format!("oci/{name}"), content),
        );
        let (status, problem) = publish(&road, archive).await;
        assert!(status.is_client_error(), "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert!(problem["detail"].as_str().unwrap_or_default().contains(says), "{problem}");
        assert_eq!(kept(&road), before);
    };
    let evil = Layer::default().link("out", "/").file("out/../../x", b"x");
    let evil = Image::new(vec![(evil.gz(), evil.tar())], json!({"Cmd": ["app"]}));
    refused(&evil.layout(), "oci", "B-BUILD-0425", "leads out of the image").await;
    let mut damaged = Image::small().layout();
    damaged[4].1.push(0);
    refused(&damaged, "oci", "B-BUILD-0425", "another digest").await;
    refused(&Image::small().layout(), "nothing.tar", "B-BUILD-0425", "not there").await;
    refused(&[], "nginx:1.27", "B-BUILD-0422", "pinned by digest").await;
    refused(&[], "../../etc", "B-BUILD-0422", "beside bastide.toml").await;
    assert_eq!(road.call(Method::GET, "/api/v1/apps", "").await.1, json!([]));
}

#[tokio::test]
async fn an_image_is_pulled_by_digest_with_the_token_that_the_registry_wants() {
    let shelf = Shelf::open().await;
    let road = shelf.road().await;
    let image = Image::small();
    shelf.put_image(&image);
    let platform = format!("linux/{}", bastide_image::architecture());
    let index = shelf.put(&image.index(Some(&platform)));
    let (status, begun) = publish_reference(&road, &shelf.reference(&index)).await;
    assert_eq!(
        (status, text(&begun["image"])),
        (StatusCode::ACCEPTED, image.digest().to_string()),
        "{begun}"
    );
    // Index twice (without and with the token), manifest, configuration, two layers.
    assert_eq!(shelf.asked().len(), 6);
    let blobs = road.world.at("images/blobs/sha256");
    for blob in image.blobs() {
        assert_eq!(fs::read(blobs.join(digest(blob).hex())).unwrap(), blob);
    }
    assert_eq!(
        fs::read_dir(fs::read_dir(road.world.at("images/pulls")).unwrap().next().unwrap().unwrap().path())
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_registry_that_gives_something_else_is_not_believed() {
    let shelf = Shelf::open().await;
    let road = shelf.road().await;
    let image = Image::small();
    let refused = async |reference: String, code: &str, says: &str| {
        let (status, problem) = publish_reference(&road, &reference).await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (422, Some(code)), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    };
    refused(shelf.reference(&image.digest()), "B-BUILD-0426", "404").await;
    shelf.put_image(&image);
    let named = image.digest().to_string();
    let swap = |name: &str, content: &[u8]| {
        let blobs = &mut shelf.blobs.lock().unwrap();
        blobs.insert(name.to_owned(), content.to_vec()).unwrap()
    };
    let manifest = swap(&named, Image::new(vec![], Value::Null).manifest.as_slice());
    refused(shelf.reference(&image.digest()), "B-BUILD-0425", "another digest").await;
    swap(&named, &manifest);
    let layer = digest(&image.layers[1]).to_string();
    let content = swap(&layer, b"short");
    refused(shelf.reference(&image.digest()), "B-BUILD-0425", "another digest").await;
    // Longer than the manifest says: it is not read to its end.
    swap(&layer, &vec![0; 1 << 20]);
    let (_, problem) = publish_reference(&road, &shelf.reference(&image.digest())).await;
    assert_eq!(problem["code"], "B-BUILD-0413", "{problem}");
    // What came right is not pulled again.
    swap(&layer, &content);
    shelf.asked();
    let (status, begun) = publish_reference(&road, &shelf.reference(&image.digest())).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    assert_eq!(shelf.asked(), [format!("blobs {}", &layer[7..19]), format!("blobs {}", &layer[7..19])]);
}

#[tokio::test]
async fn a_registry_in_the_platforms_own_network_is_not_asked() {
    let shelf = Shelf::open().await;
    let image = Image::small();
    shelf.put_image(&image);
    let road = Road::in_world(world_with(60).await).await;
    for host in [shelf.host.clone(), shelf.host.replace("127.0.0.1", "localhost"), "169.254.169.254".into()] {
        let (_, problem) = publish_reference(&road, &format!("{host}/team/shop@{}", image.digest())).await;
        assert_eq!(problem["code"], "B-BUILD-0426", "{problem}");
        assert!(text(&problem["detail"]).contains("not on the public internet"), "{problem}");
    }
    assert!(shelf.asked().is_empty());
}
