//! Running rules: values are gathered, transformed once each, tested; matches have their effects.

use crate::{
    action::{Ctl, EngineMode},
    audit::{Match, shown},
    compile::Step,
    data::{Item, Scalar},
    operator::number,
    rule::{AllowScope, Change, Disruptive, Rule, SetVar},
    text::{Piece, Text},
    transaction::{Transaction, Verdict},
    variable::{Selector, Target, Variable},
};
use bytes::Bytes;
use std::borrow::Cow;

/// Values that one rule may look at; more are not looked at by it.
const VALUES_MAX: usize = 20_000;

/// A value that a rule looks at.
struct Candidate {
    /// `ARGS:name`, as `MATCHED_VAR_NAME` shows it.
    name: Name,
    value: Bytes,
    id: u32,
}

/// A name that is only put together when somebody asks for it.
#[derive(Clone)]
struct Name {
    collection: &'static str,
    key: Bytes,
}

impl Name {
    fn shown(&self) -> Vec<u8> {
        if self.key.is_empty() {
            self.collection.into()
        } else {
            [self.collection.as_bytes(), b":", &self.key].concat()
        }
    }
}

impl Transaction {
    /// Runs a phase.
    pub(crate) fn run(&mut self, phase: usize) -> Verdict {
        if self.engine == EngineMode::Off || self.allowed(phase) {
            return Verdict::Pass;
        }
        let set = self.set.clone();
        let steps = &set.program.phases[phase];
        let mut at = 0;
        while let Some(step) = steps.get(at) {
            at += 1;
            let rule = match step {
                Step::Rule(rule) => rule,
                Step::Marker(_) => continue,
                Step::Policy => {
                    self.preset();
                    continue;
                }
            };
            if self.is_removed(rule) || !self.chain_matches(rule) {
                continue;
            }
            if let Some(to) = rule.skip_to {
                at = to;
            }
            if let Some(verdict) = self.obey(rule, phase) {
                return verdict;
            }
            if self.engine == EngineMode::Off || self.allowed(phase) {
                break;
            }
        }
        Verdict::Pass
    }

    fn allowed(&self, phase: usize) -> bool {
        match self.allow {
            None => false,
            Some((AllowScope::All, _)) => phase != 5,
            Some((AllowScope::Request, _)) => phase <= 2,
            Some((AllowScope::Phase, in_phase)) => in_phase == phase,
        }
    }

    fn is_removed(&self, rule: &Rule) -> bool {
        self.removed_ids.iter().any(|(from, to)| (*from..=*to).contains(&rule.id))
            || self.removed_tags.iter().any(|removed| has_tag(rule, removed))
    }

    /// The verdict of a rule that matched, if it ends the phase.
    fn obey(&mut self, rule: &Rule, phase: usize) -> Option<Verdict> {
        let (disruptive, status) = match rule.disruptive {
            Disruptive::Block => self.set.program.defaults[phase].unwrap_or((Disruptive::Pass, 403)),
            other => (other, rule.status),
        };
        match disruptive {
            Disruptive::Deny => {
                self.would_block = true;
                self.deciding.get_or_insert(rule.id);
                if self.engine == EngineMode::On {
                    self.blocked = true;
                    return Some(Verdict::Block { status, rule: rule.id });
                }
                None
            }
            Disruptive::Allow(scope) => {
                self.allow = Some((scope, phase));
                None
            }
            Disruptive::Pass | Disruptive::Block => None,
        }
    }

    /// Whether a rule and all its links match. Effects that do not depend on the chain happen at once, as
    /// the links match; what is told is told when all have.
    fn chain_matches(&mut self, first: &Rule) -> bool {
        let mut link = Some(first);
        let mut told = Vec::new();
        self.matched_vars.clear();
        while let Some(rule) = link {
            if !self.rule_matches(rule, first, &mut told) {
                return false;
            }
            link = rule.next.as_deref();
        }
        let mut link = Some(first);
        while let Some(rule) = link {
            for ctl in &rule.ctl {
                self.control(ctl);
            }
            link = rule.next.as_deref();
        }
        if first.log && !told.is_empty() {
            let began = told.last().filter(|_| first.next.is_some()).map(|begin| begin.target.clone());
            let mut found = told.swap_remove(0);
            found.target = began.unwrap_or(found.target);
            self.matches.push(found);
        }
        true
    }

