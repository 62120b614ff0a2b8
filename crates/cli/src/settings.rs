//! `settings` and `secret`: what an app is told in a stage, as environment variables.
//!
//! Values come from standard input or a file. Arguments are seen by every process of a machine and kept by shells, so only
//! settings may be given there, and never secrets.

use crate::{Context, network::InStage, publish, session::Session};
use anyhow::{Context as _, Result, bail};
use bastide_types::{
    AppName, Secret,
    settings::{APP_BYTES_MAX, VALUE_BYTES_MAX, check_name, check_value},
};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
};

/// `bastide settings …`
#[derive(Debug, Clone, Subcommand)]
pub enum SettingsCommand {
    /// Show what is set for an app in a stage; of secrets, who set them when
    List(OfApp),
    /// Set a setting; where the app serves, new replicas start with it and old ones drain
    Set {
        #[command(flatten)]
        what: ToSet,
        /// The value; without it and without `--file` it is read from standard input
        #[arg(long, requires = "name", conflicts_with_all = ["file", "env_file"], allow_hyphen_values = true)]
        value: Option<String>,
    },
    /// Remove settings
    Unset(ToUnset),
}

/// `bastide secret …`
#[derive(Debug, Clone, Subcommand)]
pub enum SecretCommand {
    /// Show which secrets an app has in a stage, and who set them when
    List(OfApp),
    /// Set a secret; where the app serves, new replicas start with it and old ones drain
    Set(ToSet),
    /// Remove secrets
    Unset(ToUnset),
}

/// Which app and stage.
#[derive(Debug, Clone, Args)]
pub struct OfApp {
    /// Name of the app
    pub app: AppName,
    #[command(flatten)]
    pub at: InStage,
}

