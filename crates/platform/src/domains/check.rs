//! One look at a domain: is the record there, and what follows.

use crate::{ApiError, App};
use bastide_store::{CLAIM_LIFE_S, DomainCheck, DomainRow, StoreError, now_s};
use bastide_types::{Code, DomainName};

/// Between two looks at a claim that is not proven yet, in seconds.
const PENDING_EVERY_S: i64 = 60;
/// Between two looks at a proven domain.
const PROVEN_EVERY_S: i64 = 86_400;
/// Between two looks while the name does not lead here yet, or something is wrong.
const SOON_S: i64 = 600;
/// How long the record of a proven domain may be missing.
pub(crate) const GRACE_S: i64 = 2 * 86_400;
/// What is before the token in the record.
const MARK: &str = "bastide=";

/// What the TXT record must say.
pub(crate) fn record_value(domain: &DomainRow) -> String {
    format!("{MARK}{}", domain.token)
}

/// Looks a domain's record up and takes the consequences: proven, still missing, lost. The state of the row after it
/// is in SQL.
///
/// # Errors
/// [`Code::DomainTaken`] when the record is right, but the domain belongs to somebody else.
pub(crate) async fn look(app: &App, domain: &DomainRow) -> Result<(), ApiError> {
    let found = app.domains.dns.texts(&domain.name.record()).await;
    let now = now_s();
    match (found, domain.validated) {
        (Ok(texts), _) if texts.contains(&record_value(domain)) => proven(app, domain).await,
        (Ok(texts), None) => note_pending(app, domain, &missing(&domain.name, &texts)).await,
        (Ok(texts), Some(_)) => {
            let since = domain.missing_since.unwrap_or(now);
            let problem = missing(&domain.name, &texts);
            if now >= since + GRACE_S {
                return lose(app, domain, &problem).await;
            }
            let check = DomainCheck {
                missing_since: Some(since),
                leads_here: leads_here(app, domain).await,
                check_at: now + SOON_S,
                problem: Some(&format!("{problem}; without it the domain is lost within two days")),
            };
            tracing::warn!(domain = %domain.name, "the record of a domain is missing");
            note(app, domain, &check).await
        }
        // The DNS fails: nobody loses a domain by that, and nobody gains one.
        (Err(error), validated) => {
            tracing::debug!(domain = %domain.name, %error, "no answer");
            let problem = format!("the DNS gave no answer for {}", domain.name.record());
            if validated.is_none() {
                return note_pending(app, domain, &problem).await;
            }
            let check = DomainCheck {
                missing_since: domain.missing_since,
                leads_here: domain.leads_here,
                check_at: now + SOON_S,
                problem: Some(&problem),
            };
            note(app, domain, &check).await
        }
    }
}

/// The record is right.
async fn proven(app: &App, domain: &DomainRow) -> Result<(), ApiError> {
    let own = app.store.customer(domain.customer);
    let leads_here = leads_here(app, domain).await;
    let next = if leads_here { PROVEN_EVERY_S } else { SOON_S };
    let check = DomainCheck { missing_since: None, leads_here, check_at: now_s() + next, problem: None };
    let mut write = app.store.write().await?;
    if domain.validated.is_none() {
        match own.validate_domain(&mut write, &domain.name).await {
            Ok(()) => own.audit(&mut write, "system", "domain.validated", &detail(domain)).await?,
            Err(StoreError::Taken) => {
                drop(write);
                hurry_owner(app, &domain.name).await?;
                let taken = Code::DomainTaken;
                note_pending(app, domain, taken.title()).await?;
                return Err(ApiError::new(taken));
            }
            Err(error) => return Err(error.into()),
        }
    }
    own.note_domain_check(&mut write, &domain.name, &check).await?;
    write.commit().await.map_err(StoreError::from)?;
    app.wake.notify_one();
    Ok(())
}

/// Somebody else has proven the same domain. Whoever it belongs to is looked at soon: its record may be gone.
async fn hurry_owner(app: &App, name: &DomainName) -> Result<(), ApiError> {
    let Some(owner) = app.store.domain_owner(name).await? else { return Ok(()) };
    if owner.checked.is_some_and(|at| now_s() < at + SOON_S) {
        return Ok(());
    }
    let mut write = app.store.write().await?;
    app.store.customer(owner.customer).hurry_domain(&mut write, name).await?;
    write.commit().await.map_err(StoreError::from)?;
    app.domains.wake.notify_one();
    Ok(())
}

async fn note_pending(app: &App, domain: &DomainRow, problem: &str) -> Result<(), ApiError> {
    let (now, ends) = (now_s(), domain.created + CLAIM_LIFE_S);
    let check_at = if now < ends { now + PENDING_EVERY_S } else { i64::MAX };
    let problem =
        if now < ends { problem } else { "the record was not there within 72 hours; add the domain again" };
    let check = DomainCheck { missing_since: None, leads_here: false, check_at, problem: Some(problem) };
    note(app, domain, &check).await
}

async fn note(app: &App, domain: &DomainRow, check: &DomainCheck<'_>) -> Result<(), ApiError> {
    let mut write = app.store.write().await?;
    app.store.customer(domain.customer).note_domain_check(&mut write, &domain.name, check).await?;
    Ok(write.commit().await.map_err(StoreError::from)?)
}

async fn lose(app: &App, domain: &DomainRow, problem: &str) -> Result<(), ApiError> {
    tracing::warn!(domain = %domain.name, "a domain is lost: its record stayed away");
    let own = app.store.customer(domain.customer);
    let mut write = app.store.write().await?;
    own.lose_domain(&mut write, &domain.name, problem).await?;
    own.audit(&mut write, "system", "domain.lost", &detail(domain)).await?;
    write.commit().await.map_err(StoreError::from)?;
    app.wake.notify_one();
    Ok(())
}

/// Whether the name has an address of the stage's built-in host. No answer changes nothing.
async fn leads_here(app: &App, domain: &DomainRow) -> bool {
    let customer = match app.store.customers().await {
        Ok(all) => all.into_iter().find(|row| row.id == domain.customer),
        Err(_) => return domain.leads_here,
    };
    let Some(customer) = customer else { return false };
    let host = app.config.domains.runtime_host(&customer.name, &domain.stage);
    let dns = &app.domains.dns;
    match tokio::join!(dns.addresses(domain.name.as_str()), dns.addresses(&host)) {
        (Ok(own), Ok(ours)) => !own.is_disjoint(&ours),
        _ => domain.leads_here,
    }
}

fn missing(name: &DomainName, texts: &[String]) -> String {
    match texts.iter().find(|text| text.starts_with(MARK)) {
        Some(_) => format!("the TXT record of {} says something else", name.record()),
        None => format!("there is no TXT record at {}", name.record()),
    }
}

/// A domain in the audit trail.
pub(crate) fn detail(domain: &DomainRow) -> String {
    format!("{}: {}", domain.stage, domain.name)
}
