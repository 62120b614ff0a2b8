//! Why answers under an address were not stored of late, for whoever asks.
//!
//! A table of fixed size: two addresses may share a place, and then only the later ground is known. A place
//! names its address by bits of a hash that nobody outside can foresee, so that no ground is told of another.

use crate::{Moment, key::Key, why::NotStored};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PLACES: usize = 16 * 1024;
/// Bits of a place that hold when it was, in seconds of the steady clock.
const SECONDS: u64 = (1 << 24) - 1;

/// The table.
pub(crate) struct Grounds(Box<[AtomicU64]>);

impl Grounds {
    pub(crate) fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn note(&self, key: &Key, why: NotStored, now: Moment) {
        let Some(code) = NotStored::ALL.iter().position(|own| *own == why) else { return };
        let at = (now.steady_ms / 1000) & SECONDS;
        // A place that was never written is zero, so codes begin with one.
        self.place(key).store(key.hash() >> 32 << 32 | at << 8 | (code as u64 + 1), Relaxed);
    }

    /// The last ground, and how many seconds ago it was.
    pub(crate) fn of(&self, key: &Key, now: Moment) -> Option<(NotStored, u64)> {
        let place = self.place(key).load(Relaxed);
        let code = (place & 0xff).checked_sub(1)?;
        let why = *NotStored::ALL.get(code as usize).filter(|_| place >> 32 == key.hash() >> 32)?;
        let ago = (now.steady_ms / 1000).wrapping_sub(place >> 8 & SECONDS) & SECONDS;
        Some((why, ago))
    }

    fn place(&self, key: &Key) -> &AtomicU64 {
        &self.0[key.hash() as usize % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    #[test]
    fn the_last_ground_of_an_address_is_known_and_of_no_other() {
        let (grounds, now) = (Grounds::new(), Moment { wall_ms: 0, steady_ms: 70_000 });
        let key = |target: &str| Key::new(&Scope::new(&["acme"]), "https", "h", target);
        assert_eq!(grounds.of(&key("/a"), now), None);
        for why in NotStored::ALL {
            grounds.note(&key("/a"), why, now);
            assert_eq!(grounds.of(&key("/a"), now.after(3000)), Some((why, 3)));
        }
        for n in 0..40_000 {
            assert_eq!(grounds.of(&key(&format!("/b{n}")), now), None);
        }
    }
}
