//! One request and its answer.

use crate::{
    Audit, Match, Mode, RuleSet, Settings,
    action::EngineMode,
    audit::shown,
    body::{self, Kind},
    evaluate::State,
    transform::url_decode,
    variable::{Collection, Flag, Scalar},
};
use std::{net::SocketAddr, sync::Arc};

/// Who talks to whom, and when.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client.
    pub client: SocketAddr,
    /// Our end.
    pub server: SocketAddr,
    /// Id of the request.
    pub unique_id: String,
    /// Seconds since 1970.
    pub now: u64,
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
    set: Arc<RuleSet>,
    state: Option<Box<State>>,
    content_type: Vec<u8>,
    /// The content codings of the body, as all fields name them.
    codings: Vec<u8>,
    /// Why not all of the request can be looked at, or not in one way only.
    unreadable: Option<&'static str>,
}

impl Transaction {
    pub(crate) fn new(set: Arc<RuleSet>, connection: &Connection) -> Self {
        let mut state = set.program.borrow();
        state.engine = match set.settings.mode {
            Mode::Off => EngineMode::Off,
            Mode::Detect => EngineMode::DetectionOnly,
            Mode::Block => EngineMode::On,
        };
        state.masked = set.settings.masked;
        state.now = connection.now;
        state.set_scalar(Scalar::RemoteAddr, connection.client.ip().to_string().as_bytes());
        state.set_scalar(Scalar::RemotePort, connection.client.port().to_string().as_bytes());
        state.set_scalar(Scalar::ServerAddr, connection.server.ip().to_string().as_bytes());
        state.set_scalar(Scalar::ServerPort, connection.server.port().to_string().as_bytes());
        state.set_scalar(Scalar::UniqueId, connection.unique_id.as_bytes());
        Self { set, state: Some(state), content_type: Vec::new(), codings: Vec::new(), unreadable: None }
    }

    fn state(&self) -> &State {
        self.state.as_deref().expect("it is given back when the transaction ends")
    }

    fn state_mut(&mut self) -> &mut State {
        self.state.as_deref_mut().expect("it is given back when the transaction ends")
    }

    /// How the rules are run.
    pub fn settings(&self) -> &Settings {
        &self.set.settings
    }

    fn run(&mut self, phase: usize) -> Verdict {
        let set = self.set.clone();
        self.state_mut().run(&set.program.program, &set.settings, phase)
    }

    /// Phase 1: the head, exactly as it was sent.
    pub fn request_head<'h>(
        &mut self,
        method: &[u8],
        target: &[u8],
        protocol: &[u8],
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Verdict {
        if self.state().engine == EngineMode::Off {
            return Verdict::Pass;
        }
        self.head(method, target, protocol);
        self.exclude();
        for (name, value) in headers {
            self.state_mut().add(Collection::RequestHeaders, name, value);
            self.header(name, value);
        }
        if let Some(kind) = Kind::of(&self.content_type) {
            self.state_mut().set_scalar(Scalar::BodyProcessor, kind.name().as_bytes());
        }
        let set = self.set.clone();
        self.state_mut().preset(&set.program.program, &set.settings);
        self.run(1)
    }

    fn head(&mut self, method: &[u8], target: &[u8], protocol: &[u8]) {
        let path = without_origin(target);
        let (file, query) = match memchr::memchr(b'?', path) {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (path, &b""[..]),
        };
        let mut filename = Vec::with_capacity(file.len());
        url_decode_path(file, &mut filename);
        let base = filename.rsplit(|b| matches!(b, b'/' | b'\\')).next().unwrap_or_default();
        let set = self.set.clone();
        let program = &set.program.program;
        let state = self.state_mut();
        state.set_scalar(Scalar::Method, method);
        state.set_scalar(Scalar::UriRaw, target);
        state.set_scalar(Scalar::Uri, path);
        let line = [method, b" ", target, b" ", protocol].concat();
        state.set_scalar(Scalar::Line, if protocol.is_empty() { line.trim_ascii_end() } else { &line });
        state.set_scalar(Scalar::Protocol, protocol);
        state.set_scalar(Scalar::Basename, base);
        state.set_scalar(Scalar::Filename, &filename);
        state.set_scalar(Scalar::Query, query);
        let (separator, most) = (program.argument_separator, program.arguments_max);
        let outcome = body::urlencoded::parse(query, separator, most, &mut |name, value| {
            state.add(Collection::ArgsGet, name, value);
        });
        if outcome.is_invalid {
            state.data.raise(Flag::UrlEncoded);
        }
        if outcome.is_cut {
            self.unreadable = Some("too many arguments");
        }
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        if is("cookie") {
            self.cookies(value);
        } else if is("content-type") {
            self.take_content_type(value);
        } else if is("content-encoding") {
            self.codings.extend_from_slice(value);
            self.codings.push(b',');
        } else if is("host") {
            let host = match value.first() {
                Some(b'[') => value.split_inclusive(|b| *b == b']').next().unwrap_or_default(),
                _ => value.split(|b| *b == b':').next().unwrap_or_default(),
            };
            self.state_mut().set_scalar(Scalar::ServerName, host);
        } else if is("authorization") {
            self.authorization(value);
        }
    }

