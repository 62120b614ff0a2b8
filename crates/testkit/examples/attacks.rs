//! What attackers cost other clients of a stand-alone edge: run by `bench/floods/run` and `bench/slow/run`.
//!
//! `attacks floods EXECUTABLE [WORDS]` sends floods of HTTP/2, `attacks slow EXECUTABLE [WORDS]` lets Debian's slowhttptest
//! be slow in three ways, to the edge and then to nginx in its place, if there is one. WORDS stand before the edge's command, such as `taskset -c 0`. Windows alone and attacked take
//! turns, so that whatever else the machine does falls on both. Attackers are `nice`: what they take from the measuring
//! client's processor is no fault of the edge.

use anyhow::{Context, Result, bail, ensure};
use bastide_testkit::{
    edge::{Edge, HOST, Scene},
    floods::{Attack, FLOODS},
    load::Target,
    neighbours::quantile,
};
use http_body_util::BodyExt;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// One request of the bystander in each.
const EVERY: Duration = Duration::from_millis(5);
const WINDOW: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
/// An attack begins before its window.
const LEAD: Duration = Duration::from_secs(1);
/// Attackers at once, and how soon one comes again that was cut.
const ATTACKERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(100);
/// Connections of slowhttptest, how many it makes in a second, and how long it goes on.
const SLOW: [&str; 6] = ["-c", "1000", "-r", "200", "-l", "45"];
/// All of them are there by then, and the first have met the limits.
const SLOW_LEAD: Duration = Duration::from_secs(8);
const SLOW_WINDOW: Duration = Duration::from_secs(30);
const SLOW_HEADINGS: &str = "| | mode | found the service away | p50 alone, ms | p50 attacked | p99 alone | p99 attacked \
    | ratio of p99 (bar: 2) | memory grew by, MiB |\n|---|---|---|---|---|---|---|---|---|";
/// What slow readers ask for.
const LARGE_BYTES: usize = 4 * 1024 * 1024;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (mode, rest) = words.split_first().context("floods, slow or attack")?;
    if mode == "attack" {
        return attack(rest).await;
    }
    let (executable, before) = rest.split_first().context("the executable of Bastide")?;
    let origin = origin()?;
    let mut scene = Scene::new(Path::new(executable), &origin, &["--no-waf", "--no-cache"])?;
    scene.before = before.to_vec();
    let edge = scene.start()?;
    let mut bystander = Bystander { target: scene.target("/")?, took: Vec::new(), lost: 0 };
    bystander.ask(WINDOW).await;
    match mode.as_str() {
        "floods" => floods(&scene, &edge, &mut bystander).await,
        "slow" => {
            println!("{SLOW_HEADINGS}");
            slow("bastide", &scene, &edge, &mut bystander).await?;
            drop(edge);
            match nginx(&scene, &origin) {
                Ok(peer) => slow("nginx", &scene, &peer, &mut bystander).await?,
                Err(error) => eprintln!("nginx is not measured: {error:#}"),
            }
            println!("\nRequests of the bystander that were lost: {}.", bystander.lost);
            Ok(())
        }
        other => bail!("`{other}` is neither floods nor slow"),
    }
}

/// nginx in the place of the edge, as far as possible with its defaults.
fn nginx(scene: &Scene, origin: &str) -> Result<Edge> {
    let at = |name: &str| scene.path(name).display().to_string();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};", at(name)))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {pid}; error_log {log};
         events {{ worker_connections 4096; }}
         http {{ access_log off; {temporary}
           upstream origin {{ server {origin}; keepalive 128; }}
           server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
             location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ''; }} }} }}",
        pid = at("nginx.pid"),
        log = at("nginx.log"),
        origin = origin.trim_start_matches("http://"),
        port = scene.port,
        cert = at("cert.pem"),
        key = at("key.pem"),
    );
    std::fs::write(scene.path("nginx.conf"), config)?;
    scene.start_peer(&["/usr/sbin/nginx", "-e", &at("nginx.log"), "-c", &at("nginx.conf"), "-p", &at("")])
}

