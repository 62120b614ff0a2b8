//! What a request costs in process, all phases, beside libmodsecurity with the same rules in the same run.

use crate::{
    oracle::{self, Oracle, Task},
    request::{PAGE, Request, STATUS, VERSION},
    rules::Place,
};
use anyhow::{Context, Result};
use bastide_waf::{Audit, Connection, Exclusion, RuleSet, Settings, Verdict};
use std::{fs, process::ExitCode, sync::Arc, time::Instant};

/// What is measured.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Paranoia level
    #[arg(long, default_value_t = 1)]
    paranoia: u8,
    /// Ours alone
    #[arg(long)]
    alone: bool,
    /// Run one of the requests for so many seconds and nothing else, for a profiler
    #[arg(long, value_name = "NAME=SECONDS")]
    profile: Option<String>,
}

/// A request to measure, and the bars for it: µs, and how many times libmodsecurity's cost.
struct Scenario {
    name: &'static str,
    request: Request,
    blocked: bool,
    bars: Option<(f64, f64)>,
}

/// Rounds; the best counts, for others work on the same machine.
const ROUNDS: usize = 7;
const ROUND_NS: u64 = 200_000_000;

/// Measures and prints.
pub fn run(args: &Args) -> Result<ExitCode> {
    let settings = Settings { paranoia: args.paranoia, ..Settings::default() };
    let (before, begin) = (resident(), cpu_ns()?);
    let set = args.place.compile(&settings)?;
    let (load, memory) = (cpu_ns()? - begin, resident() - before);
    let set = Arc::new(set);
    if let Some(profile) = &args.profile {
        return profiled(&set, profile);
    }
    println!(
        "{} rules, paranoia {}, blocking, all phases, CPU of one thread, best of {ROUNDS} rounds.\n",
        set.rules(),
        args.paranoia
    );
    let mut other = if args.alone || !oracle::is_there() {
        None
    } else {
        Some(Oracle::rules(Task::Measure, &args.place.files()?, true, args.paranoia)?)
    };
    println!("| request | µs | libmodsecurity µs | ratio | bars |\n|---|---|---|---|---|");
    let mut fits = true;
    for scenario in scenarios() {
        let own = measured(&set, &scenario)?;
        let theirs = other.as_mut().map(|other| other.measure(&scenario.request)).transpose()?;
        fits &= tell(&scenario, own, theirs);
    }
    println!();
    // What is compiled is told apart from what the first requests leave in the caches of patterns.
    let used = resident() - before;
    println!(
        "Load: {:.0} ms (bar 300). One policy: {memory:.1} MB compiled, {used:.1} MB after these requests (bar 40).",
        load as f64 / 1e6
    );
    println!("A further policy over the same rules: {:.1} KB (bar 100).", delta(&set)?);
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(scenario: &Scenario, own: f64, theirs: Option<f64>) -> bool {
    let ratio = theirs.map(|theirs| theirs / own);
    let shown =
        |number: Option<f64>, digits| number.map_or("-".to_owned(), |number| format!("{number:.digits$}"));
    let (bars, fits) = match scenario.bars {
        None => ("-".to_owned(), true),
        Some((most, least)) => (
            format!("≤ {most} µs, ≥ {least}×"),
            own <= most * 1e3 && ratio.is_none_or(|ratio| ratio >= least),
        ),
    };
    println!(
        "| {} | {:.1} | {} | {} | {bars}{} |",
        scenario.name,
        own / 1e3,
        shown(theirs.map(|ns| ns / 1e3), 0),
        shown(ratio, 1),
        if fits { "" } else { ": MISSED" }
    );
    fits
}

fn measured(set: &Arc<RuleSet>, scenario: &Scenario) -> Result<f64> {
    let verdict = once(set, &scenario.request);
    anyhow::ensure!(
        (verdict != Verdict::Pass) == scenario.blocked,
        "{}: {verdict:?} was not expected",
        scenario.name
    );
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (begin, mut count) = (cpu_ns()?, 0_u32);
        let spent = loop {
            for _ in 0..16 {
                once(set, &scenario.request);
            }
            count += 16;
            let spent = cpu_ns()? - begin;
            if spent > ROUND_NS {
                break spent;
            }
        };
        best = best.min(spent as f64 / f64::from(count));
    }
    Ok(best)
}

fn profiled(set: &Arc<RuleSet>, profile: &str) -> Result<ExitCode> {
    let (name, seconds) = profile.split_once('=').context("NAME=SECONDS")?;
    let seconds: u64 = seconds.parse()?;
    let all = scenarios();
    let scenario = all.iter().find(|scenario| scenario.name.contains(name)).context("no such request")?;
    let begin = Instant::now();
    while begin.elapsed().as_secs() < seconds {
        once(set, &scenario.request);
    }
    Ok(ExitCode::SUCCESS)
}

