//! Runs the regression tests of a rule set (go-ftw format) against a stand-alone edge in front of a small
//! backend, and judges them by the edge's audit log and answers. Tests and rules are given by path; none
//! of them is part of this repository.
//!
//! It sends each test once, byte for byte as go-ftw would, plus one field that names the test. No test is
//! skipped or judged by other rules than its own.

mod audit;
mod backend;
mod client;
mod corpus;
mod edge;
mod judge;
mod request;

use anyhow::{Context, Result, bail};
use backend::Kind;
use clap::ValueEnum;
use corpus::Test;
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
};

/// What is run.
#[derive(clap::Args)]
pub struct Args {
    /// Checkout of a rule set: its `rules`, `crs-setup.conf.example` and `tests/regression/tests`
    #[arg(long)]
    checkout: PathBuf,
    /// The executable under test
    #[arg(long, default_value = "target/debug/bastide")]
    bastide: PathBuf,
    /// How the tests are judged
    #[arg(long, value_enum, default_value = "detect")]
    mode: Mode,
    /// Only tests whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Share of tests, in per cent, that must pass
    #[arg(long, default_value_t = 99.8)]
    bar: f64,
    /// Keep the audit log here
    #[arg(long)]
    audit: Option<PathBuf>,
    /// Further variables, name=value
    #[arg(long = "set")]
    variables: Vec<String>,
}

/// How the tests are judged.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Paranoia 4, detecting only, all tests by all that they expect: as upstream runs them
    Detect,
    /// Paranoia 1, blocking, attacks on critical rules of paranoia 1: each is answered 403
    Block,
}

/// What the set-ups that upstream's tests name set, and what their image sets besides: for rules 4.x.
const VARIABLES: &[&str] = &[
    "arg_length=400",
    "total_arg_length=6400",
    "max_file_size=64100",
    "combined_file_sizes=65535",
    "crs_validate_utf8_encoding=1",
    "crs_xml_attr_inspect=1",
];

/// The same for the 3.x line.
const VARIABLES_3: &[&str] = &[
    "arg_length=400",
    "arg_name_length=100",
    "max_num_args=255",
    "total_arg_length=64000",
    "max_file_size=1048576",
    "combined_file_sizes=65535",
    "crs_validate_utf8_encoding=1",
    "crs_xml_attr_inspect=1",
];

/// Runs the tests; fails when fewer than the bar pass.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut tests = corpus::read(&args.checkout.join("tests/regression/tests"))?;
    let critical = judge::critical_rules(&args.checkout.join("rules"))?;
    if let Some(only) = &args.only {
        tests.retain(|test| test.name.contains(only));
    }
    if args.mode == Mode::Block {
        tests.retain(|test| judge::is_critical_attack(test, &critical));
    }
    if tests.is_empty() {
        bail!("there are no tests");
    }
    let dir = tempfile::tempdir()?;
    let audit = args.audit.clone().unwrap_or_else(|| dir.path().join("audit.jsonl"));
    let setup = edge::copy_setup(&args.checkout.join("crs-setup.conf.example"), dir.path())?;
    let marker = edge::write_marker_rule(dir.path())?;
    let (mode, paranoia) = match args.mode {
        Mode::Detect => ("detect", 4),
        Mode::Block => ("block", 1),
    };
    let old = is_version_3(&setup)?;
    let variables: Vec<String> = if old { VARIABLES_3 } else { VARIABLES }
        .iter()
        .map(|text| (*text).to_owned())
        .chain(args.variables.clone())
        .collect();
    let edge = edge::Edge::start(&edge::Setup {
        bastide: &args.bastide,
        origin: backend::start(if old { Kind::Pages } else { Kind::Reflecting })
            .context("the backend does not start")?,
        rules: &[marker, setup, args.checkout.join("rules")],
        mode,
        paranoia,
        variables: &variables,
        audit: &audit,
    })?;
    let answers = send_all(edge.addr, &tests)?;
    edge.stop();
    let log = audit::read(&audit)?;
    let mut report = Report::default();
    for test in &tests {
        let failure = match args.mode {
            Mode::Detect => judge::detect(test, &answers, &log),
            Mode::Block => judge::block(test, &answers),
        };
        report.add(test, failure);
    }
    Ok(report.tell(args.bar))
}

/// Whether a set-up example is one of the 3.x line.
fn is_version_3(setup: &Path) -> Result<bool> {
    let text = fs::read_to_string(setup).with_context(|| setup.display().to_string())?;
    Ok(text.contains("crs_setup_version=3"))
}

/// The name by which one sending of one stage is known.
fn marker(test: &Test, stage: usize) -> String {
    format!("{}-{stage}", test.name)
}

type Answers = BTreeMap<String, client::Answer>;

fn send_all(addr: SocketAddr, tests: &[Test]) -> Result<Answers> {
    let queue = Mutex::new(tests.iter());
    let answers = Mutex::new(Answers::new());
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let work = || -> Result<()> {
        while let Some(test) = next() {
            for (number, stage) in test.stages.iter().enumerate() {
                let marker = marker(test, number);
                let bytes =
                    request::bytes(&stage.input, test.version, &marker).with_context(|| marker.clone())?;
                let answer = client::send(addr, &bytes, stage.output.expect_error == Some(true))
                    .with_context(|| marker.clone())?;
                answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(marker, answer);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        })
    })?;
    answers.into_inner().map_err(|_| anyhow::anyhow!("a worker panicked"))
}

/// What came of all tests.
#[derive(Default)]
struct Report {
    files: BTreeMap<String, (usize, usize)>,
    failures: Vec<(String, String)>,
}

impl Report {
    fn add(&mut self, test: &Test, failure: Option<String>) {
        let family: String = test.file.chars().take(3).collect();
        let (passed, all) = self.files.entry(family).or_default();
        *all += 1;
        *passed += usize::from(failure.is_none());
        self.failures.extend(failure.map(|why| (test.name.clone(), why)));
    }

    fn tell(&self, bar: f64) -> ExitCode {
        println!("| rules | passed | of |\n|---|---|---|");
        for (family, (passed, all)) in &self.files {
            println!("| {family} | {passed} | {all} |");
        }
        println!();
        for (name, why) in &self.failures {
            println!("- {name}: {why}");
        }
        let all: usize = self.files.values().map(|(_, all)| all).sum();
        let passed = all - self.failures.len();
        let share = passed as f64 * 100.0 / all as f64;
        println!("\n{passed} of {all} tests pass: {share:.2} % (bar: {bar} %)");
        if share >= bar { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
