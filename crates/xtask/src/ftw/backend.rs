//! The origin behind the edge, in one of two kinds: that of today's tests answers 200 everywhere and at
//! `/reflect` as the JSON body says; that of the 3.x line knows a few pages.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

const BODY_BYTES_MAX: u64 = 8 << 20;

/// Which origin it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 200 everywhere.
    Reflecting,
    /// 404 where there is no page.
    Pages,
}

/// Pages of [`Kind::Pages`], with what begins like them.
const PAGES: &[&str] =
    &["/get", "/post", "/put", "/anything", "/status/200", "/headers", "/html", "/json", "/xml"];

/// Listens on a port of its own until the process ends.
pub fn start(kind: Kind) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let addr = listener.local_addr()?;
    thread::Builder::new().name("backend".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks ends; the edge opens another.
            let _ = thread::Builder::new().spawn(move || serve(stream, kind));
        }
    })?;
    Ok(addr)
}

/// What `/reflect` is told to answer.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wanted {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
    encoded_body: String,
}

fn serve(stream: TcpStream, kind: Kind) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ');
        let (method, path) =
            (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let body = body(&mut reader)?;
        // Of old, any method was reflected.
        let reflects = !body.is_empty() && (path == "/reflect" || path.starts_with("/reflect/"));
        let bare = path.split('?').next().unwrap_or_default();
        let is_page = bare == "/" || PAGES.iter().any(|page| bare.starts_with(page));
        let answer = match kind {
            Kind::Reflecting if reflects => reflect(&body),
            Kind::Pages if !is_page => plain(404, "no such page"),
            _ => plain(200, ""),
        };
        let head_only = method == "HEAD";
        let end = if head_only { end_of_head(&answer) } else { answer.len() };
        out.write_all(&answer[..end])?;
    }
}

fn end_of_head(answer: &[u8]) -> usize {
    answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4)
}

/// Reads the rest of the head and the body.
fn body(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let line = line.trim_ascii();
        if line.is_empty() {
            break;
        }
        let lower = String::from_utf8_lossy(line).to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        chunked |= lower.starts_with("transfer-encoding:") && lower.ends_with("chunked");
    }
    let mut body = Vec::new();
    if !chunked {
        reader.by_ref().take(length.min(BODY_BYTES_MAX)).read_to_end(&mut body)?;
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
        reader.by_ref().take(size.min(BODY_BYTES_MAX)).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn plain(status: u16, text: &str) -> Vec<u8> {
    answer(status, &BTreeMap::new(), text.as_bytes())
}

fn reflect(body: &[u8]) -> Vec<u8> {
    let Ok(wanted) = serde_json::from_slice::<Wanted>(body) else {
        return plain(400, "Invalid JSON in request body");
    };
    let status = match wanted.status {
        0 => 200,
        status @ 100..600 => status,
        _ => return plain(400, "Invalid status code"),
    };
    let content = if wanted.body.is_empty() {
        BASE64_STANDARD.decode(&wanted.encoded_body).unwrap_or_default()
    } else {
        wanted.body.into_bytes()
    };
    answer(status, &wanted.headers, &content)
}

fn answer(status: u16, headers: &BTreeMap<String, String>, body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        if !name.eq_ignore_ascii_case("content-length") {
            head.push_str(&format!("{name}: {}\r\n", value.replace(['\r', '\n'], " ")));
        }
    }
    let typed = headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
    if !typed && !body.is_empty() {
        // A server of the usual kind guesses from how the body begins.
        let html = body.trim_ascii_start().starts_with(b"<");
        let kind = if html { "text/html" } else { "text/plain" };
        head.push_str(&format!("Content-Type: {kind}; charset=utf-8\r\n"));
    }
    head.push_str("\r\n");
    [head.into_bytes(), body.to_vec()].concat()
}
