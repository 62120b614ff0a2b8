//! Keys of issuers: published, put to work, retired; on a timer and when somebody asks.
//!
//! Each issuer has a key that signs and a next one that everybody knows already; what former keys signed counts until
//! its time is over. In an emergency all of them go at once, and with them whatever they signed.

use crate::{ApiError, App, identity::SESSION_LIFE_S, snapshot};
use bastide_identity::{IdKey, KeyError, SigningKey, claims::CLIENT_LIFE_S};
use bastide_store::{CustomerStore, IssuerKeys, KeyKind, KeyRow, KeyState, NewKey, StoreError, Write, now_s};
use bastide_types::{Code, CustomerId, StageName};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(30);
const LEASE_S: i64 = 90;
/// How long a key is published before it signs, in seconds: descriptions of issuers may be kept for 60.
pub const PUBLISHED_S: i64 = 120;
/// How long a key counts after the last token that it signed has ended, in seconds.
const SLACK_S: i64 = 600;
/// Who exchanges keys when nobody asks, as the audit trail names it.
const KEEPER: &str = "system";

/// What is to be done with the keys of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// There is no next key: one is made and published.
    Publish(KeyKind),
    /// The next key takes over.
    Rotate(KeyKind),
    /// Nothing that this key signed counts any more.
    Forget(KeyKind, String),
}

