//! Every rule in the kernel is there for a path: taking it away or loosening it makes a probe fail, and the
//! failing probe names the path.
//!
//! Some rules stand behind others that say the same, or behind something that is not a rule. Such a rule is tried
//! in a situation in which the others (its *twins*) are gone: the paths that are still closed then must be closed
//! by it, so taking it away as well makes a probe fail that was well without its twins.
//!
//! A part of the mutants is tried here; `BASTIDE_BARS=1` has all of them tried, in all namespaces together and in
//! each alone.

use crate::{situation::Situation, town::Town};
use bastide_isolation::{
    Plan,
    checks::{Check, How},
    rules::{Chain, Hook, Match, Members, Rule, Ruleset, Verdict},
};
use bastide_verify::{Limits, Prober, Row};
use ipnet::Ipv4Net;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Mutants that show only without others: which, in which situation, without which.
const TWINS: &[(&str, Situation, &[&str])] = &[
    // IPv6 is off, and three rules hold when somebody switches it on.
    (
        "router.prerouting.no-ipv6 deleted",
        Situation::Ipv6,
        &["gateway.prerouting.no-ipv6 deleted", "outside.prerouting.no-ipv6 deleted"],
    ),
    (
        "gateway.prerouting.no-ipv6 deleted",
        Situation::Ipv6,
        &["router.prerouting.no-ipv6 deleted", "outside.prerouting.no-ipv6 deleted"],
    ),
    (
        "outside.prerouting.no-ipv6 deleted",
        Situation::Ipv6,
        &["router.prerouting.no-ipv6 deleted", "gateway.prerouting.no-ipv6 deleted"],
    ),
    // Which way packets go is said by routing and again by a rule.
    ("router.forward.no-way deleted", Situation::WrongGateway, &[]),
    ("router.ways everywhere", Situation::WrongGateway, &[]),
    // A router's policy and its last rule say the same, and a gateway says it again.
    (
        "router.forward accepts",
        Situation::Usual,
        &["router.forward.rest deleted", "gateway.forward.allow without TcpOrUdp"],
    ),
    (
        "router.forward.rest deleted",
        Situation::Usual,
        &["router.forward accepts", "gateway.forward.allow without TcpOrUdp"],
    ),
    ("gateway.forward accepts", Situation::Usual, &["gateway.forward.rest deleted"]),
    ("gateway.forward.rest deleted", Situation::Usual, &["gateway.forward accepts"]),
    // Routers and gateways both know what TCP's middle is and what an app may send.
    ("router.forward.mid-stream deleted", Situation::Usual, &["gateway.forward.mid-stream deleted"]),
    ("gateway.forward.mid-stream deleted", Situation::Usual, &["router.forward.mid-stream deleted"]),
    ("gateway.forward.mid-stream silent", Situation::Usual, &["router.forward.mid-stream deleted"]),
    ("router.forward.allow without TcpOrUdp", Situation::Usual, &["gateway.forward.allow without TcpOrUdp"]),
    ("gateway.forward.allow without TcpOrUdp", Situation::Usual, &["router.forward.allow without TcpOrUdp"]),
    // Routing leads from a replica to its gateway only, and from a gateway to nobody.
    (
        "router.forward.allow without In",
        Situation::Detour,
        &["gateway.output accepts", "router.forward.no-way deleted"],
    ),
    (
        "router.forward.allow without Out",
        Situation::Siblings,
        &["router.forward.no-way deleted", "router.forward.blocked deleted"],
    ),
    // What is blocked is blocked three times.
    (
        "router.forward.blocked deleted",
        Situation::Usual,
        &["gateway.forward.blocked deleted", "outside.forward.blocked deleted"],
    ),
    (
        "gateway.forward.blocked deleted",
        Situation::Usual,
        &["router.forward.blocked deleted", "outside.forward.blocked deleted"],
    ),
    (
        "outside.forward.blocked deleted",
        Situation::Usual,
        &["router.forward.blocked deleted", "gateway.forward.blocked deleted"],
    ),
    // The host answers the gateways' own probe and nothing else of theirs.
    ("gateway.forward.probe without In", Situation::Usual, &["router.forward.blocked deleted"]),
    ("gateway.forward.probe without ToAddress", Situation::Usual, &["outside.forward.blocked deleted"]),
    ("gateway.forward.probe without TcpPort", Situation::Usual, &["outside.input.host deleted"]),
    (
        "outside.input.probe without TcpPort",
        Situation::Usual,
        &["router.forward.blocked deleted", "gateway.forward.blocked deleted"],
    ),
    // From one customer to another it is a long way: a gateway has routes to both, and six rules against it.
    ("gateway.forward.inward deleted", Situation::Usual, INWARD),
    ("gateway.forward.allow without Out", Situation::Usual, INWARD_2),
    ("gateway.forward.by-name without Out", Situation::Usual, INWARD_3),
    // A gateway is no router for the outside.
    ("gateway.forward.allow without In", Situation::Hairpin, &["outside.forward.inward deleted"]),
    ("gateway.forward.by-name without In", Situation::Hairpin, &["outside.forward.inward deleted"]),
    ("outside.forward.inward deleted", Situation::Usual, &["gateway.input accepts"]),
    ("outside.forward.known without Known", Situation::Usual, &["gateway.input accepts"]),
    // Who lies about its source is stopped by its router; the next ones know the router.
    ("gateway.senders of a stage everything", Situation::Usual, &["router.prerouting.spoofed deleted"]),
    (
        "outside.prerouting.spoofed deleted",
        Situation::Untranslated,
        &["gateway.postrouting.translate deleted"],
    ),
    (
        "outside.senders of an uplink everything",
        Situation::Untranslated,
        &["gateway.postrouting.translate deleted"],
    ),
];