/// All phases of one request.
fn whole(set: &Arc<RuleSet>, request: &Request) -> (Verdict, Audit) {
    let connection = Connection {
        client: ([192, 0, 2, 7], 50_000).into(),
        server: ([192, 0, 2, 1], 443).into(),
        unique_id: "oracle".into(),
        now: 1_790_000_000,
    };
    let mut transaction = set.begin(connection);
    let fields = request.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
    let mut verdict =
        transaction.request_head(request.method.as_bytes(), &request.target, VERSION.as_bytes(), fields);
    if verdict == Verdict::Pass {
        verdict = transaction.request_body(&request.body, true);
    }
    if verdict == Verdict::Pass {
        let fields = [(&b"Content-Type"[..], &b"text/html"[..])];
        verdict = transaction.response_head(STATUS, VERSION.as_bytes(), fields.into_iter());
    }
    if verdict == Verdict::Pass {
        verdict = transaction.response_body(PAGE, true);
    }
    let audit = transaction.finish();
    (verdict, audit)
}

/// Ids of the rules that match and tell so.
pub fn matched_ids(set: &Arc<RuleSet>, request: &Request) -> Vec<u32> {
    whole(set, request).1.matches.iter().map(|one| one.id).collect()
}

fn once(set: &Arc<RuleSet>, request: &Request) -> Verdict {
    whole(set, request).0
}

/// Nanoseconds for which this thread has run (proc(5), schedstat).
fn cpu_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("the time of a thread")?;
    Ok(text.split(' ').next().context("the time of a thread")?.parse()?)
}

/// Resident memory in MB.
fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0);
    pages * 4096.0 / 1e6
}

/// KB that one more policy with exclusions takes.
fn delta(set: &RuleSet) -> Result<f64> {
    let exclusion = |n: usize| Exclusion {
        rules: "942100-942199".into(),
        target: Some(format!("ARGS:field{n}")),
        path: Some(format!("/app/{n}*")),
    };
    let settings = Settings { exclusions: (0..20).map(exclusion).collect(), ..set.settings().clone() };
    let before = resident();
    let many = (0..1000).map(|_| set.with(&settings)).collect::<Result<Vec<_>, _>>()?;
    Ok((resident() - before) * 1e3 / many.len() as f64)
}

fn scenarios() -> Vec<Scenario> {
    let get = "/catalogue/shoes?page=2&sort=price&colour=dark+blue&q=running+shoes+size+43";
    let sqli = "/catalogue/shoes?page=2&sort=price&colour=dark+blue&q=1%27%20UNION%20SELECT%20name,password%20FROM%20users--%20";
    vec![
        Scenario {
            name: "benign GET",
            request: Request::get(get),
            blocked: false,
            bars: Some((150.0, 20.0)),
        },
        Scenario { name: "2 KB JSON POST", request: json(), blocked: false, bars: Some((900.0, 14.0)) },
        Scenario { name: "SQLi GET", request: Request::get(sqli), blocked: true, bars: Some((150.0, 15.0)) },
        Scenario { name: "96 KB multipart POST", request: multipart(), blocked: false, bars: None },
    ]
}

/// An order: 58 scalars, some of them prose.
fn json() -> Request {
    let item = |n: usize| {
        format!(
            r#"{{"sku":"SH-{:04}","name":"Trail runner {n}","colour":"dark blue","size":{},"price":"{}.90","gift":false,"note":"Please wrap it, thank you"}}"#,
            1000 + 7 * n,
            38 + n,
            60 + n
        )
    };
    let items: Vec<String> = (0..7).map(item).collect();
    let text = "The last pair fitted well, so I take the same again in other colours. If one is not there, send the rest now and that one later; I am at home on weekdays after five. Leave it with the neighbours otherwise, they know about it and are friendly people who have done so before.";
    let mut body = format!(
        r#"{{"customer":{{"name":"Ann Miller","email":"ann.miller@example.com","city":"Graz","zip":"8010","country":"AT"}},"items":[{}],"payment":"invoice","newsletter":true,"comment":"{text}","pad":""#,
        items.join(",")
    );
    let missing = 2048_usize.saturating_sub(body.len() + 2);
    body.push_str(&"lorem ipsum dolor sit amet ".repeat(missing / 27 + 1)[..missing]);
    body.push_str("\"}");
    Request::post("/api/orders", "application/json", body)
}

/// Some fields and a file of 90 KB.
fn multipart() -> Request {
    let mut body = Vec::new();
    for (name, value) in [("title", "Summer by the sea"), ("album", "2026"), ("visible", "friends")] {
        body.extend(
            format!("--mark7\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes(),
        );
    }
    body.extend(
        b"--mark7\r\nContent-Disposition: form-data; name=\"file\"; filename=\"beach.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n",
    );
    body.extend(
        (0..90_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).filter(|byte| *byte != b'\r'),
    );
    body.extend(b"\r\n--mark7--\r\n");
    Request::post("/albums/upload", "multipart/form-data; boundary=mark7", body)
}
