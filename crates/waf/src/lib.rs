//! The WAF engine: SecLang rules in, verdicts out.
//!
//! Rules are compiled once into flat lists per phase; a [`Transaction`] runs them over one request and its
//! answer. The engine does no I/O and knows no HTTP server: the shell reads files and hands bytes in.
//! Values stay bytes from end to end. What a rule asks for and the engine does not have is a load error
//! that names file, line and feature; nothing is skipped silently.

mod action;
mod audit;
mod body;
mod compile;
mod data;
mod error;
mod evaluate;
mod exclusion;
mod filter;
mod injection;
mod operator;
mod pattern;
mod pool;
mod rule;
mod seclang;
mod text;
mod transaction;
mod transform;
mod tx;
mod value;
mod variable;

pub use audit::{Audit, Match};
pub use error::LoadError;
pub use exclusion::Exclusion;
pub use transaction::{Connection, Transaction, Verdict};

use std::sync::Arc;

/// One rules file, named for error messages. The shell reads files; the engine receives bytes.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its path.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Where includes and data files are looked up; implemented by the shell.
pub trait Files {
    /// Reads `path`, named in the file `from`.
    fn read(&self, from: &str, path: &str) -> Result<Vec<u8>, String>;
    /// Paths that `glob`, named in the file `from`, stands for, in order.
    fn expand(&self, from: &str, glob: &str) -> Result<Vec<String>, String>;
}

/// Engine mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing is inspected.
    Off,
    /// Inspected and told; never refused.
    Detect,
    /// Inspected, told and refused.
    Block,
}

/// How a set of rules is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Mode.
    pub mode: Mode,
    /// Paranoia level, 1 to 4.
    pub paranoia: u8,
    /// `tx` variables, set after the rules' own set-up.
    pub variables: Vec<(String, String)>,
    /// Bytes of a request body that are inspected.
    pub request_body_bytes_max: usize,
    /// Bytes of a response body that are inspected.
    pub response_body_bytes_max: usize,
    /// What is left out.
    pub exclusions: Vec<Exclusion>,
    /// Whether what is told leaves out the values of the request.
    pub masked: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Block,
            paranoia: 1,
            variables: Vec::new(),
            request_body_bytes_max: 128 * 1024,
            response_body_bytes_max: 512 * 1024,
            exclusions: Vec::new(),
            masked: false,
        }
    }
}

/// A compiled set of rules. Immutable; shared by all transactions.
pub struct RuleSet {
    pub(crate) program: Arc<pool::Pool>,
    pub(crate) settings: Settings,
    pub(crate) exclusions: Vec<exclusion::Applied>,
}

impl RuleSet {
    /// Compiles rules.
    ///
    /// # Errors
    /// [`LoadError`] for the first thing that cannot be loaded, and when there are no rules at all.
    pub fn compile(sources: &[Source], files: &dyn Files, settings: &Settings) -> Result<Self, LoadError> {
        Self::of(Arc::new(pool::Pool::new(compile::compile(sources, files)?)), settings)
    }

    /// The same rules under other settings. They share one program: what this costs is the settings.
    ///
    /// # Errors
    /// [`LoadError`] when an exclusion is none, or would leave out the rules that add up scores and decide.
    pub fn with(&self, settings: &Settings) -> Result<Self, LoadError> {
        Self::of(self.program.clone(), settings)
    }

    fn of(program: Arc<pool::Pool>, settings: &Settings) -> Result<Self, LoadError> {
        let numbered = (1..).zip(&settings.exclusions);
        let exclusions =
            numbered.map(|(number, one)| exclusion::Applied::compile(one, number, &program.program));
        let exclusions = exclusions.collect::<Result<_, _>>()?;
        Ok(Self { program, settings: settings.clone(), exclusions })
    }

    /// Begins a transaction.
    pub fn begin(self: &Arc<Self>, connection: Connection) -> Transaction {
        Transaction::new(self.clone(), &connection)
    }

    /// Rules, by id, that match a value although their filter says that they cannot: for tests, there is none.
    #[doc(hidden)]
    pub fn mistaken_filters(&self, value: &[u8]) -> Vec<u32> {
        let summary = value::Summary::of(value);
        let rules = self.program.program.links();
        let mistaken = rules.filter(|rule| {
            rule.test.as_ref().is_some_and(|test| {
                let says_no = !test.filter.may_match(&summary)
                    || !test.filter.may_match_any(&summary.bytes, summary.len);
                // Of an argument with macros nothing is known here.
                let argument = test.operator.argument().map_or(Some(&b""[..]), text::Text::plain);
                says_no
                    && argument.is_some_and(|argument| {
                        test.operator.matches(value, argument, false) != operator::Found::No
                    })
            })
        });
        mistaken.map(|rule| rule.id).collect()
    }

    /// Number of rules.
    pub fn rules(&self) -> usize {
        self.program.program.rules
    }

    /// What was loaded but does nothing here, and why.
    pub fn warnings(&self) -> &[String] {
        &self.program.program.warnings
    }

    /// How it is run.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Reads bytes as rules without compiling them, for fuzzing.
#[doc(hidden)]
pub fn parse_only(bytes: &[u8]) -> bool {
    seclang::parse("fuzz", bytes).is_ok()
}

/// Runs every transformation over a value, for fuzzing: none may change a value that it says it leaves.
#[doc(hidden)]
pub fn transform_all(value: &[u8]) {
    let summary = value::Summary::of(value);
    for transform in transform::Transform::ALL {
        let chain = transform::Chain::after(&transform::Chain::ROOT, 0, *transform);
        let changed = transform.of(value) != value;
        assert!(!(changed && chain.is_identity_on(&summary)), "{transform:?}");
    }
}

/// Runs the body parsers over bytes, and the content codings that `content_type` names, for fuzzing.
#[doc(hidden)]
pub fn parse_bodies(content_type: &[u8], bytes: &[u8]) {
    let limits = body::Limits { separator: b'&', arguments_max: 1000, json_depth_max: 64, keep_files: true };
    let mut state = evaluate::State::default();
    for kind in [body::Kind::UrlEncoded, body::Kind::Multipart, body::Kind::Json, body::Kind::Xml] {
        body::parse(kind, content_type, bytes, true, &limits, &mut state);
        body::parse(kind, content_type, bytes, false, &limits, &mut state);
    }
    let _refused_or_not = body::coding::undo(content_type, bytes, 64 * 1024);
}

/// A value that a pattern matches, as far as look-around and anchors let it, for tests.
#[doc(hidden)]
pub fn sample(pattern: &[u8], choose: &mut dyn FnMut(usize) -> usize) -> Option<Vec<u8>> {
    pattern::sample::sample(pattern, choose)
}

/// The verdicts of the injection operators, for comparison with the C library: the fingerprint of SQL,
/// and whether it is a script.
#[doc(hidden)]
pub fn injections(value: &[u8]) -> (Option<Vec<u8>>, bool) {
    (injection::sqli(value), injection::xss(value))
}
