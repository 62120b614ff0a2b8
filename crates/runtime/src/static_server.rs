//! The file server of static apps: GET and HEAD of plain files below one directory.
//!
//! No dotfiles, no links, no listing. Small files are read whole; validators let browsers and the edge's
//! cache ask again cheaply.

use bastide_proxy::{Body, Limits, Listener, RefusedHead, Request, Response, Service, serve};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use std::{
    fs::{File, Metadata},
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio_util::sync::CancellationToken;

/// Files up to this size are read in one go; larger ones are streamed.
const WHOLE_BYTES_MAX: u64 = 256 * 1024;
const PIECE_BYTES: usize = 64 * 1024;

/// Serves `root` on `listen` until `stop`.
pub async fn run(root: PathBuf, listen: SocketAddr, stop: CancellationToken) -> std::io::Result<()> {
    let tcp = std::net::TcpListener::bind(listen)?;
    let root = root.canonicalize()?;
    serve(Listener::new(tcp, None, Limits::default()), Arc::new(Files { root }), stop).await
}

struct Files {
    root: PathBuf,
}

impl Service for Files {
    async fn call(&self, request: Request) -> Response {
        let (head, _) = request.into_parts();
        if head.method != Method::GET && head.method != Method::HEAD {
            let mut response = say(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are served.");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let Some(path) = locate(&self.root, head.uri.path()) else { return not_found() };
        match tokio::task::spawn_blocking(move || Found::open(path)).await {
            Ok(Some(found)) => found.answer(&head.headers),
            _ => not_found(),
        }
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        say(head.status, "This is not valid HTTP.")
    }
}

/// The file of a request path, by name alone: every segment is a plain name that begins with no dot.
fn locate(root: &Path, path: &str) -> Option<PathBuf> {
    let mut file = root.to_owned();
    let (dirs, last) = path.strip_prefix('/')?.rsplit_once('/').unwrap_or(("", path.strip_prefix('/')?));
    for segment in dirs.split('/').filter(|segment| !segment.is_empty()) {
        file.push(plain(segment)?);
    }
    file.push(if last.is_empty() { "index.html".to_owned() } else { plain(last)? });
    Some(file)
}

/// A segment decoded; `None` when it could mean anything but a plain name.
fn plain(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| char::from(b?).to_digit(16);
            let value = digit(rest.next())? << 4 | digit(rest.next())?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    let safe = !name.starts_with('.') && !name.contains(['/', '\\', '\0']) && name != "bastide.toml";
    safe.then_some(name)
}

struct Found {
    file: File,
    meta: Metadata,
    path: PathBuf,
    whole: Option<Bytes>,
}

impl Found {
    fn open(path: PathBuf) -> Option<Self> {
        // No part of the way may be a link: an image holds none, and nothing may be smuggled in later.
        let meta = std::fs::symlink_metadata(&path).ok()?;
        if meta.is_dir() || !meta.is_file() || path.canonicalize().ok()? != path {
            return None;
        }
        let mut file = File::open(&path).ok()?;
        let whole = if meta.len() <= WHOLE_BYTES_MAX {
            let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).ok()?);
            file.by_ref().take(meta.len()).read_to_end(&mut bytes).ok()?;
            Some(bytes.into())
        } else {
            None
        };
        Some(Self { file, meta, path, whole })
    }

    fn answer(self, asked: &HeaderMap) -> Response {
        let modified = self.meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let nanos = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let etag = format!("\"{:x}-{nanos:x}\"", self.meta.len());
        let mut headers = HeaderMap::new();
        let mut set = |name: header::HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        let kind = kind(&self.path);
        set(header::CONTENT_TYPE, kind);
        set(header::ETAG, &etag);
        set(header::LAST_MODIFIED, &httpdate_of(modified));
        // Pages change with each publish; what they refer to is fetched again with a new revision anyway.
        set(
            header::CACHE_CONTROL,
            if kind.starts_with("text/html") { "public, max-age=10" } else { "public, max-age=3600" },
        );
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if unchanged(asked, &etag) {
            headers.remove(header::CONTENT_TYPE);
            return respond(StatusCode::NOT_MODIFIED, headers, Body::empty());
        }
        set_length(&mut headers, self.meta.len());
        let body = match self.whole {
            Some(bytes) => Body::full(bytes),
            None => stream(self.file, self.meta.len()),
        };
        respond(StatusCode::OK, headers, body)
    }
}

fn unchanged(asked: &HeaderMap, etag: &str) -> bool {
    let Some(tags) = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    tags.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}

fn set_length(headers: &mut HeaderMap, length: u64) {
    headers.insert(header::CONTENT_LENGTH, length.into());
}

fn stream(file: File, length: u64) -> Body {
    let start = (file, length);
    let pieces = futures_util::stream::unfold(start, |(mut file, left)| async move {
        if left == 0 {
            return None;
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
            file.read(&mut piece).map(|read| {
                piece.truncate(read);
                (file, piece)
            })
        });
        match read.await {
            Ok(Ok((file, piece))) if !piece.is_empty() => {
                let left = left.saturating_sub(piece.len() as u64);
                Some((Ok(Frame::data(Bytes::from(piece))), (file, left)))
            }
            // A file that became shorter: the client must see a broken end.
            _ => None,
        }
    });
    Body::stream(http_body_util::StreamBody::new(Box::pin(pieces)))
}

