//! Prints what a rule set costs per request on one core, in µs, response phases included: Debian's CRS, or
//! the set-up file and the rules directory that are given.

use bastide_waf::{Connection, Files, RuleSet, Settings, Source};
use std::{fs, path::Path, sync::Arc, time::Instant};

struct Beside;

impl Files for Beside {
    fn read(&self, from: &str, path: &str) -> Result<Vec<u8>, String> {
        let beside = Path::new(from).parent().unwrap_or(Path::new("."));
        fs::read(beside.join(path)).map_err(|error| error.to_string())
    }
    fn expand(&self, _: &str, _: &str) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

fn fields(list: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&[u8], &[u8])> {
    list.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let setup = arguments.next().unwrap_or_else(|| "/etc/modsecurity/crs/crs-setup.conf".into());
    let rules = arguments.next().unwrap_or_else(|| "/usr/share/modsecurity-crs/rules".into());
    let mut paths: Vec<_> = fs::read_dir(rules)?.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    paths.insert(0, setup.into());
    let read = |path: &std::path::PathBuf| {
        fs::read(path).map(|bytes| Source { name: path.display().to_string(), bytes })
    };
    let sources = paths.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let begun = Instant::now();
    let set = Arc::new(RuleSet::compile(&sources, &Beside, &Settings::default())?);
    println!("load             {:.0} ms, {} rules", begun.elapsed().as_secs_f64() * 1e3, set.rules());
    let headers: Vec<(Vec<u8>, Vec<u8>)> = [
        ("Host", "shop.example"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "en-US,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Referer", "https://shop.example/list"),
        ("Cookie", "session=0123456789abcdef; theme=dark; lang=en"),
        ("Connection", "keep-alive"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    let json_headers =
        [headers.clone(), vec![(b"Content-Type".to_vec(), b"application/json".to_vec())]].concat();
    let items: Vec<String> =
        (0..29).map(|n| format!(r#"{{"id":{n},"name":"a plain product name {n}"}}"#)).collect();
    let json = format!(r#"{{"items":[{}]}}"#, items.join(","));
    let get = "/products/list.html?category=shoes&page=2&sort=price&q=red+running+shoes";
    for (name, method, target, headers, body) in [
        ("benign GET", "GET", get, &headers, ""),
        ("SQLi GET", "GET", "/item?id=1%27%20or%201=1--", &headers, ""),
        ("2 KB JSON POST", "POST", "/api/order", &json_headers, json.as_str()),
    ] {
        let rounds = 5000;
        let mut blocked = 0;
        let begun = Instant::now();
        for _ in 0..rounds {
            let addr = ([127, 0, 0, 1], 4711).into();
            let mut transaction =
                set.begin(Connection { client: addr, server: addr, unique_id: "id".into(), now: 0 });
            let head =
                transaction.request_head(method.as_bytes(), target.as_bytes(), b"HTTP/1.1", fields(headers));
            let verdict = if head == bastide_waf::Verdict::Pass {
                transaction.request_body(body.as_bytes(), true)
            } else {
                head
            };
            if verdict == bastide_waf::Verdict::Pass {
                transaction.response_head(
                    200,
                    b"HTTP/1.1",
                    [(&b"Content-Type"[..], &b"text/html"[..])].into_iter(),
                );
                transaction.response_body(b"<html><body>A plain page.</body></html>", true);
            } else {
                blocked += 1;
            }
            transaction.finish();
        }
        println!(
            "{name:16} {:.0} µs ({blocked}/{rounds} refused)",
            begun.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
        );
    }
    Ok(())
}