/// An origin that keeps connections; it ends with this process.
fn origin() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let large: Arc<[u8]> = vec![b'x'; LARGE_BYTES].into();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let large = large.clone();
            std::thread::spawn(move || {
                let (mut lines, mut is_large, mut length) = (BufReader::new(&stream), false, 0);
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                    is_large |= line.contains(" /large ");
                    if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = text.trim().parse().unwrap_or(0);
                    }
                    if line == "\r\n" {
                        let sunk = std::io::copy(&mut (&mut lines).take(length), &mut std::io::sink());
                        let body = if is_large { &large[..] } else { b"ok" };
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        // The edge hangs up when it likes.
                        if sunk.is_err() || answer(&stream, head.as_bytes(), body).is_err() {
                            return;
                        }
                        (is_large, length) = (false, 0);
                    }
                    line.clear();
                }
            });
        }
    });
    Ok(url)
}

/// Head and body in one packet when they are short.
fn answer(mut stream: &TcpStream, head: &[u8], body: &[u8]) -> std::io::Result<()> {
    if body.len() < 1024 {
        return stream.write_all(&[head, body].concat());
    }
    stream.write_all(head)?;
    stream.write_all(body)
}

/// Another client, with a connection that stays open.
struct Bystander {
    target: Target,
    took: Vec<Duration>,
    lost: usize,
}

impl Bystander {
    /// Asks steadily; how long each answer took.
    async fn ask(&mut self, window: Duration) {
        self.took.clear();
        let mut connection = None;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let begun = Instant::now();
        while begun.elapsed() < window {
            ticks.tick().await;
            let asked = Instant::now();
            if let Err(error) = self.once(&mut connection).await {
                eprintln!("a request was lost: {error:#}");
                self.lost += 1;
                connection = None;
            }
            self.took.push(asked.elapsed());
        }
    }

    async fn once(
        &self,
        connection: &mut Option<hyper::client::conn::http1::SendRequest<http_body_util::Empty<bytes::Bytes>>>,
    ) -> Result<()> {
        if connection.as_ref().is_none_or(|sender| sender.is_closed()) {
            *connection = Some(self.target.http1().await?);
        }
        let sender = connection.as_mut().context("it was made")?;
        sender.ready().await?;
        let response = sender.send_request(self.target.request("/")?).await?;
        let status = response.status();
        response.into_body().collect().await?;
        ensure!(status == 200, "{status}");
        Ok(())
    }
}

/// Samples of one kind of attack.
#[derive(Default)]
struct Samples {
    alone: Vec<Duration>,
    attacked: Vec<Duration>,
    grown_kib: u64,
}

impl Samples {
    /// p50 and p99 alone and attacked in milliseconds, the ratio of p99, and the growth of memory.
    fn row(&mut self) -> String {
        let ms = |took: &mut [Duration], at| quantile(took, at).as_secs_f64() * 1000.0;
        let (p50, p99) = (ms(&mut self.alone, 500), ms(&mut self.alone, 990));
        let (attacked50, attacked99) = (ms(&mut self.attacked, 500), ms(&mut self.attacked, 990));
        let ratio = attacked99 / p99;
        let mib = self.grown_kib as f64 / 1024.0;
        format!("{p50:.2} | {attacked50:.2} | {p99:.2} | {attacked99:.2} | {ratio:.2} | {mib:.1}")
    }
}

async fn floods(scene: &Scene, edge: &Edge, bystander: &mut Bystander) -> Result<()> {
    println!(
        "| flood | connections cut | MiB sent | p50 alone, ms | p50 attacked | p99 alone | p99 attacked | ratio of p99 (bar: 2) | memory grew by, MiB (bar: 10) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (index, flood) in FLOODS.into_iter().enumerate() {
        let mut samples = Samples::default();
        let (mut cut, mut bytes) = (0, 0);
        for _ in 0..ROUNDS {
            bystander.ask(WINDOW).await;
            samples.alone.append(&mut bystander.took);
            edge.forget_peak()?;
            let before = edge.memory_kib()?;
            let attackers = Attackers::start(scene, index)?;
            tokio::time::sleep(LEAD).await;
            bystander.ask(WINDOW).await;
            samples.attacked.append(&mut bystander.took);
            let did = attackers.end()?;
            (cut, bytes) = (cut + did[0], bytes + did[1]);
            samples.grown_kib = samples.grown_kib.max(edge.peak_kib()?.saturating_sub(before));
        }
        let mib = bytes / 1024 / 1024;
        println!("| {} | {cut} | {mib} | {} |", flood.name, samples.row());
    }
    println!("\nRequests of the bystander that were lost: {}.", bystander.lost);
    Ok(())
}

