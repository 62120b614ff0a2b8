//! What came of it, for people and for programs.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

/// What came of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The one word.
    pub outcome: Outcome,
    /// Replicas from which paths were tried.
    pub replicas: usize,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Every path that was tried.
    pub rows: Vec<Row>,
    /// Every control, before and after.
    pub controls: Vec<Row>,
}

/// What a verification says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every path is as it should be, and every control was heard.
    Proven,
    /// A path is not as it should be.
    Breached,
    /// A canary was not heard where it must be, or something could not be tried: nothing is proven.
    Unproven,
}

impl Outcome {
    /// Exit code of a command that says it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Proven => 0,
            Self::Breached => 1,
            Self::Unproven => 2,
        }
    }
}

/// A path that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The path, in words that stay.
    pub path: String,
    /// From where.
    pub from: String,
    /// To where.
    pub to: String,
    /// How.
    pub how: String,
    /// What has to come of it.
    pub expected: String,
    /// What came of it.
    pub seen: String,
    /// Whether that is as it should be.
    pub ok: bool,
    /// Whether it could be tried at all.
    pub tried: bool,
    /// What of the host it is about, if of something that may go while it is tried.
    #[serde(skip)]
    pub about: Option<About>,
}

/// Something of the host that may go at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// An address.
    Address(IpAddr),
    /// An address that was away when a canary should listen there, though it may have come back since.
    AbsentAddress(IpAddr),
    /// A service of somebody's.
    Service(SocketAddr),
    /// A port that a canary wants and somebody else has.
    TakenPort(SocketAddr),
}

impl Report {
    /// What of the host was there before and after is judged. What was not proves nothing, and is no fault: its other
    /// addresses and ports were tried.
    pub(crate) fn new(
        replicas: usize,
        took_ms: u64,
        mut rows: Vec<Row>,
        mut controls: Vec<Row>,
        addresses: &[IpAddr],
    ) -> Self {
        let failed = controls.iter().filter(|row| !row.ok).filter_map(|row| row.about);
        let gone: BTreeSet<_> = failed
            .filter(|about| match about {
                About::Address(address) => !addresses.contains(address),
                About::AbsentAddress(_) | About::Service(_) | About::TakenPort(_) => true,
            })
            .collect();
        // What a service said to an app was said, even if it is gone now.
        let is_said = |row: &Row| matches!(row.about, Some(About::Service(_))) && row.tried && !row.ok;
        let is_there = |row: &Row| row.about.is_none_or(|about| !gone.contains(&about));
        rows.retain(|row| is_there(row) || is_said(row));
        controls.retain(is_there);
        let breached = rows.iter().any(|row| row.tried && !row.ok);
        let proven = rows.iter().chain(&controls).all(|row| row.ok);
        let outcome = match (breached, proven && !rows.is_empty()) {
            (true, _) => Outcome::Breached,
            (false, true) => Outcome::Proven,
            (false, false) => Outcome::Unproven,
        };
        Self { outcome, replicas, took_ms, rows, controls }
    }

    /// A table: one line per path and kind of expectation, and one for each try that is not as it should be.
    pub fn table(&self) -> String {
        let mut groups: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            groups.entry((&row.path, kind(&row.expected))).or_default().push(row);
        }
        let mut lines = vec![["PATH", "FROM", "TO", "EXPECTED", "SEEN", "OK"].map(str::to_owned)];
        for ((path, expected), rows) in &groups {
            let bad: Vec<_> = rows.iter().filter(|row| !row.ok).collect();
            let count = |what: fn(&Row) -> &String| {
                let mut all: Vec<_> = rows.iter().map(|row| what(row)).collect();
                all.sort();
                all.dedup();
                match all.as_slice() {
                    [one] => (*one).clone(),
                    many => format!("{} places", many.len()),
                }
            };
            let seen = match bad.len() {
                0 => format!("{} of {} as expected", rows.len(), rows.len()),
                bad => format!("{bad} of {} NOT as expected", rows.len()),
            };
            let ok = if bad.is_empty() { "yes" } else { "NO" };
            lines.push([
                (*path).to_owned(),
                count(|row| &row.from),
                count(|row| &row.to),
                (*expected).to_owned(),
                seen,
                ok.to_owned(),
            ]);
            for row in bad.iter().take(WORST_SHOWN) {
                lines.push(line(row));
            }
        }
        for row in self.controls.iter().filter(|row| !row.ok).take(WORST_SHOWN) {
            lines.push(line(row));
        }
        let mut text = columns(&lines);
        let heard = self.controls.iter().filter(|row| row.ok).count();
        let _ = writeln!(
            text,
            "{}: {} tries from {} replicas, {heard} of {} controls heard, {:.1} s",
            match self.outcome {
                Outcome::Proven => "PROVEN",
                Outcome::Breached => "BREACHED",
                Outcome::Unproven => "UNPROVEN",
            },
            self.rows.len(),
            self.replicas,
            self.controls.len(),
            self.took_ms as f64 / 1000.0
        );
        text
    }
}

