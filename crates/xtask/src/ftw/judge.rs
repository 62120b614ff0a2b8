//! Whether a test passed.

use super::{
    Answers,
    audit::Entry,
    corpus::{Output, Test},
    marker,
};
use anyhow::{Context, Result};
use regex::RegexBuilder;
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
};

/// Why a test failed in detection, if it did.
pub fn detect(test: &Test, answers: &Answers, log: &HashMap<String, Entry>) -> Option<String> {
    let nothing = Entry::default();
    test.stages.iter().enumerate().find_map(|(number, stage)| {
        let marker = marker(test, number);
        let answer = answers.get(&marker)?;
        let entry = log.get(&marker).unwrap_or(&nothing);
        if stage.output.expect_error == Some(true) {
            return answer.status.map(|status| format!("an error was expected, the answer is {status}"));
        }
        let Some(status) = answer.status else { return Some("no answer".into()) };
        if !stage.output.status.accepts(status) {
            return Some(format!(
                "status {status}, expected {:?}; matched {:?}",
                stage.output.status, entry.ids
            ));
        }
        if let Some(text) = &stage.output.response_contains
            && !matches(text, std::iter::once(answer.text.as_str()))
        {
            return Some(format!("the answer does not contain `{text}`"));
        }
        by_log(&stage.output, entry).map(|why| format!("{why} (status {status})"))
    })
}

fn by_log(output: &Output, entry: &Entry) -> Option<String> {
    let expected = &output.log;
    let missing: Vec<_> = expected.expect_ids.iter().filter(|id| !entry.ids.contains(id)).collect();
    if !missing.is_empty() {
        return Some(format!("{missing:?} did not match; matched {:?}", entry.ids));
    }
    let wrong: Vec<_> = expected.no_expect_ids.iter().filter(|id| entry.ids.contains(id)).collect();
    if !wrong.is_empty() {
        let lines = entry.lines.iter().filter(|line| wrong.iter().any(|id| line.contains(&id.to_string())));
        return Some(format!("{wrong:?} matched: {}", lines.cloned().collect::<Vec<_>>().join(" / ")));
    }
    let lines = || entry.lines.iter().map(String::as_str);
    if let Some(pattern) = &expected.match_regex
        && !matches(pattern, lines())
    {
        return Some(format!("the log does not hold `{pattern}`; matched {:?}", entry.ids));
    }
    if let Some(pattern) = &expected.no_match_regex
        && matches(pattern, lines())
    {
        return Some(format!("the log holds `{pattern}`"));
    }
    (output.isolated && entry.ids.len() != 1)
        .then(|| format!("one rule alone was expected, matched {:?}", entry.ids))
}

fn matches<'t>(pattern: &str, mut lines: impl Iterator<Item = &'t str>) -> bool {
    match RegexBuilder::new(pattern).build() {
        Ok(regex) => lines.any(|line| regex.is_match(line)),
        Err(_) => lines.any(|line| line.contains(pattern)),
    }
}

/// Why an attack was not answered 403, if it was not.
pub fn block(test: &Test, answers: &Answers) -> Option<String> {
    let last = test.stages.len().checked_sub(1)?;
    match answers.get(&marker(test, last))?.status {
        Some(403) => None,
        Some(status) => Some(format!("status {status} instead of 403")),
        None => Some("no answer".into()),
    }
}

/// Whether a test expects a critical rule of paranoia 1, in a request that is not refused before it is read.
pub fn is_critical_attack(test: &Test, critical: &BTreeSet<u32>) -> bool {
    test.stages.last().is_some_and(|stage| {
        stage.output.expect_error != Some(true)
            && expected_ids(&stage.output).iter().any(|id| critical.contains(id))
    })
}

fn expected_ids(output: &Output) -> Vec<u32> {
    let mut ids = output.log.expect_ids.clone();
    // Version 1 of the format names the rule in a pattern.
    if let Some(rest) = output.log.match_regex.as_deref().and_then(|text| text.strip_prefix("id \"")) {
        ids.extend(rest.trim_end_matches('"').parse::<u32>().ok());
    }
    ids
}

/// Rules tagged `paranoia-level/1` whose severity is critical.
pub fn critical_rules(dir: &Path) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for rule in text.split("\nSec") {
            let number = rule
                .split("id:")
                .nth(1)
                .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
            let is_critical = rule.contains("paranoia-level/1'") && rule.contains("severity:'CRITICAL'");
            if let Some(id) = number.filter(|_| is_critical).and_then(|number| number.parse().ok()) {
                found.insert(id);
            }
        }
    }
    Ok(found)
}
