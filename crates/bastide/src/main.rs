//! The one executable: every role, the supervisor and the command line.
//!
//! It reads arguments, environment and files once and hands values down; what a role does is in its crate.

mod args;
mod backup;
mod bootstrap;
mod break_glass;
mod bus_check;
mod bus_external;
mod check;
mod configs;
mod down;
mod edge_alone;
mod files;
mod first_run;
mod forwarding;
mod isolation;
mod layout;
mod pipe;
mod ports;
mod roles;
mod supervisor;
mod trust;
mod up;
mod upgrade;
mod verify;
mod waf;

use anyhow::{Context, Result};
use args::{Arguments, Command, Part};
use std::{path::PathBuf, process::ExitCode};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::read();
    // Before anything makes a thread: the shim forks.
    if let Command::Part(Part::Shim { config }) = &arguments.command {
        return bastide_container::shim_main(config);
    }
    // It goes into namespaces, each thread for itself: it has only one.
    if matches!(arguments.command, Command::Part(Part::Probe)) {
        return bastide_verify::prober_main();
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    log(&arguments.command);
    pipe::may_be_closed();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(problem) = error.downcast_ref::<bastide_types::Problem>() {
                eprintln!("       bastide explain {}", problem.code);
            }
            ExitCode::from(bastide_cli::exit::code(&error))
        }
    }
}

/// Roles log to standard error, which the supervisor keeps in files; commands say only what goes wrong.
fn log(command: &Command) {
    let default = match command {
        Command::Part(Part::RunRole(_)) => "info",
        Command::Up(_) | Command::Part(Part::Edge(_)) => "warn",
        // It lets the broker refuse it.
        Command::Bus(_) => "error,async_nats=off",
        _ => "error",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("BASTIDE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let common = arguments.common;
    match arguments.command {
        // The supervisor starts its children from its only thread, which lives as long as they do.
        Command::Up(args) => single_threaded()?.block_on(up::run(args))?,
        Command::Down(args) => down::run(&up::layout(args.data.data.as_deref()), args.purge, args.yes)?,
        Command::Upgrade(args) => {
            let layout = up::layout(args.data.data.as_deref());
            single_threaded()?.block_on(upgrade::ask(&layout, args.only))?;
        }
        Command::Check(args) => {
            let checks = check::run(&up::subject(&args, &up::layout(args.data.data.as_deref())));
            print!("{}", check::report(&checks));
            if !check::passed(&checks) {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Trust(args) => trust::run(&up::layout(args.data.data.as_deref()), &args)?,
        Command::Part(part) => run_part(part)?,
        Command::Verify(args) => {
            let layout = up::layout(args.data.data.as_deref());
            return single_threaded()?.block_on(verify::run(&layout, args, common.json));
        }
        Command::Bus(args::BusCommand::Check(args)) => {
            let layout = up::layout(args.data.data.as_deref());
            return single_threaded()?.block_on(bus_check::run(&layout, common.json));
        }
        Command::Bus(args::BusCommand::Config(args)) => {
            print!("{}", bus_external::config(&up::layout(args.data.data.as_deref()), &args.accounts_dir)?);
        }
        Command::Backup(args) => {
            let layout = up::layout(args.data.data.as_deref());
            single_threaded()?.block_on(backup::backup(&layout, &args))?;
        }
        Command::Restore(args) => {
            let layout = up::layout(args.data.data.as_deref());
            single_threaded()?.block_on(backup::restore(&layout, &args))?;
        }
        Command::NewLife(args) => {
            let layout = up::layout(args.data.data.as_deref());
            single_threaded()?.block_on(backup::new_life(&layout))?;
        }
        Command::BreakGlass(args) => {
            let layout = up::layout(args.data.data.as_deref());
            single_threaded()?.block_on(break_glass::run(&layout, args, common.json))?;
        }
        Command::Waf(command) => single_threaded()?.block_on(waf::run(context(common), command))?,
        Command::Cli(command) => single_threaded()?.block_on(bastide_cli::run(context(common), command))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_part(part: Part) -> Result<()> {
    match part {
        Part::Edge(args) => edge_alone::run(args)?,
        Part::RunRole(args) => roles::run(args.role, &args.config, args.ready, args.supervised)?,
        Part::StaticServer { root } => single_threaded()?.block_on(static_server(root))?,
        Part::Shim { .. } => anyhow::bail!("a shim is started before anything else"),
        Part::Probe => anyhow::bail!("a prober is started before anything else"),
        Part::ExecChild { app, command } => {
            let error = bastide_runtime::exec_child(&command, app);
            return Err(error).with_context(|| format!("cannot start {}", command[0].to_string_lossy()));
        }
    }
    Ok(())
}

fn context(common: bastide_cli::Common) -> bastide_cli::Context {
    bastide_cli::Context {
        ca: common.ca.unwrap_or_else(|| up::layout(None).local_ca()),
        config_dir: config_dir(),
        server: common.server,
        json: common.json,
    }
}

fn single_threaded() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn static_server(root: PathBuf) -> Result<()> {
    let port: u16 = std::env::var("PORT").context("PORT is not set")?.parse().context("PORT is no port")?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(roles::cancel_on_signal(stop.clone()));
    bastide_runtime::static_server::run(root, ([127, 0, 0, 1], port).into(), stop).await?;
    signals.abort();
    Ok(())
}

/// Where the command line keeps credentials: `$XDG_CONFIG_HOME/bastide`, else `~/.config/bastide`.
fn config_dir() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".config");
    std::env::var_os("XDG_CONFIG_HOME")
        .filter(|dir| !dir.is_empty())
        .map_or_else(home, PathBuf::from)
        .join("bastide")
}
