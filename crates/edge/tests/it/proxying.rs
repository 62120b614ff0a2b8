//! The edge alone: proxying, header hygiene, framing.

use crate::{
    client::{get, get_tls, send, trusting},
    origin::{Alone, Origin, before, page},
};
use bastide_edge::{Error, StandAlone, config::CertificateFile, run_alone};
use bastide_tls::LocalCa;
use std::io::{Read, Write};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

fn ok() -> Origin {
    Origin::start(|received, _| page("Server: secret/1.0\r\n", &format!("for {}", received.target())))
}

#[test]
fn any_host_and_path_reach_the_origin_as_they_were_sent() {
    let origin = ok();
    let edge = Alone::start(before(&origin));
    for target in ["/", "//a//b", "/a/../b?x=%zz", "/%2e%2e/x", "/a;b=c?d&e", "/%00"] {
        let answer = get(edge.addr, target, "");
        assert_eq!((answer.status, answer.body), (200, format!("for {target}")), "{target}");
    }
    assert!(origin.received().iter().all(|received| received.got("host") == ["site.example"]));
}

#[test]
fn bodies_and_methods_pass() {
    let origin = ok();
    let edge = Alone::start(before(&origin));
    let head = "PROPFIND /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    send(edge.addr, format!("{head}Content-Length: 5\r\n\r\nhello"));
    send(edge.addr, format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"));
    let received = origin.received();
    assert!(
        received.iter().all(|received| received.head.starts_with("PROPFIND ") && received.body == b"hello")
    );
    assert_eq!(received.len(), 2);
}

#[test]
fn what_only_we_may_say_is_removed_in_every_spelling() {
    let origin = ok();
    let edge = Alone::start(before(&origin));
    let spoofed = "X-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nX-FORWARDED_Host: evil\r\n\
                   Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Bastide-User: admin\r\n\
                   x_bastide-user: admin\r\nX-Request-Id: chosen\r\nTraceparent: chosen\r\n\
                   X-Original-URL: /admin\r\nConnection: x-forwarded-proto, x-request-id\r\n";
    let answer = get(edge.addr, "/", spoofed);
    let received = &origin.received()[0];
    assert!(!received.head.contains("6.6.6.6") && !received.head.contains("evil"), "{}", received.head);
    assert!(!received.head.contains("admin") && !received.head.contains("chosen"), "{}", received.head);
    assert_eq!(received.got("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received.got("x-forwarded-proto"), ["http"]);
    assert_eq!(received.got("x-forwarded-host"), ["site.example"]);
    assert_eq!(received.got("x-request-id"), [answer.header("x-request-id")]);
    assert!(!received.head.to_ascii_lowercase().contains("x-bastide"), "{}", received.head);
}

#[test]
fn an_answer_names_its_request_and_not_the_server() {
    let origin = ok();
    let edge = Alone::start(before(&origin));
    let answer = get(edge.addr, "/", "");
    assert_eq!(answer.header("server"), "");
    assert_eq!(answer.header("x-request-id").len(), 36);
}

#[test]
fn an_answer_that_breaks_off_is_never_made_whole() {
    let origin = Origin::start(|received, _| {
        let fields = match received.target() {
            "/fresh" => "Cache-Control: max-age=60\r\n",
            _ => "Content-Type: text/html\r\n",
        };
        format!("200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    });
    let dir = tempfile::tempdir().unwrap();
    let waf = crate::origin::inspected(bastide_waf::Mode::Block, crate::origin::rules(dir.path()), None);
    let edge = Alone::start(StandAlone { waf: Some(waf), ..before(&origin) });
    for target in ["/fresh", "/inspected"] {
        for asked in 1..3 {
            let answer = get(edge.addr, target, "");
            assert!(answer.status == 502 || !answer.complete, "{answer:?}");
            let received = origin.received();
            let count = received.iter().filter(|received| received.target() == target).count();
            assert_eq!(count, asked, "what broke off was not stored");
        }
    }
}

#[test]
fn an_origin_that_is_away_is_said_so() {
    let origin = ok();
    let config = before(&origin);
    drop(origin);
    let edge = Alone::start(config);
    let answer = get(edge.addr, "/", "");
    assert_eq!((answer.status, answer.code()), (502, "B-EDGE-0503".to_owned()));
}

#[test]
fn a_request_that_comes_back_is_refused() {
    let origin = ok();
    let edge = Alone::start(before(&origin));
    // Another Bastide before this one is no loop.
    assert_eq!(get(edge.addr, "/", "CDN-Loop: other, bastide\r\n").status, 200);
    let received = &origin.received()[0];
    assert_eq!(received.got("via"), ["1.1 bastide"]);
    let [before, own] = received.got("cdn-loop")[..] else { panic!("{received:?}") };
    assert_eq!(before, "other, bastide");
    let looped = get(edge.addr, "/", &format!("CDN-Loop: {own};v=1, later\r\n"));
    assert_eq!((looped.status, looped.code()), (508, "B-EDGE-0508".to_owned()));
    assert_eq!(origin.received().len(), 1);
}

#[test]
fn another_spelling_of_what_has_a_meaning_never_reaches_the_origin() {
    let origin = ok();
    let edge = Alone::start(before(&origin));
    let lines = "Content_Length: 7\r\nTransfer_Encoding: chunked\r\nX.Forwarded.For: 6.6.6.6\r\nConnection: x_mine, X-Real-Ip\r\n\
                 X_Mine: 1\r\nX_Other: kept\r\nHTTP2-Settings: AAA\r\nTE: gzip\r\n";
    assert_eq!(get(edge.addr, "/", lines).status, 200);
    let received = &origin.received()[0];
    for gone in ["content_length", "transfer_encoding", "x.forwarded.for", "x_mine", "http2-settings", "te"] {
        assert!(received.got(gone).is_empty(), "{gone}: {received:?}");
    }
    assert_eq!(received.got("x_other"), ["kept"]);
}

#[test]
fn an_expectation_is_met_here_and_not_passed_on() {
    let origin = ok();
    let edge = Alone::start(before(&origin));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut stream = crate::client::connect(edge.addr);
    let (mut go_on, mut answer) = ([0; 25], String::new());
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let received = &origin.received()[0];
    assert_eq!((received.got("expect"), &received.body[..]), (vec![], &b"hi"[..]));
}

#[test]
fn heads_with_two_meanings_never_reach_the_origin() {
    let origin = ok();
    let edge = Alone::start(before(&origin));
    for lines in [
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Host: a\r\nContent-Length: 5, 5\r\n",
        "Host: a\r\nA: b\r\n folded\r\n",
    ] {
        let answer = send(edge.addr, format!("GET / HTTP/1.1\r\n{lines}\r\n"));
        assert_eq!((answer.status, answer.code()), (400, "B-EDGE-0400".to_owned()), "{lines}");
    }
    assert!(origin.received().is_empty());
}

#[test]
fn over_tls_one_certificate_answers_for_every_name() {
    let (origin, dir, now) = (ok(), tempfile::tempdir().unwrap(), OffsetDateTime::now_utc());
    let ca = LocalCa::create_public(&["site.example".into()], now).unwrap();
    let issued = ca.issue_site(&["site.example".into()], now).unwrap();
    let files = CertificateFile { cert_file: dir.path().join("cert"), key_file: dir.path().join("key") };
    issued.write(&files.cert_file, &files.key_file).unwrap();
    let edge = Alone::start(StandAlone { tls: Some(files), ..before(&origin) });
    let answer =
        get_tls(edge.addr, &trusting(ca.certificate_pem()), "site.example", "any.example", "/x", "").unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "for /x"));
    assert_eq!(origin.received()[0].got("x-forwarded-proto"), ["https"]);
}

#[test]
fn an_origin_that_is_none_is_refused_at_start() {
    for wrong in ["ftp://a", "127.0.0.1:1", "http://127.0.0.1/path", "http://", "nonsense"] {
        let config = StandAlone {
            origin: wrong.into(),
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            cache: false,
            compress: true,
            metrics: None,
            takeover_socket: None,
            waf: None,
        };
        let refused = run_alone(config, move |_| panic!("{wrong} serves"), CancellationToken::new());
        assert!(matches!(refused, Err(Error::Origin { .. })), "{wrong}: {refused:?}");
    }
}
