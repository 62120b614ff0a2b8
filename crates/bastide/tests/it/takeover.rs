//! A new executable takes over while others are served: no request is lost.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{
    Options, Product,
    edge::{Edge, Scene},
    load::{Load, Report, Target},
};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Generous: only a product that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);
/// What is under way for as long as edges follow one another ends now.
static OVER: AtomicBool = AtomicBool::new(false);

/// An origin that keeps connections; it ends with the test's process.
fn origin() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // The edge hangs up when it likes.
                let _ = converse(stream);
            });
        }
    });
    Ok(url)
}

fn converse(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        match head.split(' ').nth(1).unwrap_or_default() {
            "/download" => count(&mut stream, "application/octet-stream", "")?,
            "/events" => count(&mut stream, "text/event-stream", "data: ")?,
            "/socket" => {
                let switch =
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(switch.as_bytes())?;
                std::io::copy(&mut reader, &mut stream)?;
                return Ok(());
            }
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?,
        }
    }
}

/// Counts, line by line, until it is over.
fn count(stream: &mut TcpStream, kind: &str, before: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n"
    )?;
    let mut chunk = |text: &str| write!(stream, "{:x}\r\n{text}\r\n", text.len());
    for number in 0_u64.. {
        if OVER.load(Ordering::SeqCst) {
            break;
        }
        chunk(&format!("{before}{number}\n\n"))?;
        std::thread::sleep(Duration::from_millis(10));
    }
    chunk("end\n\n")?;
    write!(stream, "0\r\n\r\n")
}

/// Reads what was counted to its end; how far it went.
async fn counted(target: Target, path: &'static str) -> Result<usize> {
    let mut sender = target.http1().await?;
    let response = sender.send_request(target.request(path)?).await?;
    ensure!(response.status() == StatusCode::OK, "{}", response.status());
    let text = response.into_body().collect().await.context("it was cut")?.to_bytes();
    let text = String::from_utf8(text.to_vec())?;
    let mut lines: Vec<_> = text.split("\n\n").filter(|line| !line.is_empty()).collect();
    ensure!(lines.pop() == Some("end"), "it has no end");
    for (number, line) in lines.iter().enumerate() {
        ensure!(line.trim_start_matches("data: ") == number.to_string(), "{line} instead of {number}");
    }
    Ok(lines.len())
}

/// A tunnel through the edge, and an echo at its end.
struct Tunnel(hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>);

impl Tunnel {
    async fn open(target: &Target) -> Result<Self> {
        let mut sender = target.http1().await?;
        let mut request = target.request("/socket")?;
        request.headers_mut().insert("connection", "upgrade".parse()?);
        request.headers_mut().insert("upgrade", "websocket".parse()?);
        let response = sender.send_request(request).await?;
        ensure!(response.status() == StatusCode::SWITCHING_PROTOCOLS, "{}", response.status());
        Ok(Self(hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await?)))
    }

    async fn echoes(&mut self, text: &str) -> Result<()> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        self.0.write_all(text.as_bytes()).await?;
        self.0.flush().await?;
        let mut back = vec![0; text.len()];
        self.0.read_exact(&mut back).await?;
        ensure!(back == text.as_bytes(), "another echo");
        Ok(())
    }
}

/// Descriptors of sockets that listen on this port.
fn listening(edge: &Edge, port: u16) -> Result<usize> {
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", edge.id()))?;
    let local = format!(":{port:04X}");
    let inodes: HashSet<_> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[1].ends_with(&local) && fields[3] == "0A")
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let links = fs::read_dir(format!("/proc/{}/fd", edge.id()))?.flatten();
    let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(links.filter(|link| inodes.contains(&link.display().to_string())).count())
}

