//! What the security office decides about the WAF: layers from the office down to one app, and the policy
//! that they come to.
//!
//! The office decides; every level below may only tighten what it inherits. Exclusions and variables take
//! something away from the rules: below the office they count only as far as the office lets them.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Most exclusions of one layer.
const EXCLUSIONS_MAX: usize = 200;
/// Most variables of one layer.
const VARIABLES_MAX: usize = 100;
/// Longest text of an exclusion or a variable, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Most bytes of a body that a policy may ask to inspect.
const BODY_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// Largest threshold: a score that no request reaches would be mode `detect` by another name.
const THRESHOLD_MAX: u32 = 1000;

/// Engine mode; later is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum WafMode {
    /// No inspection.
    Off,
    /// Inspect and log.
    Detect,
    /// Inspect, log and refuse.
    Block,
}

/// What becomes of a body that is longer than what is inspected; later is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Beyond {
    /// Its beginning is inspected; the log says so.
    Prefix,
    /// It is refused.
    Refuse,
}

/// How much of a body is inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BodyLimit {
    /// Bytes.
    pub bytes_max: u32,
    /// What becomes of the rest.
    pub beyond: Beyond,
}

/// The policy of a set of sites: all levels together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WafPolicy {
    /// Whether verdicts are enforced.
    pub mode: WafMode,
    /// Paranoia level up to which rules count, 1 to 4.
    pub paranoia: u8,
    /// Paranoia level up to which rules are run and told; not below `paranoia`.
    pub paranoia_detection: u8,
    /// Score of a request at which it is refused.
    pub inbound_threshold: u32,
    /// Score of an answer at which it is refused.
    pub outbound_threshold: u32,
    /// Bodies of requests.
    pub request_body: BodyLimit,
    /// Bodies of answers.
    pub response_body: BodyLimit,
    /// `tx` variables, set after the rules' own set-up.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// What is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclusions: Vec<WafExclusion>,
}

impl Default for WafPolicy {
    fn default() -> Self {
        Self {
            mode: WafMode::Block,
            paranoia: 1,
            paranoia_detection: 1,
            inbound_threshold: 5,
            outbound_threshold: 4,
            request_body: BodyLimit { bytes_max: 128 * 1024, beyond: Beyond::Prefix },
            response_body: BodyLimit { bytes_max: 512 * 1024, beyond: Beyond::Prefix },
            variables: BTreeMap::new(),
            exclusions: Vec::new(),
        }
    }
}

/// What one level says. What it does not say it inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WafLayer {
    /// Engine mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<WafMode>,
    /// Paranoia level up to which rules count, 1 to 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paranoia: Option<u8>,
    /// Paranoia level up to which rules are run and told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paranoia_detection: Option<u8>,
    /// Score of a request at which it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound_threshold: Option<u32>,
    /// Score of an answer at which it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_threshold: Option<u32>,
    /// Bodies of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<BodyLimit>,
    /// Bodies of answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_body: Option<BodyLimit>,
    /// `tx` variables; the office's alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// What is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclusions: Vec<WafExclusion>,
    /// Which exclusions customers may add for their own sites; said by the office at the top, and only there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<serde_json::Value>))]
    pub allow_exclusions: Option<AllowExclusions>,
}

/// Which exclusions customers may add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllowExclusions {
    /// None.
    #[default]
    None,
    /// Of these rules: ids or ranges of ids.
    Listed(Vec<WafRules>),
    /// Any that do not switch the scoring off.
    Any,
}

/// Who wrote a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerBy {
    /// The office: its exclusions and variables always count.
    Office,
    /// A customer, for sites of its own.
    Customer,
}

/// Something left out: rules, for one target or for all, on one path or on all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WafExclusion {
    /// Which rules.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub rules: WafRules,
    /// One target, such as `ARGS:comment`; the whole rules when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// A path, or with `*` at its end the beginning of paths; every path when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Rules: `942100`, `942100-942199`, `tag:attack-sqli` or `msg:` and a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WafRules {
    /// From one id to another.
    Ids(u32, u32),
    /// All that carry this tag.
    Tag(String),
    /// All with this message.
    Message(String),
}