const INWARD: &[&str] = &[
    "router.forward.no-way deleted",
    "router.forward.blocked deleted",
    "router.forward.allow without In",
    "router.forward.allow without Out",
    "gateway.forward.blocked deleted",
    "gateway.forward.allow without Out",
];
const INWARD_2: &[&str] = &[
    "router.forward.no-way deleted",
    "router.forward.blocked deleted",
    "router.forward.allow without In",
    "router.forward.allow without Out",
    "gateway.forward.blocked deleted",
    "gateway.forward.inward deleted",
];
const INWARD_3: &[&str] = &[
    "router.forward.no-way deleted",
    "router.forward.blocked deleted",
    "router.forward.allow without In",
    "router.forward.allow without Out",
    "gateway.forward.blocked deleted",
    "gateway.forward.inward deleted",
];

/// Mutants that change nothing, and why. Each is tried all the same, without the twins that it has by its name,
/// and must go unnoticed: once it is noticed it belongs above.
const EQUAL: &[(&str, &str)] = &[
    ("blocked without 127.0.0.0/8", "the kernel routes no packet to its loopback's addresses (RFC 1122)"),
    ("gateway.senders of itself everything", "only what a gateway says to itself comes by its loopback"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Router,
    Gateway,
    Outside,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Gateway => "gateway",
            Self::Outside => "outside",
        }
    }
}

