//! The cache station, and what an attacker would try to put into it.

use crate::{
    client::{get, send},
    origin::{Alone, Origin, before, page},
};
use bastide_edge::StandAlone;

const FRESH: &str = "Cache-Control: max-age=60\r\n";

fn counting() -> Origin {
    Origin::start(|received, n| page(FRESH, &format!("{n} {}", received.target())))
}

#[test]
fn a_fresh_answer_is_stored_and_says_so() {
    let origin = counting();
    let edge = Alone::start(before(&origin));
    let miss = get(edge.addr, "/a", "");
    assert_eq!(miss.header("cache-status"), "Bastide; fwd=uri-miss; stored");
    let hit = get(edge.addr, "/a", "");
    assert_eq!(hit.body, miss.body);
    assert!(hit.header("cache-status").starts_with("Bastide; hit; ttl="), "{}", hit.head);
    assert!(hit.header("age").parse::<u64>().is_ok());
    assert_ne!(hit.header("x-request-id"), miss.header("x-request-id"));
    assert_ne!(get(edge.addr, "/a?", "").body, miss.body, "an empty query is another address");
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn head_and_conditions_are_answered_from_the_store() {
    let origin = Origin::start(|_, _| page("Cache-Control: max-age=60\r\nETag: \"v1\"\r\n", "body"));
    let edge = Alone::start(before(&origin));
    get(edge.addr, "/", "");
    assert_eq!(get(edge.addr, "/", "If-None-Match: \"v1\"\r\n").status, 304);
    let head = send(edge.addr, "HEAD / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.header("content-length").as_str()), (200, "4"));
    assert!(head.header("cache-status").contains("; hit"));
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn hosts_are_kept_apart() {
    let origin = counting();
    let edge = Alone::start(before(&origin));
    let ask = |host: &str| {
        send(edge.addr, format!("GET /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).body
    };
    assert_ne!(ask("a.example"), ask("b.example"));
    assert_eq!(ask("a.example"), ask("A.example"));
}

#[test]
fn without_the_cache_nothing_is_stored_or_said() {
    let origin = counting();
    let edge = Alone::start(StandAlone { cache: false, ..before(&origin) });
    assert_ne!(get(edge.addr, "/a", "").body, get(edge.addr, "/a", "").body);
    assert_eq!(get(edge.addr, "/a", "").header("cache-status"), "");
}

#[test]
fn what_is_not_for_everybody_is_not_stored() {
    let origin = Origin::start(|received, n| {
        let control = received.target().trim_start_matches('/');
        page(&format!("Cache-Control: {control}\r\nSet-Cookie: session={n}\r\n"), &n.to_string())
    });
    let edge = Alone::start(before(&origin));
    for control in ["private", "no-store", "no-cache", "max-age=60", "max-age=0"] {
        let target = format!("/{control}");
        assert_ne!(get(edge.addr, &target, "").body, get(edge.addr, &target, "").body, "{control}");
    }
}

#[test]
fn credentials_are_neither_answered_from_the_store_nor_stored() {
    let origin = counting();
    let edge = Alone::start(before(&origin));
    let authorized = "Authorization: Basic eDp5\r\n";
    assert_ne!(get(edge.addr, "/a", authorized).body, get(edge.addr, "/a", "").body);
    assert_ne!(get(edge.addr, "/a", authorized).body, get(edge.addr, "/a", "").body);
}

#[test]
fn a_get_with_a_body_poisons_nothing() {
    let origin = Origin::start(|received, _| {
        page(FRESH, &format!("said {}", String::from_utf8_lossy(&received.body)))
    });
    let edge = Alone::start(before(&origin));
    let head = "GET /a HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n";
    assert_eq!(send(edge.addr, format!("{head}Content-Length: 4\r\n\r\nevil")).body, "said evil");
    assert_eq!(
        send(edge.addr, format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n")).body,
        "said evil"
    );
    assert_eq!(get(edge.addr, "/a", "").body, "said ");
}

#[test]
fn a_field_nominated_away_by_the_client_chooses_no_variant() {
    let origin = Origin::start(|received, _| {
        let fields = "Cache-Control: max-age=60\r\nVary: Accept-Language\r\n";
        page(fields, received.got("accept-language").first().unwrap_or(&"none"))
    });
    let edge = Alone::start(before(&origin));
    let german = "Accept-Language: de\r\n";
    let nominated = format!("{german}Connection: accept-language\r\n");
    assert_eq!(get(edge.addr, "/a", &nominated).body, "none", "the origin did not see the field");
    assert_eq!(get(edge.addr, "/a", german).body, "de");
}

#[test]
fn an_answer_that_depends_on_what_we_say_ourselves_is_not_shared() {
    let origin = Origin::start(|received, n| {
        let vary = received.target().trim_start_matches('/');
        page(&format!("{FRESH}Vary: accept, {vary}\r\n"), &n.to_string())
    });
    let edge = Alone::start(before(&origin));
    for field in ["X-Forwarded-For", "forwarded", "x-request-id", "Traceparent"] {
        let target = format!("/{field}");
        assert_ne!(get(edge.addr, &target, "").body, get(edge.addr, &target, "").body, "{field}");
    }
}

#[test]
fn an_upgrade_is_not_answered_from_the_store() {
    let origin = counting();
    let edge = Alone::start(before(&origin));
    let stored = get(edge.addr, "/a", "").body;
    let wanted = "GET /a HTTP/1.1\r\nHost: site.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_ne!(send(edge.addr, wanted).body, stored);
}

#[test]
fn what_is_not_stored_is_not_held_back() {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };
    // The origin's end lies in the test: it goes on only after the client has seen the beginning.
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
    let edge = Alone::start(config);
    let mut client = crate::client::connect(edge.addr);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(upstream.read(&mut byte).unwrap(), 1);
        asked.push(byte[0]);
    }
    upstream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"first\r\n") {
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    upstream.write_all(b"0\r\n\r\n").unwrap();
}

fn method(edge: &Alone, method: &str, target: &str) -> crate::client::Answer {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: site.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    send(edge.addr, head)
}

#[test]
fn a_successful_unsafe_request_makes_what_it_names_invalid() {
    let origin = Origin::start(|received, n| {
        let body = format!("{n}");
        if received.head.starts_with("GET") {
            return page("Cache-Control: max-age=60\r\nCache-Groups: \"list\"\r\n", &body);
        }
        match received.target() {
            "/fails" => "500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
            "/group" => page("Cache-Group-Invalidation: \"list\"\r\n", &body),
            _ => page("Location: other\r\nContent-Location: http://foreign.example/far\r\n", &body),
        }
    });
    let edge = Alone::start(before(&origin));
    let mut bodies = ["/a", "/other", "/far", "/fails"].map(|target| get(edge.addr, target, "").body);
    let mut changed = || {
        let now = ["/a", "/other", "/far", "/fails"].map(|target| get(edge.addr, target, "").body);
        let changed = [0, 1, 2, 3].map(|at| now[at] != bodies[at]);
        bodies = now;
        changed
    };
    assert_eq!(changed(), [false; 4]);
    method(&edge, "DELETE", "/a");
    assert_eq!(changed(), [true, true, false, false], "the target and Location, not another origin");
    method(&edge, "POST", "/fails");
    assert_eq!(changed(), [false; 4], "it failed");
    method(&edge, "OPTIONS", "/a");
    assert_eq!(changed(), [false; 4], "it is safe");
    method(&edge, "POST", "/group");
    assert_eq!(changed(), [true; 4]);
}

#[test]
fn ranges_come_from_what_is_stored_and_parts_are_stored() {
    let origin = Origin::start(|received, _| match (received.target(), received.got("range").first()) {
        ("/part", Some(range)) => {
            assert_eq!(*range, "bytes=5-");
            let fields = "Cache-Control: max-age=60\r\nETag: \"p\"\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n";
            format!("206 Partial Content\r\n{fields}Connection: close\r\n\r\n56789")
        }
        (_, Some(range)) if received.got("if-range") == ["\"p\""] => {
            assert_eq!(*range, "bytes=0-4");
            let fields = "Cache-Control: max-age=60\r\nETag: \"p\"\r\nContent-Range: bytes 0-4/10\r\nContent-Length: 5\r\n";
            format!("206 Partial Content\r\n{fields}Connection: close\r\n\r\n01234")
        }
        _ => page(FRESH, "0123456789"),
    });
    let edge = Alone::start(before(&origin));
    get(edge.addr, "/whole", "");
    let part = get(edge.addr, "/whole", "Range: bytes=2-4\r\n");
    assert_eq!(
        (part.status, part.body.as_str(), part.header("content-range").as_str()),
        (206, "234", "bytes 2-4/10")
    );
    let several = get(edge.addr, "/whole", "Range: bytes=0-0,9-\r\n");
    assert!(
        several.header("content-type").starts_with("multipart/byteranges; boundary=bastide-"),
        "{}",
        several.head
    );
    assert!(
        several.complete && several.body.contains("content-range: bytes 9-9/10\r\n\r\n9\r\n--"),
        "{}",
        several.body
    );
    let beyond = get(edge.addr, "/whole", "Range: bytes=10-\r\n");
    assert_eq!((beyond.status, beyond.header("content-range").as_str()), (416, "bytes */10"));
    assert_eq!(origin.received().len(), 1);
    assert_eq!(get(edge.addr, "/part", "Range: bytes=5-\r\n").body, "56789");
    assert_eq!(get(edge.addr, "/part", "Range: bytes=6-7\r\n").body, "67");
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn the_missing_part_is_fetched_and_the_whole_is_served() {
    let origin = Origin::start(|received, _| {
        let (range, body) = match (received.got("range").first(), received.got("if-range").first()) {
            (Some(&"bytes=0-3"), None) => ("0-3", "0123"),
            (Some(&"bytes=4-"), Some(&"\"p\"")) => ("4-9", "456789"),
            other => panic!("{other:?}"),
        };
        let length = body.len();
        format!(
            "206 Partial Content\r\nCache-Control: max-age=60\r\nETag: \"p\"\r\nContent-Range: bytes {range}/10\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    });
    let edge = Alone::start(before(&origin));
    assert_eq!(get(edge.addr, "/", "Range: bytes=0-3\r\n").status, 206);
    let whole = get(edge.addr, "/", "");
    assert_eq!((whole.status, whole.body.as_str()), (200, "0123456789"));
    assert_eq!(whole.header("cache-status"), "Bastide; fwd=partial; fwd-status=206; stored");
    assert!(get(edge.addr, "/", "").header("cache-status").contains("; hit"));
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn a_body_that_broke_off_is_kept_as_a_part_and_completed() {
    let origin = Origin::start(|received, n| {
        match (n, received.got("range").first()) {
        (0, None) => "200 OK\r\nCache-Control: max-age=60\r\nETag: \"p\"\r\nContent-Length: 10\r\n\r\n0123".into(),
        (1, Some(&"bytes=4-")) => "206 Partial Content\r\nETag: \"p\"\r\nContent-Range: bytes 4-9/10\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\nConnection: close\r\n\r\n456789".into(),
        other => panic!("{other:?}"),
    }
    });
    let edge = Alone::start(before(&origin));
    assert!(!get(edge.addr, "/", "").complete);
    // The part comes into the store when the end of the connection was seen there, too.
    let deadline = std::time::Instant::now() + crate::client::LONG;
    while !get(edge.addr, "/", "Cache-Control: only-if-cached\r\nRange: bytes=0-3\r\n")
        .body
        .starts_with("0123")
    {
        assert!(std::time::Instant::now() < deadline, "no part is stored");
    }
    assert_eq!(get(edge.addr, "/", "").body, "0123456789");
}

#[test]
fn validation_updates_what_is_stored() {
    let origin = Origin::start(|received, _| match received.got("if-none-match").first() {
        None => {
            page("Cache-Control: max-age=60\r\nAge: 90\r\nETag: \"v\"\r\nX: old\r\nKept: yes\r\n", "body")
        }
        Some(tag) => format!(
            "304 Not Modified\r\nETag: {tag}\r\nX: new\r\nCache-Control: max-age=60\r\nConnection: close\r\n\r\n"
        ),
    });
    let edge = Alone::start(before(&origin));
    get(edge.addr, "/", "");
    let validated = get(edge.addr, "/", "");
    assert_eq!((validated.status, validated.body.as_str()), (200, "body"));
    assert_eq!(
        (validated.header("x"), validated.header("kept"), validated.header("age")),
        ("new".into(), "yes".into(), String::new())
    );
    assert_eq!(validated.header("cache-status"), "Bastide; fwd=stale; fwd-status=304; stored");
    let hit = get(edge.addr, "/", "");
    assert_eq!((hit.header("x"), hit.header("age")), ("new".into(), "0".into()));
    assert_eq!(get(edge.addr, "/", "If-None-Match: \"v\"\r\n").status, 304);
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn a_304_that_means_nothing_of_ours_is_asked_again_without_conditions() {
    let origin = Origin::start(|received, n| match received.got("if-none-match").first() {
        None => page("Cache-Control: no-cache\r\nETag: \"v\"\r\n", &n.to_string()),
        Some(_) => "304 Not Modified\r\nETag: \"strange\"\r\nConnection: close\r\n\r\n".into(),
    });
    let edge = Alone::start(before(&origin));
    assert_eq!(get(edge.addr, "/", "").body, "0");
    assert_eq!(get(edge.addr, "/", "").body, "2");
}

#[test]
fn stale_answers_stand_in_for_an_origin_that_is_away_where_that_is_allowed() {
    let origin = Origin::start(|received, _| {
        let control = received.target().trim_start_matches('/').replace('_', "=");
        page(&format!("Cache-Control: {control}, max-age=1\r\nAge: 5\r\n"), "old")
    });
    let edge = Alone::start(before(&origin));
    let allowed = ["x", "stale-if-error_60", "private_a"];
    let forbidden = ["must-revalidate", "proxy-revalidate", "s-maxage_1"];
    for target in allowed.iter().chain(&forbidden) {
        assert_eq!(get(edge.addr, &format!("/{target}"), "").body, "old");
    }
    drop(origin);
    for target in allowed {
        let answer = get(edge.addr, &format!("/{target}"), "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "old"), "{target}");
        assert!(answer.header("cache-status").starts_with("Bastide; fwd=stale; ttl=-"), "{}", answer.head);
    }
    for target in forbidden {
        let answer = get(edge.addr, &format!("/{target}"), "");
        assert_eq!((answer.status, answer.code()), (504, "B-CACHE-0505".into()), "{target}");
    }
    assert_eq!(get(edge.addr, "/never", "").code(), "B-EDGE-0503");
}

#[test]
fn an_error_of_the_origin_is_covered_only_by_stale_if_error() {
    let origin = Origin::start(|received, n| {
        let control = received.target().trim_start_matches('/').replace('_', "=");
        if n < 2 {
            return page(&format!("Cache-Control: {control}\r\nAge: 5\r\n"), "old");
        }
        "503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into()
    });
    let edge = Alone::start(before(&origin));
    for target in ["/max-age_1", "/max-age_1,stale-if-error_60"] {
        get(edge.addr, target, "");
    }
    assert_eq!(get(edge.addr, "/max-age_1", "").status, 503);
    let covered = get(edge.addr, "/max-age_1,stale-if-error_60", "");
    assert_eq!((covered.status, covered.body.as_str()), (200, "old"));
    assert!(
        covered.header("cache-status").starts_with("Bastide; fwd=stale; fwd-status=503; ttl=-"),
        "{}",
        covered.head
    );
}

#[test]
fn only_if_cached_never_reaches_the_origin() {
    let origin = counting();
    let edge = Alone::start(before(&origin));
    let refused = get(edge.addr, "/a", "Cache-Control: only-if-cached\r\n");
    assert_eq!(
        (refused.status, refused.code(), refused.header("cache-status")),
        (504, "B-CACHE-0504".into(), String::new())
    );
    get(edge.addr, "/a", "");
    assert_eq!(get(edge.addr, "/a", "Cache-Control: only-if-cached\r\n").status, 200);
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn a_head_updates_what_is_stored() {
    let origin = Origin::start(|received, n| {
        if received.head.starts_with("HEAD") {
            return "200 OK\r\nCache-Control: max-age=60\r\nX: new\r\nContent-Length: 1\r\nConnection: close\r\n\r\n".into();
        }
        page("Cache-Control: max-age=60\r\nAge: 90\r\nX: old\r\nKept: yes\r\n", &n.to_string())
    });
    let edge = Alone::start(before(&origin));
    get(edge.addr, "/", "");
    let head = send(edge.addr, "HEAD / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.header("x"), head.header("kept")), (200, "new".into(), "yes".into()));
    let hit = get(edge.addr, "/", "");
    assert_eq!((hit.body.as_str(), hit.header("x")), ("0", "new".into()));
    assert_eq!(origin.received().len(), 2);
}

#[test]
fn what_upstream_caches_say_of_themselves_stays_before_our_word() {
    let origin = Origin::start(|_, _| page("Cache-Control: max-age=60\r\nCache-Status: Other; hit\r\n", "x"));
    let edge = Alone::start(before(&origin));
    assert_eq!(get(edge.addr, "/", "").header("cache-status"), "Other; hit, Bastide; fwd=uri-miss; stored");
    assert!(get(edge.addr, "/", "").header("cache-status").starts_with("Other; hit, Bastide; hit; ttl="));
}

#[test]
fn interim_responses_pass_and_are_never_stored() {
    let origin = Origin::start(|_, _| {
        let early = "103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 ";
        format!("{early}{}", page(FRESH, "body"))
    });
    let edge = Alone::start(before(&origin));
    let raw = |edge: &Alone| {
        use std::io::{Read, Write};
        let mut stream = crate::client::connect(edge.addr);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let first = raw(&edge);
    let heads: Vec<_> = first.split("\r\n\r\n").collect();
    assert!(heads[0].starts_with("HTTP/1.1 103 ") && heads[0].contains("link: </style.css>"), "{first}");
    assert!(heads[1].starts_with("HTTP/1.1 102 ") && heads[2].starts_with("HTTP/1.1 200 "), "{first}");
    assert!(!heads[2].contains("link:") && heads[2].contains("; stored"), "{first}");
    let hit = raw(&edge);
    assert!(hit.starts_with("HTTP/1.1 200 ") && hit.contains("; hit") && !hit.contains("link:"), "{hit}");
}

#[test]
fn compressed_variants_of_the_origin_are_stored_once_each_and_cut_by_themselves() {
    let origin = Origin::start(|received, _| {
        let fields = "Cache-Control: max-age=60\r\nVary: Accept-Encoding\r\n";
        match received.got("accept-encoding").first() {
            Some(coding) if coding.contains("br") => {
                page(&format!("{fields}ETag: \"b\"\r\nContent-Encoding: br\r\n"), "BROTLI")
            }
            Some(coding) if coding.contains("gzip") => {
                page(&format!("{fields}ETag: \"g\"\r\nContent-Encoding: gzip\r\n"), "GZIPPED")
            }
            _ => page(&format!("{fields}ETag: \"p\"\r\n"), "PLAIN TEXT"),
        }
    });
    let edge = Alone::start(before(&origin));
    let ask = |coding: &str, range: &str| get(edge.addr, "/", &format!("{coding}{range}"));
    for (coding, body) in [
        ("Accept-Encoding: gzip, br\r\n", "BROTLI"),
        ("Accept-Encoding: BR,gzip;q=1.0\r\n", "BROTLI"),
        ("Accept-Encoding: gzip\r\n", "GZIPPED"),
        ("", "PLAIN TEXT"),
        ("Accept-Encoding: br, gzip\r\n", "BROTLI"),
        ("", "PLAIN TEXT"),
    ] {
        assert_eq!(ask(coding, "").body, body, "{coding}");
    }
    assert_eq!(origin.received().len(), 3, "each variant was fetched once");
    let part = ask("Accept-Encoding: gzip\r\n", "Range: bytes=4-\r\n");
    assert_eq!(
        (part.status, part.body.as_str(), part.header("content-range")),
        (206, "PED", "bytes 4-6/7".into())
    );
    assert_eq!((part.header("content-encoding"), part.header("etag")), ("gzip".into(), "\"g\"".into()));
    let plain = ask("", "Range: bytes=6-\r\nIf-Range: \"p\"\r\n");
    assert_eq!((plain.status, plain.body.as_str()), (206, "TEXT"));
    let other = ask("", "Range: bytes=6-\r\nIf-Range: \"g\"\r\n");
    assert_eq!((other.status, other.body.as_str()), (200, "PLAIN TEXT"), "the tag of another variant");
    assert_eq!(origin.received().len(), 3);
}