/// A layer that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WafFault {
    /// It makes no sense anywhere.
    #[error("{0}")]
    Invalid(String),
    /// It would loosen what the level above says.
    #[error("{0}")]
    Loosens(String),
    /// The exclusion would switch the scoring off, and with it the WAF.
    #[error("the exclusion `{0}` would switch off the rules that add up scores and decide")]
    Scoring(String),
}

impl WafLayer {
    /// Whether the layer makes sense at all.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), WafFault> {
        let invalid = |why: &str| Err(WafFault::Invalid(why.to_owned()));
        let level = |level: Option<u8>| level.is_none_or(|level| (1..=4).contains(&level));
        if !level(self.paranoia) || !level(self.paranoia_detection) {
            return invalid("a paranoia level is 1 to 4");
        }
        let threshold = |score: Option<u32>| score.is_none_or(|score| (1..=THRESHOLD_MAX).contains(&score));
        if !threshold(self.inbound_threshold) || !threshold(self.outbound_threshold) {
            return invalid("a threshold is 1 to 1000");
        }
        let bodies = [self.request_body, self.response_body];
        if bodies.iter().flatten().any(|body| !(1024..=BODY_BYTES_MAX).contains(&body.bytes_max)) {
            return invalid("1024 to 8388608 bytes of a body can be inspected");
        }
        if self.exclusions.len() > EXCLUSIONS_MAX || self.variables.len() > VARIABLES_MAX {
            return invalid("a level has at most 200 exclusions and 100 variables");
        }
        self.variables.iter().try_for_each(|(name, value)| check_variable(name, value))?;
        self.exclusions.iter().try_for_each(WafExclusion::check)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn check_variable(name: &str, value: &str) -> Result<(), WafFault> {
    let invalid = |why: String| Err(WafFault::Invalid(why));
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > 100 || !name.bytes().all(is_name) {
        return invalid(format!("`{name}` is no variable: write it in lower case, without `tx.`"));
    }
    if value.len() > TEXT_BYTES_MAX {
        return invalid(format!("the value of `{name}` is longer than {TEXT_BYTES_MAX} bytes"));
    }
    let owned = name.ends_with("paranoia_level")
        || name.ends_with("anomaly_score_threshold")
        || name.contains("anomaly_score_pl");
    if owned || name.bytes().all(|b| b.is_ascii_digit()) {
        return invalid(format!("`{name}` belongs to the policy or the rules: set level and thresholds"));
    }
    Ok(())
}

impl WafPolicy {
    /// What the office says, upon the defaults of the installation.
    #[must_use]
    pub fn decided(mut self, office: &WafLayer) -> Self {
        let layer = office;
        self.mode = layer.mode.unwrap_or(self.mode);
        self.paranoia = layer.paranoia.unwrap_or(self.paranoia);
        let detection = layer.paranoia_detection.unwrap_or(self.paranoia_detection);
        self.paranoia_detection = detection.max(self.paranoia);
        self.inbound_threshold = layer.inbound_threshold.unwrap_or(self.inbound_threshold);
        self.outbound_threshold = layer.outbound_threshold.unwrap_or(self.outbound_threshold);
        self.request_body = layer.request_body.unwrap_or(self.request_body);
        self.response_body = layer.response_body.unwrap_or(self.response_body);
        self.take_away(layer, |_| true);
        self
    }

    /// The same, tightened by a layer. What would loosen it has no effect, so that a level below follows
    /// when one above is tightened later.
    #[must_use]
    pub fn tightened(mut self, layer: &WafLayer, by: LayerBy, allowed: &AllowExclusions) -> Self {
        self.mode = self.mode.max(layer.mode.unwrap_or(self.mode));
        self.paranoia = self.paranoia.max(layer.paranoia.unwrap_or(0));
        let detection = layer.paranoia_detection.unwrap_or(0);
        self.paranoia_detection = self.paranoia_detection.max(detection).max(self.paranoia);
        self.inbound_threshold = self.inbound_threshold.min(layer.inbound_threshold.unwrap_or(u32::MAX));
        self.outbound_threshold = self.outbound_threshold.min(layer.outbound_threshold.unwrap_or(u32::MAX));
        self.request_body = layer.request_body.map_or(self.request_body, |own| self.request_body.and(own));
        self.response_body =
            layer.response_body.map_or(self.response_body, |own| self.response_body.and(own));
        match by {
            LayerBy::Office => self.take_away(layer, |_| true),
            LayerBy::Customer => {
                let none = WafLayer { variables: BTreeMap::new(), ..layer.clone() };
                self.take_away(&none, |exclusion| allowed.allows(exclusion));
            }
        }
        self
    }

