//! HTTP/2 from clients that break the rules: nothing becomes two requests behind us, and no flood keeps us busy.

use crate::{
    Echo,
    origin::forward,
    raw_h2::{
        CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, block, frame, head, tls,
    },
    recorded::recording_origin,
    start_with,
};
use bastide_proxy::Limits;
use std::sync::Arc;

/// A request that must not be taken: its fields, and its body when it has one.
type Row<'f> = (&'static str, Vec<(&'f str, &'f str)>, Option<&'static [u8]>);

fn rows() -> Vec<Row<'static>> {
    let post = |more| head("POST", "/", more);
    let get = |more| head("GET", "/", more);
    let with = |authority, path| {
        vec![(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)]
    };
    vec![
        (
            "transfer-encoding",
            post(&[("transfer-encoding", "chunked")]),
            Some(b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"),
        ),
        ("both lengths", post(&[("transfer-encoding", "chunked"), ("content-length", "3")]), Some(b"abc")),
        ("connection", get(&[("connection", "close")]), None),
        ("proxy-connection", get(&[("proxy-connection", "close")]), None),
        ("keep-alive", get(&[("keep-alive", "5")]), None),
        ("upgrade", get(&[("upgrade", "h2c")]), None),
        ("te", get(&[("te", "gzip")]), None),
        (
            "length shorter than the body",
            post(&[("content-length", "3")]),
            Some(b"abcGET /x HTTP/1.1\r\n\r\n"),
        ),
        ("length longer than the body", post(&[("content-length", "30")]), Some(b"abc")),
        ("length without a body", post(&[("content-length", "3")]), None),
        ("no number", post(&[("content-length", "3x")]), Some(b"abc")),
        ("signed length", post(&[("content-length", "+3")]), Some(b"abc")),
        ("two lengths", post(&[("content-length", "3"), ("content-length", "3")]), Some(b"abc")),
        ("two different lengths", post(&[("content-length", "3"), ("content-length", "0")]), Some(b"abc")),
        ("capitals in a name", get(&[("X-A", "1")]), None),
        ("space in a name", get(&[("x a", "1")]), None),
        ("colon in a name", get(&[("x:a", "1")]), None),
        ("line end in a name", get(&[("x\r\ny", "1")]), None),
        ("empty name", get(&[("", "1")]), None),
        ("line end in a value", get(&[("x", "1\r\ny: 2")]), None),
        ("CR in a value", get(&[("x", "1\ry: 2")]), None),
        ("LF in a value", get(&[("x", "1\ny: 2")]), None),
        ("NUL in a value", get(&[("x", "1\0")]), None),
        ("two paths", get(&[(":path", "/y")]), None),
        ("unknown pseudo-field", get(&[(":x", "y")]), None),
        ("status in a request", get(&[(":status", "200")]), None),
        (
            "pseudo-field after a field",
            vec![(":method", "GET"), (":scheme", "https"), ("x", "y"), (":path", "/")],
            None,
        ),
        ("no method", vec![(":scheme", "https"), (":authority", "a"), (":path", "/")], None),
        ("no path", vec![(":method", "GET"), (":scheme", "https"), (":authority", "a")], None),
        ("no host", vec![(":method", "GET"), (":scheme", "https"), (":path", "/")], None),
        ("empty path", with("a", ""), None),
        ("path without slash", with("a", "x"), None),
        ("star", with("a", "*"), None),
        ("space in the path", with("a", "/ HTTP/1.1"), None),
        ("line end in the path", with("a", "/ HTTP/1.1\r\nHost: b\r\n\r\nGET /x"), None),
        ("absolute path", with("a", "http://b/"), None),
        ("another host", get(&[("host", "b")]), None),
        ("two hosts", get(&[("host", "a"), ("host", "a")]), None),
        ("user in the authority", with("u@a", "/"), None),
        ("line end in the authority", with("a\r\nx: y", "/"), None),
        ("empty authority", with("", "/"), None),
        ("path in the authority", with("a/b", "/"), None),
        ("request line in the method", head("GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET", "/", &[]), None),
        ("space in the method", head("GET /x", "/", &[]), None),
        ("small method", head("get", "/", &[]), None),
        ("TRACE", head("TRACE", "/", &[]), None),
        ("CONNECT with a path", head("CONNECT", "/", &[]), None),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "a:443")], None),
        ("unknown tunnel", head("CONNECT", "/", &[(":protocol", "h2c")]), None),
        ("unknown expectation", post(&[("expect", "tea")]), None),
    ]
}

