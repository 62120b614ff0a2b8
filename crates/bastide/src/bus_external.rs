//! Brokers that the operator runs: what their configurations need of this installation.

use crate::{bootstrap, files, layout::Layout};
use anyhow::Result;
use std::path::Path;

/// What each server of a cluster has in its configuration. Makes the authority when there is none yet.
pub fn config(layout: &Layout, accounts_dir: &Path) -> Result<String> {
    files::private_dir(&layout.nats())?;
    let (issuers, _) = bootstrap::issuers(layout, time::OffsetDateTime::now_utc())?;
    Ok(issuers.authority_conf(accounts_dir)?)
}