/// A change of one kind of namespaces' rules.
#[derive(Debug, Clone)]
struct Mutant {
    kind: Kind,
    name: String,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    Delete(Hook, usize),
    DropCondition(Hook, usize, usize),
    Mute(Hook, usize),
    Raise(Hook, usize),
    Mistranslate(Hook, usize),
    Accept(Hook),
    Unblock(Ipv4Net),
    Widen(&'static str, &'static str),
    AllWays,
    Fill(&'static str),
    Empty(&'static str),
}

impl Change {
    fn apply(&self, rules: &mut Ruleset) {
        let mut chain = |hook: Hook, change: &dyn Fn(&mut Chain)| {
            rules.chains.iter_mut().filter(|chain| chain.hook == hook).for_each(change);
        };
        match self {
            Self::Delete(hook, at) => chain(*hook, &|chain| drop(chain.rules.remove(*at))),
            Self::DropCondition(hook, at, condition) => {
                chain(*hook, &|chain| drop(chain.rules[*at].when.remove(*condition)));
            }
            Self::Mute(hook, at) => chain(*hook, &|chain| chain.rules[*at].then = Verdict::Drop),
            Self::Raise(hook, at) => chain(*hook, &|chain| {
                for condition in &mut chain.rules[*at].when {
                    if let Match::Over(count) = condition {
                        *count *= 4;
                    }
                }
            }),
            Self::Mistranslate(hook, at) => chain(*hook, &|chain| {
                let wrong = Ipv4Addr::new(11, 9, 9, 77);
                chain.rules[*at].then = Verdict::Snat(wrong, wrong);
            }),
            Self::Accept(hook) => chain(*hook, &|chain| chain.drops = false),
            Self::Unblock(range) => {
                for set in rules.sets.iter_mut().filter(|set| set.name == "blocked") {
                    if let Members::Ranges(ranges) = &mut set.members {
                        // With a canary the range is there in pieces.
                        ranges.retain(|piece| !range.contains(piece));
                    }
                }
            }
            Self::Widen(name, who) => {
                for set in rules.sets.iter_mut().filter(|set| set.name == *name) {
                    if let Members::Senders(senders) = &mut set.members {
                        let links: Vec<_> = senders.iter().map(|(link, _)| link.clone()).collect();
                        senders.retain(|(link, _)| role(link) != *who);
                        let wide = links.into_iter().filter(|link| role(link) == *who);
                        senders.extend(wide.map(|link| (link, everything())));
                    }
                }
            }
            Self::AllWays => {
                for set in &mut rules.sets {
                    if let Members::Ways(ways) = &mut set.members {
                        let from: Vec<_> = ways.iter().map(|(from, _)| from.clone()).collect();
                        let to: Vec<_> = ways.iter().map(|(_, to)| to.clone()).chain(from.clone()).collect();
                        ways.extend(from.iter().flat_map(|f| to.iter().map(|t| (f.clone(), t.clone()))));
                    }
                }
            }
            Self::Fill(name) => {
                for set in rules.sets.iter_mut().filter(|set| set.name == *name) {
                    set.members = match set.members {
                        Members::Services(_) => Members::Services([(everything(), None)].into()),
                        _ => Members::Ranges(vec![everything()]),
                    };
                }
            }
            Self::Empty(name) => {
                for set in rules.sets.iter_mut().filter(|set| set.name == *name) {
                    set.members = Members::Services(BTreeSet::new());
                }
            }
        }
    }
}

fn everything() -> Ipv4Net {
    "0.0.0.0/0".parse().unwrap()
}

/// Everything that can be taken away from or loosened in a ruleset.
fn mutants(kind: Kind, rules: &Ruleset, ranges: &[Ipv4Net]) -> Vec<Mutant> {
    let mut all = Vec::new();
    let mut add = |name: String, change| {
        all.push(Mutant { kind, name: format!("{}.{name}", kind.word()), change });
    };
    for chain in &rules.chains {
        let hook = chain.hook;
        if chain.drops {
            add(format!("{} accepts", hook.word()), Change::Accept(hook));
        }
        for (at, rule) in chain.rules.iter().enumerate() {
            let name = format!("{}.{}", hook.word(), rule_name(chain, rule, at));
            add(format!("{name} deleted"), Change::Delete(hook, at));
            match rule.then {
                // A rule that accepts is loosened by a condition less; one that drops is tightened by it.
                Verdict::Accept | Verdict::Masquerade => conditions(&mut add, &name, hook, at, rule),
                Verdict::Snat(..) => {
                    conditions(&mut add, &name, hook, at, rule);
                    add(format!("{name} to a wrong address"), Change::Mistranslate(hook, at));
                }
                Verdict::Reset => add(format!("{name} silent"), Change::Mute(hook, at)),
                Verdict::Drop => {}
            }
            // The answer to the gateways' probe is one that is given to somebody, so it is loosened as well.
            if kind == Kind::Outside && rule.then == Verdict::Reset {
                conditions(&mut add, &name, hook, at, rule);
            }
            if rule.when.iter().any(|condition| matches!(condition, Match::Over(_))) {
                add(format!("{name} raised"), Change::Raise(hook, at));
            }
        }
    }
    for set in &rules.sets {
        match &set.members {
            Members::Ranges(_) if set.name == "blocked" => {
                for range in ranges {
                    add(format!("blocked without {range}"), Change::Unblock(*range));
                }
            }
            Members::Ranges(_) => add(format!("{} with everything", set.name), Change::Fill(set.name)),
            Members::Services(_) if set.name == "denied" => {
                add("denied with nothing".into(), Change::Empty("denied"));
            }
            Members::Services(_) => add(format!("{} with everything", set.name), Change::Fill(set.name)),
            Members::Senders(senders) => {
                let roles: BTreeSet<_> = senders.iter().map(|(link, _)| role(link)).collect();
                for who in roles {
                    add(format!("{} of {who} everything", set.name), Change::Widen(set.name, who));
                }
            }
            Members::Ways(_) => add(format!("{} everywhere", set.name), Change::AllWays),
        }
    }
    all
}

fn conditions(add: &mut impl FnMut(String, Change), name: &str, hook: Hook, at: usize, rule: &Rule) {
    for (number, condition) in rule.when.iter().enumerate() {
        let text = format!("{condition:?}");
        let word = text.split('(').next().unwrap_or_default();
        add(format!("{name} without {word}"), Change::DropCondition(hook, at, number));
    }
}

/// Zones' translations have one id; their order tells them apart.
fn rule_name(chain: &Chain, rule: &Rule, at: usize) -> String {
    let same: Vec<_> = (0..chain.rules.len()).filter(|n| chain.rules[*n].id == rule.id).collect();
    match same.iter().position(|n| *n == at) {
        Some(place) if same.len() > 1 => format!("{}-{place}", rule.id),
        _ => rule.id.to_owned(),
    }
}

/// What a link is for, from its name: it must not depend on ids.
fn role(link: &str) -> &'static str {
    match link.as_bytes().first() {
        Some(b'r') => "a replica",
        Some(b's') => "a stage",
        Some(b'b') => "an uplink",
        Some(b'p') => "the probe",
        _ => "itself",
    }
}

/// A town whose rules are changed, and who tries its paths.
struct Bench<'a> {
    town: &'a Town,
    outside: PathBuf,
    prober: Prober,
    /// What is noticed without certain twins alone.
    before: BTreeMap<Vec<String>, BTreeSet<String>>,
}

