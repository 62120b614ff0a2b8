//! How an organization looks on its pages: set by those who may, shown on all of them and only on its own.

use crate::api::{World, world};
use bastide_types::CustomerId;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

struct Scene {
    world: World,
    acme: CustomerId,
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
    fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Scene {
    async fn new() -> Self {
        let world = world().await;
        let acme = world.customer_with_stages("acme").await;
        world.customer_with_stages("beta").await;
        Self { world, acme }
    }

    async fn call(
        &self,
        role: &str,
        method: Method,
        path: &str,
        body: impl Into<axum::body::Body>,
    ) -> Answer {
        let who = self.world.assertion(self.acme, &[role]);
        read(
            self.world.answer("acme", method, &format!("/api/v1/organization{path}"), Some(&who), body).await,
        )
        .await
    }

    async fn title(&self, title: Value) -> u16 {
        let body = json!({ "title": title }).to_string();
        self.call("administrator", Method::PUT, "", body).await.status
    }

    async fn page(&self, host: &str, path: &str) -> Answer {
        read(self.world.answer_with(host, Method::GET, path, None, &[("accept", "text/html")], "").await)
            .await
    }
}

async fn read(answer: http::Response<axum::body::Body>) -> Answer {
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: head.status.as_u16(), headers: head.headers, bytes }
}

/// A PNG of this size, with no pixels that anybody could see.
fn png(width: u32, height: u32) -> Vec<u8> {
    let chunk = |kind: &[u8], content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[..], kind, content, &[0; 4]].concat()
    };
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &head)[..], &chunk(b"IDAT", b"x"), &chunk(b"IEND", b"")].concat()
}

/// Pages that need nobody to be signed in.
const PAGES: [&str; 3] = ["/identity/device", "/identity/s/development/device", "/identity/account/sessions"];

