//! Customers: created by the operator, with stages, issuers and a first administrator.

use crate::{ApiError, App, bus_services::account, identity};
use bastide_bus::account::StageAccount;
use bastide_identity::{SigningKey, opaque::Opaque};
use bastide_store::{ClientRow, KeyState, NewKey, NewStage, StoreError, now_s};
use bastide_types::{Code, CustomerId, CustomerName, Secret, StageName, node::Isolation};

/// A created customer.
pub(crate) struct Created {
    pub(crate) id: CustomerId,
    pub(crate) invitation_link: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Secret,
}

/// Id of the API client that every new customer gets, for automation.
const FIRST_CLIENT: &str = "automation";

/// Creates a customer whole, or not at all.
pub(crate) async fn create(
    app: &App,
    name: &CustomerName,
    administrator: &str,
    by: &str,
) -> Result<Created, ApiError> {
    let id = CustomerId::generate();
    let own = app.store.customer(id);
    let secret = Opaque::generate()?;
    let mut write = app.store.write().await?;
    if app.config.isolation == Isolation::None {
        let customers = app.store.customers().await?;
        if customers.iter().any(|customer| !customer.name.is_operator() && customer.name != *name) {
            let why = "a second customer is welcome only where apps are isolated from each other";
            return Err(ApiError::because(Code::IsolationMissing, why));
        }
    }
    app.store.create_customer(&mut write, id, name).await.map_err(|error| match error {
        StoreError::Taken => ApiError::because(Code::NameTaken, format!("`{name}` is taken")),
        other => other.into(),
    })?;
    add_key(app, &mut write, id, None).await?;
    for stage in StageName::defaults() {
        let made = StageAccount::generate()?;
        let new = NewStage { name: &stage, account: &made.account, seed: &made.signing_seed };
        own.create_stage(&mut write, &new).await?;
        add_key(app, &mut write, id, Some(&stage)).await?;
    }
    let roles = vec!["administrator".to_owned(), "developer".to_owned()];
    // The operator hands the link on: nobody of the customer can ask for another one yet.
    let administrator = identity::members::invited(administrator, None, roles)?;
    let invitation_link = identity::members::invite(app, &mut write, id, name, &administrator, false).await?;
    let client = ClientRow::service(FIRST_CLIENT, vec!["developer".into()]);
    own.put_client(&mut write, &client, &secret.hash).await?;
    own.audit(&mut write, by, "customer.created", name.as_str()).await?;
    write.commit().await.map_err(StoreError::from)?;
    // The broker learns of the accounts now; should that fail, the next node that asks repeats it.
    let accounts: Vec<_> = own.stages().await?.iter().map(account).collect();
    if let Err(error) = app.bus.ensure_accounts(&accounts).await {
        tracing::warn!(%error, customer = %name, "the broker does not know the new accounts yet");
    }
    app.wake.notify_one();
    Ok(Created { id, invitation_link, client_id: client.id, client_secret: secret.secret })
}

async fn add_key(
    app: &App,
    write: &mut bastide_store::Write,
    id: CustomerId,
    stage: Option<&StageName>,
) -> Result<(), ApiError> {
    let key = SigningKey::generate()?;
    let key = NewKey::access(key.verifying_key(), key.to_pkcs8());
    app.store.customer(id).add_key(write, stage, &key, KeyState::Current, now_s()).await?;
    Ok(())
}
