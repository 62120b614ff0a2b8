//! What there is to call while isolation is verified: one address and port, and names with made-up answers.
//!
//! Everything else is as ever. The answers go through the same hands as those of a name server, and the one
//! address is open to a call that names it or that a judged answer leads to.

use bastide_types::egress::{EgressCanary, EgressDecision, Host};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

/// Why the canary's address passes.
const WHY: &str = "isolation is being verified";

/// The canary of now, if there is one.
#[derive(Default)]
pub(crate) struct Canary(Mutex<Option<Arc<Known>>>);

pub(crate) struct Known {
    canary: EgressCanary,
    /// How often each name was asked for.
    turns: Mutex<HashMap<String, usize>>,
}

impl Canary {
    /// From now on there is this one, or none.
    pub(crate) fn set(&self, canary: Option<EgressCanary>) {
        let known = canary.map(|canary| Arc::new(Known { canary, turns: Mutex::default() }));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    pub(crate) fn now(&self) -> Option<Arc<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Known {
    /// The next answer for a name of its own.
    pub(crate) fn answer(&self, name: &str) -> Option<Vec<IpAddr>> {
        let answers = self.canary.names.get(name)?;
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(name.to_owned()).or_default();
        let answer = answers.get(*turn).or(answers.last()).cloned().unwrap_or_default();
        *turn += 1;
        Some(answer)
    }

    /// Lets its own address and port pass, and nothing else.
    pub(crate) fn decide(&self, to: SocketAddr) -> Option<EgressDecision> {
        (self.canary.open == to).then(|| EgressDecision { allowed: true, reported: false, why: WHY.into() })
    }

    /// Whether a name service may name this address.
    pub(crate) fn is_at(&self, address: IpAddr) -> bool {
        self.canary.open.ip() == address
    }

    /// Whether a host is one of its names, which no policy knows.
    pub(crate) fn knows(&self, host: &Host) -> bool {
        matches!(host, Host::Name(name) if self.canary.names.contains_key(name))
    }
}
