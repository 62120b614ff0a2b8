//! The WAF station: verdicts come from loaded rules, and every head is seen as it was sent.

use crate::{
    client::{get, send},
    origin::{Alone, Origin, before, inspected, page, rules},
};
use bastide_edge::{Error, StandAlone, run_alone};
use bastide_waf::Mode;
use serde_json::Value;
use std::path::Path;
use tokio_util::sync::CancellationToken;

fn origin() -> Origin {
    Origin::start(|received, _| match received.target() {
        "/leak" => page("Content-Type: text/html\r\n", "a LEAK in a page"),
        "/picture" => page("Content-Type: image/png\r\n", "a LEAK in a picture"),
        target => page("Content-Type: text/html\r\n", &format!("for {target}")),
    })
}

fn edge(origin: &Origin, mode: Mode, dir: &Path) -> Alone {
    let waf = inspected(mode, rules(dir), Some(dir.join("audit.log")));
    Alone::start(StandAlone { waf: Some(waf), ..before(origin) })
}

fn audit(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn matched(line: &Value) -> Vec<u64> {
    line["rule_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

#[test]
fn in_blocking_mode_a_rule_refuses_and_the_origin_sees_nothing() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let edge = edge(&origin, Mode::Block, dir.path());
    let blocked = get(edge.addr, "/?q=an+attack", "");
    assert_eq!((blocked.status, blocked.code()), (403, "B-WAF-0403".to_owned()));
    let form =
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 8\r\nConnection: close\r\n";
    let posted = send(edge.addr, format!("POST / HTTP/1.1\r\nHost: a\r\n{form}\r\nq=attack"));
    assert_eq!(posted.status, 403);
    assert_eq!(get(edge.addr, "/?q=harmless", "").status, 200);
    edge.end();
    assert_eq!(origin.received().len(), 1);
    let lines = audit(dir.path());
    assert_eq!(lines.iter().map(matched).collect::<Vec<_>>(), [vec![1], vec![1]]);
    assert_eq!(lines[0]["request_id"], blocked.header("x-request-id").as_str());
    assert_eq!((&lines[0]["verdict"], &lines[0]["response"]["status"]), (&"block".into(), &403.into()));
    assert_eq!(lines[0]["messages"][0]["msg"], "attack in an argument");
    assert_eq!(lines[0]["request"]["uri"], "/?q=an+attack", "an edge alone masks no values");
    assert_eq!(lines[0]["scores"]["inbound"], 0);
}

#[test]
fn in_detecting_mode_it_is_told_and_passes() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let edge = edge(&origin, Mode::Detect, dir.path());
    assert_eq!(get(edge.addr, "/?q=attack", "").status, 200);
    edge.end();
    assert_eq!(origin.received().len(), 1);
    let lines = audit(dir.path());
    assert_eq!(matched(&lines[0]), [1]);
    assert_eq!((&lines[0]["verdict"], &lines[0]["response"]["status"]), (&"detect".into(), &200.into()));
}

#[test]
fn rules_see_the_target_exactly_as_it_was_sent() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let edge = edge(&origin, Mode::Block, dir.path());
    assert_eq!(get(edge.addr, "/?x=<raw>", "").status, 403);
    assert_eq!(get(edge.addr, "/?x=%3Craw%3E", "").status, 200);
}

#[test]
fn a_refused_head_is_audited_before_its_400() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let edge = edge(&origin, Mode::Block, dir.path());
    let refused = send(edge.addr, "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-Probe: seen\r\n\r\n");
    assert_eq!((refused.status, refused.code()), (400, "B-EDGE-0400".to_owned()));
    assert!(refused.body.contains("duplicate-host"), "{}", refused.body);
    edge.end();
    assert!(origin.received().is_empty());
    let lines = audit(dir.path());
    assert_eq!(matched(&lines[0]), [3]);
    assert_eq!(lines[0]["request_id"], refused.header("x-request-id").as_str());
    assert_eq!((&lines[0]["verdict"], &lines[0]["response"]["status"]), (&"pass".into(), &400.into()));
    assert_eq!(lines[0]["request"]["headers"]["X-Probe"], "seen");
}