    fn cookies(&mut self, line: &[u8]) {
        let most = self.set.program.program.arguments_max;
        for pair in line.split(|b| *b == b';') {
            let pair = pair.trim_ascii();
            if pair.is_empty() {
                continue;
            }
            if self.state().data.of(Collection::Cookies).len() >= most {
                self.unreadable = Some("too many cookies");
                return;
            }
            let (name, value) = match memchr::memchr(b'=', pair) {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &b""[..]),
            };
            self.state_mut().add(Collection::Cookies, name, value);
        }
    }

    /// The kind of a credential, and of the Basic kind the name in it.
    fn authorization(&mut self, value: &[u8]) {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let value = value.trim_ascii();
        let (kind, rest) = value.split_at(value.iter().position(|b| *b == b' ').unwrap_or(value.len()));
        self.state_mut().set_scalar(Scalar::AuthType, kind);
        if kind.eq_ignore_ascii_case(b"basic") {
            let decoded = BASE64_STANDARD.decode(rest.trim_ascii()).unwrap_or_default();
            if let Some(user) = decoded.split(|b| *b == b':').next() {
                self.state_mut().set_scalar(Scalar::RemoteUser, user);
            }
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
            let state = self.state_mut();
            if let Some(ctl) = exclusion.ctl_for(state.scalar(Scalar::Filename)) {
                state.control(&set.program.program, ctl);
            }
        }
    }

    /// Phase 2: the body as it was sent, as far as it is inspected; `complete` when that is all of it. Content
    /// codings are undone first.
    pub fn request_body(&mut self, bytes: &[u8], complete: bool) -> Verdict {
        if self.state().engine == EngineMode::Off {
            return Verdict::Pass;
        }
        let decoded = self.decoded(bytes, complete);
        let bytes = decoded.as_deref().unwrap_or(bytes);
        let state = self.state_mut();
        let named = state.body_processor.as_deref().and_then(Kind::named);
        let reads = state.request_body_access && !bytes.is_empty();
        let kind = named.or_else(|| Kind::of(&self.content_type));
        self.state_mut().set_scalar(Scalar::RequestBodyLength, bytes.len().to_string().as_bytes());
        if reads {
            if !complete {
                self.state_mut().data.raise(Flag::InboundData);
            }
            if let Some(kind) = kind {
                self.state_mut().set_scalar(Scalar::BodyProcessor, kind.name().as_bytes());
                self.take_body(kind, bytes, complete);
            }
            if self.state().force_body || matches!(kind, Some(Kind::UrlEncoded) | None) {
                self.state_mut().set_scalar(Scalar::RequestBody, bytes);
            }
        }
        if let Some(why) = self.unreadable {
            self.state_mut().fail_body(why);
        }
        // Debian ships no base configuration: what it would refuse is refused here.
        if self.state().data.flag(Flag::BodyError) {
            let why = shown(self.state().scalar(Scalar::BodyErrorMessage));
            let verdict = self.object(&why, "REQUEST_BODY", 2);
            if verdict != Verdict::Pass {
                return verdict;
            }
        }
        self.run(2)
    }

    /// The body without its content codings, if it has any that can be undone.
    fn decoded(&mut self, bytes: &[u8], complete: bool) -> Option<Vec<u8>> {
        if self.codings.is_empty() || bytes.is_empty() {
            return None;
        }
        let most = self.set.settings.request_body_bytes_max;
        match body::coding::undo(&self.codings, bytes, most) {
            Ok(None) => None,
            Ok(_) if !complete => {
                self.unreadable = Some("a body with a content coding that is too large");
                None
            }
            Ok(decoded) => decoded,
            Err(why) => {
                self.unreadable = Some(why);
                None
            }
        }
    }

    /// Refuses what cannot be inspected as the policy wants it: the engine's own rule, told like any other.
    pub fn object(&mut self, why: &str, target: &'static str, phase: usize) -> Verdict {
        let state = self.state_mut();
        if state.engine == EngineMode::Off {
            return Verdict::Pass;
        }
        state.would_block = true;
        state.deciding.get_or_insert(BODY_ERROR_RULE);
        state.matches.push(body_error_match(why, target, phase));
        if state.engine != EngineMode::On {
            return Verdict::Pass;
        }
        state.blocked = true;
        Verdict::Block { status: 400, rule: BODY_ERROR_RULE }
    }

    fn take_body(&mut self, kind: Kind, bytes: &[u8], complete: bool) {
        let set = self.set.clone();
        let program = &set.program.program;
        let limits = body::Limits {
            separator: program.argument_separator,
            arguments_max: program.arguments_max,
            json_depth_max: program.json_depth_max,
            keep_files: program.reads_files,
        };
        let content_type = std::mem::take(&mut self.content_type);
        let state = self.state_mut();
        for collection in [
            Collection::ArgsPost,
            Collection::Files,
            Collection::FilesSizes,
            Collection::FilesContent,
            Collection::PartHeaders,
            Collection::XmlText,
            Collection::XmlAttributes,
        ] {
            state.data.forget(collection);
        }
        body::parse(kind, &content_type, bytes, complete, &limits, state);
        self.content_type = content_type;
    }

    /// Whether answers of this kind are inspected.
    pub fn wants_response_body(&self, content_type: &[u8]) -> bool {
        let state = self.state();
        let kind = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let kinds = &self.set.program.program.mime_types;
        state.engine != EngineMode::Off
            && state.response_body_access
            && kinds.iter().any(|own| kind.eq_ignore_ascii_case(own.as_bytes()))
    }

    /// Phase 3: the head of the answer.
    pub fn response_head<'h>(
        &mut self,
        status: u16,
        protocol: &[u8],
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Verdict {
        let state = self.state_mut();
        if state.engine == EngineMode::Off {
            return Verdict::Pass;
        }
        state.set_scalar(Scalar::ResponseStatus, status.to_string().as_bytes());
        state.set_scalar(Scalar::ResponseProtocol, protocol);
        for (name, value) in headers {
            state.add(Collection::ResponseHeaders, name, value);
            if name.eq_ignore_ascii_case(b"content-type") {
                state.set_scalar(Scalar::ResponseContentType, value);
            } else if name.eq_ignore_ascii_case(b"content-length") {
                state.set_scalar(Scalar::ResponseContentLength, value);
            }
        }
        self.run(3)
    }

    /// Phase 4: the body of the answer, as far as it is inspected.
    pub fn response_body(&mut self, bytes: &[u8], complete: bool) -> Verdict {
        let state = self.state_mut();
        if state.engine == EngineMode::Off {
            return Verdict::Pass;
        }
        state.set_scalar(Scalar::ResponseBody, bytes);
        if !complete {
            state.data.raise(Flag::OutboundData);
        }
        self.run(4)
    }

    /// Phase 5, and what it all came to.
    pub fn finish(&mut self) -> Audit {
        let _no_verdict_counts_any_more = self.run(5);
        let set = self.set.clone();
        let preset = &set.program.program.preset;
        let state = self.state_mut();
        let score =
            |slots: &[crate::tx::Slot]| slots.iter().map(|slot| state.tx.number(*slot)).max().unwrap_or(0);
        let (inbound_score, outbound_score) = (score(&preset.inbound), score(&preset.outbound));
        let request = [state.scalar(Scalar::Method), b" ", state.scalar(Scalar::UriRaw)].concat();
        let matches = std::mem::take(&mut state.matches);
        Audit {
            mode: set.settings.mode,
            blocked: state.blocked,
            would_block: state.would_block,
            rule: state.deciding,
            request: shown(&request),
            inbound_score,
            outbound_score,
            wanted: state.audit_on && !matches.is_empty(),
            matches,
        }
    }

    /// Whether the request is refused, or would be in mode `block`.
    pub fn would_block(&self) -> bool {
        self.state().would_block
    }

    /// Rules that matched so far and are to be told.
    pub fn matched(&self) -> &[Match] {
        &self.state().matches
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            self.set.program.give_back(state);
        }
    }
}

