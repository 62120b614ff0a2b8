//! Mail goes out here: from the outbox in SQL, through the operator's SMTP server, in one replica at a time.
//!
//! Whoever causes a letter only writes it down, in the transaction of what it is about. A server that is away costs time
//! and loses nothing.

use crate::{
    ApiError, App,
    config::{MailSecurity, MailSettings},
    identity::letters,
};
use bastide_store::{MailRow, Store, StoreError, now_s};
use bastide_types::CustomerId;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
    },
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{net::IpAddr, path::Path, time::Duration};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(1);
const LEASE_S: i64 = 120;
/// How often secrets that end soon are looked for, and how soon that is, in seconds.
const REMIND_EVERY_S: i64 = 3600;
const REMIND_BEFORE_S: i64 = 14 * 86_400;
/// Letters of one look.
const AT_ONCE: u32 = 20;
/// Longest time for one letter.
const SEND: Duration = Duration::from_secs(15);
/// First and longest wait after a failure, in seconds.
const WAIT_S: std::ops::RangeInclusive<i64> = 5..=600;

/// Why mail cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum MailFault {
    /// A setting means nothing.
    #[error("{0}")]
    Setting(&'static str),
    /// A file.
    #[error("the file cannot be read")]
    File(#[from] std::io::Error),
    /// A certificate.
    #[error("the certificates cannot be read")]
    Certificate,
    /// The server, or the way to it.
    #[error("the server took it not")]
    Smtp(#[from] lettre::transport::smtp::Error),
    /// Address or subject.
    #[error("the letter cannot be written")]
    Letter(#[from] lettre::error::Error),
    /// An address.
    #[error("the address cannot be read")]
    Address(#[from] lettre::address::AddressError),
    /// It took too long.
    #[error("the server took too long")]
    TooLong,
}

/// The way to the operator's SMTP server.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Mailer {
    /// Reads what the settings name. Nothing is asked of the server yet.
    pub(crate) fn open(settings: &MailSettings) -> Result<Self, MailFault> {
        let tls = match settings.security {
            MailSecurity::None if is_loopback(&settings.host) => Tls::None,
            MailSecurity::None => {
                return Err(MailFault::Setting(
                    "security: `none` is for a server on this machine; say starttls or tls",
                ));
            }
            MailSecurity::Starttls => Tls::Required(parameters(settings)?),
            MailSecurity::Tls => Tls::Wrapper(parameters(settings)?),
        };
        let port = settings.port.unwrap_or(match settings.security {
            MailSecurity::Tls => 465,
            MailSecurity::Starttls => 587,
            MailSecurity::None => 25,
        });
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
            .port(port)
            .timeout(Some(SEND))
            .tls(tls);
        builder = match (&settings.username, &settings.password_file) {
            (Some(name), Some(file)) => {
                let password = std::fs::read_to_string(file)?;
                builder.credentials(Credentials::new(name.clone(), password.trim_end().to_owned()))
            }
            (None, None) => builder,
            _ => return Err(MailFault::Setting("username and password_file belong together")),
        };
        Ok(Self { transport: builder.build(), from: settings.from.parse()? })
    }

    async fn send(&self, row: &MailRow) -> Result<(), MailFault> {
        let letter = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, row.mail.to.parse()?))
            .subject(row.mail.subject.as_str())
            .header(ContentType::TEXT_PLAIN)
            .body(row.mail.text.clone())?;
        tokio::time::timeout(SEND, self.transport.send(letter)).await.map_err(|_| MailFault::TooLong)??;
        Ok(())
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Trusts the named authority, or those of this machine.
fn parameters(settings: &MailSettings) -> Result<TlsParameters, MailFault> {
    let roots = match &settings.ca_file {
        Some(file) => authorities(file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut builder = TlsParameters::builder(settings.host.clone()).certificate_store(CertificateStore::None);
    for root in roots {
        builder = builder.add_root_certificate(Certificate::from_der(root.to_vec())?);
    }
    Ok(builder.build_rustls()?)
}

fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, MailFault> {
    let pem = std::fs::read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or(MailFault::Certificate)
}

/// Sends what waits, until `stop`. Without a server nothing ever waits.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    if app.mailer.is_none() {
        stop.cancelled().await;
        return;
    }
    let mut reminded = 0;
    loop {
        if let Err(error) = pass(&app).await {
            tracing::warn!(problem = %error.0, "mail is not sent; it is tried again");
        }
        if now_s() >= reminded + REMIND_EVERY_S {
            reminded = now_s();
            if let Err(error) = remind(&app).await {
                tracing::warn!(problem = %error.0, "nobody is reminded of secrets that end; it is tried again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One look at the outbox; nothing without a server, or while another replica holds the lease.
///
/// # Errors
/// When the store fails.
pub async fn pass(app: &App) -> Result<(), ApiError> {
    let Some(mailer) = &app.mailer else { return Ok(()) };
    let due = app.store.mail_due(AT_ONCE).await?;
    if due.is_empty() || !app.store.lease("mail", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    // Again, with the lease: another replica may have sent some of them.
    for row in app.store.mail_due(AT_ONCE).await? {
        // A slow server must not outlast the lease.
        if !app.store.lease("mail", &app.config.name, LEASE_S).await? {
            return Ok(());
        }
        let sent = mailer.send(&row).await;
        note(&app.store, &row, sent).await?;
    }
    Ok(())
}

/// Tells administrators of secrets of clients that end soon, once each.
///
/// # Errors
/// When the store fails.
pub async fn remind(app: &App) -> Result<(), ApiError> {
    if !app.store.lease("reminders", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    let customers = app.store.customers().await?;
    for (customer, client, secret, until) in app.store.secrets_ending(now_s() + REMIND_BEFORE_S).await? {
        let Some(row) = customers.iter().find(|row| row.id == customer) else { continue };
        let days = (until - now_s()).div_euclid(86_400);
        let to = administrators(app, customer).await?;
        let own = app.store.customer(customer);
        let mut write = app.store.write().await?;
        for email in to {
            own.post(&mut write, &letters::secret_ends(&email, &row.name, &client, days), until).await?;
        }
        own.note_reminded(&mut write, &client, &secret).await?;
        own.audit(&mut write, "system", "client.secret.ends", &client).await?;
        write.commit().await.map_err(StoreError::from)?;
    }
    Ok(())
}

async fn administrators(app: &App, customer: CustomerId) -> Result<Vec<String>, ApiError> {
    let members = app.store.customer(customer).members().await?.into_iter();
    let found = members.filter(|member| {
        let keeps = |role: &String| role == "administrator" || role == "operator";
        member.state == "active" && member.roles.iter().any(keeps)
    });
    Ok(found.map(|member| member.email).collect())
}

/// Writes down what became of a letter. What it was about and to whom stays out of the log.
async fn note(store: &Store, row: &MailRow, sent: Result<(), MailFault>) -> Result<(), StoreError> {
    let own = store.customer(row.customer);
    let mut write = store.write().await?;
    match sent {
        Ok(()) => own.forget_mail(&mut write, &row.id).await?,
        Err(error) => {
            let next = now_s() + wait_s(row.tries);
            let given_up = next > row.until;
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                mail = row.id,
                tries = row.tries + 1,
                given_up,
                "a letter was not sent"
            );
            if given_up {
                own.forget_mail(&mut write, &row.id).await?;
                own.audit(&mut write, "system", "mail.given-up", &row.mail.subject).await?;
            } else {
                own.put_mail_off(&mut write, &row.id, next).await?;
            }
        }
    }
    Ok(write.commit().await?)
}

/// Seconds to wait after so many failures before.
fn wait_s(tries: i64) -> i64 {
    let doubled = WAIT_S.start().checked_shl(u32::try_from(tries.clamp(0, 20)).unwrap_or(20));
    doubled.unwrap_or(*WAIT_S.end()).min(*WAIT_S.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_minutes() {
        let waits: Vec<_> = (0..9).map(wait_s).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!((wait_s(i64::MAX), wait_s(-1)), (600, 5));
    }
}
