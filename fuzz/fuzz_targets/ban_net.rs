//! Networks to ban: any text is refused, or a network that reads back as it is written.
#![no_main]

use bastide_types::BannedNet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(net) = text.parse::<BannedNet>() {
        assert_eq!(net.to_string().parse(), Ok(net));
        assert!(!net.holds([127, 0, 0, 1].into()));
    }
});
