//! Requests for one thing at the same time. The origin's end lies in the test: it answers when the test says so.

use crate::{
    client::{LONG, connect, get},
    origin::Alone,
};
use bastide_edge::StandAlone;
use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

struct Origin {
    listener: TcpListener,
}

impl Origin {
    /// An edge before an origin.
    fn start() -> (Self, Alone) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let config = StandAlone {
            origin,
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            cache: true,
            compress: true,
            metrics: None,
            takeover_socket: None,
            waf: None,
        };
        (Self { listener }, Alone::start(config))
    }

    /// The next request that arrives.
    fn next(&self) -> Asked {
        self.listener.set_nonblocking(false).unwrap();
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Asked { head: until(&stream, "\r\n\r\n"), stream }
    }

    /// Nobody is waiting to be accepted.
    fn is_quiet(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        self.listener.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

struct Asked {
    head: String,
    stream: TcpStream,
}

impl Asked {
    fn says(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn answers(mut self, fields: &str, body: &str) {
        self.says(&format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
    }
}

fn until(mut stream: &TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Asks and does not wait for the answer.
fn asks(edge: &Alone, target: &str, lines: &str) -> TcpStream {
    let mut stream = connect(edge.addr);
    let request = format!("GET {target} HTTP/1.1\r\nHost: site.example\r\n{lines}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Long enough for a request on the way through the edge. Nothing fails when it is not: the test is weaker then.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(200));
}

/// An answer is stored a little after its last reader has all of it; until then it is shared.
fn becomes_a_hit(edge: &Alone, target: &str) {
    let begun = std::time::Instant::now();
    loop {
        let status = get(edge.addr, target, "").header("cache-status");
        if status.contains("; hit") {
            return;
        }
        assert!(status.contains("; collapsed") && begun.elapsed() < LONG, "{status}");
    }
}

#[test]
fn many_concurrent_misses_reach_the_origin_once() {
    let (origin, edge) = Origin::start();
    let clients: Vec<_> = (0..100).map(|_| asks(&edge, "/x", "")).collect();
    let asked = origin.next();
    a_moment();
    assert!(origin.is_quiet());
    asked.answers("Cache-Control: max-age=60\r\n", "once");
    let answers: Vec<_> = clients.into_iter().map(rest).collect();
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("once")));
    let collapsed = answers.iter().filter(|answer| answer.contains("; collapsed")).count();
    let hits = answers.iter().filter(|answer| answer.contains("; hit")).count();
    assert_eq!(collapsed + hits, 99, "one of them went: {collapsed} waited, {hits} came later");
    assert!(origin.is_quiet());
}

#[test]
fn those_who_wait_read_the_body_while_it_comes() {
    let (origin, edge) = Origin::start();
    let first = asks(&edge, "/x", "");
    let mut asked = origin.next();
    let second = asks(&edge, "/x", "");
    asked.says(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    );
    assert!(until(&first, "half\r\n").contains("; stored"));
    let third = asks(&edge, "/x", "");
    for later in [&second, &third] {
        let head = until(later, "half\r\n");
        assert!(head.contains("; collapsed") && head.contains("\r\nage: 0\r\n"), "{head}");
    }
    assert!(origin.is_quiet());
    asked.says("3\r\nend\r\n0\r\n\r\n");
    for client in [first, second, third] {
        assert_eq!(rest(client), "3\r\nend\r\n0\r\n\r\n");
    }
    becomes_a_hit(&edge, "/x");
}

#[test]
fn a_client_that_hangs_up_ends_no_fill() {
    let (origin, edge) = Origin::start();
    let first = asks(&edge, "/x", "");
    let mut asked = origin.next();
    let second = asks(&edge, "/x", "");
    a_moment();
    asked.says("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 8\r\n\r\nhalf");
    until(&first, "half");
    drop(first);
    until(&second, "half");
    a_moment();
    asked.says("half");
    assert_eq!(rest(second), "half");
    becomes_a_hit(&edge, "/x");
    assert!(origin.is_quiet());
}

#[test]
fn an_answer_that_is_not_for_others_lets_all_go_at_once_and_is_remembered() {
    let (origin, edge) = Origin::start();
    let first = asks(&edge, "/x", "");
    let mut asked = origin.next();
    let second = asks(&edge, "/x", "");
    a_moment();
    assert!(origin.is_quiet(), "the second waits for what the first brings");
    // Its body does not end: nobody may wait for that.
    asked.says("HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 5\r\n\r\nown");
    origin.next().answers("Cache-Control: private\r\n", "other");
    assert!(rest(second).ends_with("other"));
    // From now on requests do not even queue.
    let (third, fourth) = (asks(&edge, "/x", ""), asks(&edge, "/x", ""));
    let (one, two) = (origin.next(), origin.next());
    one.answers("Cache-Control: private\r\n", "third");
    two.answers("Cache-Control: private\r\n", "fourth");
    let bodies = [rest(third), rest(fourth)];
    assert!(
        bodies.iter().any(|body| body.ends_with("third"))
            && bodies.iter().any(|body| body.ends_with("fourth"))
    );
    asked.says("xx");
    assert!(rest(first).ends_with("ownxx"));
}

#[test]
fn whoever_the_answer_is_not_for_goes_on_alone() {
    let (origin, edge) = Origin::start();
    let german = asks(&edge, "/x", "Accept-Language: de\r\n");
    let asked = origin.next();
    let english = asks(&edge, "/x", "Accept-Language: en\r\n");
    let german_too = asks(&edge, "/x", "Accept-Language: DE\r\n");
    a_moment();
    asked.answers("Cache-Control: max-age=60\r\nVary: Accept-Language\r\n", "deutsch");
    let asked = origin.next();
    assert!(asked.head.contains("accept-language: en\r\n"), "{}", asked.head);
    asked.answers("Cache-Control: max-age=60\r\nVary: Accept-Language\r\n", "english");
    assert!(rest(german).ends_with("deutsch") && rest(german_too).ends_with("deutsch"));
    assert!(rest(english).ends_with("english"));
    assert!(origin.is_quiet());
}

#[test]
fn requests_with_credentials_wait_for_nobody() {
    let (origin, edge) = Origin::start();
    let _first = asks(&edge, "/x", "");
    let _one = origin.next();
    let _second = asks(&edge, "/x", "Authorization: Basic x\r\n");
    assert!(origin.next().head.contains("authorization: Basic x\r\n"));
}

#[test]
fn validations_collapse_and_all_get_what_holds() {
    let (origin, edge) = Origin::start();
    let first = asks(&edge, "/x", "");
    origin.next().answers("Cache-Control: no-cache\r\nETag: \"a\"\r\n", "body");
    assert!(rest(first).ends_with("body"));
    let clients: Vec<_> = (0..5).map(|_| asks(&edge, "/x", "")).collect();
    let mut asked = origin.next();
    assert!(asked.head.contains("if-none-match: \"a\"\r\n"), "{}", asked.head);
    a_moment();
    asked.says(
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n",
    );
    drop(asked);
    let served: usize = clients
        .into_iter()
        .map(rest)
        .filter(|answer| answer.ends_with("body") && answer.contains("fwd-status=304"))
        .count();
    assert_eq!(served, 5);
    assert!(origin.is_quiet());
}

#[test]
fn a_stale_response_is_refreshed_in_the_background_once() {
    let (origin, edge) = Origin::start();
    let first = asks(&edge, "/x", "");
    origin
        .next()
        .answers("Cache-Control: max-age=1, stale-while-revalidate=60\r\nAge: 5\r\nETag: \"a\"\r\n", "old");
    assert!(rest(first).ends_with("old"));
    for _ in 0..5 {
        let answer = get(edge.addr, "/x", "If-None-Match: \"other\"\r\n");
        assert_eq!(answer.body, "old");
        assert!(answer.header("cache-status").contains("; hit; ttl=-"), "{}", answer.head);
    }
    let asked = origin.next();
    assert!(asked.head.contains("if-none-match: \"a\"\r\n"), "only ours: {}", asked.head);
    assert!(origin.is_quiet());
    asked.answers("Cache-Control: max-age=60\r\nETag: \"b\"\r\n", "new");
    let deadline = std::time::Instant::now() + LONG;
    while get(edge.addr, "/x", "").body != "new" {
        assert!(std::time::Instant::now() < deadline, "the refreshed response is not served");
    }
    assert!(origin.is_quiet());
}

#[test]
fn an_origin_that_fails_is_said_to_all_who_wait() {
    let (origin, edge) = Origin::start();
    let clients: Vec<_> = (0..3).map(|_| asks(&edge, "/x", "")).collect();
    let asked = origin.next();
    a_moment();
    drop(asked);
    for client in clients {
        assert!(rest(client).starts_with("HTTP/1.1 502 "));
    }
}

#[test]
fn what_is_larger_than_the_store_takes_passes_at_the_pace_of_its_readers() {
    let (origin, edge) = Origin::start();
    let (first, chunk) = (asks(&edge, "/x", ""), "x".repeat(1 << 20));
    let mut asked = origin.next();
    asked.says("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    let reads = std::thread::spawn(move || rest(first).len());
    for _ in 0..20 {
        asked.says(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    asked.says("0\r\n\r\n");
    drop(asked);
    assert!(reads.join().unwrap() > 20 << 20);
    let _again = asks(&edge, "/x", "");
    origin.next();
}

#[test]
fn trailers_pass_and_are_not_stored() {
    let (origin, edge) = Origin::start();
    let first = asks(&edge, "/x", "TE: trailers\r\nConnection: te\r\n");
    origin.next().says("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n");
    assert!(rest(first).ends_with("0\r\nx-sum: 1\r\n\r\n"));
    let hit = get(edge.addr, "/x", "");
    assert_eq!((hit.body.as_str(), hit.header("x-sum").as_str()), ("body", ""));
}

#[test]
fn what_was_made_invalid_on_its_way_is_not_stored_and_nobody_joins_it() {
    let (origin, edge) = Origin::start();
    let first = asks(&edge, "/x", "");
    let asked = origin.next();
    let mut post = connect(edge.addr);
    post.write_all(
        b"POST /x HTTP/1.1\r\nHost: site.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    origin.next().answers("", "done");
    assert!(rest(post).ends_with("done"));
    let later = asks(&edge, "/x", "");
    let new = origin.next();
    asked.answers("Cache-Control: max-age=60\r\n", "old");
    assert!(rest(first).ends_with("old"));
    new.answers("Cache-Control: max-age=60\r\n", "new");
    assert!(rest(later).ends_with("new"));
    assert_eq!(get(edge.addr, "/x", "").body, "new");
}