#[tokio::test]
async fn title_and_logo_are_on_all_pages_of_the_organization_and_on_no_others() {
    let scene = Scene::new().await;
    for path in PAGES {
        let page = scene.page("acme", path).await;
        assert!(
            page.status == 200 && page.text().contains("<p class=\"brand\">acme</p>"),
            "{path}: {}",
            page.text()
        );
        assert!(!page.text().contains("<img") && !page.field("content-security-policy").contains("img-src"));
    }
    assert_eq!(scene.title(json!("Käse & <b>Söhne</b> \"GmbH\"")).await, 204);
    let set = scene.call("administrator", Method::PUT, "/logo", png(64, 48)).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let (set, path) = (set.json(), set.json()["url"].as_str().unwrap().to_owned());
    assert_eq!(
        (&set["media_type"], &set["width"], &set["height"]),
        (&json!("image/png"), &json!(64), &json!(48))
    );
    let path = path.strip_prefix("https://acme.platform.localhost:8443").unwrap();
    for page_path in PAGES {
        let page = scene.page("acme", page_path).await;
        let text = page.text();
        assert!(!text.contains("<b>") && text.contains("Söhne") && text.contains("lang=\"en\""), "{text}");
        let image = &text[text.find("<img").unwrap()..];
        let image = &image[..image.find('>').unwrap()];
        assert!(
            image.contains(&format!("src=\"{path}\"")) && image.contains("width=\"64\" height=\"48\""),
            "{image}"
        );
        assert!(image.contains("alt=\"Logo of Käse"), "{image}");
        let brand = &text[text.find("<p class=\"brand\">").unwrap()..];
        assert!(brand.starts_with("<p class=\"brand\">Käse"), "the title is there as text, too");
        let policy = page.field("content-security-policy");
        assert!(policy.contains("img-src 'self';") && policy.starts_with("default-src 'none'"), "{policy}");
        assert_eq!(page.field("cache-control"), "no-store");
        let other = scene.page("beta", page_path).await;
        assert!(other.text().contains("<p class=\"brand\">beta</p>") && !other.text().contains("<img"));
    }

    // The logo itself: exactly what was uploaded, and nothing that a browser could run.
    let logo = scene.page("acme", path).await;
    assert_eq!((logo.status, &logo.bytes), (200, &png(64, 48)));
    assert_eq!(logo.field("content-type"), "image/png");
    assert_eq!(logo.field("x-content-type-options"), "nosniff");
    assert_eq!(logo.field("content-security-policy"), "default-src 'none'; sandbox");
    assert_eq!(logo.field("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(scene.page("beta", path).await.status, 404, "a logo is its organization's");
    for wrong in ["/identity/logo/x", &format!("/identity/logo/{}", "0".repeat(64)), "/identity/logo/"] {
        assert_eq!(scene.page("acme", wrong).await.status, 404, "{wrong}");
    }

    // Another one is elsewhere; the former is gone.
    let other = scene.call("administrator", Method::PUT, "/logo", png(10, 10)).await.json();
    assert_ne!(other["url"], set["url"]);
    assert_eq!(scene.page("acme", path).await.status, 404);
    assert_eq!(scene.call("developer", Method::GET, "/logo", "").await.json(), other);
    assert_eq!(scene.call("administrator", Method::DELETE, "/logo", "").await.status, 204);
    assert_eq!(scene.call("administrator", Method::DELETE, "/logo", "").await.status, 404);
    assert_eq!(scene.title(Value::Null).await, 204);
    assert_eq!(scene.call("developer", Method::GET, "", "").await.json(), json!({"name": "acme"}));
    let trail = scene.world.app.store.customer(scene.acme).audit_trail(100).await.unwrap();
    let whats: Vec<_> =
        trail.iter().filter(|row| row.outcome == "done").map(|row| row.what.as_str()).collect();
    let (title, logo) = ("organization.title", "organization.logo");
    assert_eq!(whats, [title, logo, logo, logo, title]);
    assert!(trail[0].old.as_deref().unwrap().contains("Söhne"), "{trail:?}");
}

#[tokio::test]
async fn what_is_no_title_or_logo_is_refused_and_changes_nothing() {
    let scene = Scene::new().await;
    for title in ["", " ", "a\u{0}b", "a\nb", "a\u{202e}b", &"x".repeat(61)] {
        assert_eq!(scene.title(json!(title)).await, 422, "{title:?}");
    }
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>".to_vec();
    let followed = [&png(64, 48)[..], b"<script>alert(1)</script>"].concat();
    for (logo, said) in [
        (svg, "neither PNG nor JPEG nor WebP"),
        (Vec::new(), "neither PNG nor JPEG nor WebP"),
        (b"GIF89a\x01\x00\x01\x00".to_vec(), "neither PNG nor JPEG nor WebP"),
        (followed, "something else follows it"),
        (png(0, 48), "1 to 2048 pixels"),
        (png(64, 2049), "1 to 2048 pixels"),
        (vec![0x89; 64 * 1024 + 1], "65536 are allowed"),
    ] {
        let answer = scene.call("administrator", Method::PUT, "/logo", logo).await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(answer.json()["detail"].as_str().unwrap().contains(said), "{said}: {}", answer.text());
    }
    assert_eq!(scene.call("developer", Method::PUT, "", r#"{"title":"x"}"#).await.status, 403);
    assert_eq!(scene.call("developer", Method::PUT, "/logo", png(1, 1)).await.status, 403);
    assert_eq!(scene.call("developer", Method::DELETE, "/logo", "").await.status, 403);
    assert_eq!(scene.call("developer", Method::GET, "", "").await.json(), json!({"name": "acme"}));
}

#[test]
fn every_page_has_the_same_head() {
    let templates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/identity");
    let mut pages = 0;
    for entry in std::fs::read_dir(templates).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "html") && !path.ends_with("layout.html") {
            let text = std::fs::read_to_string(&path).unwrap();
            // What stands within pages only is none itself.
            if !text.contains("{% block main %}") {
                continue;
            }
            assert!(text.starts_with("{% extends \"identity/layout.html\" %}"), "{}", path.display());
            pages += 1;
        }
    }
    assert!(pages > 8);
}
