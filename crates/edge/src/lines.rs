//! A log of JSON lines: written by one thread, never waited for. What does not fit in the queue is
//! dropped and counted.

use std::{
    fs,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

const QUEUE: usize = 8192;
/// A log that is larger becomes `<name>.1` first.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A log.
pub(crate) struct Lines {
    sender: Option<mpsc::SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
    dropped: AtomicU64,
}

impl Lines {
    /// Opens the log for appending.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        if fs::metadata(path).is_ok_and(|meta| meta.len() > FILE_BYTES_MAX) {
            fs::rename(path, path.with_extension("1"))?;
        }
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let (sender, lines) = mpsc::sync_channel::<String>(QUEUE);
        let writer = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write(&lines, BufWriter::new(file)))?;
        Ok(Self { sender: Some(sender), writer: Some(writer), dropped: AtomicU64::new(0) })
    }

    /// Adds a line.
    pub(crate) fn add(&self, line: String) {
        let full = self.sender.as_ref().is_none_or(|sender| sender.try_send(line).is_err());
        if full && self.dropped.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::warn!(
                dropped = self.dropped.load(Ordering::Relaxed),
                "a log cannot keep up; lines are dropped"
            );
        }
    }
}

fn write(lines: &mpsc::Receiver<String>, mut file: BufWriter<fs::File>) {
    while let Ok(mut line) = lines.recv() {
        loop {
            line.push('\n');
            if let Err(error) = file.write_all(line.as_bytes()) {
                tracing::warn!(%error, "cannot write a log");
            }
            match lines.try_recv() {
                Ok(next) => line = next,
                Err(_) => break,
            }
        }
        // Whoever reads the log sees a line as soon as the queue is empty.
        let _ = file.flush();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
