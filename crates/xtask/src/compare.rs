//! Verdict by verdict against libmodsecurity over generated requests: which rules match in one engine only.

use crate::{
    cost::matched_ids,
    oracle::{Oracle, Task},
    request::Request,
    rules::Place,
    values::{Chance, value},
};
use anyhow::Result;
use bastide_waf::{Mode, Settings};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    sync::Arc,
};

/// How much is compared.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Requests
    #[arg(long, default_value_t = 20_000)]
    count: u64,
    /// Where they begin; another number gives others
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Paranoia level
    #[arg(long, default_value_t = 4)]
    paranoia: u8,
    /// Examples to show of each difference
    #[arg(long, default_value_t = 1)]
    examples: usize,
}

/// In how many requests a rule matched in one engine only, with the first of them.
#[derive(Default)]
struct Difference {
    count: usize,
    examples: Vec<String>,
}

/// Compares, and prints what differs by rule. Rules that count scores follow the others and are left out.
pub fn run(args: &Args) -> Result<ExitCode> {
    let settings = Settings { mode: Mode::Detect, paranoia: args.paranoia, ..Settings::default() };
    let set = Arc::new(args.place.compile(&settings)?);
    let mut oracle = Oracle::rules(Task::Ask, &args.place.files()?, false, args.paranoia)?;
    let mut chance = Chance::new(args.seed);
    let (mut same, mut matches) = (0_u64, 0_usize);
    let mut differences: BTreeMap<(u32, bool), Difference> = BTreeMap::new();
    for _ in 0..args.count {
        let request = request(&mut chance);
        let own: BTreeSet<u32> =
            matched_ids(&set, &request).into_iter().filter(|id| is_compared(*id)).collect();
        let theirs = oracle.ask(&request)?.ids.into_iter();
        let theirs: BTreeSet<u32> = theirs.filter(|id| is_compared(*id)).collect();
        matches += theirs.len();
        same += u64::from(own == theirs);
        for id in own.symmetric_difference(&theirs) {
            let found = differences.entry((*id, own.contains(id))).or_default();
            found.count += 1;
            if found.examples.len() < args.examples {
                found.examples.push(shown(&request));
            }
        }
    }
    println!(
        "{} requests from seed {}, paranoia {}: {matches} matches, {same} requests alike\n",
        args.count, args.seed, args.paranoia
    );
    for ((id, ours), difference) in &differences {
        println!("- {id}: {} times {} only", difference.count, if *ours { "ours" } else { "theirs" });
        difference.examples.iter().for_each(|example| println!("  {example}"));
    }
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a rule looks at the request or its answer itself.
fn is_compared(id: u32) -> bool {
    (911_000..980_000).contains(&id) && !matches!(id / 1000, 949 | 959)
}

fn shown(request: &Request) -> String {
    let field = request
        .fields
        .last()
        .map(|(name, value)| format!("{name}: {}", value.escape_ascii()))
        .unwrap_or_default();
    format!(
        "{} {} | {field} | {}",
        request.method,
        request.target.escape_ascii(),
        request.body.escape_ascii()
    )
}

/// A request that carries a generated value in one of many places.
fn request(chance: &mut Chance) -> Request {
    let value = value(chance);
    let encoded = escaped(&value, chance);
    match chance.below(9) {
        0 | 1 => Request::get([b"/search?q=", encoded.as_slice(), b"&page=2"].concat()),
        2 => Request::get([b"/files/", encoded.as_slice()].concat()),
        3 => Request::get([b"/?", encoded.as_slice(), b"=x"].concat()),
        4 => with(Request::get("/"), "Cookie", &one_line(value, b";")),
        5 => {
            let name = *chance.of(&["User-Agent", "Referer", "X-Note"]);
            with(Request::get("/"), name, &one_line(value, b""))
        }
        6 => Request::post(
            "/form",
            "application/x-www-form-urlencoded",
            [b"a=1&b=", encoded.as_slice()].concat(),
        ),
        7 => Request::post("/api", "application/json", json(&value)),
        _ => {
            let head = "--mark\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n";
            let value = String::from_utf8_lossy(&value).replace("--mark", "");
            Request::post(
                "/up",
                "multipart/form-data; boundary=mark",
                format!("{head}{value}\r\n--mark--\r\n"),
            )
        }
    }
}

fn with(mut request: Request, name: &str, value: &[u8]) -> Request {
    request.fields.retain(|(own, _)| own != name);
    let value = if name == "Cookie" { [b"a=", value].concat() } else { value.to_vec() };
    request.fields.push((name.to_owned(), value));
    request
}

/// As it may stand in a field.
fn one_line(value: Vec<u8>, without: &[u8]) -> Vec<u8> {
    let is_kept = |byte: &u8| !matches!(byte, b'\r' | b'\n' | 0) && !without.contains(byte);
    value.into_iter().filter(is_kept).collect::<Vec<_>>().trim_ascii().to_vec()
}

fn json(value: &[u8]) -> String {
    serde_json::json!({ "name": "Ann", "text": String::from_utf8_lossy(value), "list": [1, true] })
        .to_string()
}

/// Percent-encoded as far as a target needs it, or wholly.
fn escaped(value: &[u8], chance: &mut Chance) -> Vec<u8> {
    let wholly = chance.one_in(3);
    let mut out = Vec::new();
    for byte in value {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(*byte),
            b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b',' | b'-' | b'.' | b'/' | b':' | b';' | b'@'
            | b'_' | b'~' | b'='
                if !wholly =>
            {
                out.push(*byte);
            }
            _ => out.extend(format!("%{byte:02X}").bytes()),
        }
    }
    out
}
