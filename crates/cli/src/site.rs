//! `site`: how the hosts of a stage behave by themselves.

use crate::{Context, network::InStage, session::Session};
use anyhow::{Context as _, Result, bail};
use bastide_types::{
    AppName,
    site::{
        Closure, FieldRule, FromPath, Maintenance, PageKind, Query, Redirect, RedirectStatus, SecurityField,
        SecurityFields, Target,
    },
};
use clap::{Args, Subcommand};
use http::Method;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

/// `bastide site …`
#[derive(Debug, Clone, Subcommand)]
pub enum SiteCommand {
    /// Show everything
    Show {
        #[command(flatten)]
        at: InStage,
    },
    /// Pages that people see instead of the built-in ones
    #[command(subcommand)]
    Page(PageCommand),
    /// Close a stage or an app for a while
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Send requests elsewhere
    #[command(subcommand)]
    Redirect(RedirectCommand),
    /// Security fields of answers, such as content-security-policy
    #[command(subcommand)]
    Field(FieldCommand),
    /// Forget everything that was set; the defaults hold again
    Reset {
        #[command(flatten)]
        at: InStage,
    },
}

/// `bastide site page …`
#[derive(Debug, Clone, Subcommand)]
pub enum PageCommand {
    /// Set a page; {{status}}, {{code}}, {{title}} and {{request_id}} in it are filled in
    Set {
        /// 403, 404, 413, 429, 500, 502, 503, 504 or maintenance
        page: PageKind,
        /// HTML, at most 32 KiB
        file: PathBuf,
        #[command(flatten)]
        at: InStage,
    },
    /// Print a page as it was set
    Show {
        /// A status, or maintenance
        page: PageKind,
        #[command(flatten)]
        at: InStage,
    },
    /// Go back to the built-in page
    Remove {
        /// A status, or maintenance
        page: PageKind,
        #[command(flatten)]
        at: InStage,
    },
}

/// `bastide site maintenance …`
#[derive(Debug, Clone, Subcommand)]
pub enum MaintenanceCommand {
    /// Close: clients get 503 and are told when to come again
    On {
        /// Only this app
        #[arg(long)]
        app: Option<AppName>,
        /// When clients are told to come again, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        retry_after: u32,
        /// It stays open for this address or network (may be given more than once)
        #[arg(long, value_name = "NETWORK", value_parser = network)]
        open_for: Vec<IpNet>,
        #[command(flatten)]
        at: InStage,
    },
    /// Open again
    Off {
        /// Only this app
        #[arg(long)]
        app: Option<AppName>,
        #[command(flatten)]
        at: InStage,
    },
}

/// `bastide site redirect …`
#[derive(Debug, Clone, Subcommand)]
pub enum RedirectCommand {
    /// Add a redirect, or replace the one from the same path
    Add(AddRedirect),
    /// Take a redirect out
    Remove {
        /// Path, as it was added
        from: FromPath,
        /// The one for this host only
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        at: InStage,
    },
    /// List the redirects
    List {
        #[command(flatten)]
        at: InStage,
    },
}

/// What to redirect.
#[derive(Debug, Clone, Args)]
pub struct AddRedirect {
    /// Path such as /old, or /old/* for everything below
    from: FromPath,
    /// Path such as /new, or address such as https://example.com/new; with /* at its end the rest follows
    to: Target,
    /// 301, 302, 307 or 308
    #[arg(long, default_value = "301")]
    status: RedirectStatus,
    /// Only on this host
    #[arg(long)]
    host: Option<String>,
    /// Leave the query of the request out
    #[arg(long)]
    drop_query: bool,
    #[command(flatten)]
    at: InStage,
}

/// `bastide site field …`
#[derive(Debug, Clone, Subcommand)]
pub enum FieldCommand {
    /// Set a field, for answers that do not have it
    Set {
        /// Such as content-security-policy
        field: SecurityField,
        /// Such as "default-src 'self'"
        value: String,
        /// Put it in the place of what the app says, too
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        at: InStage,
    },
    /// Leave a field to the app, also where there is a default
    Off {
        /// Such as x-frame-options
        field: SecurityField,
        #[command(flatten)]
        at: InStage,
    },
    /// Go back to the default of a field
    Default {
        /// Such as x-frame-options
        field: SecurityField,
        #[command(flatten)]
        at: InStage,
    },
    /// List what answers carry
    List {
        #[command(flatten)]
        at: InStage,
    },
}

/// What the API says.
#[derive(Debug, Clone, Deserialize)]
struct Shown {
    stage: String,
    pages: BTreeMap<PageKind, usize>,
    maintenance: Maintenance,
    redirects: Vec<Redirect>,
    fields: SecurityFields,
    #[serde(rename = "fields_in_force")]
    in_force: Vec<Carried>,
}

