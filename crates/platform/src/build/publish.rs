//! One publish: upload, check, image, revision, and the order to deploy it to the first stage.

use super::{archive, take};
use crate::{
    ApiError, App,
    caller::Caller,
    deploy::{
        self,
        impact::{self, Impact},
    },
    services,
};
use axum::body::Body;
use bastide_store::{RevisionRow, StoreError};
use bastide_types::{
    AppId, AppName, Code, CustomerId, Digest, Problem, StageName, manifest::Kind, tree::Tree,
};
use futures_util::StreamExt;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Most bytes of a packed upload.
pub(crate) const UPLOAD_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What a publish began, or would begin.
pub(crate) struct Published {
    /// Missing when it was only tried.
    pub(crate) operation: Option<Uuid>,
    pub(crate) revision: RevisionRow,
    pub(crate) impact: Impact,
}

/// What is said about a publish.
#[derive(Default)]
pub(crate) struct About {
    /// For people, later.
    pub(crate) message: String,
    /// Say what would happen, and do nothing.
    pub(crate) dry_run: bool,
}

/// A directory that is removed when it is dropped, however the publish ends.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) async fn publish(
    app: &App,
    caller: &Caller,
    name: &AppName,
    about: About,
    upload: Body,
) -> Result<Published, ApiError> {
    let work = Work(app.config.work_dir.join(Uuid::new_v4().to_string()));
    fs::create_dir_all(&work.0)?;
    let packed = work.0.join("upload");
    receive(upload, &packed).await?;
    let root = work.0.join("root");
    let archive = {
        let root = root.clone();
        let earlier = Earlier { app: app.clone(), customer: caller.customer.id, name: name.clone() };
        let unpack = move || -> Result<_, ApiError> {
            fs::create_dir(&root)?;
            let file = std::io::BufReader::new(fs::File::open(&packed)?);
            let archive = archive::unpack_onto(file, &root, &earlier);
            let archive = archive.map_err(|problem| ApiError(problem, None, None))?;
            fs::remove_file(&packed)?;
            // Before anybody moves the files on.
            earlier.app.content.take(earlier.customer, &archive.tree, &root)?;
            Ok(archive)
        };
        blocking(unpack).await?
    };
    if archive.manifest.app.name != *name {
        let detail = format!("app.name is `{}`, but the request is for `{name}`", archive.manifest.app.name);
        return Err(ApiError::because(Code::ManifestInvalid, detail));
    }
    services::offered(app, &archive.manifest)?;
    let tree = archive.tree.clone();
    let (manifest, image) = if archive.manifest.app.kind == Kind::Image {
        take::take(app, caller.customer.id, root, &work.0, archive.manifest).await?
    } else {
        let app = app.clone();
        blocking(move || Ok((archive.manifest.clone(), app.images.build(&archive, &root)?))).await?
    };
    let own = caller.store(app);
    let stages = own.stage_names().await?;
    let first: &StageName = stages.first().ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    let digest = revision_digest(&image.digest, &manifest)?;
    let known = own.app_named(name).await?.map_or_else(AppId::generate, |row| row.id);
    let mut revision = RevisionRow::new(known, digest, image.digest, manifest, image.blobs);
    (revision.message, revision.by) = (about.message, caller.who.sub.clone());
    let impact = impact::of_deployment(app, &own, first, &revision).await?;
    if about.dry_run {
        return Ok(Published { operation: None, revision, impact });
    }
    impact.demand_free()?;
    let mut write = app.store.write().await?;
    revision.app = own.ensure_app(&mut write, name).await?;
    revision.number = own.add_revision(&mut write, &revision).await?;
    let operation =
        deploy::begin(app, &mut write, &own, "publish", first, &revision, &caller.who.sub).await?;
    write.commit().await.map_err(StoreError::from)?;
    deploy::announce(app, caller.customer.id, first).await?;
    index(app).await;
    note(app, caller.customer.id, name, tree).await;
    Ok(Published { operation: Some(operation), revision, impact })
}

/// What earlier publishes of an app brought.
struct Earlier {
    app: App,
    customer: CustomerId,
    name: AppName,
}

impl archive::Earlier for Earlier {
    fn tree(&self, name: &Digest) -> Result<Tree, Problem> {
        self.app.content.tree(self.customer, &self.name, name)
    }
    fn lay(&self, content: &Digest, to: &Path) -> Result<(), Problem> {
        self.app.content.lay(self.customer, content, to)
    }
}

/// Remembers what was published: it only saves bytes, so a failure is no failure of the publish.
async fn note(app: &App, customer: CustomerId, name: &AppName, tree: Tree) {
    let (app, name) = (app.clone(), name.clone());
    let noted = blocking(move || Ok(app.content.note(customer, &name, &tree)?)).await;
    if let Err(error) = noted {
        tracing::warn!(problem = %error.0, "a publish is not remembered by content");
    }
}

/// The newest tree of an app, for those who do not know what they published.
pub(crate) async fn newest(app: &App, customer: CustomerId, name: &AppName) -> Result<Tree, ApiError> {
    let (app, name) = (app.clone(), name.clone());
    let found = blocking(move || Ok(app.content.newest(customer, &name))).await?;
    found.ok_or_else(|| ApiError::new(Code::ApiUnknown))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&error))?
}

/// Streams the upload to disk, within the limit.
async fn receive(upload: Body, to: &Path) -> Result<(), ApiError> {
    let mut file = fs::File::create_new(to)?;
    let mut stream = upload.into_data_stream();
    let mut bytes = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| ApiError::because(Code::ArchiveInvalid, "the upload broke off"))?;
        bytes += piece.len() as u64;
        if bytes > UPLOAD_BYTES_MAX {
            return Err(ApiError::new(Code::UploadTooLarge));
        }
        file.write_all(&piece)?;
    }
    Ok(())
}

/// One digest over everything that makes a revision.
fn revision_digest(image: &Digest, manifest: &bastide_types::Manifest) -> Result<Digest, ApiError> {
    let text = serde_json::to_vec(&(image, manifest)).map_err(|error| ApiError::internal(&error))?;
    let mut bytes = [0; 32];
    bytes.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text).as_ref());
    Ok(Digest::from_sha256(bytes))
}

/// Keeps `index.json` true for other OCI tools; Bastide itself finds images in SQL.
async fn index(app: &App) {
    let list = async {
        let mut images = Vec::new();
        for customer in app.store.customers().await? {
            let own = app.store.customer(customer.id);
            for revision in own.revisions().await? {
                let name = format!("{}/{}:{}", customer.name, revision.manifest.app.name, revision.number);
                images.push((revision.image, name));
            }
        }
        app.images.write_index(&images).map_err(ApiError::from)
    };
    if let Err(error) = list.await {
        tracing::warn!(problem = %error.0, "cannot write the image index");
    }
}
