//! Making Snapshots: from SQL, the same bytes in every replica, signed.

use crate::{
    ApiError, App,
    waf::{Office, Policies},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_bus::SigningKey;
use bastide_store::{CustomerRow, Result, RevisionRow, StageRow, Store};
use bastide_types::{
    AppId, Digest, DomainName, Snapshot,
    message::SnapshotHead,
    snapshot::{self, Certificate, CustomDomain, Customer, Issuer, Stage},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Made Snapshots that are kept: readers may still be fetching an older one.
const KEPT: usize = 4;

/// The newest Snapshots, newest last.
pub(crate) struct Snapshots {
    key: SigningKey,
    made: Mutex<Vec<(SnapshotHead, bytes::Bytes)>>,
}

impl Snapshots {
    pub(crate) fn new(key: SigningKey) -> Self {
        Self { key, made: Mutex::default() }
    }

    /// The bytes of a made Snapshot.
    pub(crate) fn bytes(&self, digest: &Digest) -> Option<bytes::Bytes> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().find(|(head, _)| head.digest == *digest).map(|(_, bytes)| bytes.clone())
    }

    fn newest(&self, epoch: u64, revision: u64) -> Option<SnapshotHead> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.last()
            .filter(|(head, _)| (head.epoch, head.revision) == (epoch, revision))
            .map(|(head, _)| head.clone())
    }

    fn keep(&self, head: SnapshotHead, bytes: Vec<u8>) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push((head, bytes.into()));
        if made.len() > KEPT {
            made.remove(0);
        }
    }
}

/// The newest Snapshot, made now if there is a newer revision.
pub(crate) async fn newest(app: &App) -> std::result::Result<SnapshotHead, ApiError> {
    loop {
        let (epoch, revision, made_at) = app.store.version().await?;
        if let Some(head) = app.snapshots.newest(epoch, revision) {
            return Ok(head);
        }
        let snapshot = make(app, epoch, revision, made_at).await?;
        // What was read must belong to one revision.
        if app.store.version().await?.1 != revision {
            continue;
        }
        let signed = app.snapshots.key.sign(&snapshot)?;
        let (head, bytes) = bastide_bus::snapshot::serialize(&snapshot, &signed)?;
        app.snapshots.keep(head.clone(), bytes);
        return Ok(head);
    }
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
    let store = &app.store;
    let stages = store.stages().await?;
    let (office, mut policies) = (Office::of(app).await?, Policies::default());
    let (mut customers, mut hosts) = (BTreeMap::new(), BTreeMap::new());
    for row in store.customers().await? {
        let own = store.customer(row.id);
        let revisions: BTreeMap<(AppId, u32), RevisionRow> = own
            .revisions()
            .await?
            .into_iter()
            .map(|revision| ((revision.app, revision.number), revision))
            .collect();
        let names: BTreeMap<AppId, _> = own.apps().await?.into_iter().map(|app| (app.id, app.name)).collect();
        let (mut made, mut sites) = (BTreeMap::new(), own.site_documents().await?);
        for stage in stages.iter().filter(|stage| stage.customer == row.id) {
            let mut apps = apps(store, stage, &revisions, &names).await?;
            let layers = own.waf_layers(&stage.name).await?;
            let waf = policies.add(office.policy(&layers, None))?;
            for app in apps.values_mut().filter(|app| layers.iter().any(|row| row.app == Some(app.id))) {
                app.waf = Some(policies.add(office.policy(&layers, Some(app.id)))?);
            }
            let url = app.config.domains.stage_issuer(&row.name, &stage.name);
            let issuer = issuer(store, row.id, Some(&stage.name), url).await?;
            let site = sites.remove(&stage.name);
            let stage_made = Stage { account: stage.account.clone(), issuer, waf, site, apps };
            made.insert(stage.name.clone(), stage_made);
        }
        let issuer = issuer(store, row.id, None, app.config.domains.member_issuer(&row.name)).await?;
        hosts.extend(own_hosts(store, &row).await?);
        customers.insert(row.name, Customer { id: row.id, issuer, stages: made });
    }
    let platform_waf = policies.add(office.platform)?;
    let domains = app.config.domains.clone();
    Ok(Snapshot { epoch, revision, made_at, domains, customers, hosts, waf: policies.0, platform_waf })
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
    store: &Store,
    stage: &StageRow,
    revisions: &BTreeMap<(AppId, u32), RevisionRow>,
    names: &BTreeMap<AppId, bastide_types::AppName>,
) -> Result<BTreeMap<bastide_types::AppName, snapshot::App>> {
    let own = store.customer(stage.customer);
    let replicas = own.replicas(&stage.name).await?;
    let purges = own.purges(&stage.name).await?;
    let mut apps = BTreeMap::new();
    for (id, number) in own.serving(&stage.name).await? {
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
    let keys = store.customer(customer).signing_keys(stage).await?;
    Ok(Issuer { url, keys: keys.into_iter().map(|key| key.public).collect(), token_epoch: 0 })
}
