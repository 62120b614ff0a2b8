//! Test files in the go-ftw format: version 2 of the schema, and version 1 where it differs.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_yaml_ng::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// One test of one file.
pub struct Test {
    /// `920100-3`.
    pub name: String,
    /// The file without its directory.
    pub file: String,
    /// Requests, in order.
    pub stages: Vec<Stage>,
    /// Version of the format, 1 or 2.
    pub version: u8,
}

/// One request and what is expected of it.
pub struct Stage {
    /// The request.
    pub input: Input,
    /// What is expected.
    pub output: Output,
}

/// A request as a test describes it.
#[derive(Debug, Default, Deserialize)]
pub struct Input {
    pub method: Option<String>,
    pub uri: Option<String>,
    pub version: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
    /// Of a list of lines, as old tests have it, the lines.
    #[serde(default, deserialize_with = "text_or_lines")]
    pub data: Option<String>,
    pub encoded_data: Option<String>,
    pub encoded_request: Option<String>,
    pub raw_request: Option<String>,
    pub autocomplete_headers: Option<bool>,
    pub stop_magic: Option<bool>,
}

impl Input {
    /// Whether the runner adds fields that the test does not name.
    pub fn autocompletes(&self) -> bool {
        self.autocomplete_headers.or(self.stop_magic.map(|stop| !stop)).unwrap_or(true)
    }
}

/// What is expected of a request. `retry_once` is not needed: the log is read when it is whole.
#[derive(Debug, Default, Deserialize)]
pub struct Output {
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub status: Status,
    pub response_contains: Option<String>,
    pub expect_error: Option<bool>,
    #[serde(default)]
    pub isolated: bool,
    log_contains: Option<String>,
    no_log_contains: Option<String>,
}

/// What is expected of the log.
#[derive(Debug, Default, Deserialize)]
pub struct Log {
    #[serde(default)]
    pub expect_ids: Vec<u32>,
    #[serde(default)]
    pub no_expect_ids: Vec<u32>,
    pub match_regex: Option<String>,
    pub no_match_regex: Option<String>,
}

/// A status, or several of which one is right.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
pub enum Status {
    #[default]
    Any,
    One(u16),
    Several(Vec<u16>),
}

impl Status {
    /// Whether this status is expected.
    pub fn accepts(&self, status: u16) -> bool {
        match self {
            Self::Any | Self::One(0) => true,
            Self::One(expected) => *expected == status,
            Self::Several(expected) => expected.is_empty() || expected.contains(&status),
        }
    }
}

#[derive(Deserialize)]
struct File {
    rule_id: Option<u32>,
    #[serde(default)]
    tests: Vec<FileTest>,
}

#[derive(Deserialize)]
struct FileTest {
    test_id: Option<u32>,
    test_title: Option<String>,
    #[serde(default)]
    stages: Vec<FileStage>,
}

/// Version 1 wraps each stage once more.
#[derive(Deserialize)]
struct FileStage {
    stage: Option<Wrapped>,
    input: Option<Input>,
    output: Option<Output>,
}

#[derive(Deserialize)]
struct Wrapped {
    input: Input,
    output: Output,
}

fn text_or_lines<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        Value::Sequence(lines) => {
            let lines = lines.iter().map(|line| line.as_str().unwrap_or_default());
            Some(lines.collect::<Vec<_>>().join("\r\n"))
        }
        other => serde_yaml_ng::to_string(&other).ok().map(|text| text.trim_end().to_owned()),
    })
}

/// Reads all `*.yaml` files under a directory, in the order of their paths.
pub fn read(dir: &Path) -> Result<Vec<Test>> {
    let mut paths = Vec::new();
    collect(dir, &mut paths)?;
    paths.sort();
    let mut tests = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tests.extend(read_file(&file, &text).with_context(|| path.display().to_string())?);
    }
    Ok(tests)
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    Ok(())
}

fn read_file(name: &str, text: &str) -> Result<Vec<Test>> {
    // A file of comments alone holds no tests.
    if serde_yaml_ng::from_str::<Value>(text)?.is_null() {
        return Ok(Vec::new());
    }
    let file: File = serde_yaml_ng::from_str(text)?;
    let rule = file.rule_id.map_or_else(
        || name.chars().take_while(char::is_ascii_digit).collect::<String>(),
        |rule| rule.to_string(),
    );
    let tests = file.tests.into_iter().enumerate().map(|(index, test)| {
        let number = test.test_id.map_or(index + 1, |id| id as usize);
        let version = if test.stages.iter().any(|stage| stage.stage.is_some()) { 1 } else { 2 };
        Test {
            version,
            name: test.test_title.unwrap_or_else(|| format!("{rule}-{number}")),
            file: name.to_owned(),
            stages: test.stages.into_iter().map(stage).collect(),
        }
    });
    Ok(tests.collect())
}

fn stage(file: FileStage) -> Stage {
    let (input, mut output) = match file.stage {
        Some(wrapped) => (wrapped.input, wrapped.output),
        None => (file.input.unwrap_or_default(), file.output.unwrap_or_default()),
    };
    if output.log.expect_ids.is_empty() && output.log.match_regex.is_none() {
        output.log.match_regex = output.log_contains.take();
    }
    if output.log.no_expect_ids.is_empty() && output.log.no_match_regex.is_none() {
        output.log.no_match_regex = output.no_log_contains.take();
    }
    Stage { input, output }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_format_are_read() {
        let two = "rule_id: 7\ntests:\n  - test_id: 3\n    stages:\n      - input:\n          headers:\n            B: 010\n            A:\n          data: x\n        output:\n          status: 400\n          log:\n            expect_ids: [7]\n";
        let found = read_file("7.yaml", two).unwrap();
        assert_eq!(found[0].name, "7-3");
        let stage = &found[0].stages[0];
        assert_eq!(stage.input.headers["B"].as_deref(), Some("010"), "numbers keep their spelling");
        assert_eq!(stage.input.headers["A"].as_deref().unwrap_or_default(), "");
        assert!(stage.output.status.accepts(400) && !stage.output.status.accepts(200));
        let one = "tests:\n  - test_title: 8-1\n    stages:\n      - stage:\n          input:\n            stop_magic: true\n          output:\n            log_contains: id \"8\"\n";
        let found = read_file("8.yaml", one).unwrap();
        assert!(!found[0].stages[0].input.autocompletes());
        assert_eq!(found[0].stages[0].output.log.match_regex.as_deref(), Some("id \"8\""));
        assert!(read_file("9.yaml", "# nothing\n").unwrap().is_empty());
    }
}
