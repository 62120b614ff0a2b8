//! `domain`: hosts of your own for the apps of a stage. `customer unlock`: for operators.

use crate::{Context, session::Session};
use anyhow::{Context as _, Result};
use bastide_types::{AppName, DomainName, StageName};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use std::path::PathBuf;

/// `bastide domain …`
#[derive(Debug, Clone, Subcommand)]
pub enum DomainCommand {
    /// Claim a domain for a stage; says which records to write into the DNS
    Add(Add),
    /// List your domains, their states and what they wait for
    List,
    /// Look for the TXT record of a domain now
    Verify {
        /// Host name, such as apps.example.com
        domain: DomainName,
    },
    /// Serve a domain with a certificate of your own
    Certificate {
        /// Host name
        domain: DomainName,
        /// Certificate chain, PEM, leaf first
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        /// Private key, PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Show the addresses of its stage with this domain
    Default {
        /// Host name
        #[arg(required_unless_present = "built_in")]
        domain: Option<DomainName>,
        /// The built-in host again, of this stage
        #[arg(long, value_name = "STAGE", conflicts_with = "domain")]
        built_in: Option<StageName>,
    },
    /// Give a domain up: it stops serving at once, and nobody else may have it for 180 days
    Remove {
        /// Host name
        domain: DomainName,
    },
}

/// What to claim.
#[derive(Debug, Clone, Args)]
pub struct Add {
    /// Host name, such as apps.example.com
    pub domain: DomainName,
    /// Stage that it shall belong to
    #[arg(long)]
    pub stage: StageName,
    /// Serve only this app, at `/`
    #[arg(long)]
    pub app: Option<AppName>,
}

/// Domains.
pub async fn domain(context: &Context, command: DomainCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        DomainCommand::Add(Add { domain, stage, app }) => {
            let body = json!({ "domain": domain, "stage": stage, "app": app });
            let made = session.send(Method::POST, "/domains", &body).await?;
            show_one(context, &made, add_text);
        }
        DomainCommand::List => {
            let all = session.get("/domains").await?;
            if context.json {
                println!("{all}");
                return Ok(());
            }
            let all = all.as_array().cloned().unwrap_or_default();
            if all.is_empty() {
                println!("No domains. Add one with: bastide domain add apps.example.com --stage production");
            }
            for one in &all {
                println!("{}", line(one));
            }
        }
        DomainCommand::Verify { domain } => {
            let shown = session.send(Method::POST, &path(&domain, "/verify"), &json!({})).await?;
            show_one(context, &shown, line);
        }
        DomainCommand::Certificate { domain, cert, key } => {
            let read = |path: &PathBuf| {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
            };
            let body = json!({ "chain": read(&cert)?, "key": read(&key)? });
            let shown = session.send(Method::PUT, &path(&domain, "/certificate"), &body).await?;
            show_one(context, &shown, line);
        }
        DomainCommand::Default { domain, built_in } => {
            set_default(context, &session, domain, built_in).await?;
        }
        DomainCommand::Remove { domain } => {
            let path = path(&domain, "/claim");
            session.call(Method::DELETE, &path, None, bytes::Bytes::new()).await?.good()?;
            if !context.json {
                println!("{domain} is given up. Take its records out of your DNS.");
            }
        }
    }
    Ok(())
}

async fn set_default(
    context: &Context,
    session: &Session,
    domain: Option<DomainName>,
    built_in: Option<StageName>,
) -> Result<()> {
    let stage = match (&domain, built_in) {
        (_, Some(stage)) => stage.to_string(),
        (domain, None) => {
            let all = session.get("/domains").await?;
            let wanted = domain.as_ref().map(DomainName::as_str).unwrap_or_default();
            let found = all.as_array().into_iter().flatten().find(|one| one["domain"] == wanted);
            let found = found.with_context(|| format!("{wanted} is not among your domains"))?;
            found["stage"].as_str().unwrap_or_default().to_owned()
        }
    };
    let path = format!("/stages/{stage}/default-domain");
    let body = json!({ "domain": domain }).to_string();
    session.call(Method::PUT, &path, Some("application/json"), body.into()).await?.good()?;
    if !context.json {
        let what = domain.map_or_else(|| "the built-in host".to_owned(), |domain| domain.to_string());
        println!("Addresses of {stage} are shown with {what}.");
    }
    Ok(())
}

fn path(domain: &DomainName, end: &str) -> String {
    format!("/domains/{domain}{end}")
}

fn show_one(context: &Context, one: &Value, text: fn(&Value) -> String) {
    println!("{}", if context.json { one.to_string() } else { text(one) });
}

fn word<'v>(one: &'v Value, key: &str) -> &'v str {
    one[key].as_str().unwrap_or_default()
}

/// What to do after a claim.
fn add_text(one: &Value) -> String {
    let record = &one["record"];
    format!(
        "{} is claimed for {}. Write these records into its DNS, until {}:\n\n  {}  TXT    {}\n  {}  CNAME  {}\n\nThen: bastide domain verify {}",
        word(one, "domain"),
        word(one, "stage"),
        word(one, "validate_until"),
        word(record, "name"),
        word(record, "value"),
        word(one, "domain"),
        word(one, "target"),
        word(one, "domain"),
    )
}

/// A domain as one line, and a second one for what needs attention.
fn line(one: &Value) -> String {
    let mut line =
        format!("{:<30} {:<12} {:<19}", word(one, "domain"), word(one, "stage"), word(one, "state"));
    if let Some(app) = one["app"].as_str() {
        line.push_str(&format!(" app {app} at /"));
    }
    if one["default"] == true {
        line.push_str(" default");
    }
    if let Some(source) = one["certificate"].as_str() {
        line.push_str(&format!(" certificate ({source}) until {}", word(one, "certificate_until")));
    }
    if let Some(problem) = one["problem"].as_str() {
        line.push_str(&format!("\n    {problem}"));
    }
    if word(one, "state") == "pending-validation" {
        let record = &one["record"];
        line.push_str(&format!("\n    awaits TXT {} = {}", word(record, "name"), word(record, "value")));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_tells_what_it_waits_for() {
        let record = json!({ "name": "_bastide.a.example.com", "value": "bastide=x" });
        let pending = json!({ "domain": "a.example.com", "stage": "test", "state": "pending-validation",
            "problem": "there is no TXT record", "record": record });
        let text = line(&pending);
        assert!(text.starts_with("a.example.com "), "{text}");
        assert!(
            text.contains("\n    there is no TXT record\n    awaits TXT _bastide.a.example.com = bastide=x"),
            "{text}"
        );
        let active = json!({ "domain": "a.example.com", "stage": "test", "state": "active", "default": true,
            "app": "shop", "certificate": "uploaded", "certificate_until": "2027-01-01T00:00:00Z" });
        let end =
            "active              app shop at / default certificate (uploaded) until 2027-01-01T00:00:00Z";
        assert!(line(&active).ends_with(end), "{}", line(&active));
    }
}