    fn take_away(&mut self, layer: &WafLayer, counts: impl Fn(&WafExclusion) -> bool) {
        self.variables.extend(layer.variables.clone());
        for exclusion in layer.exclusions.iter().filter(|exclusion| counts(exclusion)) {
            if !self.exclusions.contains(exclusion) {
                self.exclusions.push(exclusion.clone());
            }
        }
    }

    /// Refuses a layer below the office that would loosen this policy, with the reason.
    ///
    /// # Errors
    /// What would be loosened.
    pub fn admits(&self, layer: &WafLayer, by: LayerBy, allowed: &AllowExclusions) -> Result<(), WafFault> {
        let loosens = |what: String| Err(WafFault::Loosens(what));
        if layer.allow_exclusions.is_some() {
            return loosens("which exclusions are allowed is said at the top".into());
        }
        if layer.mode.is_some_and(|mode| mode < self.mode) {
            return loosens(format!("the mode is {} above", self.mode));
        }
        if layer.paranoia.is_some_and(|level| level < self.paranoia)
            || layer.paranoia_detection.is_some_and(|level| level < self.paranoia_detection)
        {
            return loosens(format!(
                "the paranoia level is {}, for detection {}, above",
                self.paranoia, self.paranoia_detection
            ));
        }
        if layer.inbound_threshold.is_some_and(|score| score > self.inbound_threshold)
            || layer.outbound_threshold.is_some_and(|score| score > self.outbound_threshold)
        {
            return loosens(format!(
                "the thresholds are {} inbound and {} outbound above",
                self.inbound_threshold, self.outbound_threshold
            ));
        }
        let bodies = [(self.request_body, layer.request_body), (self.response_body, layer.response_body)];
        for (own, asked) in bodies {
            if asked.is_some_and(|asked| own.and(asked) != asked) {
                return loosens(format!(
                    "{} bytes of the body are inspected above, and longer ones are {}",
                    own.bytes_max,
                    if own.beyond == Beyond::Refuse { "refused" } else { "inspected in part" }
                ));
            }
        }
        if by == LayerBy::Customer {
            if !layer.variables.is_empty() {
                return loosens("variables are set by the office alone".into());
            }
            if let Some(not) = layer.exclusions.iter().find(|exclusion| !allowed.allows(exclusion)) {
                return loosens(format!("the office does not allow the exclusion `{not}`"));
            }
        }
        Ok(())
    }
}

impl BodyLimit {
    /// The stricter of both: where all that passes has been inspected whole, the size is free; where only
    /// the beginning is, it may only grow.
    fn and(self, other: Self) -> Self {
        let beyond = self.beyond.max(other.beyond);
        let bytes_max = match (beyond, other.beyond) {
            (Beyond::Refuse, Beyond::Refuse) => other.bytes_max,
            (Beyond::Refuse, Beyond::Prefix) => self.bytes_max,
            (Beyond::Prefix, _) => self.bytes_max.max(other.bytes_max),
        };
        Self { bytes_max, beyond }
    }
}

impl AllowExclusions {
    fn allows(&self, exclusion: &WafExclusion) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::Listed(list) => match exclusion.rules {
                WafRules::Ids(from, to) => list.iter().any(|listed| match listed {
                    WafRules::Ids(first, last) => *first <= from && to <= *last,
                    WafRules::Tag(_) | WafRules::Message(_) => false,
                }),
                WafRules::Tag(_) | WafRules::Message(_) => list.contains(&exclusion.rules),
            },
        }
    }
}

