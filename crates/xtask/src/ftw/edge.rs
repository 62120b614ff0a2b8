//! The stand-alone edge under test: started here, ended here.

use super::request::{MARKER, MARKER_RULE};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
};

/// What the edge is told.
pub struct Setup<'a> {
    /// The executable.
    pub bastide: &'a Path,
    /// Where it sends requests.
    pub origin: SocketAddr,
    /// Rules in load order.
    pub rules: &'a [PathBuf],
    /// `detect` or `block`.
    pub mode: &'a str,
    /// Paranoia level.
    pub paranoia: u8,
    /// `name=value`.
    pub variables: &'a [String],
    /// Where the audit log goes.
    pub audit: &'a Path,
}

/// A running edge; it ends when this is dropped.
pub struct Edge {
    child: Child,
    stderr: Option<JoinHandle<()>>,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Edge {
    /// Starts it and waits until it serves.
    pub fn start(setup: &Setup<'_>) -> Result<Self> {
        let mut command = Command::new(setup.bastide);
        command.arg("edge").args(["--listen", "127.0.0.1:0", "--no-cache"]);
        command.arg("--origin").arg(format!("http://{}", setup.origin));
        command.arg("--waf-mode").arg(setup.mode);
        command.arg("--waf-paranoia").arg(setup.paranoia.to_string());
        command.arg("--waf-audit").arg(setup.audit);
        command.arg("--waf-rules").args(setup.rules);
        for variable in setup.variables {
            command.arg("--waf-set").arg(variable);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().context("the edge does not start")?;
        let mut lines = BufReader::new(child.stderr.take().context("no error output")?).lines();
        let mut told = Vec::new();
        let addr = loop {
            let Some(line) = lines.next().transpose()? else {
                child.wait()?;
                bail!("the edge ended at once:\n{}", told.join("\n"));
            };
            match line.strip_prefix("Serving http://").and_then(|rest| rest.split(' ').next()) {
                Some(addr) => break addr.parse()?,
                None => told.push(line),
            }
        };
        // What it says later must not fill the pipe.
        let stderr =
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Ok(Self { child, stderr: Some(stderr), addr })
    }

    /// Ends it so that its log is whole.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // SIGTERM lets it write what is queued; the standard library knows only SIGKILL.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        if let Some(stderr) = self.stderr.take() {
            let _ = stderr.join();
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// Writes the rule that tells in the audit log which test a request belongs to.
pub fn write_marker_rule(into: &Path) -> Result<PathBuf> {
    let to = into.join("marker.conf");
    let rule = format!(
        "SecRule REQUEST_HEADERS:{MARKER} \"@unconditionalMatch\" \"id:{MARKER_RULE},phase:1,pass,log,msg:'%{{MATCHED_VAR}}'\"\n"
    );
    fs::write(&to, rule).with_context(|| to.display().to_string())?;
    Ok(to)
}

/// Copies a set-up example to a name that the edge takes as a set-up file.
pub fn copy_setup(from: &Path, into: &Path) -> Result<PathBuf> {
    let to = into.join("crs-setup.conf");
    fs::copy(from, &to).with_context(|| from.display().to_string())?;
    Ok(to)
}
