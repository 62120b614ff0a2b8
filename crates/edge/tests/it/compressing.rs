//! Answers that the edge compresses: for whom, how, and that the cache keeps what was made of them.

use crate::{
    client::{connect, get},
    origin::{Alone, Origin, before, page},
};
use bastide_edge::StandAlone;
use std::{
    io::{Read, Write},
    net::SocketAddr,
    thread,
};

const LINE: &str = "The quick brown fox jumps over the lazy dog.\n";
const TEXT: &str = "Content-Type: text/css\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\n";

fn text() -> String {
    LINE.repeat(200)
}

/// Head and body of an answer, as bytes.
struct Raw {
    head: String,
    body: Vec<u8>,
}

impl Raw {
    fn get(addr: SocketAddr, target: &str, lines: &str) -> Self {
        let mut stream = connect(addr);
        write!(stream, "GET {target} HTTP/1.1\r\nHost: site.example\r\n{lines}Connection: close\r\n\r\n")
            .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut raw = Self { head, body: bytes[end..].to_vec() };
        if raw.header("transfer-encoding") == "chunked" {
            raw.body = unchunked(&raw.body);
        }
        raw
    }

    fn header(&self, name: &str) -> String {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let own = lines.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value.trim()).collect::<Vec<_>>().join(", ")
    }

    fn plain(&self) -> String {
        let (mut plain, bytes) = (Vec::new(), &self.body[..]);
        match &*self.header("content-encoding") {
            "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain).unwrap(),
            "zstd" => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut plain).unwrap(),
            "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap(),
            _ => std::io::Cursor::new(bytes).read_to_end(&mut plain).unwrap(),
        };
        String::from_utf8(plain).unwrap()
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|part| part == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
}

#[test]
fn each_client_gets_the_coding_that_it_prefers_from_one_stored_answer() {
    let origin = Origin::start(|_, _| page(&format!("{TEXT}Cache-Control: max-age=60\r\n"), &text()));
    let edge = Alone::start(before(&origin));
    for round in ["miss", "made", "kept"] {
        for (asked, coding) in [
            ("gzip, deflate, br, zstd", "br"),
            ("gzip, zstd", "zstd"),
            ("gzip", "gzip"),
            ("br;q=0.1, gzip", "gzip"),
            ("deflate", ""),
            ("identity, br;q=0.5", ""),
        ] {
            let raw = Raw::get(edge.addr, "/a.css", &format!("Accept-Encoding: {asked}\r\n"));
            assert_eq!(raw.header("content-encoding"), coding, "{round} {asked}");
            assert_eq!(raw.plain(), text(), "{round} {asked}");
            assert_eq!(raw.header("vary"), "accept-encoding", "{round} {asked}");
            let (tag, is_shorter) = if coding.is_empty() { ("\"v1\"", false) } else { ("W/\"v1\"", true) };
            assert_eq!(raw.header("etag"), tag, "{round} {asked}");
            assert_eq!(raw.body.len() < text().len() / 10, is_shorter, "{round} {asked}");
        }
    }
    assert_eq!(origin.received().len(), 1, "the origin was asked once");
    let kept = Raw::get(edge.addr, "/a.css", "Accept-Encoding: br\r\n");
    assert!(kept.header("cache-status").contains("; hit"), "{}", kept.head);
    assert_eq!(kept.header("content-length"), kept.body.len().to_string());
}

#[test]
fn a_client_that_has_the_encoded_answer_is_told_that_it_holds() {
    let origin = Origin::start(|received, _| {
        if received.got("if-none-match").is_empty() {
            page(&format!("{TEXT}Cache-Control: no-cache\r\n"), &text())
        } else {
            "304 Not Modified\r\nETag: \"v1\"\r\nConnection: close\r\n\r\n".into()
        }
    });
    let edge = Alone::start(before(&origin));
    let ask = |lines: &str| Raw::get(edge.addr, "/a.css", &format!("Accept-Encoding: gzip\r\n{lines}"));
    assert_eq!(ask("").header("etag"), "W/\"v1\"");
    let validated = ask("");
    assert!(validated.header("cache-status").contains("fwd-status=304"), "{}", validated.head);
    assert_eq!((validated.plain(), validated.header("content-encoding").as_str()), (text(), "gzip"));
    assert!(ask("If-None-Match: W/\"v1\"\r\n").head.starts_with("HTTP/1.1 304"));
}