/// Waits until there were so many more good answers, so that something happens between two changes.
async fn more(load: &Load, answers: u64) -> Result<()> {
    let (begun, until) = (Instant::now(), load.answered() + answers);
    while load.answered() < until {
        ensure!(begun.elapsed() < PATIENCE, "nobody is served");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn is_good(report: &Report) {
    eprintln!(
        "{} answered over {} connections, {} sent again, {} lost",
        report.answered, report.connections, report.again, report.lost
    );
    assert_eq!((report.lost, &report.faults), (0, &Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_follow_one_another_and_no_request_is_lost() -> Result<()> {
    let door = tempfile::tempdir()?;
    let door = door.path().join("edge.sock").display().to_string();
    let more_arguments = ["--takeover", &door, "--no-waf"];
    let scene = Scene::new(env!("CARGO_BIN_EXE_bastide").as_ref(), &origin()?, &more_arguments)?;
    let first = scene.start()?;
    let sockets = listening(&first, scene.port)?;
    ensure!(sockets > 0);
    let target = scene.target("/")?;
    let load = Load::start(&target, 2, |status, body: &Bytes| status == 200 && &body[..] == b"ok");
    let download = tokio::spawn(counted(target.clone(), "/download"));
    let events = tokio::spawn(counted(target.clone(), "/events"));
    let mut tunnel = Tunnel::open(&target).await?;
    let mut lives = vec![first];
    for round in 0..5 {
        more(&load, 50).await?;
        tunnel.echoes(&format!("before {round}")).await?;
        let next = scene.start()?;
        assert_eq!(listening(&next, scene.port)?, sockets, "as many descriptors as the first one had");
        lives.push(next);
        tunnel.echoes(&format!("after {round}")).await?;
        one_that_fails_changes_nothing(&scene)?;
    }
    more(&load, 50).await?;
    OVER.store(true, Ordering::SeqCst);
    for (what, under_way) in [("the download", download), ("the events", events)] {
        let lines = under_way.await?.context(what)?;
        ensure!(lines > 0, "{what}");
    }
    drop(tunnel);
    is_good(&load.end().await);
    let last = lives.pop().context("there were some")?;
    for former in lives {
        let status = former.ended()?;
        ensure!(status.success(), "it ended with {status}");
    }
    assert_eq!(listening(&last, scene.port)?, sockets);
    Ok(())
}

/// One that has the sockets already, but cannot listen for its figures.
fn one_that_fails_changes_nothing(scene: &Scene) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let mut command = scene.command(&["--metrics", &taken.local_addr()?.to_string()]);
    let mut failing = command.spawn()?;
    let mut said = String::new();
    failing.stderr.take().context("it was piped")?.read_to_string(&mut said)?;
    let status = failing.wait()?;
    ensure!(!status.success() && said.contains("cannot listen"), "{status}: {said}");
    Ok(())
}

/// The place from which an installation runs, for another executable to be put there.
struct Place(PathBuf);

impl Place {
    /// As package managers do it: written aside, then renamed.
    fn put(&self, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
        let aside = self.0.with_extension("new");
        make(&aside)?;
        fs::rename(&aside, &self.0)?;
        // Of two links to one file, `rename` leaves both.
        if aside.exists() {
            fs::remove_file(aside)?;
        }
        Ok(())
    }

    fn put_good(&self) -> Result<()> {
        self.put(|aside| link(env!("CARGO_BIN_EXE_bastide").as_ref(), aside))
    }

    fn put_script(&self, script: &str) -> Result<()> {
        self.put(|aside| {
            fs::write(aside, script)?;
            fs::set_permissions(aside, fs::Permissions::from_mode(0o755))
        })
    }
}

fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_changes_its_executable_and_no_request_is_lost() -> Result<()> {
    let good = PathBuf::from(env!("CARGO_BIN_EXE_bastide"));
    let hello = bastide_testkit::build_hello(&good)?;
    // On the same file system, so that links will do.
    let dir =
        tempfile::Builder::new().prefix("upgrade-").tempdir_in(good.parent().context("a directory")?)?;
    link(&hello, &dir.path().join("hello"))?;
    let place = Place(dir.path().join("bastide"));
    place.put_good()?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let arguments = vec!["--allow-no-isolation".into(), "--examples".into(), examples.display().to_string()];
    let mut product = Product::start(Options { executable: place.0.clone(), arguments }).await?;
    let outcome = upgrades(&product, &place).await;
    product.explained(outcome)?;
    place.put_good()?;
    product.down()?;
    let pids = fs::read_dir(product.data().join("run"))?.flatten();
    let left: Vec<_> =
        pids.filter(|entry| entry.path().extension().is_some_and(|end| end == "pid")).collect();
    assert!(left.is_empty(), "down leaves nothing behind: {left:?}");
    Ok(())
}

async fn upgrades(product: &Product, place: &Place) -> Result<()> {
    let host = "demo--development.apps.localhost";
    let target = Target::new(&product.data().join("ca/local.pem"), host, product.https_port, "/hello/")?;
    let load = Load::start(&target, 2, |status, _| status == 200);
    let edge = || product.pid_of("edge");
    // Tells what it printed, and what it complained about.
    let upgrade = async |arguments: &[&str]| -> Result<(bool, String)> {
        let output = tokio::task::block_in_place(|| {
            product.try_cli_of(
                env!("CARGO_BIN_EXE_bastide").as_ref(),
                &[&["upgrade"], arguments].concat(),
                "",
            )
        })?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    for _ in 0..3 {
        more(&load, 50).await?;
        let before = edge()?;
        place.put_good()?;
        let (fine, said) = upgrade(&["--only", "edge"]).await?;
        ensure!(fine && said.contains("edge uses it."), "{said}");
        assert_ne!(edge()?, before);
    }
    more(&load, 50).await?;
    let before = edge()?;
    place.put_script("#!/bin/sh\nexit 1\n")?;
    let (fine, said) = upgrade(&[]).await?;
    ensure!(!fine && said.contains("nothing was changed") && said.contains("does not start"), "{said}");
    place.put_script("#!/bin/sh\n[ \"$1\" = --version ] && echo bastide 99 || exit 7\n")?;
    let (fine, said) = upgrade(&["--only", "edge"]).await?;
    ensure!(!fine && said.contains("bastide 99") && said.contains("exit status: 7"), "{said}");
    let (fine, said) = upgrade(&["--only", "hedge"]).await?;
    ensure!(!fine && said.contains("there is no process `hedge`"), "{said}");
    more(&load, 50).await?;
    assert_eq!(edge()?, before, "the former one serves on");
    place.put_good()?;
    let (fine, said) = upgrade(&["--only", "edge"]).await?;
    ensure!(fine, "{said}");
    assert_ne!(edge()?, before);
    more(&load, 50).await?;
    let report = load.end().await;
    ensure!(report.lost == 0, "{report:?}");
    is_good(&report);
    Ok(())
}
