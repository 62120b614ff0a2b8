//! The stand-alone edge in process: what the origin sees, what the rules see, what the client gets.

use bastide_edge::{StandAlone, config::WafConfig, run_alone};
use bastide_waf::Mode;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Generous: only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running edge; it is stopped when this is dropped.
struct Edge {
    addr: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn start(origin: SocketAddr, cache: bool, waf: Option<WafConfig>) -> Edge {
    let stop = CancellationToken::new();
    let (sender, ready) = mpsc::channel();
    let config = StandAlone {
        origin: format!("http://{origin}"),
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        cache,
        compress: true,
        metrics: None,
        takeover_socket: None,
        waf,
    };
    let own = stop.clone();
    let thread = std::thread::spawn(move || {
        run_alone(config, move |addr| sender.send(addr).unwrap(), own).unwrap();
    });
    Edge { addr: ready.recv_timeout(PATIENCE).unwrap(), stop, thread: Some(thread) }
}

/// An origin that answers each request with the head that it received.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                let cache = if head.starts_with(b"GET /fresh") { "max-age=60" } else { "no-store" };
                let secret = if head.starts_with(b"GET /leak") { "the secret word" } else { "" };
                let length = head.len() + secret.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nServer: origin\r\nCache-Control: {cache}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
                );
                let _ = stream.write_all(&[answer.as_bytes(), &head, secret.as_bytes()].concat());
            });
        }
    });
    addr
}

