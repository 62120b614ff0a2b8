//! A moment on two clocks, as the caller read them: one that people share, and one that never jumps.

/// A moment. Dates are compared with the wall clock, time that passes is counted on the steady one, so that
/// a corrected clock makes nothing stored younger or older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// Milliseconds since any beginning, never going back.
    pub steady_ms: u64,
}

impl Moment {
    /// Whole seconds since 1970.
    pub fn wall_s(self) -> i64 {
        i64::try_from(self.wall_ms / 1000).unwrap_or(i64::MAX)
    }

    /// Milliseconds from `earlier` until now; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.steady_ms.saturating_sub(earlier.steady_ms)
    }

    /// The moment that comes so many milliseconds later.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self { wall_ms: self.wall_ms.saturating_add(ms), steady_ms: self.steady_ms.saturating_add(ms) }
    }
}