    fn rule_matches(&mut self, rule: &Rule, first: &Rule, told: &mut Vec<Match>) -> bool {
        let Some((negated, operator)) = &rule.test else {
            self.effects(rule);
            self.tell(first, told);
            return true;
        };
        let argument = operator.argument().map(|text| self.expand(text).into_owned()).unwrap_or_default();
        let mut matched = false;
        for candidate in self.candidates(rule) {
            let variants = self.transformed(rule, &candidate);
            for value in variants {
                let found = operator.matches(&value, &argument, rule.capture && !negated);
                if found.is_some() == *negated {
                    continue;
                }
                matched = true;
                if let Some(groups) = found.filter(|groups| !groups.is_empty()) {
                    for (n, group) in groups.into_iter().enumerate() {
                        self.tx.insert(n.to_string().into_bytes(), group.into());
                    }
                } else if rule.capture {
                    self.tx.insert(b"0".to_vec(), value.clone());
                }
                self.matched_var = (candidate.name.shown(), value.clone());
                self.matched_vars.push((candidate.name.shown(), value));
                self.effects(rule);
                self.tell(first, told);
                break;
            }
        }
        matched
    }

    /// A value after the rule's transformations; with `multiMatch` also after each of them.
    fn transformed(&mut self, rule: &Rule, candidate: &Candidate) -> Vec<Bytes> {
        if !rule.multi_match {
            return vec![self.transform(&candidate.value, candidate.id, rule.chain_of_transforms)];
        }
        let mut chains = vec![rule.chain_of_transforms];
        while let Some(last) = chains.last().copied().filter(|last| *last != 0) {
            chains.push(self.set.program.transforms[last].0);
        }
        let mut values: Vec<Bytes> = Vec::new();
        for chain in chains.into_iter().rev() {
            let value = self.transform(&candidate.value, candidate.id, chain);
            if values.last() != Some(&value) {
                values.push(value);
            }
        }
        values
    }

    fn transform(&mut self, value: &Bytes, id: u32, chain: usize) -> Bytes {
        if chain == 0 {
            return value.clone();
        }
        let key = (id, chain as u32);
        if id != 0 {
            if let Some(known) = self.memo.get(&key) {
                return known.clone();
            }
        }
        let (before, step) = self.set.program.transforms[chain];
        let input = self.transform(value, id, before);
        let output = match step.map(|step| step.apply(&input)) {
            Some(Cow::Owned(changed)) => Bytes::from(changed),
            Some(Cow::Borrowed(same)) if same.len() == input.len() => input.clone(),
            Some(Cow::Borrowed(part)) => input.slice_ref(part),
            None => input,
        };
        if id != 0 {
            self.memo.insert(key, output.clone());
        }
        output
    }

    fn effects(&mut self, rule: &Rule) {
        for set in &rule.set {
            self.set_variable(set);
        }
    }

    fn set_variable(&mut self, set: &SetVar) {
        let name = self.expand(&set.name).into_owned();
        let name =
            if set.collection == "TX" { name } else { [set.collection.as_bytes(), b".", &name].concat() };
        let value = match &set.change {
            Change::Remove => {
                self.tx.remove(&name);
                return;
            }
            Change::Set(value) => self.expand(value).into_owned(),
            Change::Add(amount) | Change::Subtract(amount) => {
                let amount = number(&self.expand(amount));
                let amount = if matches!(set.change, Change::Subtract(_)) { -amount } else { amount };
                let held = self.tx.get(&name).map_or(0, |value| number(value));
                held.saturating_add(amount).to_string().into_bytes()
            }
        };
        self.tx.insert(name, value.into());
    }

    pub(crate) fn control(&mut self, ctl: &Ctl) {
        match ctl {
            Ctl::RemoveById(from, to) => self.removed_ids.push((*from, *to)),
            Ctl::RemoveByTag(tag) => self.removed_tags.push(tag.clone()),
            Ctl::RemoveTargetById(from, to, target) => {
                if let Some(removed) = RemovedTarget::new(Which::Ids(*from, *to), target) {
                    self.removed_targets.push(removed);
                }
            }
            Ctl::RemoveTargetByTag(tag, target) => {
                if let Some(removed) = RemovedTarget::new(Which::Tag(tag.clone()), target) {
                    self.removed_targets.push(removed);
                }
            }
            Ctl::Engine(mode) => {
                // A rule may only make the engine milder than its policy.
                if *mode != EngineMode::On {
                    self.engine = *mode;
                }
            }
            Ctl::BodyProcessor(name) => self.body_processor = Some(name.clone()),
            Ctl::ForceBodyVariable(on) => self.force_body = *on,
            Ctl::Audit(on) => self.audit_on = *on,
            Ctl::Nothing => {}
        }
    }

