//! Making Snapshots: from SQL, the same bytes in every replica, signed.

use crate::{
    ApiError, App,
    waf::{Office, Policies},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_bus::{BusError, SigningKey};
use bastide_store::{CustomerRow, CustomerStore, Result, RevisionRow, Store};
use bastide_types::{
    AppId, Code, Digest, DomainName, Snapshot, StageName,
    feed::Feed,
    message::{Signed, SnapshotHead, SnapshotQuery, TROUBLE_CHARS_MAX, TROUBLES_MAX},
    snapshot::{self, Certificate, CustomDomain, Customer, Issuer, SCHEMA, Stage},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Made Snapshots that are kept: readers may still be fetching an older one.
const KEPT: usize = 4;
/// Edges and gateways whose troubles are remembered.
const NAMES_MAX: usize = 1024;

/// The newest Snapshots, newest last.
pub(crate) struct Snapshots {
    key: SigningKey,
    made: Mutex<Vec<Made>>,
    /// What each edge and gateway said last of what it did not take.
    troubles: Mutex<BTreeMap<String, Vec<String>>>,
}

struct Made {
    schema: u32,
    head: SnapshotHead,
    bytes: bytes::Bytes,
}

impl Snapshots {
    pub(crate) fn new(key: SigningKey) -> Self {
        Self { key, made: Mutex::default(), troubles: Mutex::default() }
    }

    /// Signs a part of the session feed, for the readers of Snapshots.
    pub(crate) fn sign(&self, part: &Feed) -> std::result::Result<Signed, BusError> {
        self.key.sign(part)
    }

    /// Says once what an edge or gateway did not take.
    pub(crate) fn hear(&self, query: SnapshotQuery) {
        let mut told = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if query.troubles.is_empty() {
            told.remove(&query.by);
            return;
        }
        let before = told.get(&query.by);
        for trouble in query.troubles.iter().take(TROUBLES_MAX) {
            if before.is_none_or(|before| !before.contains(trouble)) {
                let trouble: String = trouble.chars().take(TROUBLE_CHARS_MAX).collect();
                tracing::error!(by = query.by, trouble, "a Snapshot was not taken, or not all of it");
            }
        }
        // Names are those of credentials that we gave; the bound is for those that somebody stole.
        if told.len() < NAMES_MAX || before.is_some() {
            told.insert(query.by, query.troubles);
        }
    }

    /// The bytes of a made Snapshot.
    pub(crate) fn bytes(&self, digest: &Digest) -> Option<bytes::Bytes> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().find(|made| made.head.digest == *digest).map(|made| made.bytes.clone())
    }

    /// The newest of this form.
    fn newest(&self, schema: u32) -> Option<SnapshotHead> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().rfind(|made| made.schema == schema).map(|made| made.head.clone())
    }

    fn keep(&self, new: Made) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let older: Vec<_> =
            made.iter().filter(|made| made.schema == new.schema).map(|made| made.head.digest).collect();
        if older.len() >= KEPT {
            made.retain(|made| made.head.digest != older[0]);
        }
        made.push(new);
    }
}

/// The newest Snapshot in a form that whoever reads up to `schema` can read, made now if there is a newer revision.
pub(crate) async fn newest(app: &App, schema: u32) -> std::result::Result<SnapshotHead, ApiError> {
    let schema = schema.min(SCHEMA);
    loop {
        let (epoch, revision, made_at) = app.store.version().await?;
        let newest = app.snapshots.newest(schema);
        if let Some(head) = newest.as_ref().filter(|head| (head.epoch, head.revision) == (epoch, revision)) {
            return Ok(head.clone());
        }
        let snapshot = make(app, epoch, revision, made_at).await?;
        // What was read must belong to one revision.
        if app.store.version().await?.1 != revision {
            continue;
        }
        let Some(snapshot) = snapshot.in_schema(schema) else {
            // Better an older one than one that loses somebody.
            let why = "nothing of now can be said in a form as old as this";
            return newest.ok_or_else(|| ApiError::because(Code::InputInvalid, why));
        };
        let signed = app.snapshots.key.sign(&snapshot)?;
        let (head, bytes) = bastide_bus::snapshot::serialize(&snapshot, &signed)?;
        app.snapshots.keep(Made { schema, head: head.clone(), bytes: bytes.into() });
        return Ok(head);
    }
}

/// The bytes of a Snapshot that this or another replica named: made here, it has the same bytes.
pub(crate) async fn bytes(app: &App, digest: &Digest) -> Option<bytes::Bytes> {
    for schema in [SCHEMA, SCHEMA - 1] {
        if let Some(bytes) = app.snapshots.bytes(digest) {
            return Some(bytes);
        }
        newest(app, schema).await.ok()?;
    }
    app.snapshots.bytes(digest)
}

/// Tells edges and gateways that there is a newer one. Without a bus they find out by themselves, only later.
pub(crate) async fn hint(app: &App) -> std::result::Result<(), ApiError> {
    let (epoch, revision, _) = app.store.version().await?;
    if let Err(error) = app.bus.hint_snapshot(epoch, revision).await {
        tracing::debug!(%error, "no hint of a Snapshot");
        app.wake.notify_one();
    }
    Ok(())
}