impl WafExclusion {
    /// Whether it makes sense, and leaves the scoring alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), WafFault> {
        let invalid = |why: String| Err(WafFault::Invalid(why));
        let texts = [self.target.as_deref(), self.path.as_deref()];
        let is_text = |text: &&str| {
            !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.contains(|c: char| c.is_control())
        };
        if !texts.iter().flatten().all(is_text) {
            return invalid(format!("target and path of `{self}` are texts of at most 1024 bytes"));
        }
        if self.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return invalid(format!("the path of `{self}` begins with `/`"));
        }
        if let Some(target) = &self.target {
            let (variable, key) = target.split_once(':').map_or((&target[..], None), |(v, k)| (v, Some(k)));
            let is_variable = |b: u8| b.is_ascii_uppercase() || b == b'_';
            if variable.is_empty() || !variable.bytes().all(is_variable) || key.is_some_and(str::is_empty) {
                return invalid(format!("`{target}` is no target: write one such as ARGS:comment"));
            }
        }
        if self.switches_scoring_off() {
            return Err(WafFault::Scoring(self.to_string()));
        }
        Ok(())
    }

    /// Rules that set scores up, add them up and decide have ids and tags of their own in CRS; and the
    /// engine's own rule refuses what cannot be read. Edges look at their rules once more.
    fn switches_scoring_off(&self) -> bool {
        const SCORING: [(u32, u32); 5] =
            [(0, 999), (901_000, 901_999), (949_000, 949_999), (959_000, 959_999), (980_000, 980_999)];
        let is_tx = self.target.as_deref().is_some_and(|target| target == "TX" || target.starts_with("TX:"));
        match &self.rules {
            WafRules::Ids(from, to) => SCORING.iter().any(|(first, last)| from <= last && first <= to),
            WafRules::Tag(tag) => {
                let whole = self.target.is_none() || is_tx;
                let tag = tag.to_ascii_lowercase();
                let everywhere = ["owasp_crs", "anomaly-evaluation", "attack-generic"];
                let general = ["application-multi", "language-multi", "platform-multi", "paranoia-level/1"];
                whole && (everywhere.contains(&&*tag) || general.contains(&&*tag))
            }
            WafRules::Message(message) => message.to_ascii_lowercase().contains("anomaly score"),
        }
    }
}

impl fmt::Display for WafExclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rules)?;
        if let Some(target) = &self.target {
            write!(f, " {target}")?;
        }
        if let Some(path) = &self.path {
            write!(f, " {path}")?;
        }
        Ok(())
    }
}

/// Reads what [`fmt::Display`] writes, but for messages: a text that begins with `msg:` is a message to its end.
impl FromStr for WafExclusion {
    type Err = WafFault;

    fn from_str(text: &str) -> Result<Self, WafFault> {
        let text = text.trim();
        if text.starts_with("msg:") {
            return Ok(Self { rules: text.parse()?, target: None, path: None });
        }
        let mut words = text.split_whitespace().peekable();
        let rules = words.next().unwrap_or_default().parse()?;
        let target = words.next_if(|word| !word.starts_with('/')).map(str::to_owned);
        let path = words.next().map(str::to_owned);
        if words.next().is_some() {
            let why = format!(
                "`{text}` is no exclusion: write RULES, then a TARGET and a /PATH if not all are meant"
            );
            return Err(WafFault::Invalid(why));
        }
        let exclusion = Self { rules, target, path };
        exclusion.check()?;
        Ok(exclusion)
    }
}

impl fmt::Display for WafMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Detect => "detect",
            Self::Block => "block",
        })
    }
}

impl fmt::Display for WafRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids(from, to) if from == to => write!(f, "{from}"),
            Self::Ids(from, to) => write!(f, "{from}-{to}"),
            Self::Tag(tag) => write!(f, "tag:{tag}"),
            Self::Message(message) => write!(f, "msg:{message}"),
        }
    }
}

impl FromStr for WafRules {
    type Err = WafFault;

    fn from_str(text: &str) -> Result<Self, WafFault> {
        let wrong = || {
            let shown: String = text.chars().take(80).collect();
            WafFault::Invalid(format!("`{shown}` are no rules: write 942100, 942100-942199, tag:… or msg:…"))
        };
        let named = |name: &str| {
            let fits =
                !name.is_empty() && name.len() <= TEXT_BYTES_MAX && !name.contains(|c: char| c.is_control());
            if fits { Ok(name.to_owned()) } else { Err(wrong()) }
        };
        if let Some(tag) = text.strip_prefix("tag:") {
            return named(tag).map(Self::Tag);
        }
        if let Some(message) = text.strip_prefix("msg:") {
            return named(message).map(Self::Message);
        }
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let id = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<u32>().map_err(|_| wrong()) } else { Err(wrong()) }
        };
        let (from, to) = (id(from)?, id(to)?);
        if from > to { Err(wrong()) } else { Ok(Self::Ids(from, to)) }
    }
}

