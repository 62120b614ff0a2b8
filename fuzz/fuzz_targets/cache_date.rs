//! Dates: any bytes are one or none, and what was read is written and read back the same.

#![no_main]

use bastide_cache::date::{parse, value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (i64, &[u8])| {
    let (now, bytes) = input;
    // Clocks of this and the next centuries.
    let now = now.rem_euclid(20_000_000_000);
    if let Some(seconds) = parse(bytes, now)
        && (0..253_402_300_800).contains(&seconds)
    {
        assert_eq!(parse(value(seconds).as_bytes(), now), Some(seconds));
    }
});
