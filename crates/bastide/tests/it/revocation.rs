//! What is ended is refused at every gateway of the product.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{
    load::Load,
    revocation::{Bench, Kind},
};
use serde_json::Value;
use std::io::Write;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_ended_is_refused_at_every_gateway_under_load() -> Result<()> {
    let bench = Bench::start(env!("CARGO_BIN_EXE_bastide").into()).await?;
    let load = Load::start(&bench.others()?, 1, |status, _| status == 200);
    let outcome = async {
        for kind in Kind::ALL {
            for _ in 0..2 {
                let took = bench.end_once(kind).await?;
                // How quickly is for `bench/revocation/run` to say.
                let _ = writeln!(std::io::stderr(), "{}: the last one got in after {took:?}", kind.word());
            }
        }
        anyhow::Ok(())
    };
    bench.product.explained(outcome.await)?;
    let report = load.end().await;
    ensure!(report.lost == 0, "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_members_are_ended_from_the_command_line() -> Result<()> {
    let bench = Bench::start(env!("CARGO_BIN_EXE_bastide").into()).await?;
    let outcome = own_sessions(&bench).and_then(|()| those_of_others(&bench));
    bench.product.explained(outcome)
}

/// Bob is signed in.
fn own_sessions(bench: &Bench) -> Result<()> {
    let cli = |arguments: &[&str]| bench.product.cli(arguments, "");
    bench.sign_in_bob()?;
    let sessions: Value = serde_json::from_str(&cli(&["--json", "session", "list"])?)?;
    let sessions = sessions.as_array().context("sessions")?;
    let current = sessions.iter().filter(|one| one["current"] == true).count();
    ensure!(sessions.len() > 1 && current == 1, "{sessions:?}");
    let other = sessions.iter().find(|one| one["current"] == false && one["kind"] == "program");
    let other = other.and_then(|one| one["id"].as_str()).context("another session")?;
    cli(&["session", "end", other])?;
    ensure!(!cli(&["session", "list"])?.contains(other), "it has ended");
    let refused = cli(&["session", "end", other]).err().context("it is gone")?;
    ensure!(format!("{refused:#}").contains("B-API-0404"), "{refused:#}");
    ensure!(cli(&["session", "end"]).is_err(), "which one?");
    cli(&["session", "end", "--all"])?;
    let refused = cli(&["whoami"]).err().context("all have ended")?;
    ensure!(format!("{refused:#}").contains("your sign-in has ended"), "{refused:#}");
    Ok(())
}

/// As the administrator.
fn those_of_others(bench: &Bench) -> Result<()> {
    let cli = |arguments: &[&str]| bench.product.cli(arguments, "");
    let bob = Bench::BOB;
    bench.sign_in_boss()?;
    for arguments in [
        &["member", "roles", bob, "--role", "administrator"][..],
        &["member", "sign-out", bob],
        &["member", "suspend", bob],
        &["role", "grant", "hello", "admin", bob, "--stage", "development"],
        &["role", "revoke", "hello", "admin", bob, "--stage", "development"],
    ] {
        cli(arguments)?;
    }
    let members = cli(&["member", "list"])?;
    ensure!(members.contains("bob@demo.localhost\tbob\tinactive\tadministrator"), "{members}");
    ensure!(bench.sign_in_bob().is_err(), "suspended");
    bench.sign_in_boss()?;
    cli(&["member", "resume", bob])?;
    ensure!(cli(&["member", "suspend", "nobody@demo.localhost"]).is_err());
    ensure!(
        cli(&["role", "revoke", "hello", "admin", bob, "--stage", "development"]).is_err(),
        "taken already"
    );
    let limits = ["session", "limits", "--stage", "development"];
    cli(&[&limits[..], &["--max", "30d", "--idle", "10m"]].concat())?;
    ensure!(cli(&limits)? == "max_s: 2592000\nidle_s: 600\n", "{}", cli(&limits)?);
    ensure!(cli(&[&limits[..], &["--max", "46d", "--idle", "10m"]].concat()).is_err(), "too long");
    cli(&["session", "end", "--everybody"])?;
    bench.sign_in_bob()
}
