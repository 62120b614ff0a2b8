//! `bastide up`: everything on one machine, supervised until it is told to stop.

use crate::{
    args::{UpArgs, WafMode as WafModeArg},
    bootstrap, check,
    configs::{self, BROKER, Choices, ExternalBus, LISTENING},
    files, first_run, isolation,
    layout::{Layout, default_root},
    ports::Ports,
    roles::cancel_on_signal,
    supervisor::{self, Change, Identity, Process},
    upgrade::{self, Switch},
};
use anyhow::{Context, Result, bail};
use bastide_bus::broker::{self, Search};
use bastide_edge::rules::Places;
use bastide_platform::config::{CustomDomains, IdentitySettings};
use bastide_runtime::config::DriverKind;
use bastide_types::{Domains, node::Isolation, waf::WafMode};
use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest wait for a broker that somebody else runs, before anything is started.
const BUS_LIMIT: Duration = Duration::from_secs(30);
/// How long everything may take to become ready before `up` says what is missing and goes on waiting.
const SAY_AFTER: Duration = Duration::from_secs(20);

/// Layout of the data directory that was asked for.
pub fn layout(data: Option<&Path>) -> Layout {
    let root = data.map_or_else(|| default_root(|key| std::env::var_os(key)), Path::to_owned);
    Layout::new(std::path::absolute(&root).unwrap_or(root))
}

/// What the checks should look at.
pub fn subject(args: &UpArgs, layout: &Layout) -> check::Subject {
    let supervisor = files::read_json::<Identity>(&layout.supervisor()).ok().flatten();
    check::Subject {
        data: layout.root().to_owned(),
        ports: [args.https_port, args.http_port],
        rules: Places { named: rules(args), versions: Some(layout.waf_versions()) },
        broker: args.bus.is_none().then(|| search(args)),
        isolation: isolation::findings(),
        allow_no_isolation: args.allow_no_isolation,
        zones: isolation::zones(&bootstrap::zones(), &args.egress_ip).map_err(|error| error.to_string()),
        database: whole(args.database.as_ref()),
        postgres: whole(args.postgres.as_ref()),
        running: supervisor.is_some_and(|supervisor| supervisor.is_alive()),
    }
}