impl<'a> Bench<'a> {
    async fn new(town: &'a Town, situation: Situation) -> Self {
        let outside = town.outside_path();
        situation.make(town);
        let list = situation.trials(town);
        let program = Path::new(env!("CARGO_BIN_EXE_verify-prober"));
        let prober = Prober::start(program, &[], town.subject(&outside), list).await.unwrap();
        Self { town, outside, prober, before: BTreeMap::new() }
    }

    /// Loads the rules of every namespace: `mutant` in one namespace or in all of its kind, `twins` in all.
    fn load(&self, mutant: Option<(&Mutant, Option<&str>)>, twins: &[&Mutant]) {
        for kind in KINDS {
            for name in namespaces(self.town, kind) {
                let mut rules = original(self.town, &name).clone();
                let mut own = twins.to_vec();
                own.extend(mutant.filter(|(_, only)| only.is_none_or(|only| only == name)).map(|(m, _)| m));
                own.retain(|mutant| mutant.kind == kind);
                // Places in chains and rules move when an earlier one goes: the last first.
                own.sort_by_key(|mutant| std::cmp::Reverse(place(&mutant.change)));
                for mutant in own {
                    mutant.change.apply(&mut rules);
                }
                self.town.load(&name, &rules);
            }
        }
    }

    /// Tries that are not as they should be.
    async fn noticed(&mut self, limits: Limits, floods: bool) -> BTreeSet<String> {
        let subject = self.town.subject(&self.outside);
        let wanted = |check: &Check| floods == matches!(check.how, How::Flood { .. });
        let mut rows = self.prober.checks(subject, limits, wanted).await.unwrap();
        if !floods {
            rows.extend(self.prober.controls(subject, limits).await.unwrap());
        }
        rows.into_iter().filter(|row| !row.ok).map(|row| line(&row)).collect()
    }

