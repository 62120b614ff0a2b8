//! Policies in force: for each its rules, compiled off the way of requests and swapped in one step.

use crate::{
    Error,
    rules::{Directories, Found, Origin, Places, Stamp},
};
use arc_swap::ArcSwap;
use bastide_types::{
    AppName, CustomerId, Digest, Snapshot, StageName,
    waf::{Beyond, WafMode, WafPolicy},
};
use bastide_waf::{Exclusion, LoadError, Mode, RuleSet, Settings, Source};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Rules that are loaded, and what makes policies of them.
pub struct Force {
    places: Places,
    /// Exclusions for the pages of Bastide itself, before all rules.
    office: Option<Source>,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    /// All policies share its program.
    base: Arc<RuleSet>,
    rules: Arc<str>,
    origin: Origin,
    files: usize,
    stamp: Vec<Stamp>,
    /// Policies that somebody still uses.
    policies: HashMap<Digest, Weak<Policy>>,
    /// Why newer rules are not in force.
    refused: Option<String>,
    /// Policies of the newest Snapshot that could not be loaded, and why.
    troubles: BTreeSet<String>,
}

/// A policy in force.
pub struct Policy {
    /// Its digest; empty for an edge that stands alone.
    pub(crate) id: Arc<str>,
    settings: Settings,
    /// Whether bodies that are longer than what is inspected are refused: of requests, and of answers.
    pub(crate) refuses_beyond: (bool, bool),
    compiled: ArcSwap<Compiled>,
}

/// Rules under one policy.
pub struct Compiled {
    /// The rules.
    pub set: Arc<RuleSet>,
    /// Which rules these are, for the log.
    pub rules: Arc<str>,
}

/// What is in force, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whose rules they are.
    pub origin: String,
    /// Which, as the log has it.
    pub digest: String,
    /// How many.
    pub rules: usize,
    /// Of how many files.
    pub files: usize,
    /// Policies that they are run under.
    pub policies: usize,
    /// What was loaded and does nothing here.
    pub warnings: Vec<String>,
    /// Why newer rules are not in force.
    pub refused: Option<String>,
    /// Policies that could not be loaded, and why; the last good ones are in force in their places.
    #[serde(default)]
    pub troubles: Vec<String>,
}

impl Force {
    /// Loads the rules that are found at `places`.
    ///
    /// # Errors
    /// When they cannot be loaded. Of imported rules the version before is tried, then.
    pub fn load(places: Places, office: Option<Source>) -> Result<Self, Error> {
        let found = places.find();
        let first = found.and_then(|found| Loaded::compile(found, office.as_ref()));
        let loaded = match first {
            Ok(loaded) => loaded,
            Err(error) => places
                .before()
                .and_then(|before| {
                    let mut loaded = Loaded::compile(before.ok()?, office.as_ref()).ok()?;
                    tracing::error!(
                        error = chain(&error),
                        "the WAF rules cannot be loaded; the version before is in force"
                    );
                    loaded.refused = Some(chain(&error));
                    Some(loaded)
                })
                .ok_or(error)?,
        };
        loaded.tell();
        Ok(Self { places, office, loaded: Mutex::new(loaded) })
    }

    /// Looks whether there are other rules now, and takes them for all policies. Those that cannot be loaded
    /// leave the last good ones in force. Tells whether anything is new.
    pub fn look(&self) -> bool {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = match self.places.find() {
            Ok(found) => {
                let stamp = found.stamp();
                if stamp == loaded.stamp && found.origin == loaded.origin {
                    return false;
                }
                match Loaded::compile(found, self.office.as_ref()) {
                    Ok(new) => {
                        loaded.replace(new);
                        loaded.tell();
                        return true;
                    }
                    Err(error) => {
                        // It is tried again when something changes.
                        loaded.stamp = stamp;
                        chain(&error)
                    }
                }
            }
            Err(error) => chain(&error),
        };
        if loaded.refused.as_deref() == Some(&refused) {
            return false;
        }
        tracing::error!(error = refused, "new WAF rules cannot be loaded; the last good ones stay in force");
        loaded.refused = Some(refused);
        true
    }

