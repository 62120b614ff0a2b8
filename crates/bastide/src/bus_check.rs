//! `bastide bus check`: whether the broker that runs keeps stages apart.

use crate::{files, layout::Layout};
use anyhow::{Context, Result};
use bastide_bus::{
    Authority, Config, Issuers,
    check::{self, Room},
};
use bastide_types::Role;
use std::{path::Path, process::ExitCode};

/// Name of the credential that is made for it.
const NAME: &str = "check";

/// Tries, prints what was found, and fails when anything was open.
pub async fn run(layout: &Layout, json: bool) -> Result<ExitCode> {
    let platform: Option<bastide_platform::Config> = files::read_json(&layout.config("platform-1"))?;
    let platform = platform.with_context(|| format!("nothing runs in {}", layout.root().display()))?;
    let authority = Authority::load(&platform.bus_authority_file)?;
    let now_s = u64::try_from(bastide_store::now_s())?;
    let issuers = Issuers::load(&layout.nats().join("issuers.json"))?;
    let creds = issuers.creds(Role::Platform, NAME, now_s)?;
    let file = layout.run().join("check.sys.creds");
    let creds =
        creds.get("check.sys.creds").context("the platform has a credential of the system account")?;
    files::write_private(&file, creds.expose().as_bytes())?;
    let rooms = rooms(&layout.nats().join("check.json"))?;
    let sys = Config { creds_file: Some(file.clone()), name: NAME.into(), ..platform.bus_system };
    let report = check::run(&sys, &authority, &rooms, now_s).await;
    std::fs::remove_file(&file)?;
    let report = report.context("the broker could not be tried")?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        for fault in &report.faults {
            println!("OPEN  {fault}");
        }
        println!("{} tried, {} open.", report.tried, report.faults.len());
    }
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The two stages that exist only for this.
fn rooms(file: &Path) -> Result<[Room; 2]> {
    if let Some(rooms) = files::read_json(file)? {
        return Ok(rooms);
    }
    let rooms = [Room::generate()?, Room::generate()?];
    files::write_private(file, &serde_json::to_vec(&rooms)?)?;
    Ok(rooms)
}
