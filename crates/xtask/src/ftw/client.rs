//! One request on a connection of its own, and what came back.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

/// Longest wait for an answer. Slow machines are slow; nothing depends on it but how long a failure takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// The same where the test expects that none comes.
const IMPATIENCE: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// What came back.
pub struct Answer {
    /// Status, when it was HTTP.
    pub status: Option<u16>,
    /// All of it.
    pub text: String,
}

/// Sends `request`, reads until the head is there and, when the server closes, to the end.
pub fn send(addr: SocketAddr, request: &[u8], expects_error: bool) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(if expects_error { IMPATIENCE } else { PATIENCE }))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A server that refuses early may close before all is written; its answer counts.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let mut room = [0; 16 * 1024];
    while (bytes.len() as u64) < ANSWER_BYTES_MAX && !is_whole(&bytes) {
        match stream.read(&mut room) {
            Ok(0) | Err(_) => break,
            Ok(read) => bytes.extend_from_slice(&room[..read]),
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status =
        text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    Ok(Answer { status, text })
}

/// Whether the answer is complete by its own length, so that a connection that stays open is not waited for.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    match length.and_then(|length| length.trim().parse::<usize>().ok()) {
        Some(length) => bytes.len() >= end + 4 + length || head.starts_with("http/1.1 304"),
        // No length: chunked or until the end; the last chunk ends it.
        None => bytes.ends_with(b"0\r\n\r\n"),
    }
}
