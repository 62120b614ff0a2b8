//! The flow log: one JSON line per call, with who, where to, how much, and why it passed or not.

use bastide_types::flow::Flow;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
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

/// Takes flows; a thread writes them. When it cannot keep up, flows are counted instead of awaited. A file belongs
/// to one process.
#[derive(Debug, Clone)]
pub struct FlowLog {
    sender: mpsc::Sender<Flow>,
    lost: Arc<AtomicU64>,
}

impl FlowLog {
    /// Opens the file and starts its writer, which ends with the last handle.
    ///
    /// # Errors
    /// When the file cannot be opened, or there can be no thread.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = Turned::open(path)?;
        let (sender, mut flows) = mpsc::channel::<Flow>(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let path = path.to_owned();
        let missed = lost.clone();
        std::thread::Builder::new().name("flow-log".into()).spawn(move || {
            while let Some(flow) = flows.blocking_recv() {
                if let Err(error) = file.write(&flow) {
                    tracing::warn!(%error, path = %path.display(), "a flow is not logged");
                }
                let lost = missed.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::warn!(lost, "flows came faster than they can be logged");
                }
            }
        })?;
        Ok(Self { sender, lost })
    }

    /// Hands a flow to the writer; never waits.
    pub fn record(&self, flow: Flow) {
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
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size })
    }

    fn write(&mut self, flow: &Flow) -> io::Result<()> {
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
