//! libmodsecurity and libinjection, asked through a small C program that is compiled when it is needed.
//! They are a yardstick for development; nothing that is shipped knows of them.

use crate::request::{PAGE, Request, STATUS, VERSION};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};
use tempfile::TempDir;

/// What libmodsecurity is told before the rules: what our engine does by itself.
const BASE: &str = r#"
SecRequestBodyAccess On
SecResponseBodyAccess On
SecRequestBodyLimit 1048576
SecRequestBodyNoFilesLimit 1048576
SecResponseBodyLimit 1048576
SecResponseBodyMimeType text/plain text/html text/xml application/json
SecArgumentSeparator &
SecCookieFormat 0
SecRule REQUEST_HEADERS:Content-Type "@rx (?i)^(?:application(?:/soap\+|/)|text/)xml" "id:9990001,phase:1,nolog,pass,ctl:requestBodyProcessor=XML"
SecRule REQUEST_HEADERS:Content-Type "@rx (?i)^application/(?:[a-z0-9.-]+\+)?json" "id:9990002,phase:1,nolog,pass,ctl:requestBodyProcessor=JSON"
"#;

/// The program, running.
pub struct Oracle {
    child: Child,
    input: Option<BufWriter<ChildStdin>>,
    output: BufReader<ChildStdout>,
    _dir: TempDir,
}

/// What it says of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// The status of its refusal, 0 without one.
    pub status: u16,
    /// Rules that matched and told so, in order.
    pub ids: Vec<u32>,
}

impl Oracle {
    /// Starts it over rules; `blocking` or only telling.
    pub fn rules(what: Task, files: &[PathBuf], blocking: bool, paranoia: u8) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let base = dir.path().join("base.conf");
        let engine = if blocking { "On" } else { "DetectionOnly" };
        let levels = [
            "paranoia_level",
            "executing_paranoia_level",
            "blocking_paranoia_level",
            "detection_paranoia_level",
        ];
        let levels = levels.map(|name| format!("setvar:tx.{name}={paranoia}")).join(",");
        let unicode = "/etc/modsecurity/unicode.mapping";
        let map = if Path::new(unicode).exists() {
            format!("SecUnicodeMapFile {unicode} 20127\n")
        } else {
            String::new()
        };
        fs::write(
            &base,
            format!(
                "SecRuleEngine {engine}\n{BASE}{map}SecAction \"id:9990003,phase:1,nolog,pass,{levels}\"\n"
            ),
        )?;
        let mut arguments = vec![what.name().into(), base.into_os_string()];
        arguments.extend(files.iter().map(|file| file.clone().into_os_string()));
        Self::start(dir, &arguments)
    }

    /// Starts it for single values.
    pub fn injection() -> Result<Self> {
        Self::start(tempfile::tempdir()?, &["injection".into()])
    }

    fn start(dir: TempDir, arguments: &[std::ffi::OsString]) -> Result<Self> {
        let program = build(dir.path())?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the oracle does not start")?;
        let input = child.stdin.take().map(BufWriter::new);
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, input, output, _dir: dir })
    }

    /// Asks about a request.
    pub fn ask(&mut self, request: &Request) -> Result<Opinion> {
        let line = self.line_for(request)?;
        let mut words = line.split(' ').map(str::parse::<u32>);
        let status = words.next().context("no status")?? as u16;
        Ok(Opinion { status, ids: words.collect::<Result<_, _>>()? })
    }

    /// Nanoseconds of CPU that a request takes.
    pub fn measure(&mut self, request: &Request) -> Result<f64> {
        Ok(self.line_for(request)?.parse()?)
    }

    fn line_for(&mut self, request: &Request) -> Result<String> {
        let input = self.input.as_mut().context("it was ended")?;
        write(input, request)?;
        input.flush()?;
        self.line()
    }

    /// Asks about many values at once; both ends are buffered, so that the caller writes from another thread.
    pub fn split(&mut self) -> Option<(BufWriter<ChildStdin>, &mut BufReader<ChildStdout>)> {
        self.input.take().map(|input| (input, &mut self.output))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the oracle ended");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// What the program does with requests.
#[derive(Clone, Copy)]
pub enum Task {
    Ask,
    Measure,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Self::Ask => "rules",
            Self::Measure => "measure",
        }
    }
}

/// Whether it can be built here.
pub fn is_there() -> bool {
    Path::new("/usr/include/modsecurity/modsecurity.h").exists()
}

fn build(dir: &Path) -> Result<PathBuf> {
    if !is_there() {
        bail!("libmodsecurity is not installed (Debian: libmodsecurity-dev)");
    }
    let (source, program) = (dir.join("oracle.c"), dir.join("oracle"));
    fs::write(&source, include_str!("modsecurity.c"))?;
    let status =
        Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(&source).arg("-lmodsecurity").status()?;
    if !status.success() {
        bail!("the oracle cannot be compiled");
    }
    Ok(program)
}

/// Writes one text with its length.
pub fn write_text(out: &mut impl Write, text: &[u8]) -> std::io::Result<()> {
    out.write_all(&(text.len() as u32).to_le_bytes())?;
    out.write_all(text)
}

fn write(out: &mut impl Write, request: &Request) -> std::io::Result<()> {
    write_text(out, request.method.as_bytes())?;
    write_text(out, &request.target)?;
    write_text(out, VERSION.as_bytes())?;
    out.write_all(&(request.fields.len() as u32).to_le_bytes())?;
    for (name, value) in &request.fields {
        write_text(out, name.as_bytes())?;
        write_text(out, value)?;
    }
    write_text(out, &request.body)?;
    out.write_all(&u32::from(STATUS).to_le_bytes())?;
    write_text(out, PAGE)
}
