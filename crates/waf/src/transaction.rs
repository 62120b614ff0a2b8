//! One request and its answer.

use crate::{
    Audit, Match, Mode, RuleSet, Settings,
    action::EngineMode,
    audit::shown,
    body::{self, Kind},
    data::{Data, Item, Scalar},
    evaluate::RemovedTarget,
    operator::number,
    rule::AllowScope,
    transform::url_decode,
};
use bytes::Bytes;
use std::{collections::HashMap, net::SocketAddr, sync::Arc};

/// Who talks to whom.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client.
    pub client: SocketAddr,
    /// Our end.
    pub server: SocketAddr,
    /// Id of the request.
    pub unique_id: String,
}

/// What the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing against it.
    Pass,
    /// Refuse it. Never in mode `detect`.
    Block {
        /// HTTP status.
        status: u16,
        /// Rule that decided.
        rule: u32,
    },
}

/// One request on its way through the rules.
pub struct Transaction {
    pub(crate) set: Arc<RuleSet>,
    pub(crate) data: Data,
    pub(crate) tx: HashMap<Vec<u8>, Bytes>,
    pub(crate) memo: HashMap<(u32, u32), Bytes, std::hash::BuildHasherDefault<Mixer>>,
    pub(crate) matched_var: (Vec<u8>, Bytes),
    pub(crate) matched_vars: Vec<(Vec<u8>, Bytes)>,
    pub(crate) matches: Vec<Match>,
    pub(crate) removed_ids: Vec<(u32, u32)>,
    pub(crate) removed_tags: Vec<Vec<u8>>,
    pub(crate) removed_targets: Vec<RemovedTarget>,
    pub(crate) engine: EngineMode,
    pub(crate) allow: Option<(AllowScope, usize)>,
    pub(crate) body_processor: Option<String>,
    pub(crate) force_body: bool,
    pub(crate) audit_on: bool,
    pub(crate) blocked: bool,
    pub(crate) would_block: bool,
    pub(crate) deciding: Option<u32>,
    content_type: Vec<u8>,
    /// Why not all of the request can be looked at, or not in one way only.
    unreadable: Option<&'static str>,
    marker: Option<String>,
}

impl Transaction {
    pub(crate) fn new(set: Arc<RuleSet>, connection: Connection) -> Self {
        let engine = match set.settings.mode {
            Mode::Off => EngineMode::Off,
            Mode::Detect => EngineMode::DetectionOnly,
            Mode::Block => EngineMode::On,
        };
        let mut data = Data::default();
        data.set(Scalar::RemoteAddr, connection.client.ip().to_string());
        data.set(Scalar::RemotePort, connection.client.port().to_string());
        data.set(Scalar::ServerAddr, connection.server.ip().to_string());
        data.set(Scalar::ServerPort, connection.server.port().to_string());
        data.set(Scalar::UniqueId, connection.unique_id);
        Self {
            set,
            data,
            tx: HashMap::new(),
            memo: HashMap::default(),
            matched_var: (Vec::new(), Bytes::new()),
            matched_vars: Vec::new(),
            matches: Vec::new(),
            removed_ids: Vec::new(),
            removed_tags: Vec::new(),
            removed_targets: Vec::new(),
            engine,
            allow: None,
            body_processor: None,
            force_body: false,
            audit_on: true,
            blocked: false,
            would_block: false,
            deciding: None,
            content_type: Vec::new(),
            unreadable: None,
            marker: None,
        }
    }

    /// How the rules are run.
    pub fn settings(&self) -> &Settings {
        &self.set.settings
    }

    /// Phase 1: the head, exactly as it was sent.
    pub fn request_head(
        &mut self,
        method: &[u8],
        target: &[u8],
        protocol: &[u8],
        headers: &[(Vec<u8>, Vec<u8>)],
    ) -> Verdict {
        self.head(method, target, protocol);
        self.exclude();
        for (name, value) in headers {
            let item = self.data.item(name.clone(), value.clone());
            self.data.request_headers.push(item);
            match name.to_ascii_lowercase().as_slice() {
                b"cookie" => self.cookies(value),
                b"content-type" => self.take_content_type(value),
                b"x-crs-test" => self.marker = Some(shown(value)),
                b"host" => self.data.set(Scalar::ServerName, value.clone()),
                _ => {}
            }
        }
        if let Some(kind) = Kind::of(&self.content_type) {
            self.data.set(Scalar::BodyProcessor, kind.name());
        }
        self.preset();
        self.run(1)
    }

