//! Banned sources: refused before anything else is done, on new and on open connections, as long as the ban lasts.

use crate::{
    client::{Answer, LONG, connect, get},
    whole::{APPS, PLATFORM, World, free, snapshot, world_with, write_state},
};
use bastide_types::{
    Ban, CustomerId, CustomerName, Role, SiteDocument, Snapshot, StageName,
    snapshot::{Customer, Issuer},
};
use std::{
    io::{Read, Write},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

const JSON: &str = "Accept: application/json\r\n";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn ban(net: &str, until: Option<u64>) -> Ban {
    Ban { net: net.parse().unwrap(), until }
}

/// The Snapshot with a second customer, and the operator organization that bans these.
fn town(everywhere: Vec<Ban>) -> Snapshot {
    let mut snapshot = snapshot();
    let mut other = snapshot.customers.values().next().unwrap().clone();
    other.id = CustomerId::generate();
    for stage in other.stages.values_mut() {
        stage.account = "OTHER".into();
        stage.apps.clear();
    }
    let page = r#"{"pages":{"404":"<p>nothing</p>"}}"#;
    other.stages.get_mut(&StageName::production()).unwrap().site = SiteDocument::from_json(page);
    snapshot.customers.insert(CustomerName::new("other").unwrap(), other);
    let issuer = Issuer { url: String::new(), keys: vec![], token_epoch: 0 };
    let operator = Customer {
        id: CustomerId::generate(),
        issuer,
        bans: everywhere,
        stages: std::collections::BTreeMap::new(),
    };
    snapshot.customers.insert(CustomerName::operator(), operator);
    snapshot
}

fn demo(snapshot: &mut Snapshot) -> &mut Customer {
    snapshot.customers.get_mut(&CustomerName::new("demo").unwrap()).unwrap()
}

/// An edge behind a proxy that says who asks.
fn behind_a_proxy(snapshot: &Snapshot) -> World {
    world_with([Role::Gateway; 2], |config| {
        config.settings.forwarded_from = vec!["127.0.0.0/8".parse().unwrap()];
        config.settings.metrics = Some(free());
        write_state(&config.state_dir, snapshot);
    })
}

fn ask(world: &World, host: &str, target: &str, client: &str) -> Answer {
    world.get_with(host, target, &format!("Forwarded: for=\"{client}\"\r\n{JSON}"))
}

#[test]
fn what_the_operator_bans_is_refused_everywhere_and_nobodys_settings_let_it_in() {
    let mut snapshot = town(vec![ban("203.0.113.0/24", None), ban("2001:db8::/48", None)]);
    // Closed for everybody but the banned source; and its customer bans nobody.
    let open = r#"{"maintenance":{"apps":{"shop":{"open_for":["203.0.113.0/24"]}}}}"#;
    let stage = demo(&mut snapshot).stages.get_mut(&StageName::production()).unwrap();
    stage.site = SiteDocument::from_json(open);
    let world = behind_a_proxy(&snapshot);
    for host in [APPS, PLATFORM, "other.apps.localhost"] {
        for client in ["203.0.113.7", "[2001:db8::7]:4711", "[::ffff:203.0.113.7]"] {
            for target in ["/shop/", "/", "/%zz", "/?q=attack"] {
                let answer = ask(&world, host, target, client);
                assert_eq!((answer.status, &*answer.code()), (403, "B-EDGE-0403"), "{host}{target} {client}");
            }
        }
    }
    assert_eq!(world.passed(), 0);
    assert_eq!(ask(&world, PLATFORM, "/api/v1/apps", "203.0.114.7").status, 200);
    assert_eq!(ask(&world, APPS, "/shop/", "203.0.114.7").code(), "B-SITE-0503", "it is closed for others");
    assert!(world.access_log().contains("\"client\":\"203.0.113.7\""));
}

#[test]
fn what_a_customer_bans_is_refused_at_its_hosts_and_nowhere_else() {
    let mut snapshot = town(vec![]);
    demo(&mut snapshot).bans = vec![ban("203.0.113.7", None)];
    let stage = demo(&mut snapshot).stages.get_mut(&StageName::production()).unwrap();
    stage.site = SiteDocument::from_json(r#"{"pages":{"403":"<p>go away {{code}}</p>"}}"#);
    let world = behind_a_proxy(&snapshot);
    for target in ["/shop/", "/nothing/", "/.bastide/login", "/"] {
        assert_eq!(ask(&world, APPS, target, "203.0.113.7").code(), "B-EDGE-0403", "{target}");
    }
    assert_eq!(world.passed(), 0);
    let page = world.get_with(APPS, "/shop/", "Forwarded: for=203.0.113.7\r\nAccept: text/html\r\n");
    assert_eq!((page.status, &*page.body), (403, "<p>go away B-EDGE-0403</p>"), "in the customer's words");
    assert_eq!(ask(&world, APPS, "/shop/", "203.0.113.8").status, 200, "another source");
    assert_eq!(ask(&world, PLATFORM, "/api/v1/bans", "203.0.113.7").status, 200, "where bans are lifted");
    assert_eq!(ask(&world, "other.apps.localhost", "/", "203.0.113.7").status, 404, "another customer");
    // What is stored is not for them either.
    assert_eq!(ask(&world, APPS, "/shop/marked", "203.0.113.8").status, 200);
    assert_eq!(ask(&world, APPS, "/shop/marked", "203.0.113.7").status, 403);
    let log = world.access_log();
    let line = log.lines().find(|line| line.contains("\"waf\":\"ban\"")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["client"], &line["status"]), (&"203.0.113.7".into(), &403.into()));
    assert_eq!((&line["site"]["customer"], &line["site"]["stage"]), (&"demo".into(), &"production".into()));
}

#[test]
fn each_request_of_an_open_connection_is_judged_by_itself() {
    let world = behind_a_proxy(&town(vec![ban("203.0.113.7", None)]));
    let name = rustls::pki_types::ServerName::try_from(APPS).unwrap();
    let connection = rustls::ClientConnection::new(world.trust.clone(), name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, connect(world.https));
    for (client, status) in
        [("198.51.100.1", "200"), ("203.0.113.7", "403"), ("198.51.100.1", "200"), ("203.0.113.7", "403")]
    {
        write!(stream, "HEAD /shop/ HTTP/1.1\r\nHost: {APPS}\r\nForwarded: for={client}\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{client}: {head}");
    }
}

#[test]
fn a_ban_ends_by_the_clock_without_another_snapshot() {
    let until = now() + 4;
    let mut snapshot = town(vec![ban("203.0.113.7", Some(until)), ban("203.0.113.8", Some(now() - 1))]);
    demo(&mut snapshot).bans = vec![ban("203.0.113.9", Some(until))];
    let world = behind_a_proxy(&snapshot);
    assert_eq!(ask(&world, APPS, "/shop/", "203.0.113.8").status, 200, "it has ended before");
    for client in ["203.0.113.7", "203.0.113.9"] {
        let begun = Instant::now();
        loop {
            let before = now();
            let status = ask(&world, APPS, "/shop/", client).status;
            // Between the two looks at the clock it may be either.
            if before >= until {
                assert_eq!(status, 200, "{client} at {before} of {until}");
                break;
            }
            if now() < until {
                assert_eq!(status, 403, "{client} at {before} of {until}");
            }
            assert!(begun.elapsed() < LONG);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}

/// A PROXY header (version 2) for a client of IPv4.
fn proxied(client: [u8; 4]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &client[..], &[198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb]].concat()
}

#[test]
fn a_source_that_is_banned_everywhere_gets_no_handshake_and_is_counted() {
    let mut snapshot = town(vec![ban("203.0.113.0/24", None)]);
    demo(&mut snapshot).bans = vec![ban("198.51.100.7", None)];
    let figures = free();
    let world = world_with([Role::Gateway; 2], |config| {
        config.settings.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
        config.settings.metrics = Some(figures);
        write_state(&config.state_dir, &snapshot);
    });
    let ask = |client: [u8; 4]| -> std::io::Result<String> {
        let mut tcp = connect(world.https);
        tcp.write_all(&proxied(client))?;
        let name = rustls::pki_types::ServerName::try_from(APPS).unwrap();
        let connection = rustls::ClientConnection::new(world.trust.clone(), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, tcp);
        write!(stream, "GET /shop/ HTTP/1.1\r\nHost: {APPS}\r\n{JSON}Connection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    assert!(ask([192, 0, 2, 1]).unwrap().starts_with("HTTP/1.1 200 "));
    for _ in 0..2 {
        let refused = ask([203, 0, 113, 7]).map_or_else(|_| String::new(), |answer| answer);
        assert_eq!(refused, "", "not even a handshake");
    }
    let refused = ask([198, 51, 100, 7]).unwrap();
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("B-EDGE-0403"), "{refused}");
    // Plain HTTP is closed to it, too.
    let mut plain = connect(world.http);
    plain.write_all(&proxied([203, 0, 113, 7])).unwrap();
    let _ = plain.write_all(b"GET / HTTP/1.1\r\nHost: demo.apps.localhost\r\n\r\n");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    let text = get(figures, "/metrics", "").body;
    for line in [
        "bastide_edge_banned_total{by=\"operator\",at=\"connection\"} 3\n",
        "bastide_edge_banned_total{by=\"operator\",at=\"request\"} 0\n",
        "bastide_edge_banned_total{by=\"customer\",at=\"request\"} 1\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