/// The frames of a request in this stream.
fn request(stream: u32, fields: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let end = if body.is_some() { END_HEADERS } else { END_HEADERS | END_STREAM };
    let mut frames = frame(HEADERS, end, stream, &block(fields));
    if let Some(body) = body {
        frames.extend(frame(DATA, END_STREAM, stream, body));
    }
    frames
}

#[tokio::test]
async fn no_request_of_http_2_becomes_two_of_http_1() {
    let tls = tls();
    for (name, fields, body) in rows() {
        let (addr, seen) = recording_origin().await;
        let server = start_with(forward(addr), Limits::default(), Some(tls.accept.clone()));
        let mut client = Client::connect(server.addr, &tls).await;
        client.send(&request(1, &head("GET", "/first", &[]), None)).await;
        assert_eq!(client.status(1).await, 200, "{name}");
        client.send(&request(3, &fields, body)).await;
        let status = client.status(3).await;
        assert!(status != 200, "{name} was answered");
        // Another client's request, over the connection that the first one left behind.
        let mut other = Client::connect(server.addr, &tls).await;
        other.send(&request(1, &head("GET", "/second", &[]), None)).await;
        assert_eq!(other.status(1).await, 200, "{name}");
        let seen = seen.lock().unwrap();
        let whole: Vec<_> = seen.iter().filter(|request| !request.contains(" cut: ")).collect();
        assert_eq!(whole.len(), 2, "{name}: {seen:?}");
        assert!(whole[0].contains(" GET /first HTTP/1.1\r\nhost: a\r\n\r\n"), "{name}: {seen:?}");
        assert!(whole[1].contains(" GET /second HTTP/1.1\r\nhost: a\r\n\r\n"), "{name}: {seen:?}");
    }
}