/// Looks after the keys of all issuers until `stop`, in one replica at a time.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    loop {
        if let Err(error) = pass(&app, now_s()).await {
            tracing::warn!(problem = %error.0, "keys of issuers are not looked after; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One look at all keys; nothing while another replica holds the lease.
///
/// # Errors
/// When the store fails.
pub async fn pass(app: &App, now: i64) -> Result<(), ApiError> {
    if !app.store.lease("keys", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    let life_s = i64::from(app.config.key_days.get()) * 86_400;
    let mut is_changed = false;
    for issuer in app.store.issuers().await? {
        for step in due(&issuer.keys, life_s, now) {
            is_changed = true;
            // What fails for one issuer must not hold up the others.
            if let Err(error) = take(app, &issuer, &step, now).await {
                let (customer, stage) = (issuer.customer, issuer.stage.as_ref().map(StageName::as_str));
                tracing::warn!(problem = %error.0, %customer, stage, ?step, "a key is not looked after");
            }
        }
    }
    if is_changed { snapshot::hint(app).await } else { Ok(()) }
}

/// What is to be done with an issuer's keys, when each signs for so many seconds.
fn due(keys: &[KeyRow], life_s: i64, now: i64) -> Vec<Step> {
    let mut steps = Vec::new();
    for kind in [KeyKind::Access, KeyKind::Id] {
        let of = |state| keys.iter().filter(move |key| (key.kind, key.state) == (kind, state));
        let Some(current) = of(KeyState::Current).next() else { continue };
        match of(KeyState::Next).next() {
            None => steps.push(Step::Publish(kind)),
            Some(next) if now >= current.since + life_s && now >= next.since + PUBLISHED_S => {
                steps.push(Step::Rotate(kind));
            }
            Some(_) => {}
        }
        let over = of(KeyState::Previous).filter(|key| now >= key.since + counts_for_s(kind));
        steps.extend(over.map(|key| Step::Forget(kind, key.kid.clone())));
    }
    steps
}

/// How long a key counts after it has signed for the last time, in seconds. ID tokens come back as hints when their
/// session is signed out.
fn counts_for_s(kind: KeyKind) -> i64 {
    let life_s = match kind {
        KeyKind::Access => CLIENT_LIFE_S.cast_signed(),
        KeyKind::Id => SESSION_LIFE_S,
    };
    life_s + SLACK_S
}

async fn take(app: &App, issuer: &IssuerKeys, step: &Step, now: i64) -> Result<(), ApiError> {
    let (own, stage) = (app.store.customer(issuer.customer), issuer.stage.as_ref());
    match step {
        Step::Publish(kind) => {
            let key = generate(*kind).await?;
            let mut write = app.store.write().await?;
            own.add_key(&mut write, stage, &key, KeyState::Next, now).await?;
            write.commit().await.map_err(StoreError::from)?;
        }
        Step::Rotate(kind) => {
            let mut write = app.store.write().await?;
            if own.rotate_key(&mut write, stage, *kind, now - PUBLISHED_S, now).await? {
                own.audit(&mut write, KEEPER, "key.rotated", &named(stage)).await?;
                write.commit().await.map_err(StoreError::from)?;
            }
        }
        Step::Forget(kind, kid) => {
            let mut write = app.store.write().await?;
            own.remove_key(&mut write, stage, *kind, kid).await?;
            write.commit().await.map_err(StoreError::from)?;
        }
    }
    Ok(())
}

/// Lets the next keys of these issuers of a customer sign from now on. What was signed before counts.
///
/// # Errors
/// [`Code::KeyTooYoung`] when one of them was not published long enough; then nothing has changed.
pub(crate) async fn rotate(
    app: &App,
    customer: CustomerId,
    stages: &[Option<StageName>],
    by: &str,
) -> Result<(), ApiError> {
    let (own, now) = (app.store.customer(customer), now_s());
    let mut write = app.store.write().await?;
    for stage in stages.iter().map(Option::as_ref) {
        for kind in kinds(&own, stage).await? {
            if !own.rotate_key(&mut write, stage, kind, now - PUBLISHED_S, now).await? {
                return Err(ApiError::new(Code::KeyTooYoung).retry_after(PUBLISHED_S.unsigned_abs()));
            }
        }
        own.audit(&mut write, by, "key.rotated", &named(stage)).await?;
    }
    write.commit().await.map_err(StoreError::from)?;
    snapshot::hint(app).await
}

/// Takes all keys of these issuers of a customer away and gives them others, at once; ends every session of the customer
/// and revokes every token, in the same transaction.
///
/// # Errors
/// When the store fails; then nothing has changed.
pub(crate) async fn replace(
    app: &App,
    customer: CustomerId,
    stages: &[Option<StageName>],
    by: &str,
) -> Result<(), ApiError> {
    let (own, now) = (app.store.customer(customer), now_s());
    let mut made = Vec::new();
    for stage in stages.iter().map(Option::as_ref) {
        for kind in kinds(&own, stage).await? {
            for state in [KeyState::Current, KeyState::Next] {
                made.push((stage, state, generate(kind).await?));
            }
        }
    }
    let mut write = app.store.write().await?;
    forget_all(&own, &mut write, stages, by).await?;
    for (stage, state, key) in &made {
        own.add_key(&mut write, *stage, key, *state, now).await?;
    }
    own.end_everything(&mut write).await?;
    write.commit().await.map_err(StoreError::from)?;
    app.wake.notify_one();
    snapshot::hint(app).await
}

async fn forget_all(
    own: &CustomerStore<'_>,
    write: &mut Write,
    stages: &[Option<StageName>],
    by: &str,
) -> Result<(), ApiError> {
    for stage in stages.iter().map(Option::as_ref) {
        own.remove_keys(write, stage).await?;
        own.audit(write, by, "key.replaced", &named(stage)).await?;
    }
    Ok(())
}

/// Kinds of keys that an issuer has: those of ID tokens are made when they are first needed.
async fn kinds(own: &CustomerStore<'_>, stage: Option<&StageName>) -> Result<Vec<KeyKind>, ApiError> {
    let has_id = !own.public_keys(stage, KeyKind::Id).await?.is_empty();
    Ok([KeyKind::Access].into_iter().chain(has_id.then_some(KeyKind::Id)).collect())
}

fn named(stage: Option<&StageName>) -> String {
    stage.map_or_else(|| "members".to_owned(), |stage| format!("stage {stage}"))
}

/// Makes a key. One for ID tokens costs about 0.1 s, on a thread of its own.
pub(crate) async fn generate(kind: KeyKind) -> Result<NewKey, KeyError> {
    match kind {
        KeyKind::Access => {
            let key = SigningKey::generate()?;
            Ok(NewKey::access(key.verifying_key(), key.to_pkcs8()))
        }
        KeyKind::Id => {
            let made = tokio::task::spawn_blocking(IdKey::generate).await;
            let (key, private) = made.map_err(|_| KeyError::Randomness)??;
            Ok(NewKey { kind, kid: key.kid, public: key.n, private })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn key(kind: KeyKind, state: KeyState, since: i64) -> KeyRow {
        KeyRow { kind, kid: format!("{since}"), public: String::new(), state, since }
    }

    #[test]
    fn a_key_signs_only_when_it_was_published_and_goes_when_nothing_of_it_counts() {
        use KeyKind::{Access, Id};
        use KeyState::{Current, Next, Previous};
        let check = |keys: &[KeyRow], now: i64, expected: &[Step]| {
            assert_eq!(due(keys, 30 * DAY, now), expected, "{keys:?} at {now}");
        };
        check(&[], 0, &[]);
        check(&[key(Access, Current, 0)], 0, &[Step::Publish(Access)]);
        let pair = [key(Access, Current, 0), key(Access, Next, 5)];
        check(&pair, 30 * DAY - 1, &[]);
        check(&pair, 30 * DAY, &[Step::Rotate(Access)]);
        let young = [key(Access, Current, 0), key(Access, Next, 30 * DAY)];
        check(&young, 30 * DAY + PUBLISHED_S - 1, &[]);
        check(&young, 30 * DAY + PUBLISHED_S, &[Step::Rotate(Access)]);
        let retired = [key(Access, Current, 9), key(Access, Next, 9), key(Access, Previous, 9)];
        check(&retired, 9 + 3600 + 599, &[]);
        check(&retired, 9 + 3600 + 600, &[Step::Forget(Access, "9".into())]);
        // A client's token may live an hour, a session half a day.
        let hints = [key(Id, Current, 9), key(Id, Next, 9), key(Id, Previous, 9)];
        check(&hints, 9 + 12 * 3600 + 599, &[]);
        check(&hints, 9 + 12 * 3600 + 600, &[Step::Forget(Id, "9".into())]);
        let both = [key(Access, Current, 0), key(Id, Current, 0), key(Id, Next, 0)];
        check(&both, 30 * DAY, &[Step::Publish(Access), Step::Rotate(Id)]);
    }
}