    fn head(&mut self, method: &[u8], target: &[u8], protocol: &[u8]) {
        let path = without_origin(target);
        let (file, query) = match memchr::memchr(b'?', path) {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (path, &b""[..]),
        };
        let filename = url_decode_path(file);
        let base = filename.rsplit(|b| matches!(b, b'/' | b'\\')).next().unwrap_or_default().to_vec();
        let data = &mut self.data;
        data.set(Scalar::Method, method.to_vec());
        data.set(Scalar::UriRaw, target.to_vec());
        data.set(Scalar::Uri, path.to_vec());
        data.set(Scalar::Line, [method, b" ", target, b" ", protocol].concat());
        data.set(Scalar::Protocol, protocol.to_vec());
        data.set(Scalar::Basename, base);
        data.set(Scalar::Filename, filename);
        data.set(Scalar::Query, query.to_vec());
        let (args, cut) = body::urlencoded::parse(query, self.set.program.arguments_max);
        if cut {
            self.unreadable = Some("too many arguments");
        }
        for (name, value) in args {
            let item = self.data.item(name, value);
            self.data.args_get.push(item);
        }
    }

    fn cookies(&mut self, line: &[u8]) {
        for pair in line.split(|b| *b == b';') {
            let pair = pair.trim_ascii();
            if pair.is_empty() {
                continue;
            }
            if self.data.cookies.len() >= self.set.program.arguments_max {
                self.unreadable = Some("too many cookies");
                return;
            }
            let (name, value) = match memchr::memchr(b'=', pair) {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &b""[..]),
            };
            let item = self.data.item(name.to_vec(), value.to_vec());
            self.data.cookies.push(item);
        }
    }

    /// Of two different types the app may believe either, so that its body has no one meaning.
    fn take_content_type(&mut self, value: &[u8]) {
        if !self.content_type.is_empty() && self.content_type != value {
            self.unreadable = Some("two different content types");
        }
        self.content_type = value.to_vec();
    }

    /// What the policy leaves out on this path.
    fn exclude(&mut self) {
        let set = self.set.clone();
        for exclusion in &set.exclusions {
            if let Some(ctl) = exclusion.ctl_for(self) {
                self.control(ctl);
            }
        }
    }

    /// What the policy says, under the names that CRS 3 and CRS 4 have for it. It is said before the first
    /// rule, and again after the rules' own set-up, which it overrules.
    pub(crate) fn preset(&mut self) {
        let paranoia = self.set.settings.paranoia.to_string();
        let names = [
            "paranoia_level",
            "executing_paranoia_level",
            "blocking_paranoia_level",
            "detection_paranoia_level",
        ];
        for name in names {
            self.tx.insert(name.into(), paranoia.clone().into());
        }
        for (name, value) in self.set.settings.variables.clone() {
            self.tx.insert(name.to_ascii_lowercase().into_bytes(), value.into());
        }
    }

    /// Phase 2: the body, as far as it is inspected; `complete` when that is all of it.
    pub fn request_body(&mut self, bytes: &[u8], complete: bool) -> Verdict {
        let kind = match self.body_processor.as_deref() {
            Some(name) => Kind::named(name),
            None => Kind::of(&self.content_type),
        };
        self.data.set(Scalar::RequestBodyLength, bytes.len().to_string());
        if let Some(kind) = kind.filter(|_| !bytes.is_empty()) {
            self.data.set(Scalar::BodyProcessor, kind.name());
            self.take_body(kind, bytes, complete);
        }
        if self.force_body || matches!(kind, Some(Kind::UrlEncoded)) || (kind.is_none() && !bytes.is_empty())
        {
            self.data.set(Scalar::RequestBody, bytes.to_vec());
        }
        if let Some(why) = self.unreadable {
            self.data.flags.body_error = true;
            self.data.flags.body_error_message = why.into();
        }
        // Debian ships no base configuration: what it would refuse is refused here.
        if self.data.flags.body_error && self.engine != EngineMode::Off {
            self.would_block = true;
            self.deciding.get_or_insert(BODY_ERROR_RULE);
            self.matches.push(body_error_match(&self.data.flags.body_error_message));
            if self.engine == EngineMode::On {
                self.blocked = true;
                return Verdict::Block { status: 400, rule: BODY_ERROR_RULE };
            }
        }
        self.run(2)
    }

    fn take_body(&mut self, kind: Kind, bytes: &[u8], complete: bool) {
        let parsed = body::parse(kind, &self.content_type, bytes, complete, self.set.program.json_depth_max);
        let most = self.set.program.arguments_max;
        let into = |data: &mut Data, pairs: Vec<body::Pair>| -> Vec<Item> {
            pairs.into_iter().map(|(name, value)| data.item(name, value)).collect()
        };
        let mut arguments = parsed.arguments;
        if arguments.len() > most {
            // What is not looked at must not pass.
            self.unreadable = Some("too many arguments");
            arguments.truncate(most);
        }
        self.data.args_post = into(&mut self.data, arguments);
        self.data.files = into(&mut self.data, parsed.files);
        self.data.files_sizes = into(&mut self.data, parsed.sizes);
        self.data.part_headers = into(&mut self.data, parsed.part_headers);
        self.data.xml_text = into(&mut self.data, parsed.xml_text);
        self.data.xml_attributes = into(&mut self.data, parsed.xml_attributes);
        self.data.flags = parsed.flags;
    }

    /// Whether answers of this kind are inspected.
    pub fn wants_response_body(&self, content_type: &[u8]) -> bool {
        let kind = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        self.engine != EngineMode::Off
            && self.set.program.mime_types.iter().any(|own| kind.eq_ignore_ascii_case(own.as_bytes()))
    }

    /// Phase 3: the head of the answer.
    pub fn response_head(&mut self, status: u16, protocol: &[u8], headers: &[(Vec<u8>, Vec<u8>)]) -> Verdict {
        self.data.set(Scalar::ResponseStatus, status.to_string());
        self.data.set(Scalar::ResponseProtocol, protocol.to_vec());
        for (name, value) in headers {
            let item = self.data.item(name.clone(), value.clone());
            self.data.response_headers.push(item);
            match name.to_ascii_lowercase().as_slice() {
                b"content-type" => self.data.set(Scalar::ResponseContentType, value.clone()),
                b"content-length" => self.data.set(Scalar::ResponseContentLength, value.clone()),
                _ => {}
            }
        }
        self.run(3)
    }

    /// Phase 4: the body of the answer, as far as it is inspected.
    pub fn response_body(&mut self, bytes: &[u8]) -> Verdict {
        self.data.set(Scalar::ResponseBody, bytes.to_vec());
        self.run(4)
    }

    /// Phase 5, and what it all came to.
    pub fn finish(&mut self) -> Audit {
        let _no_verdict_counts_any_more = self.run(5);
        let score = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| self.tx.get(name.as_bytes()))
                .map(|value| number(value))
                .max()
                .unwrap_or(0)
        };
        let request = [&self.scalar(Scalar::Method)[..], b" ", &self.scalar(Scalar::UriRaw)].concat();
        Audit {
            mode: self.set.settings.mode,
            blocked: self.blocked,
            would_block: self.would_block,
            rule: self.deciding,
            request: shown(&request),
            inbound_score: score(&[
                "anomaly_score",
                "inbound_anomaly_score",
                "blocking_inbound_anomaly_score",
                "detection_inbound_anomaly_score",
            ]),
            outbound_score: score(&[
                "outbound_anomaly_score",
                "blocking_outbound_anomaly_score",
                "detection_outbound_anomaly_score",
            ]),
            marker: self.marker.clone(),
            wanted: self.audit_on && !self.matches.is_empty(),
            matches: self.matches.clone(),
        }
    }

    /// Rules that matched so far and are to be told.
    pub fn matched(&self) -> &[Match] {
        &self.matches
    }
}

