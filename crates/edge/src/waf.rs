//! The WAF station: rules from files, one compiled set per policy, a verdict for each request and answer.

use crate::{Error, access_log, context::Context, lines::Lines, refusal::Refusal};
use arc_swap::ArcSwap;
use bastide_proxy::{RawHead, RefusedHead, Request, Response};
use bastide_types::{
    Code, RequestId,
    snapshot::{WafMode, WafPolicy},
};
use bastide_waf::{Connection, Files, Mode, RuleSet, Settings, Source, Transaction, Verdict};
use http::header;
use serde_json::json;
use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Rules as they lie on disk, and the sets compiled from them.
pub(crate) struct Waf {
    sources: Vec<Source>,
    variables: Vec<(String, String)>,
    compiled: ArcSwap<HashMap<(WafMode, u8), Arc<RuleSet>>>,
    default: Arc<RuleSet>,
    audit: Option<Lines>,
}

/// A transaction, or none where nothing is inspected.
pub(crate) type Inspection = Option<Box<Transaction>>;

impl Waf {
    /// Reads the rules and compiles them for `policy`; `office` comes before them.
    ///
    /// # Errors
    /// When a path holds no rules, or a rule cannot be loaded.
    pub(crate) fn load(
        rules: &[PathBuf],
        office: Option<Source>,
        policy: &WafPolicy,
        variables: Vec<(String, String)>,
        audit: Option<&Path>,
    ) -> Result<Self, Error> {
        let sources = office.into_iter().chain(read(rules)?).collect::<Vec<_>>();
        let default = Arc::new(RuleSet::compile(&sources, &Directories, &settings(policy, &variables))?);
        for warning in default.warnings() {
            tracing::info!(warning, "WAF rules");
        }
        tracing::info!(rules = default.rules(), mode = ?policy.mode, paranoia = policy.paranoia, "WAF rules loaded");
        let compiled = HashMap::from([((policy.mode, policy.paranoia), default.clone())]);
        let audit =
            audit.map(|path| Lines::open(path).map_err(|error| Error::file(path, error))).transpose()?;
        Ok(Self { sources, variables, compiled: ArcSwap::from_pointee(compiled), default, audit })
    }

