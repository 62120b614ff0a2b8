//! The edge's audit log, read back: which rules matched for which test.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{collections::HashMap, fmt::Write, fs, path::Path};

use super::request::MARKER_RULE;

/// What the log says of one request.
#[derive(Debug, Default, Clone)]
pub struct Entry {
    /// Rules that matched.
    pub ids: Vec<u32>,
    /// One line per match, in the spelling of ModSecurity's error log, which patterns of tests expect.
    pub lines: Vec<String>,
}

/// Reads the log; the key is the marker of the test.
pub fn read(path: &Path) -> Result<HashMap<String, Entry>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut found: HashMap<String, Entry> = HashMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).context("a line of the audit log is no JSON")?;
        let matches = line["messages"].as_array().or_else(|| line["audit"]["matches"].as_array());
        let matches = matches.map(Vec::as_slice).unwrap_or_default();
        let Some(marker) = marker(matches) else { continue };
        let entry = found.entry(marker).or_default();
        for one in matches.iter().filter(|one| !is_marker(one)) {
            entry.ids.extend(one["id"].as_u64().map(|id| id as u32));
            entry.lines.push(shown(one));
        }
        entry.ids.sort_unstable();
        entry.ids.dedup();
    }
    Ok(found)
}

/// The test that a line is about, as the marker rule tells it.
fn marker(matches: &[Value]) -> Option<String> {
    let told = matches.iter().find(|one| is_marker(one))?;
    told["msg"].as_str().map(str::to_owned)
}

fn is_marker(one: &Value) -> bool {
    one["id"] == MARKER_RULE
}

fn shown(one: &Value) -> String {
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    let mut line = format!(
        "[id \"{}\"] [msg \"{}\"] [data \"{}\"] [severity \"{}\"]",
        one["id"],
        text("msg"),
        text("logdata"),
        text("severity")
    );
    for tag in one["tags"].as_array().into_iter().flatten() {
        let _never_fails = write!(line, " [tag \"{}\"]", tag.as_str().unwrap_or_default());
    }
    line
}
