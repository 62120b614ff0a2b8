//! Limits of a listener. Every wait ends and every buffer is bounded.

use std::time::Duration;

/// Limits of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes of a head. Default 64 KiB; more is 431.
    pub head_bytes_max: usize,
    /// Most fields of a head. Default 100; more is 431.
    pub header_count_max: usize,
    /// Most bytes of a request target. Default 16 KiB; more is 414.
    pub target_bytes_max: usize,
    /// Longest wait for a complete head once its first byte is there. Default 10 s; more is 408.
    pub head_timeout: Duration,
    /// Longest pause between two requests of a connection. Default 60 s.
    pub idle_timeout: Duration,
    /// Longest pause within a body, either way. Default 60 s.
    pub body_idle_timeout: Duration,
    /// Longest silence of both ends of a tunnel (WebSocket). Default 10 min.
    pub tunnel_idle_timeout: Duration,
    /// Longest TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Connections at once, per listener. Default 10 000; more wait in the backlog.
    pub connections_max: usize,
    /// Connections at once of one client (IPv4 address or IPv6 /64), per listener. Default 1 000; more are
    /// closed at once. This machine itself has no such limit.
    pub connections_per_client_max: u32,
    /// TLS handshakes of one client that are not done yet, per listener. Default 100; more are closed at once.
    pub handshakes_per_client_max: u32,
    /// Streams at once in an HTTP/2 connection. Default 128.
    pub streams_max: u32,
    /// Bytes of an upload that one HTTP/2 stream may be ahead of us. Default 256 KiB.
    pub stream_window_bytes: u32,
    /// The same for all streams of a connection. Default 1 MiB.
    pub connection_window_bytes: u32,
    /// How long requests may go on when the listener stops. Default 10 s.
    pub drain: Duration,
    /// How long requests and tunnels may go on when another process has taken the socket over. Default 1 h.
    pub takeover_drain: Duration,
    /// Unread request body that is read and thrown away to keep the connection. Default 64 KiB.
    pub discard_bytes_max: u64,
}

impl Limits {
    /// Limits of a listener for our own hops, whose connections carry the requests of many clients: an upload
    /// that nobody reads leaves room for all others.
    pub fn inner() -> Self {
        let stream_window_bytes = 64 * 1024;
        let limits = Self::default();
        Self {
            stream_window_bytes,
            connection_window_bytes: stream_window_bytes * limits.streams_max,
            ..limits
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            header_count_max: 100,
            target_bytes_max: 16 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            body_idle_timeout: Duration::from_mins(1),
            tunnel_idle_timeout: Duration::from_mins(10),
            handshake_timeout: Duration::from_secs(10),
            connections_max: 10_000,
            connections_per_client_max: 1_000,
            handshakes_per_client_max: 100,
            streams_max: 128,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            drain: Duration::from_secs(10),
            takeover_drain: Duration::from_hours(1),
            discard_bytes_max: 64 * 1024,
        }
    }
}