/// The operator's settings of the edge; an error names the file, the line and what would do.
fn edge_settings(args: &UpArgs) -> Result<bastide_edge::config::Settings> {
    let Some(file) = &args.edge_settings else { return Ok(Default::default()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    toml::from_str(&text).with_context(|| format!("{} holds no settings of the edge", file.display()))
}

/// The operator's settings of custom domains. The roles run elsewhere: files have whole paths.
fn domain_settings(args: &UpArgs) -> Result<CustomDomains> {
    let Some(file) = &args.domain_settings else { return Ok(CustomDomains::default()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut settings: CustomDomains = toml::from_str(&text)
        .with_context(|| format!("{} holds no settings of custom domains", file.display()))?;
    let whole = |path: &mut PathBuf| *path = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    settings.edge_key_files.iter_mut().for_each(whole);
    settings.acme.iter_mut().filter_map(|acme| acme.ca_file.as_mut()).for_each(whole);
    Ok(settings)
}

/// The operator's settings of the Identity Service. The roles run elsewhere: files have whole paths.
fn identity_settings(args: &UpArgs) -> Result<IdentitySettings> {
    let Some(file) = &args.identity_settings else { return Ok(IdentitySettings::default()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut settings: IdentitySettings = toml::from_str(&text)
        .with_context(|| format!("{} holds no settings of the Identity Service", file.display()))?;
    if let Some(mail) = &mut settings.mail {
        mail.password_file = whole(mail.password_file.as_ref());
        mail.ca_file = whole(mail.ca_file.as_ref());
    }
    for host in &mut settings.outbound {
        host.ca_file = whole(host.ca_file.as_ref());
    }
    Ok(settings)
}

/// The roles run elsewhere: their files have whole paths.
fn whole(file: Option<&PathBuf>) -> Option<PathBuf> {
    file.map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()))
}

/// The edge runs elsewhere: what was named has whole paths.
fn rules(args: &UpArgs) -> Vec<PathBuf> {
    let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    args.waf_rules.iter().map(whole).collect()
}

fn external_bus(args: &UpArgs) -> Option<ExternalBus> {
    Some(ExternalBus { url: args.bus.clone()?, ca_file: whole(args.bus_ca.as_ref())? })
}

fn search(args: &UpArgs) -> Search {
    let beside = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    Search { configured: args.nats_server.clone(), beside, path: std::env::var_os("PATH"), allow_old: false }
}

/// Brings everything up and keeps it running until a signal.
pub async fn run(args: UpArgs) -> Result<()> {
    let begun = Instant::now();
    let layout = layout(args.data.data.as_deref());
    let subject = subject(&args, &layout);
    let (driver, level) = isolation::choose(&args, &subject.isolation)?;
    files::private_dir(&layout.run())?;
    let _lock = lock(&layout)?;
    let checks = check::run(&subject);
    if !check::passed(&checks) {
        bail!("this machine is not ready:\n\n{}", check::report(&checks));
    }
    files::write_private(&layout.supervisor(), &serde_json::to_vec(&Identity::own()?)?)?;
    for stale in [layout.up(), layout.down_mark()] {
        let _ = std::fs::remove_file(stale);
    }
    supervisor::end_what_is_left(&layout)?;
    if driver == DriverKind::Process && isolation::may_clear(&layout.runtime()) {
        // Containers of an earlier start would go on running, looked after by nobody.
        bastide_runtime::driver::clear(&layout.runtime())
            .await
            .context("cannot remove earlier containers")?;
    }
    let outcome = supervise(&args, &layout, (driver, level), begun).await;
    for path in [layout.up(), layout.supervisor()] {
        let _ = std::fs::remove_file(path);
    }
    outcome
}

async fn supervise(
    args: &UpArgs,
    layout: &Layout,
    (driver, level): (DriverKind, Isolation),
    begun: Instant,
) -> Result<()> {
    let domains = Domains {
        platform: args.platform_domain.clone(),
        runtime: args.runtime_domain.clone(),
        https_port: args.https_port,
    };
    let ports = Ports::settle(layout, &LISTENING)?;
    bootstrap::prepare(layout, &ports, &domains, time::OffsetDateTime::now_utc())?;
    let choices = Choices {
        listen: args.listen,
        http_port: args.http_port,
        domains: domains.clone(),
        waf_rules: rules(args),
        waf_mode: match args.waf_mode {
            WafModeArg::Detect => WafMode::Detect,
            WafModeArg::Block => WafMode::Block,
        },
        edge: edge_settings(args)?,
        custom_domains: domain_settings(args)?,
        driver,
        isolation: level,
        zones: isolation::zones(&bootstrap::zones(), &args.egress_ip)?,
        runc: args.runc.clone(),
        postgres: whole(args.postgres.as_ref()),
        database: whole(args.database.as_ref()),
        kek_command: args.kek_command.clone(),
        breached_passwords: whole(args.breached_passwords.as_ref()),
        identity: identity_settings(args)?,
        bus: external_bus(args),
        api_limits: bastide_platform::wire::pace::Limits {
            requests_per_service: args.requests_per_minute,
            deployments: args.deployments_per_minute,
        },
    };
    let executable = std::env::current_exe().context("where is this executable?")?;
    let broker = match &choices.bus {
        None => Some(broker::find(&search(args))?),
        Some(bus) => {
            broker::external(&configs::system_bus(layout, bus), BUS_LIMIT).await?;
            None
        }
    };
    let processes = configs::write(layout, &ports, &choices, &executable, broker.as_ref())?;
    if let Some(warning) = level.warning() {
        eprintln!("WARNING: {warning}");
    }
    let stop = CancellationToken::new();
    let signals = tokio::spawn(cancel_on_signal(stop.clone()));
    let fleet = Fleet::start(layout, processes);
    let work = async {
        fleet.all_ready().await?;
        let report = first_run::run(layout, &domains, args, &executable).await?;
        files::write_private(&layout.up(), report.json().as_bytes())?;
        println!("{}", report.text(layout, begun.elapsed()));
        tokio::try_join!(
            renew_for_ever(layout, &domains),
            upgrade::serve(layout, &executable, &fleet.switches),
        )
        .map(|((), ())| ())
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = stop.cancelled() => Ok(()),
    };
    eprintln!("Stopping …");
    // Apps end with the rest; a runtime that only restarts leaves them running.
    if let Err(error) = files::write_private(&layout.down_mark(), b"") {
        tracing::error!(error = format!("{error:#}"), "apps may go on running");
    }
    fleet.stop().await;
    signals.abort();
    outcome
}

/// Looks twice a day whether a certificate for sites ends soon.
async fn renew_for_ever(layout: &Layout, domains: &Domains) -> Result<()> {
    loop {
        tokio::time::sleep(Duration::from_hours(12)).await;
        if let Err(error) = bootstrap::site_certificates(layout, domains, time::OffsetDateTime::now_utc()) {
            tracing::error!(error = format!("{error:#}"), "certificates for sites are not renewed");
        }
    }
}

/// Only one supervisor at a time looks after a data directory.
pub(crate) fn lock(layout: &Layout) -> Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(layout.lock())?;
    if file.try_lock().is_err() {
        bail!("Bastide already runs in {}; stop it with `bastide down`", layout.root().display());
    }
    Ok(file)
}

/// The running processes, each with its own switch, so that they stop from the outside in.
struct Fleet {
    members: Vec<(CancellationToken, TaskTracker)>,
    /// For upgrades, in the order of the start.
    switches: Vec<Switch>,
    ready: watch::Receiver<BTreeSet<String>>,
    names: BTreeSet<String>,
}

impl Fleet {
    fn start(layout: &Layout, processes: Vec<Process>) -> Self {
        let (sender, ready) = watch::channel(BTreeSet::new());
        let names = processes.iter().map(|process| process.name.clone()).collect();
        let (mut members, mut switches) = (Vec::new(), Vec::new());
        for process in processes {
            let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
            let seen = sender.clone();
            let (renewals, asked) = mpsc::channel(1);
            // The broker is no part of this executable.
            if process.name != BROKER {
                switches.push(Switch { process: process.name.clone(), renewals });
            }
            tracker.spawn(supervisor::keep(
                layout.clone(),
                process,
                stop.clone(),
                asked,
                move |process, change| {
                    seen.send_modify(|ready| {
                        match change {
                            Change::Ready => ready.insert(process.name.clone()),
                            Change::Restarted => ready.remove(&process.name),
                        };
                    });
                    tracing::info!(process = process.name, ?change);
                },
            ));
            tracker.close();
            members.push((stop, tracker));
        }
        Self { members, switches, ready, names }
    }

    async fn all_ready(&self) -> Result<()> {
        let mut ready = self.ready.clone();
        loop {
            match tokio::time::timeout(SAY_AFTER, ready.wait_for(|ready| *ready == self.names)).await {
                Ok(waited) => return waited.map(|_| ()).context("the supervisor ended"),
                Err(_) => {
                    let there = self.ready.borrow().clone();
                    let missing: Vec<_> = self.names.difference(&there).cloned().collect();
                    eprintln!("still waiting for: {} (see the logs)", missing.join(", "));
                }
            }
        }
    }

    /// Edge first, broker last: whoever asks others stops before those that answer.
    async fn stop(self) {
        for (stop, tracker) in self.members.into_iter().rev() {
            stop.cancel();
            tracker.wait().await;
        }
    }
}