/// The engine's own rule: a request that cannot be read whole, or not as what it says it is.
const BODY_ERROR_RULE: u32 = 1;

fn body_error_match(why: &str, target: &str, phase: usize) -> Match {
    let what = if phase == 2 { "The request cannot be read" } else { "The answer cannot be read" };
    Match {
        id: BODY_ERROR_RULE,
        msg: what.into(),
        severity: Some("CRITICAL".into()),
        logdata: why.into(),
        target: target.into(),
        tags: Vec::new(),
        file: "built-in".into(),
        line: 0,
        phase,
    }
}

/// The target without scheme and host, if it has them.
fn without_origin(target: &[u8]) -> &[u8] {
    let begins = |begin: &[u8]| target.get(..begin.len()).is_some_and(|own| own.eq_ignore_ascii_case(begin));
    let skip = if begins(b"http://") {
        7
    } else if begins(b"https://") {
        8
    } else {
        return target;
    };
    memchr::memchr(b'/', &target[skip..]).map_or(&b"/"[..], |at| &target[skip + at..])
}

/// Percent-decoding alone: in a path a plus is a plus.
fn url_decode_path(path: &[u8], out: &mut Vec<u8>) {
    for (n, part) in path.split(|b| *b == b'+').enumerate() {
        if n > 0 {
            out.push(b'+');
        }
        url_decode(part, false, out);
    }
}