#[tokio::test]
async fn what_is_accepted_has_one_meaning_in_http_1() {
    let tls = tls();
    let check = async |fields: Vec<(&str, &str)>, body: Option<&[u8]>, expected: &str| {
        let (addr, seen) = recording_origin().await;
        let server = start_with(forward(addr), Limits::default(), Some(tls.accept.clone()));
        let mut client = Client::connect(server.addr, &tls).await;
        client.send(&request(1, &fields, body)).await;
        assert_eq!(client.status(1).await, 200, "{fields:?}");
        assert_eq!(*seen.lock().unwrap(), [format!("1 {expected}")], "{fields:?}");
    };
    check(
        head("GET", "/x?y", &[("cookie", "a=b"), ("x", "1"), ("cookie", "c=d")]),
        None,
        "GET /x?y HTTP/1.1\r\ncookie: a=b; c=d\r\nx: 1\r\nhost: a\r\n\r\n",
    )
    .await;
    check(
        head("POST", "/", &[("content-length", "3")]),
        Some(b"abc"),
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
    )
    .await;
    check(
        head("POST", "/", &[]),
        Some(b"abc"),
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )
    .await;
    check(head("GET", "/", &[("host", "A")]), None, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    check(
        head("GET", "/", &[("te", "trailers")]),
        None,
        "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n",
    )
    .await;
}

#[tokio::test]
async fn the_limits_of_heads_hold_in_http_2_too() {
    let tls = tls();
    let service = Arc::new(Echo::default());
    let server = start_with(service.clone(), Limits::default(), Some(tls.accept.clone()));
    let many: Vec<_> = std::iter::repeat_n(("x", "y"), 101).collect();
    let long = format!("/{}", "x".repeat(17 * 1024));
    for (fields, reason) in
        [(head("GET", "/", &many), "head-too-large"), (head("GET", &long, &[]), "target-too-long")]
    {
        let mut client = Client::connect(server.addr, &tls).await;
        let block = block(&fields);
        let mut pieces = block.chunks(16 * 1024).peekable();
        let first = pieces.next().unwrap();
        let end = |last: bool| if last { END_HEADERS } else { 0 };
        client.send(&frame(HEADERS, END_STREAM | end(pieces.peek().is_none()), 1, first)).await;
        while let Some(piece) = pieces.next() {
            client.send(&frame(CONTINUATION, end(pieces.peek().is_none()), 1, piece)).await;
        }
        assert!(client.status(1).await != 200);
        assert_eq!(service.refused.lock().unwrap().pop().unwrap().0, reason);
    }
}

/// Sends pieces of a flood until the server has had enough, and tells how many it took; meanwhile another
/// client is served.
async fn flood(name: &str, mut piece: impl FnMut(u32) -> Vec<u8>) -> u32 {
    const PIECES: u32 = 2_000;
    let tls = tls();
    let server = start_with(Arc::new(Echo::default()), Limits::default(), Some(tls.accept.clone()));
    let mut attacker = Client::connect(server.addr, &tls).await;
    let mut bystander = Client::connect(server.addr, &tls).await;
    for number in 0..PIECES {
        if !attacker.send(&piece(number)).await || attacker.is_closed().await {
            let stream = 2 * number + 1;
            bystander.send(&request(stream, &head("GET", "/", &[]), None)).await;
            assert_eq!(bystander.status(stream).await, 200, "{name}");
            return number;
        }
        if number % 100 == 0 {
            bystander.send(&request(2 * number + 1, &head("GET", "/", &[]), None)).await;
            assert_eq!(bystander.status(2 * number + 1).await, 200, "{name}");
        }
    }
    panic!("{name}: {PIECES} pieces were taken");
}

#[tokio::test]
async fn floods_are_cut_while_others_are_served() {
    let open = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&head("GET", "/", &[])));
    let begun = |stream| frame(HEADERS, END_HEADERS, stream, &block(&head("POST", "/", &[])));
    let many = |one: Vec<u8>| move |_| one.repeat(100);
    flood("PING", many(frame(PING, 0, 0, &[0; 8]))).await;
    flood("SETTINGS", many(frame(SETTINGS, 0, 0, &[]))).await;
    flood("SETTINGS with values", many(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]))).await;
    flood("PRIORITY", many(frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0]))).await;
    flood("unknown", many(frame(0x77, 0, 0, &[]))).await;
    flood("WINDOW_UPDATE", many(frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()))).await;
    flood("empty DATA", |number| {
        let start = if number == 0 { begun(1) } else { Vec::new() };
        [start, frame(DATA, 0, 1, &[]).repeat(100)].concat()
    })
    .await;
    flood("CONTINUATION", |number| {
        let start = frame(HEADERS, 0, 1, &block(&head("GET", "/", &[])));
        let start = if number == 0 { start } else { Vec::new() };
        [start, frame(CONTINUATION, 0, 1, &block(&[("x", "y")])).repeat(100)].concat()
    })
    .await;
    flood("rapid reset", |number| {
        let streams = (0..100).map(|n| 2 * (100 * number + n) + 1);
        streams
            .flat_map(|stream| [open(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat())
            .collect()
    })
    .await;
    flood("reset by errors", |number| {
        let streams = (0..100).map(|n| 2 * (100 * number + n) + 1);
        // Each is refused as it stands; the client need send no reset.
        streams
            .flat_map(|stream| [begun(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat())
            .collect()
    })
    .await;
    flood("streams beyond the limit", |number| {
        (0..100).flat_map(|n| begun(2 * (100 * number + n) + 1)).collect()
    })
    .await;
}
