//! The audit trail: who did what, whether the trail is whole, and a copy of it.

use crate::{Context, session::Session};
use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use bastide_types::{AuditEntry, AuditLine, AuditTip, audit::follow};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::Value;
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write, stdout},
    path::{Path, PathBuf},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Entries that are asked for at once.
const PAGE: usize = 500;

/// `bastide audit …`
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// List entries, the newest first
    List(ListArgs),
    /// Check that no entry was changed or removed
    Verify(VerifyArgs),
    /// Write all entries with their hashes, the oldest first
    Export(ExportArgs),
}

/// Arguments of `audit list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Only those of this member or client, by id
    #[arg(long)]
    pub who: Option<String>,
    /// Only those whose kind begins so, such as `app.`
    #[arg(long)]
    pub what: Option<String>,
    /// Only what was refused
    #[arg(long)]
    pub refused: bool,
    /// Only from this time on, such as 2026-11-27T08:00:00Z
    #[arg(long, value_parser = instant)]
    pub since: Option<i64>,
    /// Only before this time
    #[arg(long, value_parser = instant)]
    pub until: Option<i64>,
    /// Most entries
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
}

/// Arguments of `audit verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Check this export (JSON lines) instead, without a Platform
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// An entry that `verify` printed before: it must still be the same
    #[arg(long)]
    pub tip: Option<AuditTip>,
}

/// Arguments of `audit export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// File to write [default: standard output]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Form; only JSON lines can be verified later
    #[arg(long, value_enum, default_value = "jsonl")]
    pub format: Format,
    /// Only entries of a larger number
    #[arg(long, default_value_t = 0)]
    pub after: u64,
}

/// Form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line, with hashes
    Jsonl,
    /// For spreadsheets
    Csv,
}

/// The audit trail.
pub async fn audit(context: &Context, command: AuditCommand) -> Result<()> {
    match command {
        AuditCommand::List(args) => list(context, &args).await,
        AuditCommand::Verify(args) => verify(context, args).await,
        AuditCommand::Export(args) => export(context, &args).await,
    }
}

