//! Tells clients that sessions of their users have ended (OpenID Connect Back-Channel Logout 1.0).
//!
//! The database writes down whatever ends a session of such a client; here it is told, by one replica at a time, and told
//! again while the client does not answer.

use crate::{ApiError, App, outbound::OutboundFault};
use bastide_identity::{IdKey, KeyError, upstream::LOGOUT_EVENT};
use bastide_store::{KeyKind, LogoutNotice, StoreError, now_s};
use bastide_types::{CustomerName, StageName};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const EVERY: Duration = Duration::from_millis(500);
/// Longer than one round may take.
const LEASE_S: i64 = 30;
/// Clients that are told at the same time.
const AT_ONCE: u32 = 50;
/// Life of a logout token, in seconds.
const TOKEN_LIFE_S: i64 = 120;
/// First and longest wait after a failure, in seconds.
const WAIT_S: (i64, i64) = (2, 120);

/// Why a client was not told.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error("the key cannot be used")]
    Key(#[from] KeyError),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Outbound(#[from] OutboundFault),
    #[error("it answered {0}")]
    Status(u16),
}

/// Tells what there is to tell, until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    loop {
        if let Err(error) = pass(&app).await {
            tracing::warn!(problem = %error.0, "clients are not told of sign-outs; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One round; nothing while another replica holds the lease.
///
/// # Errors
/// When the store fails.
pub async fn pass(app: &App) -> Result<(), ApiError> {
    let due = app.store.logouts_due(AT_ONCE).await?;
    if due.is_empty() || !app.store.lease("logouts", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    let customers = app.store.customers().await?;
    let names: BTreeMap<_, _> = customers.into_iter().map(|row| (row.id, row.name)).collect();
    // Again, with the lease: another replica may have told some of them.
    let due = app.store.logouts_due(AT_ONCE).await?;
    // A client that is slow holds up no other.
    let (names, due) = (&names, &due);
    let told = due.iter().map(|notice| async move {
        let outcome = match names.get(&notice.customer) {
            Some(name) => tell(app, name, notice).await,
            None => Ok(()),
        };
        (notice, outcome)
    });
    for (notice, outcome) in futures_util::future::join_all(told).await {
        note(app, notice, outcome).await?;
    }
    Ok(())
}

async fn tell(app: &App, name: &CustomerName, notice: &LogoutNotice) -> Result<(), Untold> {
    let stage = StageName::new(&notice.stage).ok();
    let key = app.store.customer(notice.customer).signing_key(stage.as_ref(), KeyKind::Id).await?;
    // Without a key no ID token ever named this session.
    let Some(key) = key else { return Ok(()) };
    let (domains, now) = (&app.config.domains, now_s());
    let claims = json!({
        "iss": match &stage {
            Some(stage) => domains.stage_issuer(name, stage),
            None => domains.member_issuer(name),
        },
        "aud": notice.client,
        "iat": now,
        "exp": now + TOKEN_LIFE_S,
        "jti": Uuid::new_v4().to_string(),
        "sub": notice.member,
        "sid": notice.session,
        "events": { LOGOUT_EVENT: {} },
    });
    let token = IdKey::from_pkcs8(&key)?.sign("logout+jwt", &claims)?;
    let form =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("logout_token", &token).finish();
    let reply = app.outbound.post(&notice.uri, form, None).await?;
    if reply.status.is_success() { Ok(()) } else { Err(Untold::Status(reply.status.as_u16())) }
}

async fn note(app: &App, notice: &LogoutNotice, outcome: Result<(), Untold>) -> Result<(), ApiError> {
    let own = app.store.customer(notice.customer);
    let (client, session) = (&notice.client, &notice.session);
    let mut write = app.store.write().await?;
    match outcome {
        Ok(()) => own.forget_logout(&mut write, client, session).await?,
        Err(error) => {
            let next = now_s() + wait_s(notice.tries);
            let given_up = next > notice.until;
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                client,
                tries = notice.tries + 1,
                given_up,
                "a client was not told of a sign-out"
            );
            if given_up {
                own.forget_logout(&mut write, client, session).await?;
                own.audit(&mut write, "system", "logout.untold", &format!("{client} {session}")).await?;
            } else {
                own.put_logout_off(&mut write, client, session, next).await?;
            }
        }
    }
    write.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Seconds to wait after so many failures before.
fn wait_s(tries: i64) -> i64 {
    let (first, longest) = WAIT_S;
    first.checked_shl(u32::try_from(tries.clamp(0, 20)).unwrap_or(20)).unwrap_or(longest).min(longest)
}