    /// Everything that is not as it should be; nothing has to be.
    async fn everything(&mut self) -> BTreeSet<String> {
        let mut all = self.noticed(PATIENT, false).await;
        all.extend(self.noticed(PATIENT, true).await);
        all
    }

    /// Tries that notice the mutant, beyond what notices that its twins are gone.
    async fn notices(&mut self, mutant: &Mutant, only: Option<&str>, twins: &[&Mutant]) -> BTreeSet<String> {
        let key: Vec<_> = twins.iter().map(|twin| twin.name.clone()).collect();
        if !key.is_empty() && !self.before.contains_key(&key) {
            self.load(None, twins);
            let seen = self.noticed(PATIENT, false).await;
            self.before.insert(key.clone(), seen);
        }
        self.load(Some((mutant, only)), twins);
        let before = self.before.get(&key).cloned().unwrap_or_default();
        let about_many = mutant.name.contains("cap-") || mutant.name.contains("known without");
        // A machine that is busy with other things needs longer; a mutant that nothing shows waits for all.
        let last = if about_many {
            [(PATIENT, true), (PATIENT, false)]
        } else {
            [(PATIENT, false), (PATIENT, true)]
        };
        for (limits, floods) in [(BRISK, false)].into_iter().chain(last) {
            let seen: BTreeSet<_> = self.noticed(limits, floods).await.difference(&before).cloned().collect();
            if !seen.is_empty() {
                return seen;
            }
        }
        BTreeSet::new()
    }
}

const KINDS: [Kind; 3] = [Kind::Router, Kind::Gateway, Kind::Outside];

const BRISK: Limits = Limits {
    closed: Duration::from_millis(400),
    open: Duration::from_secs(4),
    settle: Duration::from_millis(100),
};
const PATIENT: Limits = Limits {
    closed: Duration::from_millis(1500),
    open: Duration::from_secs(10),
    settle: Duration::from_millis(500),
};

fn namespaces(town: &Town, kind: Kind) -> Vec<String> {
    let all = &town.topology;
    match kind {
        Kind::Router => all.stages.iter().map(|stage| all.installation.router(&stage.account)).collect(),
        Kind::Gateway => all.zones.iter().map(|zone| all.installation.gateway(&zone.zone)).collect(),
        Kind::Outside => vec![Plan::OUTSIDE.to_owned()],
    }
}

fn original<'a>(town: &'a Town, name: &str) -> &'a Ruleset {
    town.plan.namespaces[name].rules.as_ref().unwrap()
}

fn place(change: &Change) -> (usize, usize) {
    match change {
        Change::Delete(_, at) | Change::Mute(_, at) | Change::Raise(_, at) | Change::Mistranslate(_, at) => {
            (*at, 0)
        }
        Change::DropCondition(_, at, condition) => (*at, *condition),
        _ => (0, 0),
    }
}

fn line(row: &Row) -> String {
    format!("{}: {} to {} by {}, expected {}", row.path, row.from, row.to, row.how, row.expected)
}

/// In which situation and without which twins a mutant shows.
fn plan_for<'a>(mutant: &Mutant, all: &'a [Mutant]) -> (Situation, Vec<&'a Mutant>) {
    let named = |name: &str| {
        all.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("there is no mutant {name}"))
    };
    if let Some((_, range)) = mutant.name.split_once(".blocked without ") {
        let twin = |kind: &Kind| named(&format!("{}.blocked without {range}", kind.word()));
        return (Situation::Usual, KINDS.iter().filter(|kind| **kind != mutant.kind).map(twin).collect());
    }
    match TWINS.iter().find(|(name, ..)| *name == mutant.name) {
        Some((_, situation, twins)) => (*situation, twins.iter().map(|name| named(name)).collect()),
        None => (Situation::Usual, Vec::new()),
    }
}

fn equal(mutant: &Mutant) -> Option<&'static str> {
    EQUAL.iter().find(|(name, _)| mutant.name.ends_with(name)).map(|(_, why)| *why)
}