#[derive(Debug, Clone, Deserialize)]
struct Carried {
    field: SecurityField,
    value: String,
    force: bool,
}

/// Sites.
pub async fn site(context: &Context, command: SiteCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        SiteCommand::Show { at } => tell(context, session.get(&path(&at, "")).await?, everything),
        SiteCommand::Page(command) => page(context, &session, command).await,
        SiteCommand::Maintenance(command) => maintenance(context, &session, command).await,
        SiteCommand::Redirect(command) => redirect(context, &session, command).await,
        SiteCommand::Field(command) => field(context, &session, command).await,
        SiteCommand::Reset { at } => {
            let answer = session.call(Method::DELETE, &path(&at, ""), None, bytes::Bytes::new()).await?;
            tell(context, answer.json()?, everything)
        }
    }
}

async fn page(context: &Context, session: &Session, command: PageCommand) -> Result<()> {
    let place = |at: &InStage, page: PageKind| path(at, &format!("/pages/{page}"));
    let (method, path, kind, body) = match command {
        PageCommand::Set { page, file, at } => {
            let html = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            // Not inspected on its way, as other files are not: pages hold markup and scripts.
            (Method::PUT, place(&at, page), Some("application/octet-stream"), html)
        }
        PageCommand::Remove { page, at } => (Method::DELETE, place(&at, page), None, Vec::new()),
        PageCommand::Show { page, at } => {
            let shown = session.get(&place(&at, page)).await?;
            if context.json {
                println!("{shown}");
            } else {
                println!("{}", shown["html"].as_str().unwrap_or_default());
            }
            return Ok(());
        }
    };
    tell(context, session.call(method, &path, kind, body.into()).await?.json()?, pages)
}

async fn maintenance(context: &Context, session: &Session, command: MaintenanceCommand) -> Result<()> {
    let (MaintenanceCommand::On { at, .. } | MaintenanceCommand::Off { at, .. }) = &command;
    let at = at.clone();
    let mut new = read(session, &at).await?.maintenance;
    match command {
        MaintenanceCommand::On { app, retry_after, open_for, .. } => {
            let closure = Closure { retry_after_s: retry_after, open_for };
            match app {
                Some(app) => {
                    new.apps.insert(app, closure);
                }
                None => new.stage = Some(closure),
            }
        }
        MaintenanceCommand::Off { app, .. } => {
            let was = match &app {
                Some(app) => new.apps.remove(app).is_some(),
                None => new.stage.take().is_some(),
            };
            if !was {
                let what = app.map_or_else(|| at.stage.to_string(), |app| format!("{app} in {}", at.stage));
                bail!("{what} is not closed");
            }
        }
    }
    put(context, session, (&at, "/maintenance"), &new, closed).await
}

async fn redirect(context: &Context, session: &Session, command: RedirectCommand) -> Result<()> {
    match command {
        RedirectCommand::List { at } => tell(context, session.get(&path(&at, "")).await?, redirects),
        RedirectCommand::Add(add) => {
            let query = if add.drop_query || add.to.has_query() { Query::Drop } else { Query::Keep };
            let AddRedirect { from, to, status, host, at, .. } = add;
            let new = Redirect { host, from, to, status, query };
            let mut all = read(session, &at).await?.redirects;
            all.retain(|own| (&own.host, &own.from) != (&new.host, &new.from));
            all.push(new);
            put(context, session, (&at, "/redirects"), &all, redirects).await
        }
        RedirectCommand::Remove { from, host, at } => {
            let mut all = read(session, &at).await?.redirects;
            let before = all.len();
            all.retain(|own| (&own.host, &own.from) != (&host, &from));
            if all.len() == before {
                bail!("there is no redirect from `{from}` in {}", at.stage);
            }
            put(context, session, (&at, "/redirects"), &all, redirects).await
        }
    }
}

async fn field(context: &Context, session: &Session, command: FieldCommand) -> Result<()> {
    let (at, field, rule) = match command {
        FieldCommand::List { at } => {
            return tell(context, session.get(&path(&at, "")).await?, fields);
        }
        FieldCommand::Set { field, value, force, at } => {
            (at, field, Some(FieldRule { value: Some(value), force }))
        }
        FieldCommand::Off { field, at } => (at, field, Some(FieldRule::default())),
        FieldCommand::Default { field, at } => (at, field, None),
    };
    let mut all = read(session, &at).await?.fields;
    match rule {
        Some(rule) => {
            all.0.insert(field, rule);
        }
        None => {
            all.0.remove(&field);
        }
    }
    put(context, session, (&at, "/fields"), &all, fields).await
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse())
        .map_err(|_| "write an address or a network, such as 192.0.2.0/24".into())
}