#[test]
fn an_answer_is_inspected_before_its_first_byte_leaves() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let edge = edge(&origin, Mode::Block, dir.path());
    let leak = get(edge.addr, "/leak", "");
    assert_eq!((leak.status, leak.code()), (403, "B-WAF-0403".to_owned()));
    assert_eq!(get(edge.addr, "/picture", "").body, "a LEAK in a picture");
}

#[test]
fn a_second_content_type_hides_no_body() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let edge = edge(&origin, Mode::Block, dir.path());
    let types = "Content-Type: image/png\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let lines = format!("{types}Content-Length: 8\r\nConnection: close\r\n");
    let answer = send(edge.addr, format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\nq=attack"));
    assert!(answer.status == 400 || answer.status == 403, "{answer:?}");
    assert!(origin.received().is_empty());
}

#[test]
fn what_holds_no_rules_is_an_error_at_start() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let broken = dir.path().join("broken.conf");
    std::fs::write(&broken, "SecRule ARGS \"@noSuchOperator x\" \"id:1,phase:2,deny\"\n").unwrap();
    for rules in [empty, broken, dir.path().join("absent.conf")] {
        let waf = inspected(Mode::Block, rules.clone(), None);
        let config = StandAlone { waf: Some(waf), ..before(&origin) };
        let shown = rules.clone();
        let refused = run_alone(config, move |_| panic!("{shown:?} serves"), CancellationToken::new());
        assert!(
            matches!(refused, Err(Error::NoRules { .. } | Error::Rules(_) | Error::File { .. })),
            "{rules:?}: {refused:?}"
        );
    }
}

#[test]
fn what_matched_is_told_even_when_the_origin_is_away_or_the_client_hangs_up() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let rules = rules(dir.path());
    let waf = inspected(Mode::Detect, rules, Some(dir.path().join("audit.log")));
    let away = StandAlone { origin: "http://127.0.0.1:1".into(), waf: Some(waf), ..before(&origin) };
    let edge = Alone::start(away);
    assert_eq!(get(edge.addr, "/?q=attack", "").status, 502);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nX-Probe: seen\r\nContent-Length: 100\r\n\r\nhalf";
    let mut client = std::net::TcpStream::connect(edge.addr).unwrap();
    std::io::Write::write_all(&mut client, head.as_bytes()).unwrap();
    // The edge has seen the head when it has answered somebody who came later.
    assert_eq!(get(edge.addr, "/", "").status, 502);
    drop(client);
    edge.end();
    let lines = audit(dir.path());
    let mut told: Vec<_> =
        lines.iter().map(|line| (matched(line), line["response"]["status"].as_u64())).collect();
    told.sort();
    assert_eq!(told[0], (vec![1], Some(502)));
    assert_eq!(told[1].0, [3]);
}

#[test]
fn other_rules_are_taken_while_it_serves_and_broken_ones_leave_the_last_good() {
    let (origin, dir) = (origin(), tempfile::tempdir().unwrap());
    let edge = edge(&origin, Mode::Block, dir.path());
    let rules = dir.path().join("rules.conf");
    assert_eq!(get(edge.addr, "/?q=bomb", "").status, 200);
    std::fs::write(&rules, "SecRule ARGS \"@contains bomb\" \"id:7,phase:2,deny,t:none\"\n").unwrap();
    let until = |status: u16| {
        while get(edge.addr, "/?q=bomb", "").status != status {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    until(403);
    assert_eq!(get(edge.addr, "/?q=attack", "").status, 200, "the rule is gone");
    std::fs::write(&rules, "SecRule ARGS \"@noSuchOperator x\" \"id:7,phase:2,deny\"\n").unwrap();
    // Two looks at the files, and some.
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(get(edge.addr, "/?q=bomb", "").status, 403);
    std::fs::write(&rules, "SecRule ARGS \"@contains other\" \"id:7,phase:2,deny\"\n").unwrap();
    until(200);
}