/// Without a wish for all: those that say what each kind of rule is there for, and some with twins.
fn is_sample(mutant: &Mutant) -> bool {
    const SAMPLE: &[&str] = &[
        "router.prerouting.no-ipv6 deleted",
        "router.prerouting.spoofed deleted",
        "router.forward.no-way deleted",
        "router.forward.cap-tcp deleted",
        "router.forward.denied-tcp deleted",
        "router.forward.only-by-name-udp deleted",
        "router.input accepts",
        "router.output accepts",
        "router.blocked without 10.0.0.0/8",
        "gateway.forward.inward deleted",
        "gateway.forward.by-name without TcpOrUdp",
        "gateway.postrouting.translate to a wrong address",
        "outside.prerouting.spoofed deleted",
        "outside.input.host deleted",
        "outside.forward.no-router deleted",
        "outside.forward.blocked deleted",
        "outside.postrouting.translate-0 deleted",
    ];
    SAMPLE.contains(&mutant.name.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_that_is_taken_away_or_loosened_is_noticed_by_a_probe() {
    let Some(town) = Town::new("mutation").await else { return };
    let begun = Instant::now();
    let bars = std::env::var_os("BASTIDE_BARS").is_some();
    let ranges = bastide_isolation::blocked::ranges(&town.topology.blocked);
    let mut all = Vec::new();
    for kind in KINDS {
        all.extend(mutants(kind, original(&town, &namespaces(&town, kind)[0]), &ranges));
    }
    for (name, ..) in TWINS {
        assert!(all.iter().any(|mutant| mutant.name == *name), "there is no mutant {name}");
    }
    let mut by_situation: BTreeMap<Situation, Vec<(&Mutant, Vec<&Mutant>)>> = BTreeMap::new();
    for mutant in all.iter().filter(|mutant| bars || is_sample(mutant)) {
        let (situation, twins) = plan_for(mutant, &all);
        by_situation.entry(situation).or_default().push((mutant, twins));
    }
    let (mut tried, mut wrong, mut told) = (0, Vec::new(), String::new());
    for (situation, mutants) in by_situation {
        let mut bench = Bench::new(&town, situation).await;
        for (mutant, twins) in mutants {
            let alone = namespaces(&town, mutant.kind);
            let alone =
                alone.iter().map(|name| Some(name.as_str())).filter(|_| bars && equal(mutant).is_none());
            // Only the first router has other situations. The second stage is the one that calls by name only, so
            // its router shows what that needs, and the others show the rest.
            let alone = alone.filter(|_| situation == Situation::Usual && mutant.name.ends_with("deleted"));
            let by_name = namespaces(&town, Kind::Router)[1].clone();
            let alone = alone.filter(|only| {
                mutant.name.contains("only-by-name") == (*only == Some(by_name.as_str()))
                    || mutant.kind != Kind::Router
            });
            for only in [None].into_iter().chain(alone) {
                let seen = bench.notices(mutant, only, &twins).await;
                let paths: BTreeSet<_> = seen.iter().filter_map(|line| line.split(':').next()).collect();
                let _ = writeln!(told, "{} in {}: {paths:?}", mutant.name, only.unwrap_or("all"));
                println!(
                    "{:7.1} {} in {}: {paths:?}",
                    begun.elapsed().as_secs_f64(),
                    mutant.name,
                    only.unwrap_or("all")
                );
                match equal(mutant) {
                    Some(why) if !seen.is_empty() => {
                        wrong.push(format!("{} is noticed after all ({why})", mutant.name));
                    }
                    None if seen.is_empty() => wrong.push(format!("{} is not noticed", mutant.name)),
                    _ => {}
                }
                tried += 1;
            }
        }
        bench.load(None, &[]);
        if situation == Situation::Usual {
            assert_eq!(bench.everything().await, BTreeSet::new(), "all is well again");
        }
        drop(bench);
        situation.undo(&town);
    }
    println!("{tried} mutants in {:.0} s", begun.elapsed().as_secs_f64());
    assert!(wrong.is_empty(), "{} of {tried}: {wrong:#?}\n{told}", wrong.len());
}
