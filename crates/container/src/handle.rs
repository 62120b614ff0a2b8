//! The agent's end of a shim: start one, find one again, watch it, stop it.

use crate::{
    Container, Error, Result,
    cgroup::Cgroups,
    life::{self, Ended, How, Life},
    shim::{Order, SOCKET},
};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// Name of the configuration in the state directory.
pub(crate) const CONFIG: &str = "shim.json";
/// Longest wait for a container to be made: a busy machine, not a slow app.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for a killed container to be gone, after its grace.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const LINE_BYTES_MAX: u64 = 16 * 1024;
const ORDERS: usize = 4;

/// A container that was started. Clones are the same container; dropping all of them only ends the watching.
#[derive(Debug, Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    container: Container,
    pid: Option<i32>,
    life: watch::Receiver<Life>,
    orders: mpsc::Sender<Order>,
    watching: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Starts a container by `executable shim --config FILE` and waits until its app's program is loaded.
///
/// The shim is a process of its own, not tied to the caller's life.
///
/// # Errors
/// [`Error::Start`] says why it did not start; nothing is left of it but its state directory.
pub async fn start(executable: &Path, container: &Container) -> Result<Handle> {
    container.check()?;
    let dir = &container.state_dir;
    let written = write_config(container)?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(Error::Shim)?;
    let errors = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.join("shim.log"))
        .map_err(Error::file(dir))?;
    let child = tokio::process::Command::new(executable)
        .arg("shim")
        .arg("--config")
        .arg(&written)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(errors)
        // Signals to the agent's group are not for the shims.
        .process_group(0)
        .kill_on_drop(false)
        .spawn()
        .map_err(Error::Shim)?;
    ours.set_nonblocking(true).map_err(Error::Shim)?;
    let stream = UnixStream::from_std(ours).map_err(Error::Shim)?;
    let first = tokio::time::timeout(START_LIMIT, Watcher::open(stream)).await;
    match first {
        Ok(Ok((Life::Ended(Ended { how: How::NotStarted(why), .. }), _))) => Err(Error::Start(why)),
        Ok(Ok((life, watcher))) => Ok(watch(container.clone(), life, watcher, Some(child))),
        Ok(Err(error)) => {
            // It fell before it could speak; its log may say why.
            give_up(container).await;
            let said = fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
            Err(match said.lines().last() {
                Some(last) if !last.is_empty() => Error::Start(last.to_owned()),
                _ => Error::Shim(error),
            })
        }
        Err(_) => {
            give_up(container).await;
            Err(Error::Slow(START_LIMIT.as_secs()))
        }
    }
}

/// Finds a container again after the agent's restart. `None`: there never was one in this directory.
///
/// When its shim is gone, whatever is left of it is killed, and the handle's life says how it ended.
///
/// # Errors
/// [`Error::Undead`] when something of it cannot be killed.
pub async fn attach(state_dir: &Path) -> Result<Option<Handle>> {
    let Some(container) = read_config(state_dir)? else { return Ok(None) };
    let dir = File::open(state_dir).map_err(Error::file(state_dir))?;
    // By descriptor: the path may be longer than a socket's name may be.
    let socket = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
    if let Ok(stream) = UnixStream::connect(&socket).await
        && let Ok(Ok((life, watcher))) = tokio::time::timeout(START_LIMIT, Watcher::open(stream)).await
    {
        return Ok(Some(watch(container, life, watcher, None)));
    }
    let ended = {
        let container = container.clone();
        tokio::task::spawn_blocking(move || lost(&container)).await.map_err(io::Error::other)
    };
    let ended = ended.map_err(Error::Shim)??;
    let (sender, life) = watch::channel(Life::Ended(ended));
    drop(sender);
    let (orders, _) = mpsc::channel(1);
    let watching = tokio::spawn(std::future::ready(()));
    Ok(Some(Handle { inner: Arc::new(Inner { container, pid: None, life, orders, watching }) }))
}

impl Handle {
    /// Process id of the app on this host, when it ran as the handle was made.
    pub fn pid(&self) -> Option<i32> {
        self.inner.pid
    }

    /// What was started.
    pub fn container(&self) -> &Container {
        &self.inner.container
    }

    /// Changes once, when it ends.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.inner.life.clone()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Ended {
        let mut life = self.life();
        match life.wait_for(|life| matches!(life, Life::Ended(_))).await.as_deref() {
            Ok(Life::Ended(ended)) => ended.clone(),
            // The watcher ended first, which only a dying runtime brings about.
            _ => Ended { how: How::Lost, oom_kills: 0, memory_bytes: 0 },
        }
    }

    /// Asks the app to end, kills all of it after `grace`, and waits until it is gone.
    ///
    /// An app that does not catch SIGTERM is killed at once: as process 1 it would never hear of it.
    ///
    /// # Errors
    /// [`Error::Undead`] when the kernel does not let go of it.
    pub async fn stop(&self, grace: Duration) -> Result<Ended> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        // A closed channel means that it has ended.
        let _ = self.inner.orders.send(Order::Stop { grace_ms }).await;
        match tokio::time::timeout(grace + STOP_LIMIT, self.ended()).await {
            Ok(ended) => Ok(ended),
            Err(_) => {
                let container = self.inner.container.clone();
                let killed = tokio::task::spawn_blocking(move || Cgroups::of(&container.id).kill()).await;
                killed.map_err(|error| Error::Shim(io::Error::other(error)))??;
                Ok(self.ended().await)
            }
        }
    }
}