#[test]
fn parts_are_of_the_plain_bytes_and_never_mixed_with_encoded_ones() {
    let origin = Origin::start(|received, _| {
        let tag = if received.target() == "/weak" { "" } else { TEXT };
        page(
            &format!(
                "Content-Type: text/css\r\n{}Cache-Control: max-age=60\r\n",
                tag.replace("Content-Type: text/css\r\n", "")
            ),
            &text(),
        )
    });
    let edge = Alone::start(before(&origin));
    let ask =
        |target: &str, lines: &str| Raw::get(edge.addr, target, &format!("Accept-Encoding: br\r\n{lines}"));
    for target in ["/a", "/weak"] {
        ask(target, "");
    }
    let part = ask("/a", "Range: bytes=4-8\r\n");
    assert!(part.head.starts_with("HTTP/1.1 206"), "{}", part.head);
    assert_eq!((part.plain().as_str(), part.header("content-encoding").as_str()), ("quick", ""));
    assert_eq!(part.header("etag"), "\"v1\"");
    assert!(ask("/a", "Range: bytes=4-8\r\nIf-Range: \"v1\"\r\n").head.starts_with("HTTP/1.1 206"));
    for (target, lines) in [
        ("/a", "Range: bytes=4-8\r\nIf-Range: W/\"v1\"\r\n"),
        // Whoever has a part of the encoded bytes must not get plain ones for the rest.
        ("/weak", "Range: bytes=4-8\r\n"),
    ] {
        let whole = ask(target, lines);
        assert!(whole.head.starts_with("HTTP/1.1 200"), "{}", whole.head);
        assert_eq!((whole.plain(), whole.header("content-encoding").as_str()), (text(), "br"));
    }
    let plain = get(edge.addr, "/weak", "Range: bytes=4-8\r\n");
    assert_eq!((plain.status, plain.body.as_str()), (206, "quick"));
}

#[test]
fn what_must_stay_as_it_is_stays_so() {
    let origin = Origin::start(|received, _| match received.target() {
        "/no-transform" => page(&format!("{TEXT}Cache-Control: max-age=60, no-transform\r\n"), &text()),
        "/encoded" => page(&format!("{TEXT}Content-Encoding: x\r\nCache-Control: max-age=60\r\n"), &text()),
        "/short" => page(&format!("{TEXT}Cache-Control: max-age=60\r\n"), LINE),
        "/picture" => page("Content-Type: image/png\r\nCache-Control: max-age=60\r\n", &text()),
        _ => page("Content-Type: text/html\r\nCache-Control: private\r\n", &text()),
    });
    let edge = Alone::start(before(&origin));
    let coding = |target: &str, lines: &str| {
        Raw::get(edge.addr, target, &format!("Accept-Encoding: br\r\n{lines}")).header("content-encoding")
    };
    for target in ["/no-transform", "/short", "/picture"] {
        assert_eq!([coding(target, ""), coding(target, "")], ["", ""], "{target}");
    }
    assert_eq!(coding("/encoded", ""), "x");
    assert_eq!(coding("/page", ""), "br");
    assert_eq!(coding("/page", "Cookie: session=1\r\n"), "", "its length would tell of what is in it");
    let off = Alone::start(StandAlone { compress: false, ..before(&origin) });
    let raw = Raw::get(off.addr, "/page", "Accept-Encoding: br\r\n");
    assert_eq!((raw.header("content-encoding").as_str(), raw.header("vary").as_str()), ("", ""));
}

#[test]
fn a_head_says_what_a_get_would() {
    let origin = Origin::start(|received, _| {
        let body = if received.head.starts_with("HEAD") { String::new() } else { text() };
        format!(
            "200 OK\r\n{TEXT}Cache-Control: max-age=60\r\nContent-Length: 9000\r\nConnection: close\r\n\r\n{body}"
        )
    });
    let edge = Alone::start(before(&origin));
    for _ in 0..2 {
        let head = crate::client::send(
            edge.addr,
            "HEAD /a HTTP/1.1\r\nHost: site.example\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(head.header("content-encoding"), "gzip", "{}", head.head);
        assert_eq!((head.header("etag").as_str(), head.header("content-length").as_str()), ("W/\"v1\"", ""));
        get(edge.addr, "/a", "");
    }
}

#[test]
fn events_are_neither_encoded_nor_held_up_and_lines_are_readable_at_once() {
    use std::net::TcpListener;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let origin = thread::spawn(move || {
        for kind in ["text/event-stream", "application/x-ndjson"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\ndata: 1\n\n")
                .unwrap();
            // The rest comes only after the client has seen the beginning.
            told.recv_timeout(crate::client::LONG).unwrap();
            write!(stream, "data: 2\n\n").unwrap();
        }
    });
    let config =
        StandAlone { origin: format!("http://{addr}"), ..before(&Origin::start(|_, _| String::new())) };
    let edge = Alone::start(config);
    for coding in ["", "gzip"] {
        let mut stream = connect(edge.addr);
        write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
            .unwrap();
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        while !reads_first(&seen, coding) {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&piece[..read]);
        }
        tell.send(()).unwrap();
        stream.read_to_end(&mut seen).unwrap();
    }
    origin.join().unwrap();
}

/// Whether the first line of a body that is still coming can be read.
fn reads_first(seen: &[u8], coding: &str) -> bool {
    let Some(end) = seen.windows(4).position(|part| part == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
    assert_eq!(head.contains("content-encoding: gzip"), coding == "gzip", "{head}");
    let rest = &seen[end + 4..];
    if coding.is_empty() {
        return rest.windows(7).any(|part| part == b"data: 1");
    }
    // The first chunk alone, without its size.
    let Some(line) = rest.windows(2).position(|part| part == b"\r\n") else { return false };
    let mut plain = [0; 7];
    flate2::read::GzDecoder::new(&rest[line + 2..]).read_exact(&mut plain).is_ok() && &plain == b"data: 1"
}
