//! An origin that keeps what it received, and an edge before it.

use bastide_edge::{StandAlone, config::WafConfig, run_alone};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// What the origin answers to a path: everything after the status line's protocol.
type Answer = fn(&Received, usize) -> String;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }
    /// All values of a field.
    pub fn got(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// One connection per request; the answer is written as it is given and the connection closed.
pub struct Origin {
    pub addr: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (received, stop) = (Arc::<Mutex<Vec<Received>>>::default(), Arc::<AtomicBool>::default());
        let (all, stopping) = (received.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let count = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let (all, count) = (&all, &count);
                    scope.spawn(move || serve(stream.unwrap(), answer, all, count));
                }
            });
        });
        Self { addr, received, stop, thread: Some(thread) }
    }

    /// What arrived so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, answer: Answer, all: &Mutex<Vec<Received>>, count: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let mut received = Received { head, body: Vec::new() };
    let length = received.got("content-length").first().and_then(|text| text.parse().ok());
    if let Some(length) = length {
        received.body.resize(length, 0);
        if reader.read_exact(&mut received.body).is_err() {
            return;
        }
    } else if !received.got("transfer-encoding").is_empty() && !unchunk(&mut reader, &mut received.body) {
        return;
    }
    let text = answer(&received, count.fetch_add(1, Ordering::SeqCst));
    all.lock().unwrap().push(received);
    // The edge may hang up at any time: some tests are about that.
    let mut stream = stream;
    let _ = stream.write_all(format!("HTTP/1.1 {text}").as_bytes());
}

fn unchunk(reader: &mut impl BufRead, body: &mut Vec<u8>) -> bool {
    loop {
        let mut line = String::new();
        let Ok(size) = reader.read_line(&mut line).map(|_| usize::from_str_radix(line.trim(), 16)) else {
            return false;
        };
        let Ok(size) = size else { return false };
        let mut chunk = vec![0; size + 2];
        if reader.read_exact(&mut chunk).is_err() {
            return false;
        }
        if size == 0 {
            return true;
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// A whole answer with a length.
pub fn page(fields: &str, body: &str) -> String {
    format!("200 OK\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// An edge that stands alone, until dropped.
pub struct Alone {
    pub addr: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Alone {
    pub fn start(config: StandAlone) -> Self {
        let (stop, (sender, ready)) = (CancellationToken::new(), mpsc::channel());
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            run_alone(config, move |addr| sender.send(addr).unwrap(), stopping).unwrap();
        });
        let addr = ready.recv_timeout(crate::client::LONG).unwrap();
        Self { addr, stop, thread: Some(thread) }
    }

    /// Ends it; its logs are complete afterwards.
    pub fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.finish();
    }
}

pub fn before(origin: &Origin) -> StandAlone {
    StandAlone {
        origin: format!("http://{}", origin.addr),
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        cache: true,
        compress: true,
        metrics: None,
        takeover_socket: None,
        waf: None,
    }
}

/// Our own few rules, in a file below `dir`.
pub fn rules(dir: &Path) -> PathBuf {
    let file = dir.join("rules.conf");
    let text = r#"
SecRule ARGS "@contains attack" "id:1,phase:2,deny,status:403,t:none,log,msg:'attack in an argument',tag:'OWASP_CRS'"
SecRule REQUEST_URI_RAW "@contains <raw>" "id:2,phase:1,deny,status:403,t:none,log,msg:'raw target'"
SecRule REQUEST_HEADERS:X-Probe "@streq seen" "id:3,phase:1,pass,t:none,log,msg:'probe'"
SecRule RESPONSE_BODY "@contains LEAK" "id:4,phase:4,deny,status:403,t:none,log,msg:'leak in an answer'"
"#;
    std::fs::write(&file, text).unwrap();
    file
}

pub fn inspected(mode: bastide_waf::Mode, rules: PathBuf, audit: Option<PathBuf>) -> WafConfig {
    WafConfig { rules: vec![rules], mode, paranoia: 1, variables: vec![], audit }
}
