//! Round-robin over a fixed list of peers (platform replicas, gateways), with passive ejection.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(30);

/// Strict round-robin over `0..n`. A peer that failed is left out for a growing time, but never all.
pub struct RoundRobin {
    state: Mutex<State>,
}

struct State {
    next: usize,
    peers: Vec<Peer>,
}

#[derive(Clone, Default)]
struct Peer {
    failures: u32,
    out_until: Option<Instant>,
}

impl RoundRobin {
    /// A ring of `n` peers.
    pub fn new(n: usize) -> Self {
        Self { state: Mutex::new(State { next: 0, peers: vec![Peer::default(); n] }) }
    }

    /// The peer whose turn it is, leaving out `exclude`. Ejected peers come last, so that the only one
    /// left is still tried. `None` when all are excluded.
    pub fn pick(&self, exclude: &[usize], now: Instant) -> Option<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let n = state.peers.len();
        let order = (0..n).map(|step| (state.next + step) % n).filter(|peer| !exclude.contains(peer));
        let is_in = |peer: &usize| state.peers[*peer].out_until.is_none_or(|until| until <= now);
        let chosen = order.clone().find(is_in).or_else(|| order.clone().next())?;
        state.next = (chosen + 1) % n;
        Some(chosen)
    }

    /// A peer failed: it is left out for 1 s, then 2, 4, … up to 30 s.
    pub fn failed(&self, peer: usize, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = state.peers.get_mut(peer) {
            let pause = FIRST_EJECTION * 2_u32.saturating_pow(peer.failures.min(5));
            peer.failures += 1;
            peer.out_until = Some(now + pause.min(LONGEST_EJECTION));
        }
    }

    /// A peer answered: all is forgiven.
    pub fn succeeded(&self, peer: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = state.peers.get_mut(peer).filter(|peer| peer.failures > 0) {
            *peer = Peer::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_take_turns_strictly() {
        let (ring, now) = (RoundRobin::new(3), Instant::now());
        let picks: Vec<_> = (0..6).filter_map(|_| ring.pick(&[], now)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_failed_peer_is_left_out_for_a_growing_time() {
        let (ring, now) = (RoundRobin::new(2), Instant::now());
        ring.failed(0, now);
        assert_eq!((ring.pick(&[], now), ring.pick(&[], now)), (Some(1), Some(1)));
        let later = now + Duration::from_secs(1);
        assert_eq!(ring.pick(&[], later), Some(0));
        ring.failed(0, later);
        assert_eq!(
            ring.pick(&[1], later + Duration::from_millis(1500)),
            Some(0),
            "the only one left is tried"
        );
        ring.succeeded(0);
        ring.failed(1, later);
        assert_eq!(ring.pick(&[], later), Some(0));
    }

    #[test]
    fn nothing_is_left_when_all_are_excluded() {
        assert_eq!(RoundRobin::new(1).pick(&[0], Instant::now()), None);
        assert_eq!(RoundRobin::new(0).pick(&[], Instant::now()), None);
    }
}
