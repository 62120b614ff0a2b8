//! `organization`: how it looks on its sign-in and account pages.

use crate::{
    Context,
    org::{put, remove, show},
    session::Session,
};
use anyhow::{Context as _, Result, bail};
use bastide_types::picture::Picture;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;
use std::path::PathBuf;

/// `bastide organization …`
#[derive(Debug, Clone, Subcommand)]
pub enum OrganizationCommand {
    /// Show title and logo
    Show,
    /// Change title or logo
    Set(Change),
}

/// What to change.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct Change {
    /// What pages are headed with
    #[arg(long)]
    pub title: Option<String>,
    /// Go back to the name
    #[arg(long, conflicts_with = "title")]
    pub no_title: bool,
    /// PNG, JPEG or WebP of at most 64 KiB
    #[arg(long, value_name = "FILE")]
    pub logo: Option<PathBuf>,
    /// Take the logo away
    #[arg(long, conflicts_with = "logo")]
    pub no_logo: bool,
}

/// The organization's look.
pub async fn organization(context: &Context, command: OrganizationCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    if let OrganizationCommand::Set(change) = command {
        set(&session, change).await?;
    }
    let shown = session.get("/organization").await?;
    show(context, &shown, &["name", "title"])?;
    if !context.json && shown["logo"].is_object() {
        show(context, &shown["logo"], &["media_type", "width", "height", "url"])?;
    }
    Ok(())
}

async fn set(session: &Session, change: Change) -> Result<()> {
    if change.title.is_some() || change.no_title {
        put(session, "/organization", &json!({ "title": change.title })).await?;
    }
    if change.no_logo {
        remove(session, "/organization/logo").await?;
    }
    let Some(file) = change.logo else { return Ok(()) };
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    if let Err(fault) = Picture::read(&bytes) {
        bail!("{}: {fault}", file.display());
    }
    let kind = Some("application/octet-stream");
    session.call(Method::PUT, "/organization/logo", kind, bytes.into()).await?.good().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_to_be_changed_and_nothing_both_ways() {
        #[derive(clap::Parser)]
        struct Typed {
            #[command(subcommand)]
            organization: OrganizationCommand,
        }
        let is_good = |words: &[&str]| {
            let words = ["organization"].iter().chain(words);
            <Typed as clap::Parser>::try_parse_from(words).map(|typed| typed.organization).is_ok()
        };
        assert!(
            is_good(&["show"])
                && is_good(&["set", "--title", "Acme"])
                && is_good(&["set", "--no-title", "--logo", "a"])
        );
        assert!(!is_good(&["set"]) && !is_good(&["set", "--title", "a", "--no-title"]));
        assert!(!is_good(&["set", "--logo", "a", "--no-logo"]));
    }
}
