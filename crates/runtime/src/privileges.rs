//! Giving up what a process does not need, for itself and for all that it starts.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use std::{fs, io};

/// Highest capability that is tried when the kernel does not say how many it has.
const LAST: u32 = 40;
/// Roles are killed late when memory runs out; apps have 500.
const ROLE_OOM: i32 = -500;
/// Apps that are no containers.
const APP_OOM: i32 = 500;

/// Gives up all capabilities but those in `keep`, for good: neither this process nor what it starts gets any
/// again. To be called before there is a second thread, since each has its own.
///
/// # Errors
/// When something could not be given up.
pub fn give_up(keep: CapabilitySet) -> io::Result<()> {
    let have = capabilities(None)?;
    let kept = have.permitted & keep;
    if have.effective.contains(CapabilitySet::SETPCAP) {
        let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
        let last = last.and_then(|text| text.trim().parse().ok()).unwrap_or(LAST).min(63);
        for one in (0..=last).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
            if !keep.contains(one) {
                remove_capability_from_bounding_set(one)?;
            }
        }
    }
    clear_ambient_capability_set()?;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    set_no_new_privs(true)?;
    Ok(())
}

/// Makes the kernel spare this process when memory runs out. Lowering the score needs root; without it, nothing
/// changes.
pub fn spare_when_memory_runs_out() {
    let _ = fs::write("/proc/self/oom_score_adj", ROLE_OOM.to_string());
}

/// Makes the kernel end this process early when memory runs out, as an app's.
pub(crate) fn end_early_when_memory_runs_out() {
    let _ = fs::write("/proc/self/oom_score_adj", APP_OOM.to_string());
}

pub use rustix::thread::CapabilitySet as Capabilities;
