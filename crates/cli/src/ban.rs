//! `ban`: sources whose requests are refused.

use crate::{
    Context,
    org::{remove, segment, show, table},
    session::Session,
};
use anyhow::{Result, bail};
use bastide_types::BannedNet;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

/// `bastide ban …`
#[derive(Debug, Clone, Subcommand)]
pub enum BanCommand {
    /// Ban a source, or replace its ban: everywhere as an operator, at the hosts of your stages otherwise
    Add(AddBan),
    /// List the bans in force
    List,
    /// Lift a ban
    Remove {
        /// Address or network, as it was banned
        network: BannedNet,
    },
}

/// Whom to ban.
#[derive(Debug, Clone, Args)]
pub struct AddBan {
    /// Address or network, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/48
    pub network: BannedNet,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// For how long, such as 30m, 2h or 7d [default: for ever]
    #[arg(long = "for", value_name = "DURATION", value_parser = seconds)]
    pub for_s: Option<u32>,
}

/// Bans.
pub async fn ban(context: &Context, command: BanCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        BanCommand::Add(AddBan { network, reason, for_s }) => {
            let mut body = json!({ "network": network, "reason": reason });
            if let Some(for_s) = for_s {
                body["for_s"] = for_s.into();
            }
            show(context, &session.send(Method::POST, "/bans", &body).await?, &["network", "until"])
        }
        BanCommand::List => {
            table(context, &session.get("/bans").await?, &["network", "until", "reason", "by", "since"])
        }
        BanCommand::Remove { network } => {
            let found = session.get(&format!("/bans?network={}", segment(&network.to_string()))).await?;
            let Some(id) = found[0]["id"].as_str() else {
                bail!("{network} is not banned here; `bastide ban list` shows what is");
            };
            remove(&session, &format!("/bans/{}", segment(id))).await
        }
    }
}

/// Reads a whole number and its unit: seconds, minutes, hours or days.
fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || "a whole number of seconds, minutes, hours or days, such as 90s, 30m, 2h or 7d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<u32>().ok().filter(|_| is_number);
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "h", "2", "2 h", "+2h", "-2h", "2.5h", "2w", "99999999d", "2ü"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_ban_is_typed_as_it_is_meant() {
        #[derive(clap::Parser)]
        struct Typed {
            #[command(subcommand)]
            ban: BanCommand,
        }
        let typed = |words: &[&str]| {
            let words = ["ban"].iter().chain(words);
            <Typed as clap::Parser>::try_parse_from(words).map(|typed| typed.ban)
        };
        let Ok(BanCommand::Add(ban)) = typed(&["add", "203.0.113.7/24", "--reason", "floods", "--for", "2h"])
        else {
            panic!("a ban");
        };
        assert_eq!((ban.network.to_string(), ban.for_s), ("203.0.113.0/24".into(), Some(7200)));
        for wrong in [
            &["add", "203.0.113.7"][..],
            &["add", "0.0.0.0/0", "--reason", "all"],
            &["add", "127.0.0.1", "--reason", "me"],
            &["add", "example.com", "--reason", "a name"],
            &["add", "203.0.113.7", "--reason", "x", "--for", "soon"],
            &["remove"],
        ] {
            assert!(typed(wrong).is_err(), "{wrong:?}");
        }
    }
}