/// A process of its own that attacks until its standard input ends.
struct Attackers(Child);

impl Attackers {
    fn start(scene: &Scene, index: usize) -> Result<Self> {
        let own = std::env::current_exe()?;
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(own).arg("attack").arg(scene.path("cert.pem"));
        command.args([scene.port.to_string(), index.to_string()]);
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    /// Connections that were cut, and bytes sent.
    fn end(mut self) -> Result<[u64; 2]> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().context("it was piped")?.read_to_string(&mut said)?;
        ensure!(self.0.wait()?.success(), "the attackers failed");
        let mut numbers = said.split_whitespace().map(str::parse);
        Ok([numbers.next().context("cut")??, numbers.next().context("bytes")??])
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn attack(words: &[String]) -> Result<()> {
    let [ca, port, index] = words else { bail!("a certificate, a port and a number") };
    let target = Target::new(Path::new(ca), HOST, port.parse()?, "/")?;
    let flood = *FLOODS.get(index.parse::<usize>()?).context("there is no such flood")?;
    let attack = Attack::start(&target, flood, ATTACKERS, PAUSE);
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    let tally = attack.end().await?;
    println!("{} {}", tally.cut.load(Ordering::Relaxed), tally.bytes.load(Ordering::Relaxed));
    Ok(())
}

async fn slow(who: &str, scene: &Scene, edge: &Edge, bystander: &mut Bystander) -> Result<()> {
    let url = |path: &str| format!("https://127.0.0.1:{}{path}", scene.port);
    let header = ["-H", "-i", "5", "-x", "24", "-t", "GET", "-u", &url("/")].map(str::to_owned);
    let body = ["-B", "-i", "5", "-s", "8192", "-x", "10", "-t", "POST", "-u", &url("/")].map(str::to_owned);
    let read = ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3", "-u", &url("/large")];
    let read = read.map(str::to_owned);
    for (mode, arguments) in [("header", &header[..]), ("body", &body), ("read", &read)] {
        let mut samples = Samples::default();
        bystander.ask(SLOW_WINDOW).await;
        samples.alone.append(&mut bystander.took);
        edge.forget_peak()?;
        let before = edge.memory_kib()?;
        let slow = Slow::start(&scene.path("slow.out"), arguments)?;
        tokio::time::sleep(SLOW_LEAD).await;
        bystander.ask(SLOW_WINDOW).await;
        samples.attacked.append(&mut bystander.took);
        samples.grown_kib = edge.peak_kib()?.saturating_sub(before);
        let away = slow.end()?;
        println!("| {who} | {mode} | {away} | {} |", samples.row());
    }
    Ok(())
}

/// A running slowhttptest.
struct Slow {
    process: Child,
    output: PathBuf,
}

impl Slow {
    fn start(output: &Path, arguments: &[String]) -> Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "19", "slowhttptest", "-p", "3"]).args(SLOW).args(arguments);
        let file = std::fs::File::create(output)?;
        let process = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { process, output: output.to_owned() })
    }

    /// Waits for its end; how many of its own looks found the service away.
    fn end(mut self) -> Result<String> {
        self.process.wait()?;
        let said = std::fs::read_to_string(&self.output)?;
        let looks = |word: &str| {
            let lines = said.lines().filter(|line| line.contains("service available"));
            lines.filter(|line| line.contains(word)).count()
        };
        let (away, there) = (looks("NO"), looks("YES"));
        ensure!(there > 0, "slowhttptest did not look:\n{said}");
        Ok(format!("{away} of {} looks", away + there))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
