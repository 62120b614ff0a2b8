//! Certificates from an authority that speaks ACME (RFC 8555), for proven domains without one of their own.
//!
//! One replica at a time asks (a lease row). What edges must answer goes to them with the Snapshot, for HTTP-01 and
//! TLS-ALPN-01 alike. Renewal is when the authority suggests it (ARI, RFC 9773), at a point of its window that depends on
//! the domain alone; without a suggestion it is after two thirds of the life. Failures are tried again ever later.

use crate::{App, Error, config, state::unusable};
use bastide_store::{NewCertificate, OrderRow, StoreError, now_s};
use bastide_types::Secret;
use bytes::Bytes;
use http_body_util::Limited;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, CertificateIdentifier, ChallengeType,
    HttpClient, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{future::Future, pin::Pin, time::Duration};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(3);
/// Longer than one round of orders may take.
const LEASE_S: i64 = 300;
const ORDER_LIMIT: Duration = Duration::from_mins(4);
/// Orders at the same time.
const DUE_MAX: u32 = 8;
/// How long edges have to hear what they must answer.
const SPREAD: Duration = Duration::from_secs(2);
/// How long the authority may take for its look, and for the certificate.
const POLL_LIMIT: Duration = Duration::from_secs(90);
/// First wait after a failure, in seconds: while the name leads here, and while it does not.
const AGAIN_S: i64 = 60;
const AGAIN_ELSEWHERE_S: i64 = 600;
/// Longest.
const AGAIN_MAX_S: i64 = 86_400;
/// Between two questions about renewal, at least and at most, in seconds.
const ASK_S: (i64, i64) = (3600, 86_400);
/// Longest answer of the authority, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Longest reason of a failure that is shown, in characters.
const PROBLEM_MAX: usize = 300;

