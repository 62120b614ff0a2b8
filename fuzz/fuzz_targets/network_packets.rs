//! What the kernel says about connections and stopped packets: of these the bytes are an app's.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let words = bastide_network::gateway::wire::read(bytes);
    assert!(words.len() <= bytes.len() / 16);
});
