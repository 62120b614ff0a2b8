//! Custom domains: whose they are, and what they serve with.
//!
//! Ownership is a TXT record. It is looked for until the claim ends after 72 hours, and again every day once it was
//! found. Private keys are sealed for each edge here; an authority is asked for certificates.

mod acme;
pub(crate) mod check;
mod dns;
mod keys;

use crate::{ApiError, App, Error, config::CustomDomains, state::unusable};
use bastide_store::{DomainRow, now_s};
use bastide_tls::SealingPublic;
use bastide_types::{AppName, CustomerName, DomainName, StageName};
use dns::Dns;
use std::{fs, time::Duration};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(5);
const LEASE_S: i64 = 60;
/// Domains that are looked at in one pass.
const DUE_MAX: u32 = 50;
/// Certificates that end sooner are warned about.
pub(crate) const WARN_BEFORE_S: i64 = 14 * 86_400;
/// How often.
const WARN_EVERY_S: i64 = 86_400;

/// What is needed to look after domains.
pub(crate) struct Domains {
    pub(crate) dns: Dns,
    edges: Vec<SealingPublic>,
    authority: Option<acme::Authority>,
    /// Wakes what looks after them.
    pub(crate) wake: tokio::sync::Notify,
}

impl Domains {
    pub(crate) fn open(config: &CustomDomains) -> Result<Self, Error> {
        let mut edges = Vec::new();
        for path in &config.edge_key_files {
            let bytes = fs::read(path).map_err(|error| unusable(path, error))?;
            edges.push(SealingPublic::from_bytes(&bytes).map_err(|error| unusable(path, error))?);
        }
        let authority = config.acme.as_ref().map(acme::Authority::open).transpose()?;
        Ok(Self { dns: Dns::new(&config.name_servers)?, edges, authority, wake: tokio::sync::Notify::new() })
    }
}

/// Looks after all domains until `stop`, in one replica at a time; another may be the one that asks the authority.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    tokio::join!(look_after(&app, &stop), acme::run(&app, &stop));
}

async fn look_after(app: &App, stop: &CancellationToken) {
    let mut warned = 0;
    loop {
        if let Err(error) = pass(app, &mut warned).await {
            tracing::warn!(problem = %error.0, "domains are not looked after; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.domains.wake.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One look at what is due; nothing while another replica holds the lease. `warned` is when certificates were warned
/// about last, in seconds since 1970.
pub async fn pass(app: &App, warned: &mut i64) -> Result<(), ApiError> {
    if !app.store.lease("domains", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    // A domain whose name servers are slow holds up no other.
    let due = app.store.domains_due(DUE_MAX).await?;
    let looks = due.iter().map(|domain| async move {
        if let Err(error) = check::look(app, domain).await {
            tracing::debug!(problem = %error.0, domain = %domain.name, "nothing follows from a look at a domain");
        }
    });
    futures_util::future::join_all(looks).await;
    keys::seal(app).await?;
    if now_s() >= *warned + WARN_EVERY_S {
        *warned = now_s();
        for (domain, ends) in app.store.certificates_ending(now_s() + WARN_BEFORE_S).await? {
            let days = (ends - now_s()).div_euclid(86_400);
            tracing::warn!(%domain, days, "the certificate of a domain ends soon");
        }
    }
    Ok(())
}

/// The address of an app as people should use it: below the stage's default domain, or the built-in host.
pub(crate) async fn address(
    app: &App,
    customer: (bastide_types::CustomerId, &CustomerName),
    stage: &StageName,
    name: &AppName,
) -> Result<String, ApiError> {
    let default = app.store.customer(customer.0).default_domain(stage).await?;
    Ok(address_below(app, customer.1, default.as_ref(), stage, name))
}

/// The same where the stage's default domain is known.
pub(crate) fn address_below(
    app: &App,
    customer: &CustomerName,
    default: Option<&DomainRow>,
    stage: &StageName,
    name: &AppName,
) -> String {
    let domains = &app.config.domains;
    match default.filter(|domain| domain.validated.is_some()) {
        Some(DomainRow { name: host, app: Some(root), .. }) if root == name => {
            format!("{}/", domains.origin(host.as_str()))
        }
        Some(DomainRow { name: host, app: None, .. }) => format!("{}/{name}/", domains.origin(host.as_str())),
        _ => format!("{}/", domains.app_url(customer, stage, name)),
    }
}

/// The proven domain of a customer that a host names.
pub(crate) async fn owned(
    app: &App,
    customer: bastide_types::CustomerId,
    host: &str,
) -> Result<Option<DomainRow>, ApiError> {
    let Ok(name) = DomainName::new(host) else { return Ok(None) };
    let found = app.store.customer(customer).domain(&name).await?;
    Ok(found.filter(|domain| domain.validated.is_some()))
}
