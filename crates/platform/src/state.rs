//! What all services of a replica share.

use crate::{
    Config, Error,
    build::{Pulls, Registries, content::Content, images::Images},
    domains::Domains,
    identity::{Breached, Providers},
    mail::Mailer,
    outbound::Outbound,
    permissions::refusals::Refusals,
    sessions::Told,
    snapshot::Snapshots,
    wire::pace::Pace,
};
use bastide_bus::{Authority, PlatformBus, SigningKey};
use bastide_identity::opaque;
use bastide_store::{ClientRow, KeyState, NewKey, PostgresAdmin, Store, StoreError, now_s};
use bastide_types::{CustomerId, CustomerName, Secret, snapshot::VerifyingKey};
use std::{fs, path::Path, sync::Arc};
use tokio::sync::Notify;

/// What handlers hold.
pub type App = Arc<Platform>;

/// A platform replica.
pub struct Platform {
    /// Configuration.
    pub config: Config,
    /// Truth.
    pub store: Store,
    /// Bus.
    pub bus: PlatformBus,
    pub(crate) images: Images,
    pub(crate) registries: Registries,
    pub(crate) pulls: Pulls,
    pub(crate) snapshots: Snapshots,
    pub(crate) deploy_key: SigningKey,
    pub(crate) assertion_keys: Vec<VerifyingKey>,
    pub(crate) assertion_jwks: String,
    /// Wakes the reconciler.
    pub(crate) wake: Notify,
    /// The server for the databases of apps.
    pub postgres: Option<PostgresAdmin>,
    /// Wakes what looks after them.
    pub(crate) wake_services: Notify,
    /// Custom domains: resolver and edges.
    pub(crate) domains: Domains,
    /// What gateways were told of sessions.
    pub(crate) told: Told,
    /// How many refusals are in the audit trail.
    pub(crate) refusals: Refusals,
    /// Passwords that nobody may choose.
    pub(crate) breached: Option<Arc<Breached>>,
    /// The way to the SMTP server, if there is one.
    pub(crate) mailer: Option<Mailer>,
    /// The way to addresses that customers name.
    pub(crate) outbound: Arc<Outbound>,
    /// Providers of identity that were asked lately.
    pub(crate) providers: Arc<Providers>,
    /// Requests of this minute.
    pub(crate) pace: Pace,
    /// Files of published directories.
    pub(crate) content: Content,
}

/// Id of the operator's first API client.
pub const OPERATOR_CLIENT: &str = "supervisor";

impl Platform {
    /// Opens everything; creates the operator organization when it is not there.
    pub async fn open(config: Config) -> Result<App, Error> {
        let kek = crate::kek::of(&config).await?;
        let store = config.database.open(kek).await?;
        let settings = serde_json::to_vec(&(&config.domains, &config.waf))
            .map_err(|error| unusable(config.database.file(), error))?;
        store.note_settings(&settings).await?;
        let authority = Authority::load(&config.bus_authority_file)?;
        let bus = PlatformBus::connect(&config.bus, &config.bus_system, authority).await?;
        let snapshot_key = SigningKey::from_pkcs8(&read(&config.snapshot_key_file)?)?;
        let deploy_key = SigningKey::from_pkcs8(&read(&config.deploy_key_file)?)?;
        let jwks = String::from_utf8_lossy(&read(&config.assertion_jwks_file)?).into_owned();
        let assertion_keys =
            read_jwks(&jwks).map_err(|error| unusable(&config.assertion_jwks_file, error))?;
        let images = Images::open(&config.images).map_err(|error| unusable(&config.images, error))?;
        fs::create_dir_all(&config.work_dir).map_err(|error| unusable(&config.work_dir, error))?;
        let postgres = match &config.postgres {
            Some(postgres) => Some(postgres_at(&postgres.address_file)?),
            None => None,
        };
        let breached = match &config.breached_passwords_file {
            Some(file) => Some(Arc::new(Breached::open(file).map_err(|error| unusable(file, error))?)),
            None => None,
        };
        let mailer = config.mail.as_ref().map(Mailer::open).transpose()?;
        let told = Told::so_far(&store).await?;
        let platform = Arc::new(Self {
            store,
            bus,
            images,
            registries: Registries::open(&config.registries)?,
            pulls: Pulls::default(),
            snapshots: Snapshots::new(snapshot_key),
            deploy_key,
            assertion_keys,
            assertion_jwks: jwks,
            wake: Notify::new(),
            postgres,
            wake_services: Notify::new(),
            domains: Domains::open(&config.custom_domains)?,
            told,
            refusals: Refusals::default(),
            breached,
            mailer,
            outbound: Arc::new(Outbound::open(&config.outbound)?),
            providers: Arc::default(),
            pace: Pace::default(),
            content: Content::new(config.images.join("content")),
            config,
        });
        platform.ensure_operator().await?;
        Ok(platform)
    }

    /// The operator organization: created once, its API client kept in step with the file.
    async fn ensure_operator(&self) -> Result<(), Error> {
        let name = CustomerName::operator();
        if self.store.customer_named(&name).await?.is_none() {
            let id = CustomerId::generate();
            let mut write = self.store.write().await?;
            match self.store.create_customer(&mut write, id, &name).await {
                Ok(()) => {
                    let key = bastide_identity::SigningKey::generate()?;
                    let key = NewKey::access(key.verifying_key(), key.to_pkcs8());
                    self.store
                        .customer(id)
                        .add_key(&mut write, None, &key, KeyState::Current, now_s())
                        .await?;
                    write.commit().await.map_err(StoreError::from)?;
                }
                // Another replica was faster.
                Err(StoreError::Taken) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let operator = self.store.customer_named(&name).await?.ok_or(StoreError::Taken)?;
        let secret = String::from_utf8_lossy(&read(&self.config.operator_client_file)?).trim().to_owned();
        let roles = vec!["operator".to_owned()];
        let client = ClientRow::service(OPERATOR_CLIENT, roles);
        let mut write = self.store.write().await?;
        self.store.customer(operator.id).put_client(&mut write, &client, &opaque::hash(&secret)).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(())
    }
}

/// Reads the file with the address of a PostgreSQL server.
pub fn postgres_at(file: &Path) -> Result<PostgresAdmin, Error> {
    let address = Secret::new(String::from_utf8_lossy(&read(file)?));
    PostgresAdmin::new(&address).map_err(|error| unusable(file, error))
}

fn read_jwks(text: &str) -> Result<Vec<VerifyingKey>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<VerifyingKey>,
    }
    serde_json::from_str::<Set>(text).map(|set| set.keys)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| unusable(path, error))
}

pub(crate) fn unusable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::File { path: path.to_owned(), source: Box::new(source) }
}
