//! How the organization looks on its pages: a title and a logo.

use crate::{ApiError, App, caller::Caller, error::document, identity::logo_path};
use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::JsonRejection},
};
use bastide_store::{Logo, Look};
use bastide_types::{Code, Digest, picture::Picture};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// Most bytes of a logo.
const LOGO_BYTES_MAX: usize = 64 * 1024;
/// Longest title, in characters.
const TITLE_CHARS_MAX: usize = 60;

/// How the organization looks.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct OrganizationView {
    /// Its name, for ever.
    name: String,
    /// What its pages are headed with; its name without.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// Its logo.
    #[serde(skip_serializing_if = "Option::is_none")]
    logo: Option<LogoView>,
}

/// A logo.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct LogoView {
    /// Media type.
    media_type: &'static str,
    /// Pixels.
    width: u32,
    /// Pixels.
    height: u32,
    /// Digest of its bytes.
    digest: String,
    /// Where browsers get it.
    url: String,
}

/// How the organization shall be called.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTitle {
    /// 1 to 60 characters; nothing to go back to the name.
    title: Option<String>,
}

/// Shows how the organization looks on its pages.
#[utoipa::path(get, path = "/organization", responses((status = 200, body = OrganizationView)))]
pub(crate) async fn show(State(app): State<App>, caller: Caller) -> Result<Json<OrganizationView>, ApiError> {
    let Look { title, logo } = read(&app, &caller).await?;
    let name = caller.customer.name.to_string();
    Ok(Json(OrganizationView { name, title, logo: logo.map(|logo| view(&app, &caller, &logo)) }))
}

/// Sets the title of the organization's pages.
#[utoipa::path(put, path = "/organization", request_body = NewTitle, responses((status = 204, description = "Set"), (status = 422, description = "Not a title")))]
pub(crate) async fn replace(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewTitle>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let title = document(body)?.title.map(|title| checked(&title)).transpose()?;
    let own = caller.store(&app);
    let mut write = app.store.write().await?;
    let old = NewTitle { title: own.look(&mut write).await?.title };
    own.set_title(&mut write, title.as_deref()).await?;
    let new = NewTitle { title };
    caller.changed(&app, write, ("organization.title", ""), Some(&old), Some(&new)).await
}

/// Shows the logo of the organization's pages.
#[utoipa::path(get, path = "/organization/logo", responses((status = 200, body = LogoView), (status = 404, description = "There is none")))]
pub(crate) async fn logo(State(app): State<App>, caller: Caller) -> Result<Json<LogoView>, ApiError> {
    let look = read(&app, &caller).await?;
    let logo = look.logo.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    Ok(Json(view(&app, &caller, &logo)))
}

/// Sets the logo: PNG, JPEG or WebP as `application/octet-stream`, at most 64 KiB and 2048 pixels on a side. It stands
/// still, and nothing follows it in its bytes.
#[utoipa::path(put, path = "/organization/logo", request_body(content = String, content_type = "application/octet-stream"), responses((status = 200, body = LogoView), (status = 422, description = "Not a picture that can be used")))]
pub(crate) async fn put_logo(
    State(app): State<App>,
    caller: Caller,
    body: Bytes,
) -> Result<Json<LogoView>, ApiError> {
    if body.len() > LOGO_BYTES_MAX {
        let why = format!("logo: it has {} bytes; {LOGO_BYTES_MAX} are allowed", body.len());
        return Err(ApiError::because(Code::InputInvalid, why));
    }
    let picture = Picture::read(&body)
        .map_err(|fault| ApiError::because(Code::InputInvalid, format!("logo: {fault}")))?;
    let logo = Logo { picture, digest: digest_of(&body) };
    change(&app, &caller, Some((&logo, &body))).await?;
    Ok(Json(view(&app, &caller, &logo)))
}

/// Takes the logo away.
#[utoipa::path(delete, path = "/organization/logo", responses((status = 204, description = "Taken away"), (status = 404, description = "There is none")))]
pub(crate) async fn remove_logo(State(app): State<App>, caller: Caller) -> Result<StatusCode, ApiError> {
    if read(&app, &caller).await?.logo.is_none() {
        return Err(ApiError::new(Code::ApiUnknown));
    }
    change(&app, &caller, None).await
}

/// Sets the logo or takes it away; the trail has its digest.
async fn change(app: &App, caller: &Caller, logo: Option<(&Logo, &[u8])>) -> Result<StatusCode, ApiError> {
    let own = caller.store(app);
    let mut write = app.store.write().await?;
    let old = own.look(&mut write).await?.logo.map(|logo| view(app, caller, &logo));
    own.set_logo(&mut write, logo).await?;
    let new = logo.map(|(logo, _)| view(app, caller, logo));
    caller.changed(app, write, ("organization.logo", ""), old.as_ref(), new.as_ref()).await
}

async fn read(app: &App, caller: &Caller) -> Result<Look, ApiError> {
    let found = app.store.customer_that_looks(&caller.customer.name).await?;
    Ok(found.map(|(_, look)| look).unwrap_or_default())
}

fn checked(title: &str) -> Result<String, ApiError> {
    let title = title.trim();
    if is_title(title) {
        return Ok(title.to_owned());
    }
    let why = format!("title: 1 to {TITLE_CHARS_MAX} characters, none that steers, hides or turns others");
    Err(ApiError::because(Code::InputInvalid, why))
}

/// No control characters, and none that make a text read otherwise than it is written (Unicode UAX #9 and others of the
/// category Cf).
fn is_title(title: &str) -> bool {
    let steers = |one: char| {
        one.is_control()
            || matches!(one, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    (1..=TITLE_CHARS_MAX).contains(&title.chars().count()) && !title.chars().any(steers)
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut sha = [0; 32];
    sha.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Digest::from_sha256(sha)
}

fn view(app: &App, caller: &Caller, logo: &Logo) -> LogoView {
    let Logo { picture, digest } = logo;
    LogoView {
        media_type: picture.kind.media_type(),
        width: picture.width,
        height: picture.height,
        digest: digest.to_string(),
        url: format!("{}{}", app.config.domains.platform_url(&caller.customer.name), logo_path(digest)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_title;

    #[test]
    fn a_title_reads_as_it_is_written() {
        for good in ["Acme", "Käserei Müller & Söhne", "株式会社", "<b>", &"x".repeat(60)] {
            assert!(is_title(good), "{good}");
        }
        for bad in ["", "a\nb", "a\u{202e}b", "a\u{200b}b", "\u{7f}", "a\u{2066}", &"x".repeat(61)] {
            assert!(!is_title(bad), "{bad:?}");
        }
    }
}
