//! An SMTP server on loopback that keeps what it gets (RFC 5321, as far as a client needs it).

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// How the way to it is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Not at all.
    Plain,
    /// After STARTTLS, without which it takes nothing.
    Starttls,
    /// From the beginning.
    Tls,
}

/// A letter that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Whom it is for.
    pub to: String,
    /// Head and text, as they came.
    pub text: String,
}

impl Letter {
    /// The first link in it.
    pub fn link(&self) -> Option<String> {
        let from = self.text.find("https://")?;
        let link = self.text[from..].split_whitespace().next()?;
        Some(link.to_owned())
    }
}

/// Answers until it is dropped.
pub struct Smtp {
    address: SocketAddr,
    certificate: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    way: Way,
    tls: Arc<ServerConfig>,
    /// `name`, `password` that it demands.
    login: Option<(String, String)>,
    letters: Mutex<Vec<Letter>>,
    refusals: AtomicUsize,
    stop: AtomicBool,
}

impl Smtp {
    /// Starts one on a free port; with a login, it takes letters only from who knows it.
    pub fn start(way: Way, login: Option<(&str, &str)>) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key)
            .expect("they belong together");
        let shared = Arc::new(Shared {
            way,
            tls: Arc::new(tls),
            login: login.map(|(name, password)| (name.to_owned(), password.to_owned())),
            letters: Mutex::default(),
            refusals: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let inside = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if inside.stop.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever hangs up in the middle is no failure of the server.
                let _ = stream.and_then(|stream| inside.talk(stream));
            }
        });
        Self { address, certificate: made.cert.pem(), shared, thread: Some(thread) }
    }

    /// Its port on `localhost`.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its certificate, PEM: also that of its authority.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What it got so far.
    pub fn letters(&self) -> Vec<Letter> {
        self.shared.letters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes none of the next letters.
    pub fn refuse(&self, letters: usize) {
        self.shared.refusals.store(letters, Ordering::SeqCst);
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn talk(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let secured = |stream| {
            let session = ServerConnection::new(self.tls.clone()).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(StreamOwned::new(session, stream))
        };
        if self.way == Way::Tls {
            let mut stream = secured(stream)?;
            write!(stream, "220 testkit\r\n")?;
            return self.converse(stream, true).map(drop);
        }
        let mut stream = stream;
        write!(stream, "220 testkit\r\n")?;
        match self.converse(stream, self.way == Way::Plain)? {
            Some(stream) => self.converse(secured(stream)?, true).map(drop),
            None => Ok(()),
        }
    }

    /// One conversation; gives the stream back when it shall go on over TLS. Without `secure` nothing is taken.
    fn converse<S: Read + Write>(&self, stream: S, secure: bool) -> std::io::Result<Option<S>> {
        let mut stream = BufReader::new(stream);
        let (mut to, mut known) = (String::new(), self.login.is_none());
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end();
            let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let answer = match word.as_str() {
                "EHLO" if secure && self.login.is_some() => "250-testkit\r\n250 AUTH PLAIN",
                "EHLO" if self.way == Way::Starttls && !secure => "250-testkit\r\n250 STARTTLS",
                "EHLO" | "HELO" | "RSET" | "NOOP" => "250 testkit",
                "STARTTLS" if self.way == Way::Starttls && !secure => {
                    write!(stream.get_mut(), "220 go on\r\n")?;
                    stream.get_mut().flush()?;
                    return Ok(Some(stream.into_inner()));
                }
                "AUTH" => {
                    known = self.is_login(line.rsplit(' ').next().unwrap_or_default());
                    if known { "235 known" } else { "535 not known" }
                }
                "MAIL" if !secure || !known => "530 not so",
                "MAIL" => "250 go on",
                "RCPT" if self.is_refused() => "451 not now",
                "RCPT" => {
                    let named = line.split(['<', '>']).nth(1).unwrap_or_default();
                    named.clone_into(&mut to);
                    "250 go on"
                }
                "DATA" => {
                    write!(stream.get_mut(), "354 go on\r\n")?;
                    stream.get_mut().flush()?;
                    let text = letter(&mut stream)?;
                    let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
                    letters.push(Letter { to: std::mem::take(&mut to), text });
                    "250 kept"
                }
                "QUIT" => {
                    write!(stream.get_mut(), "221 bye\r\n")?;
                    stream.get_mut().flush()?;
                    return Ok(None);
                }
                _ => "502 not known",
            };
            write!(stream.get_mut(), "{answer}\r\n")?;
            stream.get_mut().flush()?;
        }
    }

    fn is_refused(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }

    /// `\0name\0password`, base64 (RFC 4616).
    fn is_login(&self, sent: &str) -> bool {
        let Some((name, password)) = &self.login else { return true };
        let expected = format!("\0{name}\0{password}");
        sent == base64(expected.as_bytes())
    }
}

/// A letter up to its final dot, its lines without the dots that were doubled.
fn letter(stream: &mut impl BufRead) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line.trim_end() == "." {
            return Ok(unfolded(&text));
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

/// The text of quoted-printable lines that hold nothing but ASCII (RFC 2045 §6.7).
fn unfolded(text: &str) -> String {
    text.replace("=\r\n", "").replace("=3D", "=")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |group: u32, at: u32| char::from(DIGITS[(group >> (18 - 6 * at)) as usize & 63]);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0, |all, at| all << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        let digits = chunk.len() as u32 + 1;
        text.extend((0..4).map(|at| if at < digits { digit(group, at) } else { '=' }));
    }
    text
}