fn path(at: &InStage, end: &str) -> String {
    format!("/stages/{}/site{end}", at.stage)
}

async fn read(session: &Session, at: &InStage) -> Result<Shown> {
    Ok(serde_json::from_value(session.get(&path(at, "")).await?)?)
}

async fn put(
    context: &Context,
    session: &Session,
    (at, end): (&InStage, &str),
    new: &impl Serialize,
    text: fn(&Shown) -> String,
) -> Result<()> {
    let answer = session.send(Method::PUT, &path(at, end), &serde_json::to_value(new)?).await?;
    tell(context, answer, text)
}

fn tell(context: &Context, answer: Value, text: fn(&Shown) -> String) -> Result<()> {
    if context.json {
        println!("{answer}");
    } else {
        print!("{}", text(&serde_json::from_value(answer)?));
    }
    Ok(())
}

fn everything(shown: &Shown) -> String {
    [closed(shown), pages(shown), redirects(shown), fields(shown)].concat()
}

fn pages(shown: &Shown) -> String {
    if shown.pages.is_empty() {
        return format!("{}: built-in pages\n", shown.stage);
    }
    let line = |(page, bytes): (&PageKind, &usize)| format!("  {page}, {bytes} bytes\n");
    format!("{}: pages\n{}", shown.stage, shown.pages.iter().map(line).collect::<String>())
}

fn closed(shown: &Shown) -> String {
    let Shown { stage, maintenance, .. } = shown;
    let line = |what: &str, closure: &Closure| {
        let nets: Vec<String> = closure.open_for.iter().map(ToString::to_string).collect();
        let open = if nets.is_empty() { String::new() } else { format!(", open for {}", nets.join(", ")) };
        format!("{what} is closed (Retry-After: {}{open})\n", closure.retry_after_s)
    };
    let whole = maintenance.stage.as_ref().map(|closure| line(stage, closure));
    let apps = maintenance.apps.iter().map(|(app, closure)| line(&format!("{app} in {stage}"), closure));
    let all: String = whole.into_iter().chain(apps).collect();
    if all.is_empty() { format!("{stage}: open\n") } else { all }
}

fn redirects(shown: &Shown) -> String {
    if shown.redirects.is_empty() {
        return format!("{}: no redirects\n", shown.stage);
    }
    let line = |own: &Redirect| {
        let host = own.host.as_ref().map(|host| format!("  on {host} only")).unwrap_or_default();
        let query = if own.query.is_keep() || own.to.has_query() { "" } else { "  without the query" };
        format!("  {} → {}  {}{host}{query}\n", own.from, own.to, own.status.code())
    };
    format!("{}: redirects\n{}", shown.stage, shown.redirects.iter().map(line).collect::<String>())
}

fn fields(shown: &Shown) -> String {
    let line = |own: &Carried| {
        let said = if own.force {
            "   (always)"
        } else if shown.fields.0.contains_key(&own.field) {
            ""
        } else {
            "   (default)"
        };
        format!("  {}: {}{said}\n", own.field, own.value)
    };
    let off = shown.fields.0.iter().filter(|(_, rule)| rule.value.is_none());
    let off = off.map(|(field, _)| format!("  {field}: left to the apps\n"));
    let carried = shown.in_force.iter().map(line);
    format!("{}: security fields\n{}", shown.stage, carried.chain(off).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_for_people() {
        let shown: Shown = serde_json::from_value(serde_json::json!({
            "stage": "test", "pages": {"404": 12, "maintenance": 7},
            "maintenance": {"apps": {"shop": {"retry_after_s": 60, "open_for": ["192.0.2.0/24"]}}},
            "redirects": [{"from": "/old/*", "to": "/new/*"},
                {"host": "a.example", "from": "/x", "to": "/y?z=1", "status": 302, "query": "drop"}],
            "fields": {"x-frame-options": {}, "referrer-policy": {"value": "no-referrer", "force": true}},
            "fields_in_force": [{"field": "referrer-policy", "value": "no-referrer", "force": true},
                {"field": "x-content-type-options", "value": "nosniff", "force": false}],
        }))
        .unwrap();
        assert_eq!(
            everything(&shown),
            "shop in test is closed (Retry-After: 60, open for 192.0.2.0/24)\n\
             test: pages\n  404, 12 bytes\n  maintenance, 7 bytes\n\
             test: redirects\n  /old/* → /new/*  301\n  /x → /y?z=1  302  on a.example only\n\
             test: security fields\n  referrer-policy: no-referrer   (always)\n\
             \x20 x-content-type-options: nosniff   (default)\n  x-frame-options: left to the apps\n"
        );
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        assert_eq!(network("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(network("example.com").is_err());
    }
}
