//! From the host that an app names to the addresses that may be dialled for it.

use crate::{canary::Known, error::Refusal, resolve::Names};
use bastide_types::egress::{EgressDecision, EgressPolicy, Host};
use std::net::{IpAddr, SocketAddr};

/// Where a call may go.
#[derive(Debug)]
pub(crate) struct Destination {
    /// Addresses to try, in this order.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What let them through.
    pub(crate) decision: EgressDecision,
}

/// Most addresses of one name that are tried.
const TRIED_MAX: usize = 4;

/// Decides on a call. A name is resolved here, once; each of its addresses is judged, and only those that
/// pass may be dialled.
///
/// # Errors
/// The refusal, and the decision behind it where there is one.
pub(crate) async fn destination<N: Names>(
    policy: &EgressPolicy,
    names: &N,
    canary: Option<&Known>,
    host: &Host,
    port: u16,
) -> Result<Destination, (Refusal, Option<EgressDecision>)> {
    let made_up = match host {
        Host::Name(name) => canary.and_then(|canary| canary.answer(name)),
        Host::Address(_) => None,
    };
    let candidates = match (host, made_up) {
        (Host::Address(address), _) => vec![*address],
        (Host::Name(_), Some(answer)) => answer,
        (Host::Name(name), None) => {
            // Also a look-up tells the outside something, so what can never pass is not looked up.
            if !policy.may_resolve(name) {
                return Err(refused(policy.decide(host, None, port)));
            }
            names.addresses(name).await.map_err(|error| (Refusal::Name(error), None))?
        }
    };
    judge(policy, canary, host, port, &candidates)
}

fn judge(
    policy: &EgressPolicy,
    canary: Option<&Known>,
    host: &Host,
    port: u16,
    candidates: &[IpAddr],
) -> Result<Destination, (Refusal, Option<EgressDecision>)> {
    let mut passed: Option<Destination> = None;
    let mut denied = None;
    for address in candidates {
        let open = canary.and_then(|canary| canary.decide(SocketAddr::new(*address, port)));
        let decision = open.unwrap_or_else(|| policy.decide(host, Some(*address), port));
        if !decision.allowed {
            denied = Some(decision);
            continue;
        }
        let to = SocketAddr::new(*address, port);
        match &mut passed {
            Some(passed) if passed.addresses.len() < TRIED_MAX => passed.addresses.push(to),
            Some(_) => {}
            None => passed = Some(Destination { addresses: vec![to], decision }),
        }
    }
    match (passed, denied) {
        (Some(passed), _) => Ok(passed),
        (None, Some(decision)) => Err(refused(decision)),
        (None, None) => {
            Err((Refusal::Name(std::io::Error::new(std::io::ErrorKind::NotFound, "no address")), None))
        }
    }
}

fn refused(decision: EgressDecision) -> (Refusal, Option<EgressDecision>) {
    (Refusal::Policy { why: decision.why.clone() }, Some(decision))
}
