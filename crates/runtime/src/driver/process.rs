//! The `process` driver: plain child processes. It isolates nothing and says so.
//!
//! Every replica has a process group of its own, an environment that holds only what it should know, and
//! a log of bounded size. Replicas end with the agent.

use super::{Found, Isolation, Launch, Life, RuntimeDriver, Started, Usage, environment};
use crate::Error;
use bastide_types::{
    ReplicaId,
    manifest::Kind,
    message::{Reach, StageState},
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, SysconfVar, sysconf},
};
use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};
use tokio::{process::Command, runtime::Handle, sync::watch};

const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
const QUEUE: usize = 64;

/// The driver.
pub struct ProcessDriver {
    executable: PathBuf,
    logs: PathBuf,
    running: Arc<Mutex<HashMap<ReplicaId, Running>>>,
    starter: mpsc::SyncSender<Order>,
}

#[derive(Clone)]
struct Running {
    addr: SocketAddr,
    group: Pid,
    life: watch::Receiver<Life>,
}

struct Order {
    command: Command,
    answer: tokio::sync::oneshot::Sender<std::io::Result<tokio::process::Child>>,
}

impl ProcessDriver {
    /// A driver that keeps logs in `logs`. Must be made inside a tokio runtime.
    pub fn new(executable: PathBuf, logs: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&logs).map_err(Error::file(&logs))?;
        let (starter, orders) = mpsc::sync_channel::<Order>(QUEUE);
        let handle = Handle::current();
        // The kernel's parent-death signal follows the *thread* that started a child, so all children are
        // started by one thread that lives as long as the driver.
        std::thread::Builder::new()
            .name("starter".into())
            .spawn(move || {
                let _runtime = handle.enter();
                while let Ok(mut order) = orders.recv() {
                    let _ = order.answer.send(order.command.spawn());
                }
            })
            .map_err(Error::file("starter thread"))?;
        Ok(Self { executable, logs, running: Arc::default(), starter })
    }

    async fn spawn(&self, command: Command, program: &str) -> Result<tokio::process::Child, Error> {
        let failed = |source| Error::Start { program: program.to_owned(), source };
        let (answer, started) = tokio::sync::oneshot::channel();
        let order = Order { command, answer };
        self.starter.try_send(order).map_err(|_| failed(std::io::Error::other("too many starts at once")))?;
        started.await.map_err(|_| failed(std::io::Error::other("the starter is gone")))?.map_err(failed)
    }

    fn command(&self, launch: &Launch, addr: SocketAddr) -> Result<(Command, String), Error> {
        let manifest = &launch.replica.manifest;
        let (program, arguments): (OsString, Vec<OsString>) = match manifest.app.kind {
            Kind::Binary => {
                let (program, arguments) =
                    manifest.app.command.split_first().ok_or_else(|| Error::Image("no command".into()))?;
                (launch.root.join(program).into(), arguments.iter().map(OsString::from).collect())
            }
            Kind::Static => {
                let root = launch.root.clone().into();
                (self.executable.clone().into(), vec!["static-server".into(), "--root".into(), root])
            }
            // Nothing makes the image the root here, so only what needs nothing of it can run.
            Kind::Image => {
                let (program, arguments) =
                    manifest.app.command.split_first().ok_or_else(|| Error::Image("no command".into()))?;
                (inside(&launch.root, program)?.into(), arguments.iter().map(OsString::from).collect())
            }
        };
        let name = program.to_string_lossy().into_owned();
        let mut command = Command::new(&self.executable);
        command.args(["exec-child", "--app", "--"]).arg(program).args(arguments);
        command.current_dir(&launch.root).env_clear().envs(environment(launch, addr.ip(), addr.port()));
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        let log = self.log(launch)?;
        command.stdout(log.try_clone().map_err(Error::file(&self.logs))?).stderr(log);
        Ok((command, name))
    }

    fn log(&self, launch: &Launch) -> Result<fs::File, Error> {
        let name = format!(
            "{}-{}-{}-{}.log",
            launch.customer, launch.stage, launch.replica.app_name, launch.replica.zone
        );
        let path = self.logs.join(name);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            fs::rename(&path, path.with_extension("log.1")).map_err(Error::file(&path))?;
        }
        let open = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        open.map_err(Error::file(&path))
    }
}

