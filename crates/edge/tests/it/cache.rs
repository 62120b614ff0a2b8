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
    let config = StandAlone { origin, listen: ([127, 0, 0, 1], 0).into(), tls: None, cache: true, waf: None };
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
