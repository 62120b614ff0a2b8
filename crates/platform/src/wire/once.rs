//! Idempotency keys: a write that is asked for again with the same key is not done again; its answer is told again.

use crate::{ApiError, App, caller::Caller};
use aws_lc_rs::digest::{Context, SHA256, digest};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bastide_store::{KeptAnswer, OnceKey, OnceRow, now_s};
use bastide_types::Code;
use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};
use uuid::Uuid;

const FIELD: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const KEY_BYTES_MAX: usize = 255;
/// Most bytes of an answer that is kept.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Fields of an answer that are kept.
const KEPT_FIELDS: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::CACHE_CONTROL];
/// Seconds for which a try without an answer counts as one that still runs: longer than any request may take.
const RUNS_S: i64 = 120;

/// The key of a request.
///
/// # Errors
/// [`Code::InputInvalid`] when it cannot be one.
pub(crate) fn key_of(parts: &Parts) -> Result<Option<String>, ApiError> {
    let bad =
        || ApiError::because(Code::InputInvalid, "Idempotency-Key: one text of 1 to 255 visible characters");
    let mut lines = parts.headers.get_all(FIELD).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let text = line.to_str().map_err(|_| bad())?;
    // A string of structured fields, or the bare text that many send.
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let good =
        !text.is_empty() && text.len() <= KEY_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !good || lines.next().is_some() {
        return Err(bad());
    }
    Ok(Some(hex(digest(&SHA256, text.as_bytes()).as_ref())))
}

/// What a request asks for: method, address, and as much of its body as was read.
#[derive(Clone)]
pub(crate) struct Asked(Arc<Mutex<Context>>);

impl Asked {
    pub(crate) fn new(parts: &Parts) -> Self {
        let mut context = Context::new(&SHA256);
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        for part in [parts.method.as_str(), target] {
            // Lengths keep the parts apart.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        Self(Arc::new(Mutex::new(context)))
    }

    /// The body, which is read along.
    pub(crate) fn reading(&self, body: Body) -> Body {
        let here = self.clone();
        Body::from_stream(body.into_data_stream().inspect_ok(move |bytes| here.add(bytes)))
    }

    fn add(&self, bytes: &Bytes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).update(bytes);
    }

    pub(crate) fn digest(&self) -> String {
        hex(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().finish().as_ref())
    }
}

/// The demand that this is done once.
pub(crate) fn demand(caller: &Caller, key: String, asked: &Asked) -> OnceKey {
    let asked = asked.clone();
    OnceKey {
        customer: caller.customer.id,
        caller: caller.who.sub.clone(),
        key,
        run: Uuid::now_v7(),
        request: Arc::new(move || asked.digest()),
    }
}

/// Answers a request whose key is known: from memory, when it is the same request.
pub(crate) async fn again(
    row: OnceRow,
    asked: &Asked,
    body: Body,
    bytes_max: u64,
) -> Result<Response, ApiError> {
    let most = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut body = Limited::new(asked.reading(body), most);
    while let Some(frame) = body.frame().await {
        frame.map_err(|_| ApiError::new(Code::KeyReused))?;
    }
    if asked.digest() != row.request {
        return Err(ApiError::new(Code::KeyReused));
    }
    match row.answer {
        Some(answer) => replay(answer),
        None if now_s() - row.at < RUNS_S => Err(ApiError::new(Code::KeyBusy).retry_after(1)),
        None => Err(ApiError::new(Code::AnswerLost)),
    }
}

fn replay(answer: KeptAnswer) -> Result<Response, ApiError> {
    let status = StatusCode::from_u16(answer.status).map_err(|error| ApiError::internal(&error))?;
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in &answer.fields {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Keeps the answer of a write that was done, and gives it back.
pub(crate) async fn keep(app: &App, once: &OnceKey, response: Response) -> Response {
    let (head, body) = response.into_parts();
    let bytes = match Limited::new(body, super::ANSWER_BYTES_MAX).collect().await {
        Ok(bytes) => bytes.to_bytes(),
        Err(_) => return ApiError::new(Code::Internal).into_response(),
    };
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= KEPT_BYTES_MAX);
    if let Some(text) = text {
        let fields = KEPT_FIELDS.iter().filter_map(|name| {
            Some((name.as_str().to_owned(), head.headers.get(name)?.to_str().ok()?.to_owned()))
        });
        let answer =
            KeptAnswer { status: head.status.as_u16(), fields: fields.collect(), body: text.to_owned() };
        if let Err(error) = app.store.customer(once.customer).keep_answer(once, &answer).await {
            // Whoever asks again hears that it was done.
            tracing::warn!(%error, "an answer is not remembered");
        }
    }
    Response::from_parts(head, Body::from(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
