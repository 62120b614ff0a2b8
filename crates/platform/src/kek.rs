//! The key-encryption key of the database: from a file, or from a program that asks whoever keeps it, such as a KMS.
//!
//! The program is run once, when a replica starts; the key is then in its memory and nowhere on its disk.

use crate::{Config, Error};
use base64::{Engine, prelude::BASE64_STANDARD};
use bastide_store::Kek;
use bastide_types::Secret;
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

/// Longest time until the program has printed the key and ended.
const LIMIT: Duration = Duration::from_secs(30);
/// Most bytes that it may print: 32 bytes as base64, and line ends.
const OUTPUT_BYTES_MAX: u64 = 64;
/// Most bytes of what it complains about that are repeated.
const COMPLAINT_BYTES_MAX: u64 = 1024;

/// Why a program brought no key.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it is named by an absolute path, and run without a shell")]
    Path,
    #[error("it cannot be run")]
    Run(#[from] std::io::Error),
    #[error("it did not end within {} s", LIMIT.as_secs())]
    Late,
    #[error("it ended with {0}: {1}")]
    Status(std::process::ExitStatus, String),
    #[error("it prints 32 bytes as base64, and nothing else")]
    Output,
}

/// The key that a configuration names.
///
/// # Errors
/// [`Error::File`] with the file or the program.
pub async fn of(config: &Config) -> Result<Kek, Error> {
    let Some((program, arguments)) = config.kek_command.split_first() else {
        let bytes = std::fs::read(&config.kek_file);
        let bytes = bytes.map_err(|error| crate::state::unusable(&config.kek_file, error))?;
        return Kek::new(&bytes).map_err(|error| crate::state::unusable(&config.kek_file, error));
    };
    let unusable = |fault: Fault| crate::state::unusable(Path::new(program), fault);
    let key = asked(program, arguments, LIMIT).await.map_err(unusable)?;
    Kek::new(&key).map_err(|_| unusable(Fault::Output))
}

async fn asked(program: &str, arguments: &[String], limit: Duration) -> Result<Vec<u8>, Fault> {
    if !Path::new(program).is_absolute() {
        return Err(Fault::Path);
    }
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (out, complaint) = (child.stdout.take(), child.stderr.take());
    let all = async {
        // Both are read at once, so that no full pipe holds it up; what is beyond the limits is not kept.
        let (out, complaint) =
            tokio::join!(read(out, OUTPUT_BYTES_MAX), read(complaint, COMPLAINT_BYTES_MAX));
        Ok::<_, Fault>((out?, complaint?, child.wait().await?))
    };
    let (out, complaint, status) = tokio::time::timeout(limit, all).await.map_err(|_| Fault::Late)??;
    if !status.success() {
        let complaint = String::from_utf8_lossy(&complaint);
        return Err(Fault::Status(status, complaint.trim().escape_debug().to_string()));
    }
    let text = Secret::new(String::from_utf8(out).map_err(|_| Fault::Output)?);
    let key = BASE64_STANDARD.decode(text.expose().trim_end()).map_err(|_| Fault::Output)?;
    if key.len() == 32 { Ok(key) } else { Err(Fault::Output) }
}

/// The first bytes; the rest is read and dropped.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let Some(mut from) = from else { return Ok(bytes) };
    // One more than may be: then it is no key.
    (&mut from).take(most + 1).read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    async fn run(script: &str, limit: Duration) -> Result<Vec<u8>, String> {
        let arguments = ["-c".to_owned(), script.to_owned()];
        asked("/bin/sh", &arguments, limit).await.map_err(|fault| fault.to_string())
    }

    #[tokio::test]
    async fn a_program_prints_the_key_as_base64() {
        for script in
            [format!("echo {KEY}"), format!("printf %s {KEY}"), format!("echo asking >&2; echo {KEY}")]
        {
            assert_eq!(run(&script, LIMIT).await.unwrap(), [7; 32], "{script}");
        }
    }

    #[tokio::test]
    async fn everything_else_is_a_fault_that_repeats_no_key() {
        let check = async |script: &str, part: &str| {
            let fault = run(script, LIMIT).await.unwrap_err();
            assert!(fault.contains(part) && !fault.contains("BwcHBw"), "{script}: {fault}");
        };
        check("exit 0", "32 bytes").await;
        check("echo short", "32 bytes").await;
        check("echo AAAA", "32 bytes").await;
        check(&format!("echo {KEY}; echo {KEY}"), "32 bytes").await;
        check("yes | head -c 1000000", "32 bytes").await;
        check(&format!("echo {KEY}; echo no such key >&2; exit 3"), "no such key").await;
        let fault = asked("sh", &[], LIMIT).await.unwrap_err();
        assert!(matches!(fault, Fault::Path));
        let fault = asked("/nowhere/kek", &[], LIMIT).await.unwrap_err();
        assert!(matches!(fault, Fault::Run(_)));
        let late = run("exec sleep 600", Duration::from_millis(50)).await.unwrap_err();
        assert!(late.contains("did not end"), "{late}");
    }
}