    /// A policy under its digest, compiled if nobody uses it yet.
    ///
    /// # Errors
    /// When the rules cannot be run under it.
    pub fn policy(&self, id: Digest, policy: &WafPolicy) -> Result<Arc<Policy>, LoadError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.policies.get(&id).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let refuses = |beyond: Beyond| beyond == Beyond::Refuse;
        let refuses_beyond = (refuses(policy.request_body.beyond), refuses(policy.response_body.beyond));
        let made = loaded.policy(id.short().into(), settings(policy), refuses_beyond)?;
        loaded.policies.retain(|_, policy| policy.strong_count() > 0);
        loaded.policies.insert(id, Arc::downgrade(&made));
        Ok(made)
    }

    /// A policy of bare settings, for an edge that stands alone.
    ///
    /// # Errors
    /// When the rules cannot be run under it.
    pub(crate) fn alone(&self, settings: Settings) -> Result<Arc<Policy>, LoadError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let made = loaded.policy("".into(), settings, (false, false))?;
        loaded.policies.insert(Digest::from_sha256([0; 32]), Arc::downgrade(&made));
        Ok(made)
    }

    /// Keeps which policies of those in force now could not be loaded, and says so once.
    pub(crate) fn note(&self, sites: &Sites) {
        let troubles = &sites.troubles;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        for trouble in troubles.difference(&loaded.troubles) {
            tracing::error!(trouble, "a WAF policy cannot be loaded; the last good one stays in force");
        }
        loaded.troubles.clone_from(troubles);
    }

    /// What is in force.
    pub fn status(&self) -> Status {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            origin: loaded.origin.to_string(),
            digest: loaded.rules.to_string(),
            rules: loaded.base.rules(),
            files: loaded.files,
            policies: loaded.policies.values().filter(|policy| policy.strong_count() > 0).count(),
            warnings: loaded.base.warnings().to_vec(),
            refused: loaded.refused.clone(),
            troubles: loaded.troubles.iter().cloned().collect(),
        }
    }
}

impl Loaded {
    fn compile(found: Found, office: Option<&Source>) -> Result<Self, Error> {
        // Before the files are read: what changes meanwhile is seen as a change.
        let stamp = found.stamp();
        let read = found.read()?;
        let rules = crate::rules::digest_of(&read).short().into();
        let sources: Vec<Source> = office.cloned().into_iter().chain(read).collect();
        let base = Arc::new(RuleSet::compile(&sources, &Directories, &Settings::default())?);
        Ok(Self {
            base,
            rules,
            files: found.files.len(),
            origin: found.origin,
            stamp,
            policies: HashMap::new(),
            refused: None,
            troubles: BTreeSet::new(),
        })
    }

    fn tell(&self) {
        for warning in self.base.warnings() {
            tracing::info!(warning, "WAF rules");
        }
        if self.origin == Origin::BuiltIn {
            tracing::warn!(
                rules = self.base.rules(),
                "no WAF rules are installed: the built-in policy is in use, which knows plain attacks only"
            );
        }
        tracing::info!(rules = self.base.rules(), origin = %self.origin, digest = &*self.rules, "WAF rules loaded");
    }

    /// Takes other rules for every policy. A policy that they cannot be run under keeps what it has.
    fn replace(&mut self, new: Self) {
        let (policies, troubles) = (std::mem::take(&mut self.policies), std::mem::take(&mut self.troubles));
        *self = new;
        self.troubles = troubles;
        for policy in policies.values().filter_map(Weak::upgrade) {
            match self.base.with(&policy.settings) {
                Ok(set) => policy.compiled.store(self.compiled(set)),
                Err(error) => {
                    tracing::error!(%error, policy = &*policy.id, "a WAF policy does not fit the new rules; it keeps the old ones");
                    self.refused = Some(format!("policy {}: {error}", policy.id));
                }
            }
        }
        self.policies = policies;
    }

    fn policy(
        &self,
        id: Arc<str>,
        settings: Settings,
        refuses_beyond: (bool, bool),
    ) -> Result<Arc<Policy>, LoadError> {
        let compiled = ArcSwap::new(self.compiled(self.base.with(&settings)?));
        Ok(Arc::new(Policy { id, settings, refuses_beyond, compiled }))
    }

    fn compiled(&self, set: RuleSet) -> Arc<Compiled> {
        Arc::new(Compiled { set: Arc::new(set), rules: self.rules.clone() })
    }
}

impl Policy {
    /// The rules under it, unless nothing is inspected. A request keeps those that it began with.
    pub fn compiled(&self) -> Option<Arc<Compiled>> {
        (self.settings.mode != Mode::Off).then(|| self.compiled.load_full())
    }
}

/// Which policy is in force where.
pub(crate) struct Sites {
    platform: Arc<Policy>,
    stages: HashMap<CustomerId, HashMap<StageName, OfStage>>,
    /// What could not be loaded, and why.
    troubles: BTreeSet<String>,
}

struct OfStage {
    own: Arc<Policy>,
    /// Apps with a policy of their own.
    apps: HashMap<AppName, Arc<Policy>>,
}