    fn tell(&self, rule: &Rule, told: &mut Vec<Match>) {
        if !rule.log {
            return;
        }
        let text =
            |text: &Option<Text>| text.as_ref().map(|text| shown(&self.expand(text))).unwrap_or_default();
        told.insert(
            0,
            Match {
                id: rule.id,
                msg: text(&rule.msg),
                severity: rule.severity.clone(),
                logdata: text(&rule.logdata),
                target: shown(&self.matched_var.0),
                tags: rule.tags.iter().map(|tag| shown(&self.expand(tag))).collect(),
                file: rule.place.file.to_string(),
                line: rule.place.line,
                phase: rule.phase,
            },
        );
    }

    /// A text with its macros expanded.
    pub(crate) fn expand<'t>(&self, text: &'t Text) -> Cow<'t, [u8]> {
        if let Some(plain) = text.plain() {
            return Cow::Borrowed(plain);
        }
        let mut out = Vec::new();
        for piece in &text.0 {
            match piece {
                Piece::Plain(plain) => out.extend_from_slice(plain),
                Piece::Macro(name, selector) => {
                    out.extend_from_slice(&self.value_of(name, selector.as_deref()))
                }
            }
        }
        Cow::Owned(out)
    }

    fn value_of(&self, name: &str, selector: Option<&str>) -> Bytes {
        match (name, selector) {
            ("TX", Some(key)) => self.tx.get(key.as_bytes()).cloned().unwrap_or_default(),
            ("MATCHED_VAR", _) => self.matched_var.1.clone(),
            ("MATCHED_VAR_NAME", _) => self.matched_var.0.clone().into(),
            _ => {
                let Some(variable) = crate::variable::named(name) else { return Bytes::new() };
                let selector = selector.map_or(Selector::All, |key| Selector::Name(key.as_bytes().to_vec()));
                let mut found = Vec::new();
                self.gather(variable, &selector, &mut found);
                found.into_iter().next().map(|candidate| candidate.value).unwrap_or_default()
            }
        }
    }

    /// The values that a rule looks at, without what was excluded.
    fn candidates(&self, rule: &Rule) -> Vec<Candidate> {
        let mut found = Vec::new();
        let removed: Vec<&RemovedTarget> =
            self.removed_targets.iter().filter(|removed| removed.is_for(rule)).collect();
        for target in rule.targets.iter().filter(|target| !target.exclude) {
            let begun = found.len();
            self.gather(target.variable, &target.selector, &mut found);
            let excluded = |candidate: &Candidate| {
                let by_rule = rule.targets.iter().any(|other| {
                    other.exclude
                        && other.variable == target.variable
                        && other.selector.accepts(&candidate.name.key)
                });
                by_rule || removed.iter().any(|removed| removed.covers(target.variable, &candidate.name.key))
            };
            let kept = found.split_off(begun).into_iter().filter(|candidate| !excluded(candidate));
            if target.count {
                let count = kept.count().to_string();
                let key = match &target.selector {
                    Selector::Name(name) => Bytes::from(name.clone()),
                    Selector::All | Selector::Pattern(_) => Bytes::new(),
                };
                let name = Name { collection: collection(target), key };
                found.push(Candidate { name, value: count.into(), id: 0 });
            } else {
                found.extend(kept);
            }
            if found.len() > VALUES_MAX {
                found.truncate(VALUES_MAX);
                break;
            }
        }
        found
    }

    fn gather(&self, variable: Variable, selector: &Selector, found: &mut Vec<Candidate>) {
        use Variable as V;
        let data = &self.data;
        let name = variable_name(variable);
        let mut values = |items: &[Item]| {
            found.extend(items.iter().filter(|item| selector.accepts(&item.key)).map(|item| Candidate {
                name: Name { collection: name, key: item.key.clone() },
                value: item.value.clone(),
                id: item.id,
            }));
        };
        match variable {
            V::Args => {
                values(&data.args_get);
                values(&data.args_post);
            }
            V::ArgsGet => values(&data.args_get),
            V::ArgsPost => values(&data.args_post),
            V::Cookies => values(&data.cookies),
            V::RequestHeaders => values(&data.request_headers),
            V::ResponseHeaders => values(&data.response_headers),
            V::Files => values(&data.files),
            V::FilesSizes => values(&data.files_sizes),
            V::PartHeaders => values(&data.part_headers),
            V::Xml => {
                values(&data.xml_text);
            }
            V::XmlAttributes => values(&data.xml_attributes),
            _ => self.gather_other(variable, selector, name, found),
        }
    }

    fn gather_other(
        &self,
        variable: Variable,
        selector: &Selector,
        collection: &'static str,
        found: &mut Vec<Candidate>,
    ) {
        use Variable as V;
        let data = &self.data;
        let mut push = |key: Bytes, value: Bytes, id: u32| {
            found.push(Candidate { name: Name { collection, key }, value, id })
        };
        let mut names = |lists: &[&[Item]]| {
            for item in lists.iter().flat_map(|items| items.iter()).filter(|item| selector.accepts(&item.key))
            {
                push(item.key.clone(), item.key.clone(), item.key_id);
            }
        };
        match variable {
            V::ArgsNames => names(&[&data.args_get, &data.args_post]),
            V::ArgsGetNames => names(&[&data.args_get]),
            V::ArgsPostNames => names(&[&data.args_post]),
            V::CookiesNames => names(&[&data.cookies]),
            V::RequestHeadersNames => names(&[&data.request_headers]),
            V::ResponseHeadersNames => names(&[&data.response_headers]),
            V::FilesNames => names(&[&data.files]),
            V::ArgsCombinedSize => {
                let all = data.args_get.iter().chain(&data.args_post);
                let size: usize = all.map(|item| item.key.len() + item.value.len()).sum();
                push(Bytes::new(), size.to_string().into(), 0);
            }
            V::FilesCombinedSize => {
                let size: i64 = data.files_sizes.iter().map(|item| number(&item.value)).sum();
                push(Bytes::new(), size.to_string().into(), 0);
            }
            V::Tx => {
                if let Selector::Name(name) = selector {
                    if let Some(value) = self.tx.get(name.as_slice()) {
                        push(name.clone().into(), value.clone(), 0);
                    }
                } else {
                    for (key, value) in
                        self.tx.iter().filter(|(key, _)| !key.contains(&b'.') && selector.accepts(key))
                    {
                        push(key.clone().into(), value.clone(), 0);
                    }
                }
            }
            V::Persistent(kind) => {
                let begin = [kind.as_bytes(), b"."].concat();
                for (key, value) in &self.tx {
                    if let Some(name) =
                        key.strip_prefix(begin.as_slice()).filter(|name| selector.accepts(name))
                    {
                        push(name.to_vec().into(), value.clone(), 0);
                    }
                }
            }
            V::MatchedVar => push(self.matched_var.0.clone().into(), self.matched_var.1.clone(), 0),
            V::MatchedVarName => push(Bytes::new(), self.matched_var.0.clone().into(), 0),
            V::MatchedVars => {
                for (name, value) in &self.matched_vars {
                    push(name.clone().into(), value.clone(), 0);
                }
            }
            V::MatchedVarsNames => {
                for (name, _) in &self.matched_vars {
                    push(name.clone().into(), name.clone().into(), 0);
                }
            }
            V::BodyError => push(Bytes::new(), flag(data.flags.body_error), 0),
            V::BodyErrorMessage => push(Bytes::new(), data.flags.body_error_message.clone().into(), 0),
            V::MultipartStrictError => push(Bytes::new(), flag(data.flags.multipart_strict_error), 0),
            V::MultipartUnmatchedBoundary => {
                push(Bytes::new(), flag(data.flags.multipart_unmatched_boundary), 0)
            }
            V::Duration => push(Bytes::new(), Bytes::from_static(b"0"), 0),
            V::Scalar(scalar) => {
                if let Some(item) = data.scalars.get(&scalar) {
                    push(Bytes::new(), item.value.clone(), item.id);
                }
            }
            _ => {}
        }
    }

    /// A single value, empty when it is not known.
    pub(crate) fn scalar(&self, scalar: Scalar) -> Bytes {
        self.data.scalars.get(&scalar).map(|item| item.value.clone()).unwrap_or_default()
    }
}

