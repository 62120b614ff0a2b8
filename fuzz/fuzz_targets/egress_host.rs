//! Hosts and rules of the egress policy: no text may panic, and what is read must read back the same.
#![no_main]

use bastide_types::egress::{EgressRule, Host, host_and_port};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(host) = text.parse::<Host>() {
        assert_eq!(host.to_string().parse::<Host>(), Ok(host));
    }
    if let Ok(rule) = text.parse::<EgressRule>() {
        assert_eq!(rule.to_string().parse::<EgressRule>(), Ok(rule));
    }
    let _ = host_and_port(text);
});
