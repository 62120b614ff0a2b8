//! The WAF station: a verdict for each request and answer, under the policy of its site.

pub mod force;
mod record;

use crate::{Error, context::Context, refusal::Refusal, rules::Places};
use bastide_proxy::{RawHead, RefusedHead, Request, Response};
use bastide_types::{Code, RequestId, WafPolicy};
use bastide_waf::{Connection, Settings, Source, Transaction, Verdict};
use force::{Force, Policy};
use http::header;
use record::{AuditLog, Record};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The station.
pub(crate) struct Waf {
    pub(crate) force: Force,
    /// What holds where nothing else is known.
    pub(crate) default: Arc<Policy>,
    audit: Option<Arc<AuditLog>>,
}

/// The inspection of a request, or none where nothing is inspected. Whatever becomes of the request, when this is
/// dropped the log has its line.
#[derive(Default)]
pub(crate) struct Inspection(Option<Box<Open>>);

struct Open {
    transaction: Transaction,
    /// The log and what goes there; none where none is kept.
    told: Option<(Arc<AuditLog>, Record)>,
    policy: Arc<Policy>,
}

impl Waf {
    /// Loads the rules for sites of a Bastide; `office` comes before them.
    ///
    /// # Errors
    /// When a path holds no rules, or a rule cannot be loaded.
    pub(crate) fn load(places: Places, office: Source, audit: Option<&Path>) -> Result<Self, Error> {
        let settings = force::settings(&WafPolicy::default());
        Self::new(Force::load(places, Some(office))?, settings, audit)
    }

    /// Loads the rules for an edge that stands alone.
    ///
    /// # Errors
    /// When a path holds no rules, or a rule cannot be loaded.
    pub(crate) fn alone(places: Places, settings: Settings, audit: Option<&Path>) -> Result<Self, Error> {
        Self::new(Force::load(places, None)?, settings, audit)
    }

    fn new(force: Force, settings: Settings, audit: Option<&Path>) -> Result<Self, Error> {
        let open = |path| AuditLog::open(path, settings.masked).map_err(|error| Error::file(path, error));
        let audit = audit.map(open).transpose()?.map(Arc::new);
        let default = force.alone(settings)?;
        Ok(Self { force, default, audit })
    }

    /// Inspects a request: its head as it was sent, then as much of its body as the limit allows.
    pub(crate) async fn inspect(
        &self,
        cx: &mut Context,
        policy: &Arc<Policy>,
        request: &mut Request,
    ) -> Result<Inspection, Refusal> {
        let Some(mut open) = self.open(cx, policy) else {
            cx.verdict = "off";
            return Ok(Inspection::default());
        };
        let head = head_verdict(&mut open.transaction, &cx.raw);
        obey(cx, &mut open, head, Code::WafBlocked)?;
        let limit = open.transaction.settings().request_body_bytes_max;
        let (body, complete) = if is_inspected(request) {
            let prefix = request.body_mut().prefix(limit).await;
            let prefix = prefix.map_err(|error| Refusal::because(Code::BadRequest, error.to_string()))?;
            (prefix.bytes, prefix.complete)
        } else {
            (bytes::Bytes::new(), true)
        };
        if !complete && policy.refuses_beyond.0 {
            let why = format!("it is longer than the {limit} bytes that are inspected");
            let verdict = open.transaction.object(&why, "REQUEST_BODY", 2);
            obey(cx, &mut open, verdict, Code::BodyTooLarge)?;
        }
        let verdict = open.transaction.request_body(&body, complete);
        obey(cx, &mut open, verdict, Code::WafBlocked)?;
        cx.verdict = match (open.transaction.would_block(), complete) {
            (true, _) => "detect",
            (false, true) => "pass",
            (false, false) => "pass-prefix",
        };
        Ok(Inspection(Some(open)))
    }

