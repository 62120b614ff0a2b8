//! The flow log: one JSON line per call, with who, where to, how much, and why it passed or not.

use crate::Error;
use bastide_types::egress::EgressCaller;
use serde::Serialize;
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

const QUEUE: usize = 4096;
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It went out.
    Allowed,
    /// It went out; under `enforce` it would not have.
    Reported,
    /// It was refused.
    Refused,
    /// Nothing forbade it, and it failed.
    Failed,
}

/// One call.
#[derive(Debug, Clone, Serialize)]
pub struct Flow {
    /// When it ended, RFC 3339.
    pub time: String,
    /// Who called.
    #[serde(flatten)]
    pub who: EgressCaller,
    /// How it was asked for: `connect`, `http`, `socks` or `name`.
    pub by: &'static str,
    /// The host that was named, and empty when it could not be read.
    pub host: String,
    /// The address that was dialled.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// What became of it.
    pub verdict: Verdict,
    /// The rule, range, mode or error behind the verdict.
    pub why: String,
    /// Bytes from the app.
    pub bytes_out: u64,
    /// Bytes to the app.
    pub bytes_back: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Takes flows; a thread writes them. When it cannot keep up, flows are counted instead of awaited.
#[derive(Clone)]
pub struct FlowLog {
    sender: mpsc::Sender<Flow>,
    lost: Arc<AtomicU64>,
}

impl FlowLog {
    /// Opens the file and starts its writer, which ends with the last handle.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut file = Turned::open(path).map_err(Error::file(path))?;
        let (sender, mut flows) = mpsc::channel::<Flow>(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let path = path.to_owned();
        let missed = lost.clone();
        std::thread::Builder::new()
            .name("flow-log".into())
            .spawn(move || {
                while let Some(flow) = flows.blocking_recv() {
                    if let Err(error) = file.write(&flow) {
                        tracing::warn!(%error, path = %path.display(), "a flow is not logged");
                    }
                    let lost = missed.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        tracing::warn!(lost, "flows came faster than they can be logged");
                    }
                }
            })
            .map_err(Error::file("flow-log thread"))?;
        Ok(Self { sender, lost })
    }

    pub(crate) fn record(&self, flow: Flow) {
        if self.sender.try_send(flow).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A file that starts anew when it is full; the one before is kept.
struct Turned {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Turned {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size })
    }

    fn write(&mut self, flow: &Flow) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(flow)?;
        line.push(b'\n');
        if self.size > 0 && self.size + line.len() as u64 > FILE_BYTES_MAX {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(&line)?;
        self.size += line.len() as u64;
        Ok(())
    }
}