fn flag(on: bool) -> Bytes {
    Bytes::from_static(if on { b"1" } else { b"0" })
}

fn has_tag(rule: &Rule, wanted: &[u8]) -> bool {
    rule.tags.iter().any(|tag| tag.plain() == Some(wanted))
}

fn collection(target: &Target) -> &'static str {
    variable_name(target.variable)
}

/// The name of a variable, as `MATCHED_VAR_NAME` shows it.
fn variable_name(variable: Variable) -> &'static str {
    use Variable as V;
    match variable {
        V::Args => "ARGS",
        V::ArgsNames => "ARGS_NAMES",
        V::ArgsGet => "ARGS_GET",
        V::ArgsGetNames => "ARGS_GET_NAMES",
        V::ArgsPost => "ARGS_POST",
        V::ArgsPostNames => "ARGS_POST_NAMES",
        V::ArgsCombinedSize => "ARGS_COMBINED_SIZE",
        V::Cookies => "REQUEST_COOKIES",
        V::CookiesNames => "REQUEST_COOKIES_NAMES",
        V::RequestHeaders => "REQUEST_HEADERS",
        V::RequestHeadersNames => "REQUEST_HEADERS_NAMES",
        V::ResponseHeaders => "RESPONSE_HEADERS",
        V::ResponseHeadersNames => "RESPONSE_HEADERS_NAMES",
        V::Files => "FILES",
        V::FilesNames => "FILES_NAMES",
        V::FilesSizes => "FILES_SIZES",
        V::FilesCombinedSize => "FILES_COMBINED_SIZE",
        V::PartHeaders => "MULTIPART_PART_HEADERS",
        V::Xml | V::XmlAttributes => "XML",
        V::Tx => "TX",
        V::Persistent(kind) => kind,
        V::MatchedVar => "MATCHED_VAR",
        V::MatchedVarName => "MATCHED_VAR_NAME",
        V::MatchedVars => "MATCHED_VARS",
        V::MatchedVarsNames => "MATCHED_VARS_NAMES",
        V::BodyError => "REQBODY_ERROR",
        V::BodyErrorMessage => "REQBODY_ERROR_MSG",
        V::MultipartStrictError => "MULTIPART_STRICT_ERROR",
        V::MultipartUnmatchedBoundary => "MULTIPART_UNMATCHED_BOUNDARY",
        V::Duration => "DURATION",
        V::Nothing => "NOTHING",
        V::Scalar(scalar) => match scalar {
            Scalar::Method => "REQUEST_METHOD",
            Scalar::Uri => "REQUEST_URI",
            Scalar::UriRaw => "REQUEST_URI_RAW",
            Scalar::Line => "REQUEST_LINE",
            Scalar::Protocol => "REQUEST_PROTOCOL",
            Scalar::Filename => "REQUEST_FILENAME",
            Scalar::Basename => "REQUEST_BASENAME",
            Scalar::Query => "QUERY_STRING",
            Scalar::RemoteAddr => "REMOTE_ADDR",
            Scalar::RemotePort => "REMOTE_PORT",
            Scalar::ServerAddr => "SERVER_ADDR",
            Scalar::ServerPort => "SERVER_PORT",
            Scalar::ServerName => "SERVER_NAME",
            Scalar::RequestBody => "REQUEST_BODY",
            Scalar::RequestBodyLength => "REQUEST_BODY_LENGTH",
            Scalar::BodyProcessor => "REQBODY_PROCESSOR",
            Scalar::ResponseBody => "RESPONSE_BODY",
            Scalar::ResponseStatus => "RESPONSE_STATUS",
            Scalar::ResponseProtocol => "RESPONSE_PROTOCOL",
            Scalar::ResponseContentType => "RESPONSE_CONTENT_TYPE",
            Scalar::ResponseContentLength => "RESPONSE_CONTENT_LENGTH",
            Scalar::UniqueId => "UNIQUE_ID",
            Scalar::PathInfo => "PATH_INFO",
            Scalar::AuthType => "AUTH_TYPE",
        },
    }
}

/// A target that a rule excluded for the rest of the transaction.
pub(crate) struct RemovedTarget {
    which: Which,
    variable: Variable,
    /// Lower case; `None` for the whole collection.
    key: Option<Vec<u8>>,
}

enum Which {
    Ids(u32, u32),
    Tag(Vec<u8>),
}

impl RemovedTarget {
    /// Patterns as selectors are not used here by any rule set in use; they would remove the whole
    /// collection, which is refused by leaving everything inspected.
    fn new(which: Which, target: &Target) -> Option<Self> {
        let key = match &target.selector {
            Selector::All => None,
            Selector::Name(name) => Some(name.clone()),
            Selector::Pattern(_) => return None,
        };
        Some(Self { which, variable: target.variable, key })
    }

    fn is_for(&self, rule: &Rule) -> bool {
        match &self.which {
            Which::Ids(from, to) => (*from..=*to).contains(&rule.id),
            Which::Tag(tag) => has_tag(rule, tag),
        }
    }

    fn covers(&self, variable: Variable, key: &[u8]) -> bool {
        self.variable == variable && self.key.as_ref().is_none_or(|own| key.eq_ignore_ascii_case(own))
    }
}