/// The program of an image, wherever its links lead, as long as that is inside.
fn inside(root: &Path, program: &str) -> Result<PathBuf, Error> {
    let root = root.canonicalize().map_err(Error::file(root))?;
    let found = root.join(program.trim_start_matches('/')).canonicalize();
    match found {
        Ok(path) if path.starts_with(&root) => Ok(path),
        _ => Err(Error::Image(format!(
            "the process driver does not find `{program}`: it runs images only when their program is named by its path"
        ))),
    }
}

/// A port that is free now. The app binds it a moment later; should another take it first, the app
/// ends, is started again, and gets another.
fn free_port() -> Result<SocketAddr, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(Error::file("loopback"))
}

impl RuntimeDriver for ProcessDriver {
    fn isolation(&self) -> Isolation {
        Isolation::None
    }

    fn outlived(&self) -> bool {
        false
    }

    async fn attach(&self) -> Result<Vec<Found>, Error> {
        // Children end with the agent (`exec_child`), so a dead run leaves nothing running.
        Ok(Vec::new())
    }

    async fn enact(&self, _: &StageState) {}

    async fn prepare(&self, _launch: &Launch) -> Result<(), Error> {
        Ok(())
    }

    async fn start(&self, launch: Launch) -> Result<Started, Error> {
        let addr = free_port()?;
        let id = launch.replica.id;
        let (command, program) = self.command(&launch, addr)?;
        let mut child = self.spawn(command, &program).await?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .ok_or_else(|| Error::Image("it ended at once".into()))?;
        let (sender, life) = watch::channel(Life::Running);
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Running { addr, group: Pid::from_raw(pid), life: life.clone() });
        let running = self.running.clone();
        // Its owner is the child: it ends when the child does.
        tokio::spawn(async move {
            let why = match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            // Whatever else it started goes with it.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            sender.send_replace(Life::Ended(why));
        });
        Ok(Started { reach: Reach::Address(addr), life })
    }

    async fn stop(&self, replica: ReplicaId, grace: Duration) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&replica).cloned();
        let Some(mut running) = running else { return };
        let _ = killpg(running.group, Signal::SIGTERM);
        let ended = running.life.wait_for(|life| *life != Life::Running);
        if tokio::time::timeout(grace, ended).await.is_err() {
            let _ = killpg(running.group, Signal::SIGKILL);
            let _ = running.life.wait_for(|life| *life != Life::Running).await;
        }
    }

    async fn connect(&self, replica: ReplicaId) -> io::Result<tokio::net::TcpStream> {
        let addr =
            self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&replica).map(|one| one.addr);
        tokio::net::TcpStream::connect(addr.ok_or(io::ErrorKind::NotFound)?).await
    }

    async fn listen(&self, _: ReplicaId, _: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn outside(&self, _: ReplicaId, _: bool) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Of its first process; nothing here counts what that started.
    fn usage(&self, replica: ReplicaId) -> Option<Usage> {
        let group = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&replica)?.group;
        let stat = fs::read_to_string(format!("/proc/{group}/stat")).ok()?;
        // Behind the name, which may hold anything: utime and stime are its 12th and 13th field (proc(5)).
        let fields: Vec<u64> =
            stat.rsplit_once(')')?.1.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
        let ticks = fields.get(12)?.checked_add(*fields.get(13)?)?;
        let cpu = Duration::from_millis(ticks.checked_mul(1000)?.checked_div(per_second)?);
        let statm = fs::read_to_string(format!("/proc/{group}/statm")).ok()?;
        let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        let page_bytes = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
        Some(Usage { cpu, memory_bytes: pages.checked_mul(page_bytes)? })
    }

    async fn close(&self) {}
}
