//! A stand-alone edge over TLS, as a process of its own.

use crate::{free_port, load::Target};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Name that its certificate is for.
pub const HOST: &str = "www.edge.localhost";
/// Generous: only an edge that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where edges of one kind are started: a certificate, a port, and what they are told.
pub struct Scene {
    dir: tempfile::TempDir,
    executable: PathBuf,
    /// Port of the edge.
    pub port: u16,
    /// Arguments of `bastide edge`.
    pub arguments: Vec<String>,
    /// Words before the command, such as `taskset -c 0`.
    pub before: Vec<String>,
}

impl Scene {
    /// A scene before this origin, with further arguments.
    pub fn new(executable: &Path, origin: &str, more: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bastide-edge-").tempdir()?;
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
        fs::write(dir.path().join("cert.pem"), certificate.pem())?;
        fs::write(dir.path().join("key.pem"), key.serialize_pem())?;
        let port = free_port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let own = [
            "--origin",
            origin,
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--tls-cert",
            &at("cert.pem"),
            "--tls-key",
            &at("key.pem"),
        ];
        let arguments = own.iter().chain(more).map(|word| (*word).to_owned()).collect();
        Ok(Self { dir, executable: executable.to_owned(), port, arguments, before: Vec::new() })
    }

    /// A file of this scene.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What clients ask for.
    pub fn target(&self, path: &str) -> Result<Target> {
        Target::new(&self.path("cert.pem"), HOST, self.port, path)
    }

    /// The command that starts one, with further arguments.
    pub fn command(&self, more: &[&str]) -> Command {
        let own = [self.executable.display().to_string(), "edge".to_owned()];
        let mut words = self.before.iter().chain(&own).chain(&self.arguments);
        let mut command = Command::new(words.next().expect("there is a program"));
        command.args(words).args(more).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts one and waits until it says that it serves.
    pub fn start(&self) -> Result<Edge> {
        let mut edge = Edge { process: self.command(&[]).spawn()? };
        let said = edge.process.stderr.take().context("it was piped")?;
        let mut lines = BufReader::new(said).lines();
        let first = lines.next().context("it ended")??;
        ensure!(first.starts_with("Serving https://"), "{first}");
        // Whatever it says further is for whoever looks at a failed test.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("edge: {line}")));
        Ok(edge)
    }
}

impl Scene {
    /// Starts another program in the edge's place, which listens on the same port, and waits until it does.
    pub fn start_peer(&self, words: &[&str]) -> Result<Edge> {
        let mut words = self.before.iter().map(String::as_str).chain(words.iter().copied());
        let mut command = Command::new(words.next().context("there is no program")?);
        let mut peer = Edge { process: command.args(words).stdin(Stdio::null()).spawn()? };
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            ensure!(begun.elapsed() < PATIENCE, "nobody listens");
            ensure!(peer.process.try_wait()?.is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }
}

/// A running edge; it is gone when this is dropped.
pub struct Edge {
    process: Child,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Edge {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            ensure!(begun.elapsed() < PATIENCE, "it never ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Memory that it has now, in KiB.
    pub fn memory_kib(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// Most memory that it had since [`Edge::forget_peak`], in KiB.
    pub fn peak_kib(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    /// The peak is measured from now on.
    pub fn forget_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.id()), "5")?)
    }

    fn status(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("not in its status")?;
        Ok(line.split_whitespace().next().context("no number")?.parse()?)
    }
}
