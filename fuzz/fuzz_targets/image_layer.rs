//! No layer lands anything outside its root, or makes the unpacker panic.
#![no_main]

use bastide_image::{Limits, Unpacker};
use libfuzzer_sys::fuzz_target;
use std::fs;

fuzz_target!(|layers: Vec<Vec<u8>>| {
    let dir = std::env::temp_dir().join(format!("bastide-fuzz-layer-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("root")).expect("a directory for the test");
    fs::write(dir.join("outside"), "outside").expect("a file for the test");
    let limits = Limits { bytes_max: 1024 * 1024, entries_max: 100, layers_max: 8 };
    if let Ok(mut unpacker) = Unpacker::new(&dir.join("root"), limits) {
        for mut layer in layers {
            layer.chunks_exact_mut(512).for_each(mend);
            let _ = unpacker.layer(layer.as_slice());
        }
    }
    assert_eq!(fs::read(dir.join("outside")).expect("it is still there"), b"outside");
    assert_eq!(fs::read_dir(&dir).expect("it is still there").count(), 2);
});

/// Gives a block the checksum of a header, or no fuzzer gets past it.
fn mend(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
