//! The logo of an organization, for its own pages.

use super::{Identity, fault::Answer, tenant::Tenant};
use axum::{
    extract::{Path, State},
    response::IntoResponse,
};
use bastide_types::{Code, Digest};
use http::{HeaderValue, header};

/// Where a logo is, on the organization's host. Another one is elsewhere, so browsers may keep it for ever.
pub(crate) fn logo_path(digest: &Digest) -> String {
    format!("/identity/logo/{}", digest.hex())
}

/// GET `/identity/logo/{digest}`. Whatever a browser takes it for, it runs nothing and frames nothing.
pub async fn logo(State(identity): State<Identity>, tenant: Tenant, Path(hex): Path<String>) -> Answer {
    let digest: Digest = format!("sha256:{hex}").parse().map_err(|_| Code::ApiUnknown)?;
    let (picture, bytes) = identity.of(&tenant).logo(&digest).await?.ok_or(Code::ApiUnknown)?;
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static(picture.kind.media_type())),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((fields, bytes).into_response())
}
