//! The `[resources]` table: what each replica may use. The kernel keeps it to that.

use super::ManifestError;
use serde::{Deserialize, Serialize};

/// The `[resources]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Thousandths of a processor. Default 1000, 50 to 64 000.
    pub cpu_millis: u32,
    /// Memory in MiB, with page cache and `/tmp`. Who uses more is ended and started again. Default 256, 16 to 65 536.
    pub memory_mb: u32,
    /// Processes and threads. Default 512, 8 to 16 384.
    pub pids: u32,
    /// Space in `/tmp` in MiB; it counts as memory. Default 64, or half of `memory_mb` when that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp_mb: Option<u32>,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu_millis: 1000, memory_mb: 256, pids: 512, tmp_mb: None }
    }
}

impl Resources {
    /// Space in `/tmp` in MiB.
    pub fn tmp_mb(&self) -> u32 {
        self.tmp_mb.unwrap_or_else(|| (self.memory_mb / 2).min(64))
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        let fail = |key: &str, problem: &str| {
            Err(ManifestError { key: format!("resources.{key}"), problem: problem.into() })
        };
        if !(50..=64_000).contains(&self.cpu_millis) {
            return fail("cpu_millis", "50 to 64000 thousandths of a processor");
        }
        if !(16..=65_536).contains(&self.memory_mb) {
            return fail("memory_mb", "16 to 65536 MiB");
        }
        if !(8..=16_384).contains(&self.pids) {
            return fail("pids", "8 to 16384 processes and threads");
        }
        if self.tmp_mb() == 0 || self.tmp_mb() > self.memory_mb {
            return fail("tmp_mb", "1 MiB to memory_mb: what lies in /tmp is memory");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_fits_and_what_does_not_is_named() {
        Resources::default().check().unwrap();
        assert_eq!(Resources { memory_mb: 32, ..Resources::default() }.tmp_mb(), 16);
        let check = |change: fn(&mut Resources), key: &str| {
            let mut resources = Resources::default();
            change(&mut resources);
            assert_eq!(resources.check().unwrap_err().key, format!("resources.{key}"));
        };
        check(|r| r.cpu_millis = 1, "cpu_millis");
        check(|r| r.memory_mb = 15, "memory_mb");
        check(|r| r.pids = 1, "pids");
        check(|r| r.tmp_mb = Some(257), "tmp_mb");
    }
}