    /// Compiles sets for policies that have none yet; one that does not compile leaves what is there.
    pub(crate) fn prepare<'p>(&self, policies: impl Iterator<Item = &'p WafPolicy>) {
        for policy in policies {
            let key = (policy.mode, policy.paranoia);
            if policy.mode == WafMode::Off || self.compiled.load().contains_key(&key) {
                continue;
            }
            match RuleSet::compile(&self.sources, &Directories, &settings(policy, &self.variables)) {
                Ok(set) => {
                    let mut sets = HashMap::clone(&self.compiled.load());
                    sets.insert(key, Arc::new(set));
                    self.compiled.store(Arc::new(sets));
                }
                Err(error) => {
                    tracing::error!(%error, "a WAF policy cannot be loaded; the last good one stays");
                }
            }
        }
    }

    fn set(&self, policy: &WafPolicy) -> Option<Arc<RuleSet>> {
        if policy.mode == WafMode::Off {
            return None;
        }
        let found = self.compiled.load().get(&(policy.mode, policy.paranoia)).cloned();
        Some(found.unwrap_or_else(|| self.default.clone()))
    }

    /// Inspects a request: its head as it was sent, then as much of its body as the limit allows.
    pub(crate) async fn inspect(
        &self,
        cx: &mut Context,
        policy: &WafPolicy,
        request: &mut Request,
    ) -> Result<Inspection, Refusal> {
        let Some(set) = self.set(policy) else {
            cx.verdict = "off";
            return Ok(None);
        };
        let mut transaction = Box::new(set.begin(connection(cx.client, &cx.peer, cx.id, cx.at)));
        let head = head_verdict(&mut transaction, &cx.raw);
        self.obey(cx, &mut transaction, head)?;
        let limit = set.settings().request_body_bytes_max;
        let (body, complete) = if is_inspected(request) {
            let prefix = request.body_mut().prefix(limit).await;
            let prefix = prefix.map_err(|error| Refusal::because(Code::BadRequest, error.to_string()))?;
            (prefix.bytes, prefix.complete)
        } else {
            (bytes::Bytes::new(), true)
        };
        let verdict = transaction.request_body(&body, complete);
        self.obey(cx, &mut transaction, verdict)?;
        cx.verdict = "pass";
        Ok(Some(transaction))
    }

    /// Inspects an answer; its body is held back until the verdict, up to the limit.
    pub(crate) async fn inspect_answer(
        &self,
        cx: &mut Context,
        inspection: Inspection,
        response: Response,
    ) -> Result<Response, Refusal> {
        let Some(mut transaction) = inspection else { return Ok(response) };
        let (head, mut body) = response.into_parts();
        let fields = head.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let verdict = transaction.response_head(head.status.as_u16(), b"HTTP/1.1", fields);
        self.obey(cx, &mut transaction, verdict)?;
        let kind =
            head.headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_vec()).unwrap_or_default();
        let plain = !head.headers.contains_key(header::CONTENT_ENCODING);
        if plain && transaction.wants_response_body(&kind) {
            let limit = transaction.settings().response_body_bytes_max;
            // A body that breaks off before its head has left must not look like a whole one.
            let prefix = body.prefix(limit).await.map_err(|error| {
                tracing::debug!(%error, "an answer broke off while it was inspected");
                self.record(cx.id, access_log::time(cx), Some(cx), &mut transaction);
                Refusal::new(Code::GatewayUnreachable)
            })?;
            let verdict = transaction.response_body(&prefix.bytes, prefix.complete);
            self.obey(cx, &mut transaction, verdict)?;
        }
        self.record(cx.id, access_log::time(cx), Some(cx), &mut transaction);
        Ok(Response::from_parts(head, body))
    }

    /// Writes the audit of a request that was answered without its answer being inspected.
    pub(crate) fn conclude(&self, cx: &Context, inspection: Inspection) {
        if let Some(mut transaction) = inspection {
            self.record(cx.id, access_log::time(cx), Some(cx), &mut transaction);
        }
    }

    /// Runs the request's phases, without a body, and the audit for a head that is refused anyway. Tells
    /// whether the rules would refuse it, too.
    pub(crate) fn inspect_refused(&self, id: RequestId, policy: &WafPolicy, head: &RefusedHead) -> bool {
        let Some(set) = self.set(policy) else { return false };
        let mut transaction = set.begin(connection(head.peer.addr.ip(), &head.peer, id, SystemTime::now()));
        let mut verdict = head_verdict(&mut transaction, &head.raw);
        if verdict == Verdict::Pass {
            verdict = transaction.request_body(b"", true);
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        self.record(id, at, None, &mut transaction);
        verdict != Verdict::Pass
    }

    fn obey(&self, cx: &mut Context, transaction: &mut Transaction, verdict: Verdict) -> Result<(), Refusal> {
        match verdict {
            Verdict::Pass => Ok(()),
            Verdict::Block { rule, .. } => {
                tracing::debug!(name: "edge.waf", request = %cx.id, rule, "blocked");
                cx.verdict = "block";
                self.record(cx.id, access_log::time(cx), Some(cx), transaction);
                Err(Refusal::new(Code::WafBlocked))
            }
        }
    }

    fn record(&self, id: RequestId, at: u64, cx: Option<&Context>, transaction: &mut Transaction) {
        let audit = transaction.finish();
        let Some(lines) = self.audit.as_ref().filter(|_| audit.wanted) else { return };
        let line =
            json!({ "at": at, "request": id, "site": cx.and_then(|cx| cx.site.as_ref()), "audit": audit });
        lines.add(line.to_string());
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

fn settings(policy: &WafPolicy, variables: &[(String, String)]) -> Settings {
    let mode = match policy.mode {
        WafMode::Off => Mode::Off,
        WafMode::Detect => Mode::Detect,
        WafMode::Block => Mode::Block,
    };
    Settings { mode, paranoia: policy.paranoia, variables: variables.to_vec(), ..Settings::default() }
}

/// Reads rule files: a directory gives its `*.conf` files in the order of their names.
fn read(paths: &[PathBuf]) -> Result<Vec<Source>, Error> {
    let none = |path: &Path, why: &str| Error::NoRules { path: path.to_owned(), why: why.to_owned() };
    let mut sources = Vec::new();
    for path in paths {
        let files = if path.is_dir() {
            let entries = fs::read_dir(path).map_err(|error| Error::file(path, error))?;
            let mut files: Vec<PathBuf> =
                entries.flatten().map(|entry| entry.path()).filter(|file| is_conf(file)).collect();
            files.sort();
            if files.is_empty() {
                return Err(none(path, "the directory holds no rules (*.conf)"));
            }
            files
        } else {
            vec![path.clone()]
        };
        for file in files {
            let bytes = fs::read(&file).map_err(|error| Error::file(&file, error))?;
            sources.push(Source { name: file.display().to_string(), bytes });
        }
    }
    if sources.is_empty() {
        return Err(none(Path::new("--waf-rules"), "no rules are named"));
    }
    Ok(sources)
}

fn is_conf(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "conf")
}

/// Looks data files and includes up beside the file that names them.
struct Directories;

impl Directories {
    fn locate(from: &str, path: &str) -> PathBuf {
        let beside = Path::new(from).parent().unwrap_or(Path::new("."));
        beside.join(path)
    }
}

impl Files for Directories {
    fn read(&self, from: &str, path: &str) -> Result<Vec<u8>, String> {
        let path = Self::locate(from, path);
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Globs have their stars in the last part only.
    fn expand(&self, from: &str, glob: &str) -> Result<Vec<String>, String> {
        let path = Self::locate(from, glob);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !name.contains('*') {
            return Ok(if path.exists() { vec![path.display().to_string()] } else { Vec::new() });
        }
        let dir = path.parent().unwrap_or(Path::new("."));
        let (begin, end) = name.split_once('*').unwrap_or((&name, ""));
        let entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut found: Vec<String> = entries
            .flatten()
            .filter(|entry| {
                let found = entry.file_name().to_string_lossy().into_owned();
                found.len() >= begin.len() + end.len() && found.starts_with(begin) && found.ends_with(end)
            })
            .map(|entry| entry.path().display().to_string())
            .collect();
        found.sort();
        Ok(found)
    }
}