/// Reads lives from a shim.
struct Watcher {
    lines: BufReader<tokio::net::unix::OwnedReadHalf>,
    orders: tokio::net::unix::OwnedWriteHalf,
}

impl Watcher {
    /// With the first that it says.
    async fn open(stream: UnixStream) -> io::Result<(Life, Self)> {
        let (read, orders) = stream.into_split();
        let mut watcher = Self { lines: BufReader::new(read), orders };
        Ok((watcher.next().await?, watcher))
    }

    async fn next(&mut self) -> io::Result<Life> {
        let mut line = String::new();
        (&mut self.lines).take(LINE_BYTES_MAX).read_line(&mut line).await?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Until it says the end or falls silent; passes orders on meanwhile.
    async fn follow(&mut self, mut taken: mpsc::Receiver<Order>) -> Option<Ended> {
        let mut line = Vec::new();
        loop {
            tokio::select! {
                // Cancel-safe: what was read stays in `line`.
                read = self.lines.read_until(b'\n', &mut line) => {
                    if !matches!(read, Ok(length) if length > 0) {
                        return None;
                    }
                    if let Ok(Life::Ended(ended)) = serde_json::from_slice(&line) {
                        return Some(ended);
                    }
                    line.clear();
                }
                Some(order) = taken.recv() => {
                    let mut text = serde_json::to_vec(&order).unwrap_or_default();
                    text.push(b'\n');
                    // Shorter than any socket's buffer; when it fails, the next read says so.
                    let _ = self.orders.write_all(&text).await;
                }
            }
        }
    }
}

fn watch(
    container: Container,
    life: Life,
    mut watcher: Watcher,
    child: Option<tokio::process::Child>,
) -> Handle {
    let pid = match &life {
        Life::Running { pid } => Some(*pid),
        Life::Ended(_) => None,
    };
    let (sender, receiver) = watch::channel(life.clone());
    let (orders, taken) = mpsc::channel(ORDERS);
    let watched = container.clone();
    // Owned by the handle, which ends it.
    let watching = tokio::spawn(async move {
        let ended = match life {
            Life::Ended(ended) => ended,
            Life::Running { .. } => match watcher.follow(taken).await {
                Some(ended) => ended,
                None => {
                    let lost = tokio::task::spawn_blocking(move || lost(&watched)).await;
                    match lost {
                        Ok(Ok(ended)) => ended,
                        Ok(Err(error)) => {
                            tracing::error!(%error, "a container whose shim is gone cannot be removed");
                            Ended { how: How::Lost, oom_kills: 0, memory_bytes: 0 }
                        }
                        Err(_) => return,
                    }
                }
            },
        };
        // Reaped here when this agent started it; otherwise by whoever its parent is now.
        if let Some(mut child) = child {
            let _ = child.wait().await;
        }
        sender.send_replace(Life::Ended(ended));
    });
    Handle { inner: Arc::new(Inner { container, pid, life: receiver, orders, watching }) }
}

/// Ends what is left of a container whose shim is gone, and says how it ended. Blocks.
pub(crate) fn lost(container: &Container) -> Result<Ended> {
    let groups = Cgroups::of(&container.id);
    groups.kill()?;
    let ended = match life::read(&container.state_dir) {
        Some(Life::Ended(ended)) => ended,
        _ => Ended {
            how: How::Lost,
            oom_kills: groups.oom_kills(),
            memory_bytes: container.limits.memory_bytes,
        },
    };
    groups.remove()?;
    let life = Life::Ended(ended.clone());
    life::write(&container.state_dir, &life).map_err(Error::file(&container.state_dir))?;
    Ok(ended)
}

/// Kills a container that did not come up; its shim sees that and ends.
async fn give_up(container: &Container) {
    let groups = Cgroups::of(&container.id);
    let killed = tokio::task::spawn_blocking(move || groups.kill().and_then(|()| groups.remove())).await;
    if let Ok(Err(error)) = killed {
        tracing::warn!(%error, "a container that did not start cannot be removed");
    }
}

fn write_config(container: &Container) -> Result<PathBuf> {
    let dir = &container.state_dir;
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::file(dir))?;
    // The end of an earlier life in this directory is not the end of this one.
    for stale in [life::LIFE, SOCKET] {
        let _ = fs::remove_file(dir.join(stale));
    }
    let path = dir.join(CONFIG);
    let text = serde_json::to_vec(container).map_err(|error| Error::Invalid(error.to_string()))?;
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::file(&path))?;
    io::Write::write_all(&mut file, &text).map_err(Error::file(&path))?;
    Ok(path)
}

/// What was started in a state directory, if anything was.
pub(crate) fn read_config(state_dir: &Path) -> Result<Option<Container>> {
    let path = state_dir.join(CONFIG);
    match fs::read(&path) {
        Ok(bytes) => {
            let mut container: Container =
                serde_json::from_slice(&bytes).map_err(|error| Error::Invalid(error.to_string()))?;
            state_dir.clone_into(&mut container.state_dir);
            Ok(Some(container))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(&path)(error)),
    }
}