/// The authority, and how it is spoken to.
pub(super) struct Authority {
    directory: String,
    contact: Vec<String>,
    challenges: Vec<ChallengeType>,
    http: Http,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Acme(#[from] instant_acme::Error),
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("the authority did not find the domain valid")]
    Invalid,
    #[error("the authority offers no challenge that can be met here")]
    NoChallenge,
    #[error("the authority's certificate cannot be used: {0}")]
    Certificate(#[from] bastide_tls::SiteFault),
    #[error("the account at the authority cannot be read")]
    Account(#[from] serde_json::Error),
    #[error("it took too long")]
    TimedOut,
}

impl Authority {
    pub(super) fn open(config: &config::Acme) -> Result<Self, Error> {
        let mut roots = rustls::RootCertStore::empty();
        match &config.ca_file {
            Some(path) => {
                let all = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, error))?;
                for certificate in all {
                    let certificate = certificate.map_err(|error| unusable(path, error))?;
                    roots.add(certificate).map_err(|error| unusable(path, error))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let contact = config.contact.iter().map(|address| format!("mailto:{address}")).collect();
        let challenges = config.challenges.iter().map(|challenge| match challenge {
            config::Challenge::Http01 => ChallengeType::Http01,
            config::Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        });
        let challenges = challenges.collect();
        Ok(Self { directory: config.directory.clone(), contact, challenges, http: Http::new(roots) })
    }

    /// Our account there; made when there is none.
    async fn account(&self, app: &App) -> Result<Account, Failure> {
        let builder = || Account::builder_with_http(Box::new(self.http.clone()));
        if let Some(known) = app.store.acme_account(&self.directory).await? {
            return Ok(builder().from_credentials(serde_json::from_str(known.expose())?).await?);
        }
        let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder().create(&new, self.directory.clone(), None).await?;
        let credentials = Secret::new(serde_json::to_string(&credentials)?);
        app.store.put_acme_account(&self.directory, &credentials).await?;
        Ok(account)
    }
}

/// Asks for certificates until `stop`.
pub(super) async fn run(app: &App, stop: &CancellationToken) {
    let Some(authority) = &app.domains.authority else { return };
    loop {
        let round = round(app, authority);
        tokio::select! {
            () = stop.cancelled() => return,
            outcome = round => if let Err(error) = outcome {
                tracing::warn!(%error, "certificates are not ordered; it is tried again");
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// What is due now; nothing while another replica does it.
async fn round(app: &App, authority: &Authority) -> Result<(), StoreError> {
    if !app.store.lease("acme", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    let due = app.store.orders_due(DUE_MAX).await?;
    if due.is_empty() {
        return Ok(());
    }
    let turns = due.iter().map(|order| async {
        let outcome = tokio::time::timeout(ORDER_LIMIT, turn(app, authority, order)).await;
        let outcome = outcome.unwrap_or(Err(Failure::TimedOut));
        if let Err(error) = conclude(app, order, outcome).await {
            tracing::warn!(%error, domain = %order.name, "the end of an order is not kept");
        }
    });
    futures_util::future::join_all(turns).await;
    Ok(())
}

/// One domain's turn: a certificate, or when to ask again.
async fn turn(app: &App, authority: &Authority, order: &OrderRow) -> Result<i64, Failure> {
    let account = authority.account(app).await?;
    if let Some((chain, taken, ends)) = &order.certificate {
        let (at, ask_again) = renewal(&account, chain, (*taken, *ends), order.name.as_str()).await;
        if at > now_s() {
            return Ok(at.min(ask_again));
        }
        tracing::info!(domain = %order.name, "the certificate of a domain is renewed");
    }
    let ends = obtain(app, &account, &authority.challenges, order).await?;
    tracing::info!(domain = %order.name, ends, "a domain has a certificate");
    // The next look asks when to renew.
    Ok(now_s() + ((ends - now_s()) / 3).clamp(1, ASK_S.0))
}

/// When to renew, and when to ask about it again.
async fn renewal(account: &Account, chain: &str, (taken, ends): (i64, i64), name: &str) -> (i64, i64) {
    let own = taken + (ends - taken) * 2 / 3;
    let suggested = async {
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
        let id = CertificateIdentifier::try_from(&leaf).ok()?;
        account.renewal_info(&id).await.ok()
    };
    match suggested.await {
        Some((info, again)) => {
            let window = &info.suggested_window;
            let (start, end) = (window.start.unix_timestamp(), window.end.unix_timestamp());
            let again = i64::try_from(again.as_secs()).unwrap_or(i64::MAX).clamp(ASK_S.0, ASK_S.1);
            (within(start, end, name), now_s() + again)
        }
        // Spread over a twelfth of the life.
        None => (within(own, own + (ends - taken) / 12, name), now_s() + ASK_S.1),
    }
}

/// A point between two times that depends on the domain alone: not all renew at once, and asking again changes nothing.
fn within(start: i64, end: i64, name: &str) -> i64 {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    let share = i64::from(u16::from_be_bytes([hash.as_ref()[0], hash.as_ref()[1]]));
    start + (end - start).max(0) * share / i64::from(u16::MAX)
}

/// A new certificate; gives when it ends.
async fn obtain(
    app: &App,
    account: &Account,
    challenges: &[ChallengeType],
    order: &OrderRow,
) -> Result<i64, Failure> {
    let own = app.store.customer(order.customer);
    let identifiers = [Identifier::Dns(order.name.to_string())];
    let mut placed = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut open = placed.authorizations();
    while let Some(authorization) = open.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            _ => return Err(Failure::Invalid),
        }
        // What did not work is tried in the other way.
        let turn = order.attempts as usize % challenges.len().max(1);
        let kind = challenges.get(turn).ok_or(Failure::NoChallenge)?.clone();
        let mut challenge = authorization.challenge(kind).ok_or(Failure::NoChallenge)?;
        let answer = challenge.key_authorization();
        let mut write = app.store.write().await?;
        own.set_challenge(&mut write, &order.name, Some((&challenge.token, answer.as_str()))).await?;
        write.commit().await.map_err(StoreError::from)?;
        app.wake.notify_one();
        tokio::time::sleep(SPREAD).await;
        challenge.set_ready().await?;
    }
    let patience = RetryPolicy::default().timeout(POLL_LIMIT);
    if placed.poll_ready(&patience).await? != OrderStatus::Ready {
        return Err(Failure::Invalid);
    }
    let key = Secret::new(placed.finalize().await?);
    let chain = placed.poll_certificate(&patience).await?;
    let ends = bastide_tls::check_site(order.name.as_str(), &chain, key.expose(), OffsetDateTime::now_utc())?;
    let mut write = app.store.write().await?;
    let new = NewCertificate { source: "acme", chain: &chain, key: &key, not_after: ends };
    own.put_certificate(&mut write, &order.name, &new).await?;
    own.audit(&mut write, "system", "domain.certificate", &format!("{}: by ACME", order.name)).await?;
    write.commit().await.map_err(StoreError::from)?;
    app.domains.wake.notify_one();
    Ok(ends)
}

/// Keeps how a turn ended, and takes the answer for the authority away.
async fn conclude(app: &App, order: &OrderRow, outcome: Result<i64, Failure>) -> Result<(), StoreError> {
    let own = app.store.customer(order.customer);
    let mut write = app.store.write().await?;
    own.set_challenge(&mut write, &order.name, None).await?;
    match outcome {
        Ok(next_at) => own.note_order(&mut write, &order.name, (next_at, 0, None)).await?,
        Err(failure) => {
            let attempts = order.attempts.saturating_add(1);
            let next_at = now_s() + wait(order.attempts, order.leads_here, order.name.as_str());
            let problem: String = format!("no certificate: {failure}").chars().take(PROBLEM_MAX).collect();
            tracing::warn!(domain = %order.name, attempts, problem, "a certificate was not issued");
            own.note_order(&mut write, &order.name, (next_at, attempts, Some(&problem))).await?;
        }
    }
    write.commit().await.map_err(StoreError::from)?;
    app.wake.notify_one();
    Ok(())
}

/// Seconds until the next try: doubled with each failure, a tenth more or less by domain.
fn wait(failures: u32, leads_here: bool, name: &str) -> i64 {
    let first = if leads_here { AGAIN_S } else { AGAIN_ELSEWHERE_S };
    let next = first.saturating_mul(1 << failures.min(12)).min(AGAIN_MAX_S);
    within(next - next / 10, next + next / 10, name)
}

type Connector = hyper_rustls::HttpsConnector<HttpConnector>;

/// HTTPS to the authority, with limits.
#[derive(Clone)]
struct Http(Client<Connector, BodyWrapper<Bytes>>);

impl Http {
    fn new(roots: rustls::RootCertStore) -> Self {
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(ANSWER_LIMIT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let answer = self.0.request(request);
        Box::pin(async move {
            let other = |error: Box<dyn std::error::Error + Send + Sync>| instant_acme::Error::Other(error);
            let answer =
                tokio::time::timeout(ANSWER_LIMIT, answer).await.map_err(|late| other(late.into()))?;
            let answer = answer.map_err(|error| other(error.into()))?;
            Ok(BytesResponse::from(answer.map(|body| Limited::new(body, ANSWER_BYTES_MAX))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_lies_within_and_stays() {
        for name in ["a.example.com", "b.example.com", "c.example.com"] {
            let at = within(1000, 2000, name);
            assert!((1000..=2000).contains(&at));
            assert_eq!(within(1000, 2000, name), at);
        }
        assert_ne!(within(0, 100_000, "a.example.com"), within(0, 100_000, "b.example.com"));
        assert_eq!(within(5, 5, "a"), 5);
        assert_eq!(within(5, 4, "a"), 5);
    }

    /// An authority that suggests one window for whatever certificate.
    struct Suggests(&'static str);

    impl HttpClient for Suggests {
        fn request(
            &self,
            request: http::Request<BodyWrapper<Bytes>>,
        ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
            let directory = r#"{"newNonce":"https://a/n","newAccount":"https://a/a","newOrder":"https://a/o","renewalInfo":"https://a/ari"}"#;
            let text = if request.uri().path().starts_with("/ari/") { self.0 } else { directory };
            let answer = http::Response::builder().header("retry-after", "21600");
            let answer = answer.body(http_body_util::Full::new(Bytes::from(text))).unwrap();
            Box::pin(async move { Ok(BytesResponse::from(answer)) })
        }
    }

    async fn asked(says: &'static str, life: (i64, i64)) -> (i64, i64) {
        let (_, key) = instant_acme::Key::generate_pkcs8().unwrap();
        let http = Box::new(Suggests(says));
        let account =
            Account::builder_with_http(http).from_parts("https://a/1".into(), key, "https://a/dir".into());
        let ca =
            bastide_tls::LocalCa::create_public(&["example.com".into()], OffsetDateTime::now_utc()).unwrap();
        let chain =
            ca.issue_site(&["a.example.com".into()], OffsetDateTime::now_utc()).unwrap().certificate_pem;
        renewal(&account.await.unwrap(), &chain, life, "a.example.com").await
    }

    #[tokio::test]
    async fn renewal_is_in_the_window_that_the_authority_suggests_or_after_two_thirds_of_the_life() {
        let window = r#"{"suggestedWindow":{"start":"2030-01-01T00:00:00Z","end":"2030-01-03T00:00:00Z"}}"#;
        let (start, end) = (1_893_456_000, 1_893_456_000 + 2 * 86_400);
        let (at, again) = asked(window, (0, 90 * 86_400)).await;
        assert!((start..=end).contains(&at), "{at}");
        assert!((again - now_s() - 21_600).abs() < 60, "as the authority says");
        let (at, again) = asked("no window", (0, 90 * 86_400)).await;
        assert!((60 * 86_400..=68 * 86_400).contains(&at), "{at}");
        assert!((again - now_s() - 86_400).abs() < 60);
    }

    #[test]
    fn failures_are_tried_again_ever_later_up_to_a_day() {
        let waits: Vec<i64> = (0..40).map(|failures| wait(failures, true, "a.example.com")).collect();
        assert!((54..=66).contains(&waits[0]), "{}", waits[0]);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(waits.iter().all(|wait| *wait <= AGAIN_MAX_S * 11 / 10));
        assert!(wait(0, false, "a.example.com") >= 540);
    }
}
