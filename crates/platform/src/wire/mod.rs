//! What holds for every operation of the API on the wire: answers with tags, in parts and compressed; writes that are done
//! once, and only when nothing changed meanwhile; how many requests there may be.

pub mod condition;
mod once;
pub mod pace;
pub mod paging;
mod read;
mod write;

pub(crate) use read::read;
pub(crate) use write::write;

use crate::{ApiError, App, api};
use axum::{Router, extract::FromRequestParts};
use bastide_types::Code;
use http::request::Parts;
use std::collections::{BTreeSet, HashMap};

/// Most bytes of an answer that is looked into.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the guard needs besides the request.
#[derive(Clone)]
pub struct Gate {
    pub(crate) app: App,
    /// The operations themselves, behind no guard: to look at what a write is about to change.
    pub(crate) handlers: Router,
    queries: std::sync::Arc<HashMap<(String, String), BTreeSet<String>>>,
}

impl Gate {
    /// A gate before these operations.
    pub fn new(app: App, handlers: Router) -> Self {
        let table = crate::permissions::operation::TABLE.iter();
        let queries = table.map(|(method, path, _)| {
            ((method.to_string(), (*path).to_owned()), api::queries(method.as_str(), path))
        });
        Self { app, handlers, queries: std::sync::Arc::new(queries.collect()) }
    }

    /// Refuses names in the query that the operation does not know: a misspelt one would be passed over in silence.
    pub(crate) fn know(&self, method: &str, path: &str, query: Option<&str>) -> Result<(), ApiError> {
        let Some(known) = self.queries.get(&(method.to_owned(), path.to_owned())) else { return Ok(()) };
        let names = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let mut unknown = names.filter(|(name, _)| !known.contains(name.as_ref()));
        let Some((name, _)) = unknown.next() else { return Ok(()) };
        let name: String = name.chars().take(40).collect();
        let known = if known.is_empty() {
            "none".into()
        } else {
            known.iter().cloned().collect::<Vec<_>>().join(", ")
        };
        Err(ApiError::because(Code::InputInvalid, format!("the query has `{name}`; known here: {known}")))
    }
}

/// The query of a request; one that cannot be read is a fault of the input.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: serde::de::DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        let read = read.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
        Ok(Self(read.0))
    }
}
