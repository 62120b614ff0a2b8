//! An example app: says which replica and zone answered and who is signed in.
//!
//! It shows the whole contract of an app: listen on `PORT`, answer the readiness path, trust what the
//! gateway says about the user, and end politely on SIGTERM. One thread per connection is enough here.

use nix::sys::signal::{SigSet, Signal};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const CONNECTIONS_MAX: usize = 512;
const HEAD_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;
const IDLE: Duration = Duration::from_mins(1);
/// Longest time that `/slow` takes.
const SLOW_MAX_MS: u64 = 10_000;

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    keep_alive: bool,
    source: String,
}

#[derive(Default)]
struct State {
    stopping: AtomicBool,
    busy: AtomicUsize,
    connections: AtomicUsize,
}

fn main() -> std::io::Result<()> {
    // Signals are taken by one thread; blocked here, they are blocked in every thread made later.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let state = Arc::new(State::default());
    let address = (own("HOST", "127.0.0.1"), own("PORT", "8080").parse::<u16>().unwrap_or(8080));
    let listener = TcpListener::bind((address.0.as_str(), address.1))?;
    println!("listening on {}", listener.local_addr()?);
    let accepting = state.clone();
    thread::spawn(move || accept(&listener, &accepting));
    signals.wait()?;
    println!("stopping");
    state.stopping.store(true, Ordering::SeqCst);
    // Requests in flight are finished; the platform kills whatever takes longer than `grace_s`.
    while state.busy.load(Ordering::SeqCst) > 0 {
        thread::sleep(Duration::from_millis(10));
    }
    println!("stopped");
    Ok(())
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming().flatten() {
        if state.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            state.connections.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let own = state.clone();
        thread::spawn(move || {
            // A client that hangs up is no fault of ours.
            let _ = serve(stream, &own);
            own.connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn serve(stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        state.busy.fetch_add(1, Ordering::SeqCst);
        let keep_alive = request.keep_alive && !state.stopping.load(Ordering::SeqCst);
        let (status, text) = answer(&request);
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let body = if request.method == "HEAD" { "" } else { &text };
        let written = write!(
            writer,
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: {connection}\r\n\r\n{body}",
            text.len()
        );
        state.busy.fetch_sub(1, Ordering::SeqCst);
        written?;
        if !keep_alive {
            break;
        }
    }
    Ok(())
}

fn answer(request: &Request) -> (&'static str, String) {
    let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
    match request.path.as_str() {
        "/" => ("200 OK", here("Hello")),
        "/healthz" => ("200 OK", "ok\n".into()),
        "/me" => {
            let (user, name, roles) =
                (header("x-bastide-user"), header("x-bastide-user-name"), header("x-bastide-roles"));
            ("200 OK", here(&format!("You are {name} ({user}) with roles [{roles}]")))
        }
        "/admin" => ("200 OK", here("Welcome, administrator")),
        "/source" => ("200 OK", format!("{}\n", request.source)),
        "/headers" => {
            let lines = request.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
            ("200 OK", lines.collect())
        }
        "/slow" => {
            let asked = request.query.strip_prefix("ms=").and_then(|ms| ms.parse().ok()).unwrap_or(100);
            thread::sleep(Duration::from_millis(asked.min(SLOW_MAX_MS)));
            ("200 OK", here("That took a while"))
        }
        "/echo" if request.method == "POST" => {
            ("200 OK", String::from_utf8_lossy(&request.body).into_owned())
        }
        _ => ("404 Not Found", "There is no such page.\n".into()),
    }
}

fn here(greeting: &str) -> String {
    format!(
        "{greeting} from replica {} in zone {} (revision {}, stage {})\n",
        own("BASTIDE_REPLICA", "-"),
        own("BASTIDE_ZONE", "-"),
        own("BASTIDE_REVISION", "-"),
        own("BASTIDE_STAGE", "-"),
    )
}

#[allow(clippy::disallowed_methods)] // an app is configured by its environment
fn own(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.into())
}

/// Reads one request; `None` when the client is done.
fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut head = Vec::new();
    let mut limited = reader.by_ref().take(HEAD_BYTES_MAX);
    while !head.ends_with(b"\r\n\r\n") {
        if limited.read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let keep_alive = headers.get("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
    let mut request = Request {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        headers,
        body: Vec::new(),
        keep_alive,
        source: reader.get_ref().peer_addr().map_or_else(|_| String::new(), |peer| peer.ip().to_string()),
    };
    body(reader, &mut request)?;
    Ok(Some(request))
}

/// Reads a body: by its length, or in chunks as the gateway sends them.
fn body(reader: &mut BufReader<TcpStream>, request: &mut Request) -> std::io::Result<()> {
    let too_large = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    if request.headers.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut line = String::new();
            reader.by_ref().take(64).read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(|_| too_large())?;
            if size + request.body.len() as u64 > BODY_BYTES_MAX {
                return Err(too_large());
            }
            reader.by_ref().take(size).read_to_end(&mut request.body)?;
            let mut end = String::new();
            reader.by_ref().take(64).read_line(&mut end)?;
            if size == 0 {
                return Ok(());
            }
        }
    }
    let length: u64 = request.headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    if length > BODY_BYTES_MAX {
        return Err(too_large());
    }
    reader.by_ref().take(length).read_to_end(&mut request.body)?;
    Ok(())
}