async fn list(context: &Context, args: &ListArgs) -> Result<()> {
    let session = Session::open(context, None).await?;
    let mut entries: Vec<AuditEntry> = Vec::new();
    let mut before = None;
    while entries.len() < args.limit {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let most = (args.limit - entries.len()).min(PAGE).to_string();
        query.append_pair("limit", &most);
        let numbers = [
            ("before", before.map(|at: u64| at.to_string())),
            ("since", text(args.since)),
            ("until", text(args.until)),
        ];
        let texts = [
            ("who", args.who.clone()),
            ("what", args.what.clone()),
            ("refused", args.refused.then(|| "true".into())),
        ];
        for (name, value) in numbers.into_iter().chain(texts) {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        let mut page = session.get(&format!("/audit?{}", query.finish())).await?;
        entries.extend(serde_json::from_value::<Vec<AuditEntry>>(page["entries"].take())?);
        before = page["next"].as_u64();
        if before.is_none() {
            break;
        }
    }
    if context.json {
        println!("{}", serde_json::to_string(&entries)?);
        return Ok(());
    }
    for entry in &entries {
        println!("{}", words(entry));
    }
    Ok(())
}

fn text(number: Option<i64>) -> Option<String> {
    number.map(|number| number.to_string())
}

/// An entry as one line.
fn words(entry: &AuditEntry) -> String {
    let change = match (&entry.old, &entry.new) {
        (None, None) => String::new(),
        (old, new) => {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
            format!(": {} -> {}", value(old), value(new))
        }
    };
    let outcome = if entry.outcome == bastide_types::audit::DONE { "" } else { entry.outcome.as_str() };
    let line = [
        entry.sequence.to_string(),
        date(entry.at),
        entry.who.clone(),
        entry.address.clone(),
        entry.what.clone(),
        format!("{}{change}", entry.detail),
        outcome.to_owned(),
    ]
    .join("\t");
    // What people typed may hold anything; a line stays a line.
    line.chars()
        .map(|character| if character.is_control() && character != '\t' { ' ' } else { character })
        .collect()
}

fn date(at: i64) -> String {
    let instant = OffsetDateTime::from_unix_timestamp(at).ok();
    instant.and_then(|instant| instant.format(&Rfc3339).ok()).unwrap_or_else(|| at.to_string())
}

fn instant(text: &str) -> Result<i64, String> {
    let read = OffsetDateTime::parse(text, &Rfc3339);
    Ok(read.map_err(|_| "a time is written as 2026-11-27T08:00:00Z".to_owned())?.unix_timestamp())
}

async fn verify(context: &Context, args: VerifyArgs) -> Result<()> {
    let found = match &args.file {
        Some(file) => followed(file, args.tip)?,
        None => asked(context, args.tip).await?,
    };
    if context.json {
        println!("{}", serde_json::json!({ "whole": true, "tip": found.to_string() }));
    } else {
        println!("The audit trail is whole up to {found}");
        println!("Note this down elsewhere; `bastide audit verify --tip` compares it later.");
    }
    Ok(())
}

/// What the Platform says of its trail, and whether a known entry is still in it.
async fn asked(context: &Context, tip: Option<AuditTip>) -> Result<AuditTip> {
    let session = Session::open(context, None).await?;
    let verdict: Value = session.get("/audit/verification").await?;
    if verdict["whole"] != true {
        bail!("the audit trail is not whole: {}", verdict["fault"].as_str().unwrap_or_default());
    }
    if let Some(tip) = tip.filter(|tip| tip.sequence > 0) {
        let lines = page(&session, tip.sequence - 1, 1).await?;
        let same =
            lines.first().is_some_and(|line| line.entry.sequence == tip.sequence && line.hash == tip.hash);
        let gone = verdict["given_up"].as_u64().is_some_and(|up_to| tip.sequence <= up_to);
        if gone {
            bail!("entry {} was given up by age; it cannot be compared any more", tip.sequence);
        }
        if !same {
            bail!("entry {} is not the one that you noted: the trail was made anew", tip.sequence);
        }
    }
    verdict["tip"].as_str().unwrap_or_default().parse().map_err(anyhow::Error::msg)
}

/// Follows the chain in a file.
fn followed(file: &Path, known: Option<AuditTip>) -> Result<AuditTip> {
    let reader = BufReader::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?);
    let mut tip = AuditTip::START;
    let (mut customer, mut seen) = (None, false);
    for (number, text) in reader.lines().enumerate() {
        let line: AuditLine =
            serde_json::from_str(&text?).with_context(|| format!("line {} is no entry", number + 1))?;
        // An export may begin later than the trail.
        if customer.is_none() {
            tip = AuditTip { sequence: line.entry.sequence.saturating_sub(1), hash: line.previous };
        }
        let customer = *customer.get_or_insert(line.customer);
        tip = follow(customer, tip, [&line], sha256)?;
        seen |= known.is_some_and(|known| known == tip);
    }
    if customer.is_none() {
        bail!("{} holds no entries", file.display());
    }
    if let (Some(known), false) = (known, seen) {
        bail!("entry {} of this hash is not in the file", known.sequence);
    }
    Ok(tip)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

async fn page(session: &Session, after: u64, most: usize) -> Result<Vec<AuditLine>> {
    let path = format!("/audit/export?after={after}&limit={most}");
    let answer = session.call(Method::GET, &path, None, Bytes::new()).await?.good()?;
    let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("the answer is not what was expected")).collect()
}

