//! How many replicas an app should have, and in which zones.
//!
//! The rule is the one that Kubernetes' autoscaler made known: as many as bring the average use to the target,
//! rounded up; nothing within a tolerance of a tenth; up at once, down only to the most that was advised in
//! the last five minutes. What is not known never causes a change in the direction that would hurt: a replica
//! without a measurement counts as idle when others ask for more, and as busy when they ask for less.

use bastide_types::{
    ReplicaId, ZoneName,
    manifest::{Resources, Scale},
    message::Usage,
};
use std::{cmp::Reverse, collections::BTreeMap, ops::RangeInclusive};

/// Seconds between two looks at an app.
pub const EVERY_S: i64 = 15;
/// Seconds that advice to have more replicas holds against advice to have fewer.
pub const DOWN_AFTER_S: i64 = 300;
/// Within this part of the target nothing is changed, in percent.
const TOLERANCE_PERCENT: u64 = 10;

/// An app in one stage, as it is.
#[derive(Debug, Clone)]
pub struct Observed<'o> {
    /// What it wants.
    pub scale: Scale,
    /// What each replica may use.
    pub resources: Resources,
    /// What each replica uses; `None` when it is not ready, or not measured.
    pub replicas: &'o [Option<Usage>],
    /// How many more its customer may have.
    pub left: u32,
}

/// What was advised lately: seconds since 1970, and replicas.
pub type Advice = Vec<(i64, u32)>;

/// What should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// So many replicas.
    pub replicas: u32,
    /// Why, for people.
    pub why: String,
}

/// Decides how many replicas there should be, and keeps the advice for later.
pub fn decide(observed: &Observed<'_>, advice: &mut Advice, now_s: i64) -> Decision {
    let current = u32::try_from(observed.replicas.len()).unwrap_or(u32::MAX);
    let range = observed.scale.range();
    advice.retain(|(at, _)| (now_s - DOWN_AFTER_S..=now_s).contains(at));
    // What people ask for holds at once, as far as the customer's quota goes.
    if !range.contains(&current) {
        advice.clear();
        let bound = bounded(current, &range, current, observed.left);
        let why =
            if range.contains(&bound) { format!("{} to {}", range.start(), range.end()) } else { quota() };
        advice.push((now_s, bound));
        return Decision { replicas: bound, why };
    }
    // The first look must not make fewer of what was there before it.
    if advice.is_empty() {
        advice.push((now_s, current));
    }
    let Some((wanted, why)) = wanted(observed, current) else {
        let why = if range.start() == range.end() { "a fixed number" } else { "nothing is measured yet" };
        return Decision { replicas: current, why: why.to_owned() };
    };
    let asked = wanted.clamp(*range.start(), *range.end());
    let wanted = bounded(asked, &range, current, observed.left);
    advice.push((now_s, wanted));
    let held = advice.iter().map(|(_, replicas)| *replicas).max().unwrap_or(current);
    let replicas = if wanted > current { wanted } else { held.min(current) };
    let why = if wanted < asked {
        format!("{why}; {}", quota())
    } else if replicas > wanted {
        format!("{why}; fewer only after {DOWN_AFTER_S} s")
    } else {
        why
    };
    Decision { replicas, why }
}

fn quota() -> String {
    "the customer's quota is used up".to_owned()
}

fn bounded(wanted: u32, range: &RangeInclusive<u32>, current: u32, left: u32) -> u32 {
    wanted.clamp(*range.start(), *range.end()).min(current.saturating_add(left))
}