async fn make(app: &App, epoch: u64, revision: u64, made_at: u64) -> Result<Snapshot> {
    let (office, mut policies) = (Office::of(app).await?, Policies::default());
    let (mut customers, mut hosts, mut kept) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for row in app.store.customers().await? {
        match customer(app, &row, &office, &mut policies).await {
            Ok((customer, own)) => {
                hosts.extend(own);
                customers.insert(row.name, customer);
            }
            // All the others' changes must get out; readers keep what they have of this one.
            Err(error) if error.is_of_a_row() => {
                let chain = crate::error::chain(&error);
                tracing::error!(customer = %row.name, error = chain, "rows of a customer cannot be read");
                kept.push(row.name);
            }
            Err(error) => return Err(error),
        }
    }
    let platform_waf = policies.add(office.platform)?;
    let domains = app.config.domains.clone();
    let waf = policies.0;
    let schema = SCHEMA;
    Ok(Snapshot { schema, epoch, revision, made_at, domains, customers, kept, hosts, waf, platform_waf })
}

/// A customer, and its domains.
async fn customer(
    app: &App,
    row: &CustomerRow,
    office: &Office,
    policies: &mut Policies,
) -> Result<(Customer, BTreeMap<DomainName, CustomDomain>)> {
    let store = &app.store;
    let own = store.customer(row.id);
    let revisions: BTreeMap<(AppId, u32), RevisionRow> = own
        .revisions()
        .await?
        .into_iter()
        .map(|revision| ((revision.app, revision.number), revision))
        .collect();
    let names: BTreeMap<AppId, _> = own.apps().await?.into_iter().map(|app| (app.id, app.name)).collect();
    let (mut made, mut sites) = (BTreeMap::new(), own.site_documents().await?);
    for (name, account) in own.stage_accounts().await? {
        let mut apps = apps(own, &name, &revisions, &names).await?;
        let layers = own.waf_layers(&name).await?;
        let waf = policies.add(office.policy(&layers, None))?;
        for app in apps.values_mut() {
            let published = revisions.get(&(app.id, app.revision_number));
            let published = published.and_then(|revision| revision.manifest.waf.as_ref());
            if published.is_some() || layers.iter().any(|row| row.app == Some(app.id)) {
                app.waf = Some(policies.add(office.policy_with(&layers, app.id, published))?);
            }
        }
        let url = app.config.domains.stage_issuer(&row.name, &name);
        let issuer = issuer(store, row.id, Some(&name), url).await?;
        let site = sites.remove(&name);
        made.insert(name, Stage { account, issuer, waf, site, apps });
    }
    let issuer = issuer(store, row.id, None, app.config.domains.member_issuer(&row.name)).await?;
    let hosts = own_hosts(store, row).await?;
    let bans = own.bans_for_edges().await?;
    Ok((Customer { id: row.id, issuer, bans, stages: made }, hosts))
}

/// The proven domains of a customer.
async fn own_hosts(store: &Store, row: &CustomerRow) -> Result<BTreeMap<DomainName, CustomDomain>> {
    let mut hosts = BTreeMap::new();
    for served in store.customer(row.id).served_domains().await? {
        let certificate = served.certificate.map(|(chain, keys)| {
            let keys = keys.into_iter().map(|(edge, sealed)| (edge, BASE64_URL_SAFE_NO_PAD.encode(sealed)));
            Certificate { chain, keys: keys.collect() }
        });
        let host = CustomDomain {
            customer: row.name.clone(),
            stage: served.stage,
            root: served.app,
            certificate,
            challenges: served.challenge.into_iter().collect(),
        };
        hosts.insert(served.name, host);
    }
    Ok(hosts)
}

async fn apps(
    own: CustomerStore<'_>,
    stage: &StageName,
    revisions: &BTreeMap<(AppId, u32), RevisionRow>,
    names: &BTreeMap<AppId, bastide_types::AppName>,
) -> Result<BTreeMap<bastide_types::AppName, snapshot::App>> {
    let replicas = own.replicas(stage).await?;
    let purges = own.purges(stage).await?;
    let mut apps = BTreeMap::new();
    for (id, number) in own.serving(stage).await? {
        let (Some(revision), Some(name)) = (revisions.get(&(id, number)), names.get(&id)) else { continue };
        let serving = replicas.iter().filter(|r| r.app == id && r.revision == number && r.drain_at.is_none());
        let app = snapshot::App {
            id,
            revision: revision.digest,
            revision_number: number,
            waf: None,
            routes: revision.manifest.routes.clone(),
            replicas: serving.map(|replica| (replica.id, replica.zone.clone())).collect(),
            purges: purges.of(id),
        };
        apps.insert(name.clone(), app);
    }
    Ok(apps)
}

async fn issuer(
    store: &Store,
    customer: bastide_types::CustomerId,
    stage: Option<&bastide_types::StageName>,
    url: String,
) -> Result<Issuer> {
    let keys = store.customer(customer).verifying_keys(stage).await?;
    let token_epoch = store.customer(customer).token_floor().await?;
    Ok(Issuer { url, keys, token_epoch })
}