    /// Inspects an answer; its body is held back until the verdict, up to the limit.
    pub(crate) async fn inspect_answer(
        &self,
        cx: &mut Context,
        inspection: Inspection,
        response: Response,
    ) -> Result<Response, Refusal> {
        let Inspection(Some(mut open)) = inspection else { return Ok(response) };
        let (head, mut body) = response.into_parts();
        open.answered(head.status.as_u16());
        let fields = head.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let verdict = open.transaction.response_head(head.status.as_u16(), b"HTTP/1.1", fields);
        obey(cx, &mut open, verdict, Code::WafBlocked)?;
        let kind =
            head.headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_vec()).unwrap_or_default();
        let plain = !head.headers.contains_key(header::CONTENT_ENCODING);
        if plain && open.transaction.wants_response_body(&kind) {
            let limit = open.transaction.settings().response_body_bytes_max;
            // A body that breaks off before its head has left must not look like a whole one.
            let prefix = body.prefix(limit).await.map_err(|error| {
                tracing::debug!(%error, "an answer broke off while it was inspected");
                Refusal::new(Code::GatewayUnreachable)
            })?;
            if !prefix.complete && open.policy.refuses_beyond.1 {
                let why = format!("it is longer than the {limit} bytes that are inspected");
                let verdict = open.transaction.object(&why, "RESPONSE_BODY", 4);
                obey(cx, &mut open, verdict, Code::WafBlocked)?;
            }
            let verdict = open.transaction.response_body(&prefix.bytes, prefix.complete);
            obey(cx, &mut open, verdict, Code::WafBlocked)?;
        }
        Ok(Response::from_parts(head, body))
    }

    /// Runs the request's phases, without a body, and the audit for a head that is refused anyway. Tells
    /// whether the rules would refuse it, too; the client sees `blocked` then.
    pub(crate) fn inspect_refused(
        &self,
        id: RequestId,
        policy: &Arc<Policy>,
        head: &RefusedHead,
        blocked: u16,
    ) -> bool {
        let (client, at) = (head.peer.addr.ip(), SystemTime::now());
        let Some(compiled) = policy.compiled() else { return false };
        let mut transaction = compiled.set.begin(connection(client, &head.peer, id, at));
        let mut verdict = head_verdict(&mut transaction, &head.raw);
        if verdict == Verdict::Pass {
            verdict = transaction.request_body(b"", true);
        }
        let is_blocked = verdict != Verdict::Pass;
        if let Some(log) = &self.audit {
            let record = Record {
                id,
                at,
                client,
                raw: Arc::new(head.raw.clone()),
                site: None,
                policy: policy.id.clone(),
                rules: compiled.rules.clone(),
                status: Some(if is_blocked { blocked } else { head.status.as_u16() }),
            };
            // Dropped at once: the line is written.
            let _told = Open { transaction, told: Some((log.clone(), record)), policy: policy.clone() };
        }
        is_blocked
    }

    fn open(&self, cx: &Context, policy: &Arc<Policy>) -> Option<Box<Open>> {
        let compiled = policy.compiled()?;
        let transaction = compiled.set.begin(connection(cx.client, &cx.peer, cx.id, cx.at));
        let told = self.audit.as_ref().map(|log| {
            let record = Record {
                id: cx.id,
                at: cx.at,
                client: cx.client,
                raw: cx.raw.clone(),
                site: cx.site.clone(),
                policy: policy.id.clone(),
                rules: compiled.rules.clone(),
                status: None,
            };
            (log.clone(), record)
        });
        Some(Box::new(Open { transaction, told, policy: policy.clone() }))
    }
}

impl Inspection {
    /// Ends the inspection of a request that was answered without its answer being inspected.
    pub(crate) fn conclude(mut self, status: Option<u16>) {
        if let (Some(open), Some(status)) = (&mut self.0, status) {
            open.answered(status);
        }
    }
}

impl Open {
    fn answered(&mut self, status: u16) {
        if let Some((_, record)) = &mut self.told {
            record.status = Some(status);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some((log, record)) = &self.told else { return };
        let audit = self.transaction.finish();
        if audit.wanted {
            log.add(record, &audit);
        }
    }
}

fn obey(cx: &mut Context, open: &mut Open, verdict: Verdict, code: Code) -> Result<(), Refusal> {
    match verdict {
        Verdict::Pass => Ok(()),
        Verdict::Block { rule, .. } => {
            tracing::debug!(name: "edge.waf", request = %cx.id, rule, "blocked");
            cx.verdict = "block";
            open.answered(code.status());
            Err(Refusal::new(code))
        }
    }
}

/// Bodies whose content the rules understand; others (images, archives) are not held back.
fn is_inspected(request: &Request) -> bool {
    if http_body::Body::is_end_stream(request.body()) {
        return false;
    }
    let mut kinds = request.headers().get_all(header::CONTENT_TYPE).iter();
    // Of two types the app may believe either: then everything is looked at.
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return true };
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    const OPAQUE: &[&str] =
        &["application/gzip", "application/octet-stream", "application/zip", "application/x-tar"];
    !OPAQUE.contains(&kind.as_str())
        && !["image/", "video/", "audio/", "font/"].iter().any(|begin| kind.starts_with(begin))
}

fn head_verdict(transaction: &mut Transaction, raw: &RawHead) -> Verdict {
    let fields = raw.headers.iter().map(|(name, value)| (&name[..], &value[..]));
    transaction.request_head(&raw.method, &raw.target, raw.protocol(), fields)
}

fn connection(client: IpAddr, peer: &bastide_proxy::Peer, id: RequestId, at: SystemTime) -> Connection {
    let client = SocketAddr::new(client, peer.addr.port());
    let now = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Connection { client, server: peer.local, unique_id: id.to_string(), now }
}
