//! The stand-alone edge, with exactly the interface that users and benchmarks rely on.

use anyhow::{Context, Result, bail};
use bastide_testkit::{Client, free_port};
use http::Method;
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running edge; it is gone when this is dropped.
pub(crate) struct Edge {
    pub(crate) child: Child,
    pub(crate) port: u16,
    url: String,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn start(arguments: &[&str]) -> Result<Edge> {
    let port = free_port();
    let child = Command::new(env!("CARGO_BIN_EXE_bastide"))
        .args(["edge", "--listen", &format!("127.0.0.1:{port}")])
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()?;
    let mut edge = Edge { child, port, url: format!("http://any.host.localhost:{port}") };
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Some(status) = edge.child.try_wait()? {
            bail!("the edge ended: {status}");
        }
        anyhow::ensure!(begun.elapsed() < Duration::from_mins(1), "the edge never listened");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(edge)
}

/// An origin that answers every request with its first line; it ends with the test's process.
fn origin() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&head).into_owned();
                let line = text.lines().next().unwrap_or_default();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{line}",
                    line.len()
                );
            });
        }
    });
    Ok(url)
}

fn client(dir: &Path) -> Result<Client> {
    // Any readable list of certificates will do: these tests speak plain HTTP.
    let ca = dir.join("ca.pem");
    fs::write(&ca, "")?;
    Client::trusting(&ca)
}

#[tokio::test]
async fn cdn_and_waf_stand_before_any_origin() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let audit = dir.path().join("audit.jsonl");
    let origin = origin()?;
    let edge = start(&[
        "--origin",
        &origin,
        "--waf-mode",
        "block",
        "--waf-paranoia",
        "1",
        "--waf-set",
        "crs_exclusions=0",
        "--waf-audit",
        &audit.display().to_string(),
    ])
    .await?;
    let client = client(dir.path())?;
    let get = async |path: &str| client.get(&format!("{}{path}", edge.url)).await;
    let first = get("/a?b=c").await?;
    assert_eq!(first.text(), "GET /a?b=c HTTP/1.1", "path and query as sent");
    assert!(first.header("cache-status").contains("stored"), "{:?}", first.headers);
    assert!(get("/a?b=c").await?.header("cache-status").contains("hit"));
    let blocked = get("/?id=1%27%20or%201=1--").await?;
    assert_eq!((blocked.status.as_u16(), blocked.json()?["code"].as_str()), (403, Some("B-WAF-0403")));
    let begun = Instant::now();
    while !fs::read_to_string(&audit).is_ok_and(|log| log.contains("942100")) {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(30), "nothing was audited");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn without_cache_and_waf_everything_passes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let origin = origin()?;
    let edge = start(&["--origin", &origin, "--no-cache", "--no-waf"]).await?;
    let client = client(dir.path())?;
    let answer =
        client.send(Method::DELETE, &format!("{}/x?id=1%27%20or%201=1--", edge.url), &[], "").await?;
    assert_eq!(answer.text(), "DELETE /x?id=1%27%20or%201=1-- HTTP/1.1");
    assert_eq!(answer.header("cache-status"), "");
    Ok(())
}

#[tokio::test]
async fn rules_that_are_not_there_are_an_error() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let empty = dir.path().display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_bastide"))
        .args(["edge", "--origin", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--waf-rules", &empty])
        .output()
        .context("the edge starts")?;
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no rules"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