/// Replicas that bring the use to its target, and what decided; `None` when nothing is measured.
fn wanted(observed: &Observed<'_>, current: u32) -> Option<(u32, String)> {
    let cpu = observed.scale.cpu_target().map(|target| {
        let limit = u64::from(observed.resources.cpu_millis);
        ("cpu", target, limit, used(observed, |usage| u64::from(usage.cpu_millis)))
    });
    let memory = observed.scale.memory_percent.map(|target| {
        let limit = u64::from(observed.resources.memory_mb) * 1024 * 1024;
        ("memory", target, limit, used(observed, |usage| usage.memory_bytes))
    });
    let advised = cpu.into_iter().chain(memory).map(|(what, target, limit, used)| {
        let known: Vec<u64> = used.iter().flatten().copied().collect();
        let average = average_percent(&known, limit)?;
        let why = format!("{what} {average} %, target {target} %");
        Some((for_one(&used, limit, target, current)?, why))
    });
    advised.flatten().max_by_key(|(replicas, _)| *replicas)
}

fn used(observed: &Observed<'_>, part: impl Fn(&Usage) -> u64) -> Vec<Option<u64>> {
    observed.replicas.iter().map(|usage| usage.as_ref().map(&part)).collect()
}

fn average_percent(known: &[u64], limit: u64) -> Option<u64> {
    let sum: u64 = known.iter().copied().fold(0, u64::saturating_add);
    let of = limit.saturating_mul(known.len() as u64);
    (of > 0).then(|| sum.saturating_mul(100) / of)
}

/// ⌈n × use / target⌉ for one kind of use.
fn for_one(used: &[Option<u64>], limit: u64, target_percent: u32, current: u32) -> Option<u32> {
    let known: Vec<u64> = used.iter().flatten().copied().collect();
    if known.is_empty() || limit == 0 {
        return None;
    }
    // Per replica, in hundredths of the limit's unit, so that nothing is lost to rounding.
    let target = u128::from(limit) * u128::from(target_percent);
    let sum: u128 = known.iter().map(|one| u128::from(*one) * 100).sum();
    let missing = (used.len() - known.len()) as u128;
    let more = sum > target * known.len() as u128;
    // The unknown ones speak against a change.
    let sum = if more { sum } else { sum + missing * target };
    let whole = target * used.len() as u128;
    let apart = sum.abs_diff(whole);
    if apart * 100 <= whole * u128::from(TOLERANCE_PERCENT) || (more && sum < whole) {
        return Some(current);
    }
    let wanted = u32::try_from(sum.div_ceil(target)).unwrap_or(u32::MAX);
    Some(if more { wanted.max(current) } else { wanted.min(current) })
}

/// Zones for `count` more replicas, beside those that there are: each goes where fewest are.
pub fn place(zones: &[ZoneName], there: &[ZoneName], count: u32) -> Vec<ZoneName> {
    let mut full: BTreeMap<usize, usize> = zones
        .iter()
        .enumerate()
        .map(|(at, zone)| (at, there.iter().filter(|one| *one == zone).count()))
        .collect();
    let mut placed = Vec::new();
    for _ in 0..count {
        let Some((at, replicas)) = full.iter_mut().min_by_key(|(at, replicas)| (**replicas, **at)) else {
            break;
        };
        *replicas += 1;
        placed.push(zones[*at].clone());
    }
    placed
}

/// A replica that may be given up.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Which.
    pub id: ReplicaId,
    /// Where.
    pub zone: ZoneName,
    /// Whether it gets requests.
    pub ready: bool,
}

/// Which `count` replicas go: from where most are, those that are not ready first, then the newest.
pub fn shed(zones: &[ZoneName], there: &[Candidate], count: u32) -> Vec<ReplicaId> {
    let mut left = there.to_vec();
    let mut gone = Vec::new();
    for _ in 0..count {
        let full = |zone: &ZoneName| left.iter().filter(|one| one.zone == *zone).count();
        let known = |zone: &ZoneName| zones.iter().position(|one| one == zone);
        let next = left.iter().enumerate().max_by_key(|(_, one)| {
            // A zone that is not there any more empties first.
            (known(&one.zone).is_none(), full(&one.zone), Reverse(one.ready), known(&one.zone), one.id)
        });
        let Some((at, _)) = next else { break };
        gone.push(left.remove(at).id);
    }
    gone
}