impl Sites {
    /// The policies of a Snapshot, loaded. One that cannot be leaves what was in force at its place,
    /// or what is in force a level above.
    pub(crate) fn new(
        force: &Force,
        snapshot: &Snapshot,
        before: Option<&Self>,
        default: &Arc<Policy>,
    ) -> Self {
        let mut troubles = BTreeSet::new();
        let mut settle = |id: &Digest, last: Option<&Arc<Policy>>, above: &Arc<Policy>| {
            let found = snapshot.waf.get(id).ok_or_else(|| "the Snapshot does not hold it".to_owned());
            let made = found.and_then(|policy| force.policy(*id, policy).map_err(|error| error.to_string()));
            made.unwrap_or_else(|error| {
                troubles.insert(format!("policy {}: {error}", id.short()));
                last.unwrap_or(above).clone()
            })
        };
        let platform = settle(&snapshot.platform_waf, before.map(|before| &before.platform), default);
        let mut stages: HashMap<CustomerId, HashMap<StageName, OfStage>> = HashMap::new();
        for customer in snapshot.customers.values() {
            for (name, stage) in &customer.stages {
                let last = before.and_then(|before| before.stages.get(&customer.id)?.get(name));
                let own = settle(&stage.waf, last.map(|last| &last.own), &platform);
                let apps = stage.apps.iter().filter_map(|(app, serving)| {
                    let id = serving.waf.as_ref()?;
                    let last = last.and_then(|last| last.apps.get(app));
                    Some((app.clone(), settle(id, last, &own)))
                });
                let apps = apps.collect();
                stages.entry(customer.id).or_default().insert(name.clone(), OfStage { own, apps });
            }
        }
        Self { platform, stages, troubles }
    }

    /// For tests of what else a view holds.
    #[cfg(test)]
    pub(crate) fn under_built_in_rules(snapshot: &Snapshot) -> Arc<Self> {
        let found = Found { origin: Origin::BuiltIn, files: Vec::new() };
        let loaded = Mutex::new(Loaded::compile(found, None).unwrap());
        let force = Force { places: Places::default(), office: None, loaded };
        let default = force.alone(Settings::default()).unwrap();
        Arc::new(Self::new(&force, snapshot, None, &default))
    }

    /// The policy of the Platform's hosts, and of hosts that nobody has.
    pub(crate) fn platform(&self) -> &Arc<Policy> {
        &self.platform
    }

    /// The policy of a stage, or of one of its apps.
    pub(crate) fn of(
        &self,
        customer: CustomerId,
        stage: &StageName,
        app: Option<&AppName>,
    ) -> Option<&Arc<Policy>> {
        let stage = self.stages.get(&customer)?.get(stage)?;
        Some(app.and_then(|app| stage.apps.get(app)).unwrap_or(&stage.own))
    }
}

/// Exclusions for the pages of Bastide itself; they come before all rules of a Bastide's edge.
pub fn office() -> Source {
    Source { name: "office.conf".into(), bytes: include_bytes!("../office.conf").to_vec() }
}

/// What a policy means to the engine.
pub fn settings(policy: &WafPolicy) -> Settings {
    let mode = match policy.mode {
        WafMode::Off => Mode::Off,
        WafMode::Detect => Mode::Detect,
        WafMode::Block => Mode::Block,
    };
    let own = |(name, value): (&str, u32)| (name.to_owned(), value.to_string());
    // The names that CRS 3 and 4 have for them.
    let said = [
        ("executing_paranoia_level", u32::from(policy.paranoia_detection)),
        ("detection_paranoia_level", u32::from(policy.paranoia_detection)),
        ("inbound_anomaly_score_threshold", policy.inbound_threshold),
        ("outbound_anomaly_score_threshold", policy.outbound_threshold),
    ];
    let set = policy.variables.iter().map(|(name, value)| (name.clone(), value.clone()));
    let variables = said.map(own).into_iter().chain(allowed()).chain(set).collect();
    let exclusions = policy.exclusions.iter().map(|exclusion| Exclusion {
        rules: exclusion.rules.to_string(),
        target: exclusion.target.clone(),
        path: exclusion.path.clone(),
    });
    Settings {
        mode,
        paranoia: policy.paranoia,
        variables,
        request_body_bytes_max: policy.request_body.bytes_max as usize,
        response_body_bytes_max: policy.response_body.bytes_max as usize,
        exclusions: exclusions.collect(),
        masked: true,
    }
}

/// What is allowed on every site beyond CRS' own defaults: the methods of REST services, and the media types
/// of APIs and of a publish.
fn allowed() -> [(String, String); 2] {
    let methods = "GET HEAD POST OPTIONS PUT PATCH DELETE";
    let kinds = "|application/x-www-form-urlencoded| |multipart/form-data| |multipart/related| |text/xml| |application/xml| \
                 |application/soap+xml| |application/json| |application/problem+json| |application/cloudevents+json| \
                 |application/cloudevents-batch+json| |application/octet-stream| |application/gzip| |text/plain|";
    [("allowed_methods", methods), ("allowed_request_content_type", kinds)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
