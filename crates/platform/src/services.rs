//! Databases of apps: who gets one, and when the server has it.
//!
//! What is wanted stands in SQL from the moment a deployment begins; a loop of its own brings it to the server,
//! since that may take long or have to wait. Replicas are in the desired state of their stage only when what
//! they need is there. A database stays when its app asks for it no more: what is in it belongs to the customer.

use crate::{ApiError, App, deploy};
use bastide_store::{CustomerStore, PostgresAdmin, PostgresRow, ServerError, StoreError, Write, login_of};
use bastide_types::{
    AppId, Code, Manifest, ReplicaId, StageName,
    manifest::Postgres,
    node::Isolation,
    service::{PostgresLogin, Services},
};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(1);
const REPAIR_EVERY: Duration = Duration::from_mins(1);
const LEASE_S: i64 = 5;
/// Step of an operation that waits for the server.
const STEP: &str = "data";

/// Whether an app may have what its manifest asks for.
///
/// # Errors
/// [`Code::ServiceMissing`].
pub(crate) fn offered(app: &App, manifest: &Manifest) -> Result<(), ApiError> {
    if manifest.services.postgres.is_none() {
        return Ok(());
    }
    let missing =
        |why: &str| Err(ApiError::because(Code::ServiceMissing, format!("[services.postgres]: {why}")));
    match (&app.postgres, app.config.isolation) {
        (_, Isolation::None) => {
            missing("the runtime here isolates nothing, and then nothing keeps other apps out of it")
        }
        (None, _) => missing("no PostgreSQL server is configured"),
        (Some(_), Isolation::Kernel) => Ok(()),
    }
}

/// Notes what the replicas of a deployment will need, before they are made.
pub(crate) async fn want(
    app: &App,
    write: &mut Write,
    own: &CustomerStore<'_>,
    stage: &StageName,
    of: AppId,
    manifest: &Manifest,
) -> Result<(), ApiError> {
    offered(app, manifest)?;
    if let Some(postgres) = &manifest.services.postgres {
        own.want_postgres(write, stage, of, connections(app, postgres)).await?;
    }
    Ok(())
}

/// Most connections of an app in a stage: what it asks for, as far as the operator allows it.
pub(crate) fn connections(app: &App, wanted: &Postgres) -> u32 {
    app.config
        .postgres
        .as_ref()
        .map_or(wanted.connections, |config| wanted.connections.min(config.connections_max))
}

/// What a replica has besides; `None` while it is not there yet.
pub(crate) fn of_replica(
    manifest: &Manifest,
    logins: &[PostgresRow],
    app: AppId,
    replica: ReplicaId,
) -> Option<Services> {
    let Some(wanted) = &manifest.services.postgres else { return Some(Services::default()) };
    let login = login_of(logins, app, replica).filter(|login| login.applied.is_some())?;
    let postgres = PostgresLogin {
        user: login.user(),
        database: login.database.clone(),
        password: login.password.clone(),
        connections: login.connections,
        url_variable: wanted.env.clone(),
    };
    Some(Services { postgres: Some(postgres), ..Services::default() })
}

/// Brings what is wanted to the server until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    let Some(admin) = app.postgres.clone() else { return stop.cancelled().await };
    let mut looked: Option<Instant> = None;
    loop {
        let mut outcome = pass(&app, &admin).await;
        if outcome.is_ok() && looked.is_none_or(|at| at.elapsed() > REPAIR_EVERY) {
            looked = Some(Instant::now());
            outcome = repair(&app, &admin).await;
        }
        if let Err(error) = outcome {
            tracing::warn!(problem = %error.0, "databases are not looked after; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.wake_services.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One look at everything; most often in one replica of the Platform, and harmless in two.
pub async fn pass(app: &App, admin: &PostgresAdmin) -> Result<(), ApiError> {
    if !app.store.lease("services", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    for login in app.store.postgres_wanted().await? {
        if !provide(app, admin, &login).await? {
            // What is away for one is away for all.
            return Ok(());
        }
    }
    for login in app.store.postgres_unused().await? {
        retire(app, admin, &login).await?;
    }
    Ok(())
}

/// Makes anew what the server should have and has not: roles taken away by hand, or a server that begins empty.
pub async fn repair(app: &App, admin: &PostgresAdmin) -> Result<(), ApiError> {
    let made = app.store.postgres_made().await?;
    if made.is_empty() || !app.store.lease("services", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    let there = match admin.logins().await {
        Ok(there) => there,
        Err(error) => {
            tracing::warn!(error = crate::error::chain(&error), "the PostgreSQL server cannot be looked at");
            return Ok(());
        }
    };
    for login in made.iter().filter(|login| !there.contains(&login.user())) {
        tracing::warn!(login = login.user(), "a role is missing on the PostgreSQL server and is made anew");
        if !provide(app, admin, login).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// False when the server cannot be reached.
async fn provide(app: &App, admin: &PostgresAdmin, login: &PostgresRow) -> Result<bool, ApiError> {
    let own = app.store.customer(login.customer);
    let outcome = admin.provide(login).await;
    let reached = !matches!(outcome, Err(ServerError::Unreachable(_)));
    let mut write = app.store.write().await?;
    let (done, message) = match outcome {
        Ok(open) => {
            if !open.is_empty() {
                tracing::warn!(
                    databases = open.join(", "),
                    "apps could connect to these databases too, if the relay did not stop them: REVOKE CONNECT ON DATABASE … FROM PUBLIC"
                );
            }
            own.note_postgres(&mut write, login).await?;
            (true, "its database is there".to_owned())
        }
        Err(error) => {
            tracing::warn!(
                error = crate::error::chain(&error),
                login = login.user(),
                "a database cannot be made; it is tried again"
            );
            let problem = error.to_string();
            own.note_postgres_problem(&mut write, login.id, &problem).await?;
            (false, problem)
        }
    };
    for operation in app.store.running_operations().await? {
        if (operation.customer, &operation.stage, operation.app) == (login.customer, &login.stage, login.app)
        {
            let status = if done { "finished" } else { "running" };
            own.set_step(&mut write, operation.id, STEP, status, &message).await?;
        }
    }
    write.commit().await.map_err(StoreError::from)?;
    if done {
        deploy::announce(app, login.customer, &login.stage).await?;
    }
    Ok(reached)
}

async fn retire(app: &App, admin: &PostgresAdmin, login: &PostgresRow) -> Result<(), ApiError> {
    if let Err(error) = admin.retire(login).await {
        tracing::warn!(
            error = crate::error::chain(&error),
            login = login.user(),
            "an old login is not taken away; it is tried again"
        );
        return Ok(());
    }
    let own = app.store.customer(login.customer);
    let mut write = app.store.write().await?;
    own.forget_postgres_login(&mut write, login.id).await?;
    own.audit(&mut write, "system", "postgres.retire", &login.user()).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(())
}
