//! A request as both engines get it, and the answer to it.

/// One request and the answer of an app that means no harm.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: Vec<u8>,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// What every app answers here.
pub const STATUS: u16 = 200;
/// Its page.
pub const PAGE: &[u8] = b"<!doctype html><html><head><title>A page</title></head><body><p>Words and more words.</p></body></html>";
/// The version of HTTP of all requests.
pub const VERSION: &str = "HTTP/1.1";

impl Request {
    /// A browser's request without a body.
    pub fn get(target: impl Into<Vec<u8>>) -> Self {
        Self { method: "GET".into(), target: target.into(), fields: browser(), body: Vec::new() }
    }

    /// A browser's request with a body of this kind.
    pub fn post(target: &str, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let mut fields = browser();
        fields.push(("Content-Type".into(), kind.into()));
        fields.push(("Content-Length".into(), body.len().to_string().into_bytes()));
        Self { method: "POST".into(), target: target.into(), fields, body }
    }
}

/// Eight fields, three cookies in one of them.
fn browser() -> Vec<(String, Vec<u8>)> {
    [
        ("Host", "shop.example.com"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "en-US,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Referer", "https://shop.example.com/catalogue/shoes"),
        ("Connection", "keep-alive"),
        ("Cookie", "session=4f2c9a17d0b84e6f; theme=dark; seen=banner-2026-11"),
    ]
    .map(|(name, value)| (name.to_owned(), value.into()))
    .into()
}