async fn export(context: &Context, args: &ExportArgs) -> Result<()> {
    let session = Session::open(context, None).await?;
    let mut to: Box<dyn Write> = match &args.out {
        Some(file) => {
            let made = File::create_new(file);
            Box::new(BufWriter::new(made.with_context(|| format!("cannot make {}", file.display()))?))
        }
        None => Box::new(BufWriter::new(stdout())),
    };
    if args.format == Format::Csv {
        writeln!(to, "sequence,at,who,what,detail,address,request,outcome,old,new")?;
    }
    let (mut after, mut count) = (args.after, 0);
    loop {
        let lines = page(&session, after, PAGE).await?;
        for line in &lines {
            match args.format {
                Format::Jsonl => writeln!(to, "{}", serde_json::to_string(line)?)?,
                Format::Csv => writeln!(to, "{}", csv(&line.entry))?,
            }
        }
        let Some(last) = lines.last() else { break };
        (after, count) = (last.entry.sequence, count + lines.len());
    }
    to.flush()?;
    if let Some(file) = &args.out {
        eprintln!("{count} entries are in {}", file.display());
    }
    Ok(())
}

/// An entry as a row. Nothing in it is read as a formula by a spreadsheet.
fn csv(entry: &AuditEntry) -> String {
    let cell = |text: &str| {
        let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    };
    let value = |value: &Option<String>| value.as_deref().map(cell).unwrap_or_default();
    [
        entry.sequence.to_string(),
        date(entry.at),
        cell(&entry.who),
        cell(&entry.what),
        cell(&entry.detail),
        cell(&entry.address),
        cell(&entry.request),
        cell(&entry.outcome),
        value(&entry.old),
        value(&entry.new),
    ]
    .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::CustomerId;

    fn line(customer: CustomerId, before: AuditTip, detail: &str) -> AuditLine {
        let entry = AuditEntry {
            sequence: before.sequence + 1,
            at: 1_790_000_000,
            who: "ann".into(),
            what: "app.publish".into(),
            detail: detail.into(),
            address: "192.0.2.7".into(),
            request: String::new(),
            outcome: "done".into(),
            old: None,
            new: Some("=1+1".into()),
        };
        let hash = bastide_types::Digest::from_sha256(sha256(&entry.bytes(customer, &before.hash)));
        AuditLine { customer, previous: before.hash, hash, entry }
    }

    fn tip(line: &AuditLine) -> AuditTip {
        AuditTip { sequence: line.entry.sequence, hash: line.hash }
    }

    #[test]
    fn an_export_is_verified_without_a_platform() {
        let customer = CustomerId::generate();
        let mut lines = vec![line(customer, AuditTip::START, "one")];
        for detail in ["two", "three"] {
            lines.push(line(customer, tip(lines.last().unwrap()), detail));
        }
        let dir = tempfile::tempdir().unwrap();
        let check = |lines: &[AuditLine], known: Option<AuditTip>, expected: Result<u64, &str>| {
            let file = dir.path().join("export");
            let text: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
            std::fs::write(&file, text.join("\n")).unwrap();
            match (followed(&file, known), expected) {
                (Ok(tip), Ok(number)) => assert_eq!(tip.sequence, number),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        };
        check(&lines, None, Ok(3));
        check(&lines[1..], None, Ok(3));
        check(&lines, Some(tip(&lines[1])), Ok(3));
        check(&lines, Some(AuditTip { sequence: 2, hash: lines[0].hash }), Err("entry 2"));
        check(&[lines[0].clone(), lines[2].clone()], None, Err("entry 2 is missing"));
        let mut changed = lines.clone();
        changed[1].entry.detail = "other".into();
        check(&changed, None, Err("entry 2 was changed"));
        check(&[], None, Err("no entries"));
    }

    #[test]
    fn no_cell_is_a_formula_and_no_entry_more_than_a_line() {
        let line = line(CustomerId::generate(), AuditTip::START, "a \"b\"\n=2");
        assert_eq!(
            csv(&line.entry),
            "1,2026-09-21T14:13:20Z,\"ann\",\"app.publish\",\"a \"\"b\"\"\n=2\",\"192.0.2.7\",\"\",\"done\",,\"'=1+1\""
        );
        assert_eq!(
            words(&line.entry),
            "1\t2026-09-21T14:13:20Z\tann\t192.0.2.7\tapp.publish\ta \"b\" =2: nothing -> =1+1\t"
        );
    }
}
