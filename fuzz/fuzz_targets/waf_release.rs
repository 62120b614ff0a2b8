//! No archive of rules makes the unpacker panic, and no name in it leads out.
#![no_main]

use bastide_edge::rules::versions::archive::unpack;
use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use std::io::Write;

fuzz_target!(|tar: Vec<u8>| {
    let mut tar = tar;
    tar.chunks_exact_mut(512).for_each(mend);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&tar).expect("memory takes everything");
    let packed = packed.finish().expect("memory takes everything");
    if let Ok(contents) = unpack(packed.as_slice()) {
        for path in contents.keys() {
            assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".." || part.is_empty()));
        }
    }
});

/// Gives a block the checksum of a header, or no fuzzer gets past it.
fn mend(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
