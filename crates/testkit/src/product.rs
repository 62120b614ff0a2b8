//! A started Bastide in a directory of its own, stopped and removed when it is dropped.

use crate::{Client, free_port};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Tests ask more in a minute than people do.
const LIMITS: [&str; 4] = ["--requests-per-minute", "1000000", "--deployments-per-minute", "1000000"];
/// Generous: a slow machine must not fail the test, a hanging product must.
const PATIENCE: Duration = Duration::from_mins(2);

/// How to start it.
pub struct Options {
    /// The executable.
    pub executable: PathBuf,
    /// More arguments of `bastide up`.
    pub arguments: Vec<String>,
}

/// Builds the example app for this executable, linked statically as apps are. Quick when it is built.
///
/// # Errors
/// What cargo says.
pub fn build_hello(executable: &Path) -> Result<PathBuf> {
    let profile = executable.parent().context("the executable lies in a directory")?;
    let dir = profile.parent().context("in the target directory")?.join("static");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["rustc", "--locked", "--quiet", "-p", "hello", "--bin", "hello", "--target-dir"]).arg(&dir);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.args(["--", "-C", "target-feature=+crt-static"]).output()?;
    if !output.status.success() {
        bail!("the example is not built:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(dir.join(profile.file_name().context("the profile has a name")?).join("hello"))
}

/// Builds the test app `caller` as a static program into `dir`.
pub fn build_caller(dir: &Path) -> Result<()> {
    build_app("caller", &dir.join("caller"))
}

/// Builds the test app of this name as a static program.
pub(crate) fn build_app(name: &str, to: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("apps/{name}.rs"));
    let mut rustc = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"));
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"]).arg(to);
    let output = rustc.arg(source).output()?;
    if !output.status.success() {
        bail!("the test app is not built:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A running installation.
pub struct Product {
    dir: tempfile::TempDir,
    supervisor: Option<Child>,
    executable: PathBuf,
    /// HTTPS port of its edge.
    pub https_port: u16,
    /// HTTP port of its edge.
    pub http_port: u16,
}

impl Product {
    /// Starts `bastide up` in a fresh data directory and waits until it says that it is up.
    pub async fn start(options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bastide-test-").tempdir()?;
        let (https_port, http_port) = (free_port(), free_port());
        let mut product =
            Self { dir, supervisor: None, executable: options.executable, https_port, http_port };
        product.start_again(&options.arguments).await?;
        Ok(product)
    }

    /// Starts `bastide up` in the same data directory, after [`Product::kill`] or [`Product::down`].
    pub async fn start_again(&mut self, arguments: &[String]) -> Result<()> {
        // Of a life that was killed.
        let _ = std::fs::remove_file(self.data().join("run/up.json"));
        let output = std::fs::File::create(self.dir.path().join("up.out"))?;
        let supervisor = Command::new(&self.executable)
            .arg("up")
            .arg("--data")
            .arg(self.data())
            .args(["--https-port", &self.https_port.to_string(), "--http-port", &self.http_port.to_string()])
            .args(LIMITS)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", self.executable.display()))?;
        self.supervisor = Some(supervisor);
        self.wait_until_up().await
    }

    /// Kills the supervisor, and with it all roles, as `kill -9` does. Apps that outlive the roles are left.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut supervisor) = self.supervisor.take() {
            supervisor.kill()?;
            supervisor.wait()?;
        }
        Ok(())
    }

    async fn wait_until_up(&mut self) -> Result<()> {
        let begun = Instant::now();
        while !self.data().join("run/up.json").exists() {
            let supervisor = self.supervisor.as_mut().context("it was started")?;
            if let Some(status) = supervisor.try_wait()? {
                bail!("`bastide up` ended with {status}:\n{}", self.output());
            }
            if begun.elapsed() > PATIENCE {
                bail!("not up after {} s:\n{}\n{}", PATIENCE.as_secs(), self.output(), self.logs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What `bastide up` printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("up.out")).unwrap_or_default()
    }

    /// The last lines of every role's log, for a failing test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.data().join("logs")).into_iter().flatten().flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(15).collect();
            text.push_str(&format!("--- {}\n", entry.path().display()));
            for line in tail.into_iter().rev() {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// What came of a test; when it failed, with the logs. The reason stands before and after them, since whoever shows
    /// them may cut long texts.
    pub fn explained<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| anyhow::anyhow!("{error:#}\n{}--- it failed: {error:#}", self.logs()))
    }

    /// A client that trusts its CA.
    pub fn client(&self) -> Result<Client> {
        Client::trusting(&self.data().join("ca/local.pem"))
    }

    /// Process id of one of its processes, by the name of its ready mark or log.
    pub fn pid_of(&self, process: &str) -> Result<i32> {
        let path = self.data().join("run").join(format!("{process}.pid"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        Ok(text.trim().parse()?)
    }

    /// Runs the command line against it and returns what it printed; fails when it fails.
    pub fn cli(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.try_cli(arguments, input)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "bastide {arguments:?}: {}\n{text}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(text)
    }

    /// Runs the command line against it.
    pub fn try_cli(&self, arguments: &[&str], input: &str) -> Result<std::process::Output> {
        self.try_cli_of(&self.executable, arguments, input)
    }

    /// Runs the command line of this executable against it.
    pub fn try_cli_of(
        &self,
        executable: &Path,
        arguments: &[&str],
        input: &str,
    ) -> Result<std::process::Output> {
        self.run_cli(executable, &self.dir.path().join("config"), arguments, input)
    }

    /// Runs the command line for somebody who keeps credentials in a directory of their own.
    pub fn cli_at(&self, home: &Path, arguments: &[&str], input: &str) -> Result<std::process::Output> {
        self.run_cli(&self.executable, home, arguments, input)
    }

    fn run_cli(
        &self,
        executable: &Path,
        home: &Path,
        arguments: &[&str],
        input: &str,
    ) -> Result<std::process::Output> {
        use std::io::Write;
        let mut child = Command::new(executable)
            .args(arguments)
            .env("BASTIDE_DATA", self.data())
            .env("XDG_CONFIG_HOME", home)
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input has closed the pipe: not a fault.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(child.wait_with_output()?)
    }

    /// Directory for whatever the test makes.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Stops it with `bastide down` and waits until the supervisor is gone.
    pub fn down(&mut self) -> Result<()> {
        let data = self.data();
        let status = Command::new(&self.executable)
            .args(["down", "--data"])
            .arg(data)
            .stdout(Stdio::null())
            .status()?;
        anyhow::ensure!(status.success(), "`bastide down` failed");
        if let Some(mut supervisor) = self.supervisor.take() {
            supervisor.wait()?;
        }
        Ok(())
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // Also after `kill`: what outlived the roles is taken away.
        if self.down().is_err()
            && let Some(mut supervisor) = self.supervisor.take()
        {
            let _ = supervisor.kill();
            let _ = supervisor.wait();
        }
    }
}