impl TryFrom<String> for WafRules {
    type Error = WafFault;
    fn try_from(text: String) -> Result<Self, WafFault> {
        text.parse()
    }
}

impl From<WafRules> for String {
    fn from(rules: WafRules) -> String {
        rules.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layer(json: &str) -> WafLayer {
        serde_json::from_str(json).unwrap()
    }

    fn exclusion(rules: &str, target: Option<&str>) -> WafExclusion {
        WafExclusion { rules: rules.parse().unwrap(), target: target.map(str::to_owned), path: None }
    }

    #[test]
    fn the_office_decides_and_levels_below_only_tighten() {
        let office = WafPolicy::default().decided(&layer(r#"{"mode":"detect","inbound_threshold":10}"#));
        assert_eq!((office.mode, office.inbound_threshold), (WafMode::Detect, 10));
        let (none, customer) = (AllowExclusions::None, LayerBy::Customer);
        let strict = layer(r#"{"mode":"block","paranoia":2,"inbound_threshold":5}"#);
        office.admits(&strict, customer, &none).unwrap();
        let stage = office.clone().tightened(&strict, customer, &none);
        assert_eq!((stage.mode, stage.paranoia, stage.paranoia_detection), (WafMode::Block, 2, 2));
        for loose in [
            r#"{"mode":"off"}"#,
            r#"{"mode":"detect"}"#,
            r#"{"paranoia":1}"#,
            r#"{"paranoia_detection":1}"#,
            r#"{"inbound_threshold":6}"#,
            r#"{"outbound_threshold":5}"#,
            r#"{"request_body":{"bytes_max":2048,"beyond":"prefix"}}"#,
            r#"{"variables":{"x":"1"}}"#,
            r#"{"exclusions":[{"rules":"942100"}]}"#,
            r#"{"allow_exclusions":"any"}"#,
        ] {
            let loose = layer(loose);
            assert!(stage.admits(&loose, customer, &none).is_err(), "{loose:?}");
            assert_eq!(stage.clone().tightened(&loose, customer, &none), stage, "{loose:?}");
        }
    }

    #[test]
    fn exclusions_of_customers_count_as_far_as_the_office_allows() {
        let policy = WafPolicy::default();
        let own = layer(r#"{"exclusions":[{"rules":"942100","target":"ARGS:q"},{"rules":"930100"}]}"#);
        let counted = |allowed: &AllowExclusions| {
            let made = policy.clone().tightened(&own, LayerBy::Customer, allowed);
            made.exclusions.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(counted(&AllowExclusions::None).is_empty());
        let listed = AllowExclusions::Listed(vec!["942000-942999".parse().unwrap()]);
        assert_eq!(counted(&listed), ["942100 ARGS:q"]);
        assert_eq!(counted(&AllowExclusions::Any).len(), 2);
        assert!(policy.admits(&own, LayerBy::Customer, &listed).is_err());
        policy.admits(&own, LayerBy::Customer, &AllowExclusions::Any).unwrap();
        assert_eq!(
            policy.clone().tightened(&own, LayerBy::Office, &AllowExclusions::None).exclusions.len(),
            2
        );
    }

    #[test]
    fn an_exclusion_that_switches_the_scoring_off_is_refused() {
        for (rules, target) in [
            ("949110", None),
            ("949110", Some("TX:ANOMALY_SCORE")),
            ("900000-999999", None),
            ("1", None),
            ("tag:OWASP_CRS", None),
            ("tag:anomaly-evaluation", Some("TX")),
            ("tag:application-multi", None),
            ("msg:Inbound Anomaly Score Exceeded (Total Score: 5)", None),
        ] {
            let refused = exclusion(rules, target).check();
            assert!(matches!(refused, Err(WafFault::Scoring(_))), "{rules} {target:?}");
        }
        for (rules, target) in
            [("942100", None), ("tag:OWASP_CRS", Some("ARGS:password")), ("tag:attack-sqli", None)]
        {
            exclusion(rules, target).check().unwrap();
        }
    }

    #[test]
    fn a_layer_that_makes_no_sense_is_refused() {
        for wrong in [
            r#"{"paranoia":5}"#,
            r#"{"inbound_threshold":0}"#,
            r#"{"inbound_threshold":100000}"#,
            r#"{"request_body":{"bytes_max":1,"beyond":"refuse"}}"#,
            r#"{"variables":{"TX.x":"1"}}"#,
            r#"{"variables":{"blocking_paranoia_level":"1"}}"#,
            r#"{"variables":{"inbound_anomaly_score_threshold":"9999"}}"#,
            r#"{"exclusions":[{"rules":"942100","path":"shop"}]}"#,
            r#"{"exclusions":[{"rules":"942100","target":"args"}]}"#,
            r#"{"exclusions":[{"rules":"942100","target":"ARGS:"}]}"#,
        ] {
            assert!(layer(wrong).check().is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<WafLayer>(r#"{"modus":"block"}"#).is_err());
        for wrong in ["", "94x", "2-1", "tag:", "-", "1-2-3", "+1", "99999999999"] {
            assert!(wrong.parse::<WafRules>().is_err(), "{wrong}");
        }
    }

    fn any_layer() -> impl Strategy<Value = WafLayer> {
        let mode = proptest::option::of(prop_oneof![
            Just(WafMode::Off),
            Just(WafMode::Detect),
            Just(WafMode::Block)
        ]);
        let body = proptest::option::of((1024_u32..9000, any::<bool>()).prop_map(|(bytes_max, refuse)| {
            BodyLimit { bytes_max, beyond: if refuse { Beyond::Refuse } else { Beyond::Prefix } }
        }));
        let level = || proptest::option::of(1_u8..=4);
        let score = || proptest::option::of(1_u32..20);
        (mode, level(), level(), score(), score(), body).prop_map(
            |(mode, level, told, inbound, outbound, body)| WafLayer {
                mode,
                paranoia: level,
                paranoia_detection: told,
                inbound_threshold: inbound,
                outbound_threshold: outbound,
                request_body: body,
                ..WafLayer::default()
            },
        )
    }

    proptest! {
        #[test]
        fn no_chain_of_layers_loosens(office in any_layer(), below in proptest::collection::vec(any_layer(), 0..4)) {
            let top = WafPolicy::default().decided(&office);
            let mut last = top;
            for layer in below {
                let next = last.clone().tightened(&layer, LayerBy::Customer, &AllowExclusions::None);
                prop_assert!(next.mode >= last.mode && next.paranoia >= last.paranoia);
                prop_assert!(next.paranoia_detection >= last.paranoia_detection.max(next.paranoia));
                prop_assert!(next.inbound_threshold <= last.inbound_threshold);
                prop_assert!(next.outbound_threshold <= last.outbound_threshold);
                prop_assert!(next.request_body.beyond >= last.request_body.beyond);
                if next.request_body.beyond == Beyond::Prefix {
                    prop_assert!(next.request_body.bytes_max >= last.request_body.bytes_max);
                }
                if last.admits(&layer, LayerBy::Customer, &AllowExclusions::None).is_ok() {
                    prop_assert_eq!(next.mode, layer.mode.unwrap_or(last.mode), "what is admitted is obeyed");
                    prop_assert_eq!(next.paranoia, layer.paranoia.unwrap_or(last.paranoia));
                    prop_assert_eq!(next.request_body, layer.request_body.unwrap_or(last.request_body));
                }
                last = next;
            }
        }
        #[test]
        fn rules_read_back_as_written(text in "[0-9]{1,6}(-[0-9]{1,6})?|(tag|msg):[a-zA-Z /]{1,20}") {
            if let Ok(rules) = text.parse::<WafRules>() {
                prop_assert_eq!(rules.to_string().parse::<WafRules>().unwrap(), rules);
            }
        }
        #[test]
        fn an_exclusion_reads_back_as_written(text in "94[0-8][0-9]{3}( ARGS:[a-z]{1,5})?( /[a-z]{0,5}[*]?)?") {
            let exclusion: WafExclusion = text.parse().unwrap();
            prop_assert_eq!(exclusion.to_string(), text);
        }
        #[test]
        fn no_text_makes_the_parser_of_rules_panic(text in "\\PC*") {
            let _ = text.parse::<WafRules>();
            let _ = text.parse::<WafExclusion>();
        }
    }
}
