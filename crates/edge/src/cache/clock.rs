//! The two clocks of the cache engine, read here.

use crate::context::Context;
use bastide_cache::Moment;
use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

/// Now.
pub(crate) fn now() -> Moment {
    moment(SystemTime::now(), Instant::now())
}

/// When a request began.
pub(crate) fn begun(cx: &Context) -> Moment {
    moment(cx.at, cx.begun)
}

fn moment(wall: SystemTime, steady: Instant) -> Moment {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Moment {
        wall_ms: wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, ms),
        steady_ms: ms(steady.saturating_duration_since(*start)),
    }
}