fn talk(edge: &Edge, request: &str) -> String {
    let mut stream = TcpStream::connect(edge.addr).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(edge: &Edge, target: &str, fields: &str) -> String {
    talk(edge, &format!("GET {target} HTTP/1.1\r\nHost: any\r\n{fields}Connection: close\r\n\r\n"))
}

const RULES: &str = r#"
SecRule REQUEST_URI_RAW "@contains <evil>" "id:1,phase:1,deny,status:403,msg:'raw'"
SecRule REQUEST_BODY|ARGS_POST "@contains attack" "id:2,phase:2,deny,status:403,msg:'body'"
SecRule RESPONSE_BODY "@contains secret word" "id:3,phase:4,deny,status:403,msg:'leak'"
"#;

fn waf(dir: &Path, mode: Mode) -> WafConfig {
    fs::write(dir.join("own.conf"), RULES).unwrap();
    WafConfig {
        rules: vec![dir.to_owned()],
        mode,
        paranoia: 1,
        variables: vec![],
        audit: Some(dir.join("audit.jsonl")),
    }
}

fn audit(path: &PathBuf, part: &str) {
    let begun = Instant::now();
    while !fs::read_to_string(path).is_ok_and(|log| log.contains(part)) {
        assert!(begun.elapsed() < PATIENCE, "{part} was never audited: {:?}", fs::read_to_string(path));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_origin_sees_what_only_we_say() {
    let edge = start(origin(), false, None);
    let forged = "X-Forwarded-For: 6.6.6.6\r\nx_forwarded_host: evil\r\nForwarded: for=6.6.6.6\r\nX-Bastide-User: root\r\nX-Mine: 1\r\n";
    let answer = get(&edge, "/a?b=%20c", forged).to_lowercase();
    assert!(answer.contains("get /a?b=%20c http/1.1") && answer.contains("x-mine: 1"), "{answer}");
    assert!(answer.contains("x-forwarded-for: 127.0.0.1") && answer.contains("host: any"), "{answer}");
    for ours in ["6.6.6.6", "evil", "root", "server: origin", "x-bastide-"] {
        assert!(!answer.contains(ours), "{ours}: {answer}");
    }
    assert!(answer.contains("x-request-id: "));
}

#[test]
fn a_short_body_is_whole_before_the_origin_hears_of_it_and_a_longer_one_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let edge = start(listener.local_addr().unwrap(), false, None);
    listener.set_nonblocking(true).unwrap();
    let begin = |fields: &str, body: &str| {
        let mut stream = TcpStream::connect(edge.addr).unwrap();
        let head = format!("POST /a HTTP/1.1\r\nHost: any\r\n{fields}\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    // The head of the next request that the origin hears of.
    let heard = || {
        let begun = Instant::now();
        let stream = loop {
            if let Ok((stream, _)) = listener.accept() {
                break stream;
            }
            assert!(begun.elapsed() < PATIENCE, "the origin never heard of it");
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_nonblocking(false).unwrap();
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n").to_lowercase()
    };
    let mut short = begin("Content-Length: 8", "half");
    let _streamed = begin("Content-Length: 65537", "half");
    assert!(heard().contains("content-length: 65537"), "the later one comes first");
    let _chunked = begin("Transfer-Encoding: chunked", "4\r\nhalf\r\n");
    assert!(heard().contains("transfer-encoding: chunked"));
    short.write_all(b"rest").unwrap();
    assert!(heard().contains("content-length: 8"));
    let mut broken = begin("Content-Length: 8", "half");
    broken.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = broken.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(listener.accept().is_err(), "nobody heard of what was never whole");
}

#[test]
fn rules_see_raw_bytes_bodies_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let edge = start(origin(), false, Some(waf(dir.path(), Mode::Block)));
    let log = dir.path().join("audit.jsonl");
    assert!(get(&edge, "/?q=<evil>", "").contains("B-WAF-0403"));
    assert!(get(&edge, "/?q=fine", "").contains("GET /?q=fine"));
    let post = "POST / HTTP/1.1\r\nHost: any\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\nConnection: close\r\n\r\na=an+attac";
    assert!(talk(&edge, post).starts_with("HTTP/1.1 200"));
    let post = post.replace("Content-Length: 10", "Content-Length: 11") + "k";
    assert!(talk(&edge, &post).contains("B-WAF-0403"));
    let leak = get(&edge, "/leak", "");
    assert!(leak.starts_with("HTTP/1.1 403") && !leak.contains("secret word"), "{leak}");
    audit(&log, "\"id\":3");
    // A head that is refused anyway still runs phase 1 and the audit.
    let refused = talk(&edge, "GET /<evil>?refused HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("duplicate-host"), "{refused}");
    audit(&log, "?refused");
}

#[test]
fn detect_tells_and_lets_pass() {
    let dir = tempfile::tempdir().unwrap();
    let edge = start(origin(), false, Some(waf(dir.path(), Mode::Detect)));
    assert!(get(&edge, "/?q=<evil>", "").starts_with("HTTP/1.1 200"));
    audit(&dir.path().join("audit.jsonl"), "\"verdict\":\"detect\"");
}

#[test]
fn fresh_answers_come_from_the_store() {
    let edge = start(origin(), true, None);
    assert!(get(&edge, "/fresh", "").contains("stored"));
    let hit = get(&edge, "/fresh", "");
    assert!(hit.contains("Bastide; hit") && hit.contains("age: "), "{hit}");
    assert!(!get(&edge, "/fresh", "Authorization: Bearer x\r\n").contains("Bastide; hit"));
    assert!(!get(&edge, "/other", "").contains("stored"));
}

#[test]
fn a_directory_without_rules_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let waf = WafConfig {
        rules: vec![dir.path().into()],
        mode: Mode::Block,
        paranoia: 1,
        variables: vec![],
        audit: None,
    };
    let listen = ([127, 0, 0, 1], 0).into();
    let config = StandAlone {
        origin: "http://127.0.0.1:1".into(),
        listen,
        tls: None,
        cache: false,
        compress: true,
        metrics: None,
        takeover_socket: None,
        waf: Some(waf),
    };
    let error = run_alone(config, |_| {}, CancellationToken::new()).unwrap_err();
    assert!(error.to_string().contains("holds no rules"), "{error}");
}

#[test]
fn an_origin_that_is_away_is_said_clearly() {
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let edge = start(away, false, None);
    let answer = get(&edge, "/", "");
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("B-EDGE-0503"), "{answer}");
}