/// What to set.
#[derive(Debug, Clone, Args)]
pub struct ToSet {
    #[command(flatten)]
    pub of: OfApp,
    /// Name of the environment variable
    #[arg(required_unless_present = "env_file", conflicts_with = "env_file")]
    pub name: Option<String>,
    /// Read the value from this file; one line end at its end is left away
    #[arg(long, conflicts_with = "env_file")]
    pub file: Option<PathBuf>,
    /// Set all that this file has, one NAME=value a line; `#` begins a comment line
    #[arg(long)]
    pub env_file: Option<PathBuf>,
    /// Say what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What to remove.
#[derive(Debug, Clone, Args)]
pub struct ToUnset {
    #[command(flatten)]
    pub of: OfApp,
    /// Names
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Say what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Settings.
pub async fn settings(context: &Context, command: SettingsCommand) -> Result<()> {
    match command {
        SettingsCommand::List(of) => list(context, &of, "settings").await,
        SettingsCommand::Set { what, value } => set(context, &what, value, "settings").await,
        SettingsCommand::Unset(what) => unset(context, &what, "settings").await,
    }
}

/// Secrets.
pub async fn secret(context: &Context, command: SecretCommand) -> Result<()> {
    match command {
        SecretCommand::List(of) => list(context, &of, "secrets").await,
        SecretCommand::Set(what) => set(context, &what, None, "secrets").await,
        SecretCommand::Unset(what) => unset(context, &what, "secrets").await,
    }
}

fn path(of: &OfApp, kind: &str) -> String {
    format!("/apps/{}/stages/{}/{kind}", of.app, of.at.stage)
}

async fn list(context: &Context, of: &OfApp, kind: &str) -> Result<()> {
    let session = Session::open(context, None).await?;
    let shown = session.get(&path(of, kind)).await?;
    if context.json {
        println!("{shown}");
        return Ok(());
    }
    let all = shown["settings"].as_array().cloned().unwrap_or_default();
    if all.is_empty() {
        println!("{} has no {kind} in {}.", of.app, of.at.stage);
    }
    all.iter().for_each(|one| println!("{}", line(one)));
    let (newest, serving) = (&shown["version"], &shown["serving_version"]);
    if !serving.is_null() && serving != newest {
        println!("Version {newest} is not what serves: {} serves with version {serving}.", of.app);
    }
    Ok(())
}

/// A setting as one line.
fn line(one: &Value) -> String {
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    let value = match one["value"].as_str() {
        Some(value) => value.escape_debug().to_string(),
        None => format!("(secret {})", text("fingerprint")),
    };
    format!("{:<24} {value}", text("name"))
}

async fn set(context: &Context, what: &ToSet, value: Option<String>, kind: &str) -> Result<()> {
    let values = values(what, value)?;
    let session = Session::open(context, None).await?;
    let body = json!({ "set": values, "dry_run": what.dry_run });
    change(context, &session, &path(&what.of, kind), &body).await
}

async fn unset(context: &Context, what: &ToUnset, kind: &str) -> Result<()> {
    for name in &what.names {
        check_name(name).with_context(|| name.clone())?;
    }
    let session = Session::open(context, None).await?;
    let body = json!({ "unset": what.names, "dry_run": what.dry_run });
    change(context, &session, &path(&what.of, kind), &body).await
}

async fn change(context: &Context, session: &Session, path: &str, body: &Value) -> Result<()> {
    let mut answer = session.send(Method::PUT, path, body).await?;
    if !answer["operation"].is_null() {
        // It is that of the settings; operations of deployments tell that of a revision.
        answer.as_object_mut().map(|fields| fields.remove("version"));
        return publish::follow(context, session, answer).await;
    }
    if context.json {
        println!("{answer}");
        return Ok(());
    }
    println!("{}", words(&answer, body["dry_run"] == true));
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", warning.as_str().unwrap_or_default());
    }
    Ok(())
}

/// What became of a change that begins nothing, or would become of it.
fn words(answer: &Value, dry_run: bool) -> String {
    let names = |key: &str| {
        let names = answer[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.collect::<Vec<_>>().join(", ")
    };
    let (set, unset) = (names("set"), names("unset"));
    let parts: Vec<_> = [("set", set), ("remove", unset)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(verb, names)| match (verb, dry_run) {
            (verb, true) => format!("would {verb} {names}"),
            ("set", false) => format!("set {names}"),
            (_, false) => format!("removed {names}"),
        })
        .collect();
    let what = if parts.is_empty() { "nothing is other than before".to_owned() } else { parts.join("; ") };
    match (answer["revision"].as_u64(), parts.is_empty()) {
        (None, false) => format!("{what}; it does not serve there yet"),
        (Some(number), false) if dry_run => format!("{what}, with new replicas of revision {number}"),
        _ => what,
    }
}

/// The values to set, by name.
fn values(what: &ToSet, value: Option<String>) -> Result<BTreeMap<String, Secret>> {
    let values = match (&what.env_file, &what.name) {
        (Some(file), _) => {
            let file = file.as_path();
            lines(&read_file(file, APP_BYTES_MAX)?).with_context(|| file.display().to_string())?
        }
        (None, Some(name)) => {
            check_name(name).with_context(|| name.clone())?;
            let value = match (value, &what.file) {
                (Some(value), _) => value,
                (None, Some(file)) => without_line_end(&read_file(file, VALUE_BYTES_MAX)?),
                (None, None) => without_line_end(&read_stdin()?),
            };
            BTreeMap::from([(name.clone(), Secret::new(value))])
        }
        (None, None) => bail!("which one? Give its name, or --env-file"),
    };
    for (name, value) in &values {
        check_name(name).with_context(|| name.clone())?;
        check_value(value.expose()).with_context(|| name.clone())?;
    }
    Ok(values)
}

fn read_stdin() -> Result<String> {
    if std::io::stdin().is_terminal() {
        eprintln!("Type the value, then Ctrl-D on a new line. It is seen while you type.");
    }
    let mut text = String::new();
    let most = VALUE_BYTES_MAX as u64 + 3;
    std::io::stdin().take(most).read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

fn read_file(file: &Path, most: usize) -> Result<String> {
    let open = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut text = String::new();
    open.take(most as u64 + 3)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", file.display()))?;
    if text.len() > most + 2 {
        bail!("{} is too large", file.display());
    }
    Ok(text)
}

/// One line end at the end is no part of a value: editors and `echo` put one there.
fn without_line_end(text: &str) -> String {
    let cut = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text);
    cut.to_owned()
}

/// Reads NAME=value lines. What stands after the first `=` is the value as it is: no quotes, no escapes.
fn lines(text: &str) -> Result<BTreeMap<String, Secret>> {
    let mut values = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        // A line may be a secret: it is not repeated.
        let Some((name, value)) = line.split_once('=') else {
            bail!("line {}: NAME=value", number + 1);
        };
        let name = name.trim();
        check_name(name).with_context(|| format!("line {}", number + 1))?;
        if values.insert(name.to_owned(), Secret::new(value)).is_some() {
            bail!("line {}: {name} is there twice", number + 1);
        }
    }
    if values.is_empty() {
        bail!("there is nothing to set");
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    enum Line {
        #[command(subcommand)]
        Settings(SettingsCommand),
        #[command(subcommand)]
        Secret(SecretCommand),
    }

    #[test]
    fn values_of_secrets_are_no_arguments() {
        let check = |words: &str, good: bool| {
            let parsed = Line::try_parse_from(std::iter::once("bastide").chain(words.split(' ')));
            assert_eq!(parsed.is_ok(), good, "{words}: {parsed:?}");
        };
        check("settings set shop LEVEL --value info", true);
        check("settings set shop LEVEL --value -1 --stage test", true);
        check("settings set shop LEVEL", true);
        check("settings set shop --env-file x", true);
        check("settings set shop", false);
        check("settings set shop LEVEL --value x --file y", false);
        check("settings set shop LEVEL --env-file y", false);
        check("settings set shop --env-file y --value x", false);
        check("settings unset shop A B --dry-run", true);
        check("settings unset shop", false);
        check("secret set shop KEY", true);
        check("secret set shop KEY --file x", true);
        check("secret set shop KEY --value x", false);
        check("secret set shop KEY x", false);
        check("secret list shop --stage production", true);
    }

    #[test]
    fn files_have_a_name_and_a_value_on_each_line() {
        let read = |text: &str| {
            let values = lines(text).map_err(|error| format!("{error:#}"))?;
            let pairs = values.into_iter().map(|(name, value)| format!("{name}={}", value.expose()));
            Ok::<_, String>(pairs.collect::<Vec<_>>().join("|"))
        };
        let check = |text: &str, expected: &str| assert_eq!(read(text).unwrap(), expected, "{text:?}");
        check("A=1\nB=two = three\n", "A=1|B=two = three");
        check("# said\n\n  A =  x \r\n", "A=  x ");
        check("A=", "A=");
        for (text, part) in [
            ("", "nothing"),
            ("A", "line 1"),
            ("A=1\n=2", "line 2"),
            ("PORT=1", "line 1"),
            ("A=1\nA=2", "twice"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        assert!(!read("hunter2").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn one_line_end_is_no_part_of_a_value() {
        let check = |text: &str, expected: &str| assert_eq!(without_line_end(text), expected, "{text:?}");
        check("x\n", "x");
        check("x\r\n", "x");
        check("x\n\n", "x\n");
        check("x", "x");
        check("", "");
    }

    #[test]
    fn what_became_of_a_change_is_one_line() {
        let check = |answer: Value, dry_run: bool, line: &str| assert_eq!(words(&answer, dry_run), line);
        let none = json!({ "set": [], "unset": [], "revision": 3 });
        check(none, false, "nothing is other than before");
        let both = json!({ "set": ["A", "B"], "unset": ["C"], "revision": null });
        check(both.clone(), false, "set A, B; removed C; it does not serve there yet");
        check(both, true, "would set A, B; would remove C; it does not serve there yet");
        let one = json!({ "set": ["A"], "unset": [], "revision": 3 });
        check(one, true, "would set A, with new replicas of revision 3");
        let shown = json!({ "name": "KEY", "value": null, "fingerprint": "0a1b2c3d" });
        assert_eq!(line(&shown), format!("{:<24} (secret 0a1b2c3d)", "KEY"));
        assert!(line(&json!({ "name": "A", "value": "x\u{1b}[31m" })).ends_with("x\\u{1b}[31m"));
    }
}
