//! Sessions: one's own, and how long those of a stage last.

use crate::{
    Context,
    org::{put, remove, show, table},
    session::Session,
};
use anyhow::{Result, bail};
use bastide_types::StageName;
use clap::Subcommand;
use serde_json::json;

/// `bastide session …`
#[derive(Debug, Clone, Subcommand)]
pub enum SessionCommand {
    /// List your sessions
    List,
    /// End a session of yours, at once and everywhere
    End {
        /// Id of the session, as `session list` shows it
        id: Option<String>,
        /// End all of yours
        #[arg(long, conflicts_with_all = ["id", "everybody"])]
        all: bool,
        /// End those of everybody in the organization; nobody's token counts any longer
        #[arg(long, conflicts_with = "id")]
        everybody: bool,
    },
    /// Show or set how long browser sessions at the apps of a stage last
    Limits {
        /// Stage
        #[arg(long)]
        stage: String,
        /// Longest time from the sign-in on, such as 12h or 30d: 1h to 45d
        #[arg(long = "max", value_parser = seconds, requires = "idle_s")]
        max_s: Option<u64>,
        /// Longest time without use: 5m to 45d
        #[arg(long = "idle", value_parser = seconds, requires = "max_s")]
        idle_s: Option<u64>,
    },
}

/// Sessions.
pub async fn session(context: &Context, command: SessionCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        SessionCommand::List => {
            let sessions = session.get("/sessions").await?;
            table(context, &sessions, &["id", "kind", "client", "stage", "since", "seen", "until", "current"])
        }
        SessionCommand::End { id, all, everybody } => match id {
            Some(id) => {
                let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
                remove(&session, &format!("/sessions/{id}")).await
            }
            None if everybody => remove(&session, "/sessions?of=everybody").await,
            None if all => remove(&session, "/sessions?of=me").await,
            None => bail!("which one? Give its id, --all or --everybody"),
        },
        SessionCommand::Limits { stage, max_s, idle_s } => {
            let stage: StageName = stage.parse()?;
            let path = format!("/stages/{stage}/sessions");
            match (max_s, idle_s) {
                (Some(max_s), Some(idle_s)) => {
                    put(&session, &path, &json!({ "max_s": max_s, "idle_s": idle_s })).await
                }
                _ => show(context, &session.get(&path).await?, &["max_s", "idle_s"]),
            }
        }
    }
}

/// A time such as `90`, `30m`, `12h` or `45d`, in seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("a time such as 30m, 12h or 45d".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "a time such as 30m, 12h or 45d")?;
    number.checked_mul(unit).ok_or_else(|| "too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        for (text, expected) in [("90", 90), ("5m", 300), ("12h", 43_200), ("45d", 3_888_000), ("0s", 0)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "h", "1w", "-1h", "1 h", "99999999999999999999", "18446744073709551615d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
