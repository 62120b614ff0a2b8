//! Images that somebody else built: taken from the upload or a registry, checked, and kept as they are.

use super::{
    images::Image,
    registry::{self, of_image},
};
use crate::{ApiError, App};
use bastide_image::{Blobs, Limits};
use bastide_types::{Code, CustomerId, Digest, Manifest, manifest::ImageSource};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// Longest time for a whole pull.
const PULL_LIMIT: Duration = Duration::from_mins(30);

/// One pull at a time for each customer.
#[derive(Default)]
pub(crate) struct Pulls(Mutex<HashMap<CustomerId, Arc<tokio::sync::Mutex<()>>>>);

impl Pulls {
    fn of(&self, customer: CustomerId) -> Arc<tokio::sync::Mutex<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(customer).or_default().clone()
    }
}

/// Takes the image that `manifest` names, and completes the manifest with what the image says. `uploaded` is the
/// unpacked upload; `work` a directory for this publish alone.
pub(crate) async fn take(
    app: &App,
    customer: CustomerId,
    uploaded: PathBuf,
    work: &Path,
    mut manifest: Manifest,
) -> Result<(Manifest, Image), ApiError> {
    let source = manifest.app.image.clone().ok_or_else(|| ApiError::new(Code::ManifestInvalid))?;
    let limits = Limits { bytes_max: super::archive::UNPACKED_BYTES_MAX, ..Limits::default() };
    let root = work.join("image");
    let images = app.clone();
    let check = move |blobs: Blobs, image: Digest| -> Result<(Manifest, Image), ApiError> {
        fs::create_dir(&root)?;
        let checked = bastide_image::check(&blobs, &image, &limits, &root, &mut manifest);
        let checked = checked.map_err(|error| ApiError(of_image(error), None, None))?;
        for blob in &checked.blobs {
            images.images.keep(&blobs.path(blob), blob)?;
        }
        Ok((manifest, Image { digest: image, blobs: checked.blobs }))
    };
    let taken = match source {
        ImageSource::Path(path) => {
            let dir = work.join("blobs");
            tokio::task::spawn_blocking(move || {
                let problem = |error| ApiError(of_image(error), None, None);
                let blobs = Blobs::new(dir).map_err(problem)?;
                let image = bastide_image::collect(&uploaded.join(path), &blobs, &limits).map_err(problem)?;
                check(blobs, image)
            })
            .await
        }
        ImageSource::Registry(reference) => {
            let pulling = app.pulls.of(customer);
            let held = pulling.try_lock_owned();
            let held = held.map_err(|_| {
                ApiError::because(Code::DeployBusy, "another image of yours is still being pulled")
                    .retry_after(10)
            })?;
            // A task of its own: when the client hangs up meanwhile, its next try finds what is there by then.
            let (app, own) = (app.clone(), app.config.images.join("pulls").join(customer.to_string()));
            let pulled = tokio::spawn(async move {
                let _held = held;
                let here = own.join(reference.digest.hex());
                // What an earlier pull of another image left is not wanted any more.
                for left in fs::read_dir(&own).into_iter().flatten().flatten() {
                    if left.path() != here {
                        fs::remove_dir_all(left.path())?;
                    }
                }
                let blobs = Blobs::new(&here).map_err(|error| ApiError(of_image(error), None, None))?;
                let pull = registry::pull(&app.registries, &reference, &blobs, &limits);
                let image = timeout(PULL_LIMIT, pull)
                    .await
                    .map_err(|_| ApiError::because(Code::PullFailed, "it took longer than 30 minutes"))?;
                let image = image.map_err(|problem| ApiError(problem, None, None))?;
                Ok::<_, ApiError>((blobs, image))
            });
            let (blobs, image) = pulled.await.map_err(|error| ApiError::internal(&error))??;
            tokio::task::spawn_blocking(move || {
                let dir = blobs.dir().to_owned();
                let taken = check(blobs, image);
                let _ = fs::remove_dir_all(dir);
                taken
            })
            .await
        }
    };
    taken.map_err(|error| ApiError::internal(&error))?
}