fn kind(path: &Path) -> &'static str {
    match path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "txt" | "md" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

/// IMF-fixdate (RFC 9110 §5.6.7).
fn httpdate_of(when: SystemTime) -> String {
    let when = time::OffsetDateTime::from(when);
    let day = &when.weekday().to_string()[..3];
    let month = &when.month().to_string()[..3];
    format!(
        "{day}, {:02} {month} {} {:02}:{:02}:{:02} GMT",
        when.day(),
        when.year(),
        when.hour(),
        when.minute(),
        when.second()
    )
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn say(status: StatusCode, text: &str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    respond(status, headers, Body::from(format!("{text}\n")))
}

fn not_found() -> Response {
    say(StatusCode::NOT_FOUND, "There is no such file.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("css")).unwrap();
        for (name, text) in [
            ("index.html", "<p>hi"),
            ("css/a.css", "a{}"),
            (".secret", "s"),
            ("bastide.toml", "x"),
            ("a b.txt", "ab"),
        ] {
            std::fs::write(root.join(name), text).unwrap();
        }
        std::fs::write(dir.path().join("outside"), "o").unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), root.join("link")).unwrap();
        let root = root.canonicalize().unwrap();
        (dir, Files { root })
    }

    async fn get(files: &Files, path: &str, tag: Option<&str>) -> Response {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        if let Some(tag) = tag {
            request.headers_mut().insert(header::IF_NONE_MATCH, tag.parse().unwrap());
        }
        files.call(request).await
    }

    #[tokio::test]
    async fn plain_files_are_served_with_their_kind_and_nothing_else_is() {
        let (_dir, files) = files();
        let check = async |path: &str, status: u16, kind: &str| {
            let response = get(&files, path, None).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
            let found = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
            assert!(found.starts_with(kind), "{path}: {found}");
        };
        check("/", 200, "text/html").await;
        check("/index.html", 200, "text/html").await;
        check("/css/a.css", 200, "text/css").await;
        check("/a%20b.txt", 200, "text/plain").await;
        for hidden in [
            "/.secret",
            "/%2esecret",
            "/bastide.toml",
            "/link",
            "/..%2foutside",
            "/%2e%2e/outside",
            "/css",
            "/css/",
            "/none",
            "/a%00b",
        ] {
            check(hidden, 404, "text/plain").await;
        }
    }

    #[tokio::test]
    async fn a_known_file_is_not_sent_again() {
        let (_dir, files) = files();
        let first = get(&files, "/", None).await;
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(get(&files, "/", Some(&tag)).await.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(get(&files, "/", Some("\"other\"")).await.status(), StatusCode::OK);
    }

    #[test]
    fn dates_are_written_as_http_wants_them() {
        assert_eq!(httpdate_of(SystemTime::UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
