//! A client that hides nothing: raw bytes out, the whole answer back.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

/// Longer than anything takes on a slow machine; only a failure waits for it.
pub const LONG: Duration = Duration::from_secs(90);

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// Whether the body ended as its framing says.
    pub complete: bool,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap();
        let mut answer = Self { status, head: head.to_owned(), body: String::new(), complete: true };
        if answer.header("transfer-encoding") == "chunked" {
            answer.unchunk(rest);
        } else {
            let length = answer.header("content-length").parse().unwrap_or(rest.len());
            answer.complete = rest.len() == length;
            rest.clone_into(&mut answer.body);
        }
        answer
    }

    fn unchunk(&mut self, mut rest: &str) {
        loop {
            let Some((size, after)) = rest.split_once("\r\n") else {
                self.complete = false;
                return;
            };
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 || after.len() < size {
                self.complete = size == 0;
                return;
            }
            self.body.push_str(&after[..size]);
            rest = after[size..].trim_start_matches("\r\n");
        }
    }

    /// All values of a field, joined.
    pub fn header(&self, name: &str) -> String {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let values: Vec<_> = lines
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect();
        values.join(", ")
    }

    /// Code of a refusal.
    pub fn code(&self) -> String {
        let problem: serde_json::Value =
            serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no problem: {self:?}"));
        assert_eq!(
            problem["trace_id"],
            problem["request_id"].as_str().unwrap().replace('-', ""),
            "its trace"
        );
        problem["code"].as_str().unwrap().to_owned()
    }
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Sends these bytes and reads until the connection ends.
pub fn send(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut stream = connect(addr);
    stream.write_all(bytes.as_ref()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    Answer::read(&answer)
}

/// GET with further header lines, each ending with CRLF.
pub fn get(addr: SocketAddr, target: &str, lines: &str) -> Answer {
    send(addr, format!("GET {target} HTTP/1.1\r\nHost: site.example\r\n{lines}Connection: close\r\n\r\n"))
}

/// GET over TLS to `sni`, with this Host.
pub fn get_tls(
    addr: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
    sni: &str,
    host: &str,
    target: &str,
    lines: &str,
) -> Result<Answer, std::io::Error> {
    let name = rustls::pki_types::ServerName::try_from(sni.to_owned()).unwrap();
    let connection = rustls::ClientConnection::new(config.clone(), name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, connect(addr));
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // An end without close_notify is seen by the framing of the answer.
    if let Err(error) = stream.read_to_end(&mut answer)
        && answer.is_empty()
    {
        return Err(error);
    }
    Ok(Answer::read(&answer))
}

/// Trusts these certificates.
pub fn trusting(ca_pem: &str) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth())
}
