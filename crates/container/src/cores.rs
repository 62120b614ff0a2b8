//! Cores of the host, and which of them a container may use.

use std::{collections::BTreeSet, fmt, fs, path::Path, str::FromStr};

/// No host has more; a longer list is not one of cores.
const CORES_MAX: u16 = 8192;

/// Some cores, by the kernel's numbers. Never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(BTreeSet<u16>);

impl Cores {
    /// Those that containers of this host share; nothing where the host cannot tell cores apart for them.
    pub fn of_host() -> Option<Self> {
        Self::below(Path::new("/sys/fs/cgroup"))
    }

    fn below(root: &Path) -> Option<Self> {
        // Of the one hierarchy (v2), or of the one for this controller (v1).
        ["cpuset.cpus.effective", "cpuset/cpuset.effective_cpus", "cpuset/cpuset.cpus"]
            .iter()
            .find_map(|file| fs::read_to_string(root.join(file)).ok()?.parse().ok())
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The second half of them, rounded down; nothing when there is only one.
    pub fn half(&self) -> Option<Self> {
        let half: BTreeSet<u16> = self.0.iter().skip(self.count().div_ceil(2)).copied().collect();
        (!half.is_empty()).then_some(Self(half))
    }
}

impl FromStr for Cores {
    type Err = String;

    /// Reads a list such as `0-3,8`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no list of cores");
        let mut cores = BTreeSet::new();
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) =
                (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
            if first > last || last >= CORES_MAX {
                return Err(wrong());
            }
            cores.extend(first..=last);
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, core) in self.0.iter().enumerate() {
            write!(f, "{}{core}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(text: &str) -> Cores {
        text.parse().unwrap()
    }

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(cores("0-3,8\n").to_string(), "0,1,2,3,8");
        assert_eq!(cores("7").count(), 1);
        for wrong in ["", "\n", "a", "3-1", "1-", "-1", "0,,1", "0-9999", "1;2"] {
            assert!(wrong.parse::<Cores>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn half_of_them_leaves_at_least_as_many() {
        assert_eq!(cores("0").half(), None);
        assert_eq!(cores("0-1").half(), Some(cores("1")));
        assert_eq!(cores("0-2").half(), Some(cores("2")));
        assert_eq!(cores("0-3,8-11").half(), Some(cores("8-11")));
    }

    #[test]
    fn a_host_says_which_there_are() {
        for file in ["cpuset.cpus.effective", "cpuset/cpuset.effective_cpus", "cpuset/cpuset.cpus"] {
            let host = tempfile::tempdir().unwrap();
            assert_eq!(Cores::below(host.path()), None);
            fs::create_dir_all(host.path().join("cpuset")).unwrap();
            fs::write(host.path().join(file), "0-1\n").unwrap();
            assert_eq!(Cores::below(host.path()), Some(cores("0-1")), "{file}");
        }
    }
}
