//! An app for tests that misbehaves when it is told to, for a bounded time: `/disturb/<how>/<ms>`. Built as it is, with
//! rustc alone. One thread answers, one request per connection, so that it answers also while nothing more can be
//! started; what disturbs are processes of its own.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Most sockets that one process opens outwards.
const SOCKETS_MAX: usize = 1000;
/// Most requests that are kept waiting.
const HELD_MAX: usize = 2000;
/// Where its container has the proxy, the name service, and nobody.
const PROXY: ([u8; 4], u16) = ([169, 254, 1, 3], 3128);
const NAMES: ([u8; 4], u16) = ([169, 254, 1, 3], 53);
const NOBODY: ([u8; 4], u16) = ([10, 255, 255, 1], 80);

fn main() -> std::io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    if let [how, until] = words.as_slice() {
        disturb(how, until.parse().unwrap_or(0));
        return Ok(());
    }
    let own = |name: &str| env::var(name).unwrap_or_default();
    let listener = TcpListener::bind((own("HOST"), own("PORT").parse::<u16>().unwrap_or(0)))?;
    let mut state = State::default();
    for stream in listener.incoming().flatten() {
        // A client that hangs up is no fault of ours.
        let _ = state.serve(stream);
    }
    Ok(())
}

#[derive(Default)]
struct State {
    /// What disturbs, and until when.
    child: Option<(Child, u64)>,
    held: Vec<TcpStream>,
}

impl State {
    fn serve(&mut self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 && line != "\r\n" {
            line.clear();
        }
        let path = first.split(' ').nth(1).unwrap_or("/");
        let replica = env::var("BASTIDE_REPLICA").unwrap_or_default();
        let answer = match path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice() {
            ["hold"] if self.held.len() < HELD_MAX => {
                self.held.push(stream);
                return Ok(());
            }
            ["free"] => {
                self.held.clear();
                "freed".to_owned()
            }
            ["disturb", how, millis] => self.begin(how, millis.parse().unwrap_or(0))?,
            _ => "noisy".to_owned(),
        };
        let answer = format!("{answer} {replica}");
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len())
    }

    fn begin(&mut self, how: &str, millis: u64) -> std::io::Result<String> {
        if let Some((child, until)) = &mut self.child {
            if *until > now() {
                return Ok("busy".to_owned());
            }
            // It ends by itself, with all that it made.
            let _ = child.wait();
        }
        let until = now() + millis;
        self.child = Some((again(how, until)?, until));
        Ok("begun".to_owned())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn again(how: &str, until: u64) -> std::io::Result<Child> {
    Command::new("/proc/self/exe").args([how, &until.to_string()]).spawn()
}

fn disturb(how: &str, until: u64) {
    match how {
        "fork-bomb" => bomb(until),
        "memory-hog" => hogs(until),
        "hog" => hog(until),
        "disk-filler" => fill(until),
        "log-flood" => shout(until),
        "calls-out" => call(until),
        _ => {}
    }
}

/// Every process makes more of its kind, as long as it may. Each waits for those that it made, so none is left.
fn bomb(until: u64) {
    let mut children = Vec::new();
    while now() < until {
        if let Ok(child) = again("fork-bomb", until) {
            children.push(child);
        }
    }
    for mut child in children {
        let _ = child.wait();
    }
}

/// Whoever is killed for its memory is followed by the next.
fn hogs(until: u64) {
    while now() < until {
        if let Ok(mut child) = again("hog", until) {
            let _ = child.wait();
        }
    }
}

fn hog(until: u64) {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    while now() < until {
        kept.push(vec![1; 1024 * 1024]);
    }
}

/// All that can be written to is filled, emptied and filled again.
fn fill(until: u64) {
    let block = vec![7; 256 * 1024];
    while now() < until {
        for dir in ["/tmp", "/dev/shm", "/dev", "/", "/var", "/run"] {
            let mut made = Vec::new();
            for number in 0..4096 {
                let path = format!("{dir}/fill-{number}");
                let written = fs::write(&path, &block);
                made.push(path);
                if written.is_err() || now() >= until {
                    break;
                }
            }
            for path in made {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn shout(until: u64) {
    let line = [vec![b'x'; 4095], vec![b'\n']].concat();
    while now() < until {
        if std::io::stdout().write_all(&line).is_err() {
            return;
        }
    }
}

/// Connections to its proxy and to nobody, questions for names, from many threads.
fn call(until: u64) {
    let callers: Vec<_> = (0..8).map(|number| thread::spawn(move || one_caller(number, until))).collect();
    for caller in callers {
        let _ = caller.join();
    }
}

fn one_caller(number: usize, until: u64) {
    let mut open = Vec::new();
    let question = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04none\x08internal\x00\x00\x01\x00\x01";
    while now() < until {
        match number % 3 {
            0 => {
                if let Ok(mut stream) = TcpStream::connect_timeout(&SocketAddr::from(PROXY), Duration::from_secs(1)) {
                    let _ = stream.write_all(b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nhost: 127.0.0.1:80\r\n\r\n");
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
                    let _ = stream.read(&mut [0; 512]);
                    open.push(stream);
                }
            }
            1 => {
                let _ = TcpStream::connect_timeout(&SocketAddr::from(NOBODY), Duration::from_millis(2));
            }
            _ => {
                if let Ok(socket) = UdpSocket::bind("0.0.0.0:0") {
                    let _ = socket.send_to(question, SocketAddr::from(NAMES));
                }
            }
        }
        if open.len() >= SOCKETS_MAX {
            open.clear();
        }
    }
}
