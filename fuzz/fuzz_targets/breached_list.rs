//! Lists of breached passwords: whatever the bytes are, looking one up ends and does not panic.
#![no_main]

use bastide_identity::breached::{Kind, List};
use libfuzzer_sys::fuzz_target;
use std::convert::Infallible;

fuzz_target!(|input: (&str, &[u8])| {
    let (password, bytes) = input;
    let read = |at: u64, buffer: &mut [u8]| -> Result<usize, Infallible> {
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    };
    let length = bytes.len() as u64;
    let _ = List::check(read, length);
    for kind in [Kind::Plain, Kind::Hashes] {
        let _ = List::new(read, length, kind).contains(password);
    }
});