/// Lines of a table for what went wrong in one path; `--json` has them all.
const WORST_SHOWN: usize = 20;

fn line(row: &Row) -> [String; 6] {
    let path = format!("! {} by {}", row.path, row.how);
    [path, row.from.clone(), row.to.clone(), row.expected.clone(), row.seen.clone(), "NO".into()]
}

/// An expectation without its particulars.
fn kind(expected: &str) -> &str {
    expected.split_whitespace().next().unwrap_or_default()
}

fn columns(lines: &[[String; 6]]) -> String {
    let widths: [usize; 6] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &'static str, ok: bool, tried: bool) -> Row {
        let [from, to, how, expected, seen] =
            ["acme/Test/web", "beta/Test/web", "tcp", "nothing", "answered 1.2.3.4"].map(str::to_owned);
        Row { path: path.into(), from, to, how, expected, seen, ok, tried, about: None }
    }

    fn outcome(rows: Vec<Row>, controls: Vec<Row>) -> Outcome {
        Report::new(1, 1, rows, controls, &[]).outcome
    }

    #[test]
    fn a_breach_is_told_from_what_is_not_proven() {
        let (good, bad, untried) = (row("p", true, true), row("p", false, true), row("p", false, false));
        assert_eq!(outcome(vec![good.clone()], vec![good.clone()]), Outcome::Proven);
        assert_eq!(outcome(vec![good.clone(), bad.clone()], vec![bad.clone()]), Outcome::Breached);
        assert_eq!(outcome(vec![good.clone()], vec![bad]), Outcome::Unproven);
        assert_eq!(outcome(vec![good.clone(), untried], vec![good.clone()]), Outcome::Unproven);
        assert_eq!(outcome(vec![], vec![good]), Outcome::Unproven);
    }

    #[test]
    fn what_of_the_host_goes_meanwhile_is_no_fault() {
        let about = |about, ok| Row { about: Some(about), ..row("host-port", ok, true) };
        let (here, there) = (IpAddr::from([11, 0, 0, 1]), IpAddr::from([11, 0, 0, 2]));
        let [service, gone, kept] =
            [About::Service((here, 1).into()), About::Address(there), About::Address(here)];
        let report = |about_row, about_control| {
            let rows = vec![row("p", true, true), about_row];
            Report::new(1, 1, rows, vec![row("control", true, true), about_control], &[here])
        };
        // It came back before the end, but nobody could listen there.
        let away = About::AbsentAddress(here);
        for (went, ok) in [(service, true), (gone, true), (gone, false), (away, false)] {
            let report = report(about(went, ok), about(went, false));
            assert_eq!((report.outcome, report.rows.len()), (Outcome::Proven, 1), "{went:?}");
        }
        assert_eq!(report(about(kept, true), about(kept, false)).outcome, Outcome::Unproven);
        for still_there in [true, false] {
            let report = report(about(service, false), about(service, still_there));
            assert_eq!(report.outcome, Outcome::Breached);
        }
    }

    #[test]
    fn the_table_names_the_path_that_is_open() {
        let rows = vec![row("other-customer", false, true), row("metadata", true, true)];
        let table = Report::new(2, 1500, rows, vec![], &[]).table();
        assert!(table.contains("! other-customer by tcp  acme/Test/web  beta/Test/web"), "{table}");
        assert!(table.contains("BREACHED: 2 tries from 2 replicas"), "{table}");
    }
}