/// The engine's own rule: a request that cannot be read whole, or not as what it says it is.
const BODY_ERROR_RULE: u32 = 1;

fn body_error_match(why: &str) -> Match {
    Match {
        id: BODY_ERROR_RULE,
        msg: "The request cannot be read".into(),
        severity: Some("CRITICAL".into()),
        logdata: shown(why.as_bytes()),
        target: "REQUEST_BODY".into(),
        tags: Vec::new(),
        file: "built-in".into(),
        line: 0,
        phase: 2,
    }
}

/// The target without scheme and host, if it has them.
fn without_origin(target: &[u8]) -> &[u8] {
    let lower = target.get(..8).unwrap_or(target).to_ascii_lowercase();
    let skip = if lower.starts_with(b"http://") {
        7
    } else if lower.starts_with(b"https://") {
        8
    } else {
        return target;
    };
    memchr::memchr(b'/', &target[skip..]).map_or(&b"/"[..], |at| &target[skip + at..])
}

/// Percent-decoding alone: in a path a plus is a plus.
fn url_decode_path(path: &[u8]) -> Vec<u8> {
    if !path.contains(&b'+') {
        return url_decode(path, false);
    }
    path.split(|b| *b == b'+').map(|part| url_decode(part, false)).collect::<Vec<_>>().join(&b'+')
}

/// Hashes pairs of small numbers that nobody outside chooses.
#[derive(Default)]
pub struct Mixer(u64);

impl std::hash::Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }
    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(n)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}
