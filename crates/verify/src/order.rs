//! What the prober is told and what it tells: JSON, one message per line.

use bastide_isolation::checks::{Crafted, Medium, Seen};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// What the prober is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Make a canary listen; answered with [`Answer::Opened`] or [`Answer::NotOpened`].
    Open {
        /// Its number.
        id: u32,
        /// Namespace, as a file; the prober's own when there is none.
        namespace: Option<PathBuf>,
        /// Where. Port 0 is any free one.
        at: SocketAddr,
        /// By what.
        by: Medium,
        /// What it answers with; also the name of an abstract socket.
        words: String,
    },
    /// Try something; answered with [`Answer::Tried`].
    Try {
        /// Its number.
        id: u32,
        /// Namespace to try it from.
        namespace: Option<PathBuf>,
        /// What is said: 32 hexadecimal digits that occur nowhere else.
        nonce: String,
        /// Longest wait.
        limit_ms: u64,
        /// What.
        attempt: Attempt,
    },
    /// Tell what canaries heard since the last time; answered with [`Answer::Heard`].
    Collect,
}

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Attempt {
    /// Connect, say the nonce, hear the words.
    Tcp {
        /// Where to.
        to: SocketAddr,
        /// Source.
        from: Option<IpAddr>,
        /// The words that prove it.
        words: String,
    },
    /// Send the nonce, hear the words.
    Udp {
        /// Where to.
        to: SocketAddr,
        /// Source.
        from: Option<IpAddr>,
        /// How many routers may pass it on.
        ttl: Option<u8>,
        /// Where to is a group, or everybody.
        broadcast: bool,
        /// The words that prove it.
        words: String,
    },
    /// Send a packet made by hand.
    Crafted {
        /// Where to.
        to: SocketAddr,
        /// What.
        packet: Crafted,
    },
    /// Have a proxy connect.
    Proxy {
        /// The proxy.
        proxy: SocketAddr,
        /// In which way.
        by: Manner,
        /// To which host, as it is written.
        host: String,
        /// To which port.
        port: u16,
        /// The words that prove it.
        words: String,
    },
    /// Ask a name service.
    Lookup {
        /// Which one.
        server: SocketAddr,
        /// For which name.
        name: String,
        /// For IPv6 addresses.
        v6: bool,
    },
    /// Connect to an abstract Unix socket.
    Abstract {
        /// Its name, which is also what it says.
        words: String,
    },
    /// Connect, say something, hear anything.
    Ask {
        /// Where to.
        to: SocketAddr,
        /// What to say.
        say: Vec<u8>,
    },
    /// Many at a time.
    Flood {
        /// Where to.
        to: SocketAddr,
        /// How many.
        count: u32,
        /// UDP instead of TCP.
        udp: bool,
        /// The words that prove each.
        words: String,
    },
}

/// How a proxy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// HTTP `CONNECT`.
    Connect,
    /// HTTP `GET` with the whole URL.
    Forward,
    /// SOCKS 5.
    Socks,
}

/// What the prober tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// A canary listens.
    Opened {
        /// Its number.
        id: u32,
        /// Its port.
        port: u16,
    },
    /// It does not.
    NotOpened {
        /// Its number.
        id: u32,
        /// Why.
        why: String,
        /// Its address is not there.
        absent: bool,
    },
    /// What came of an attempt.
    Tried {
        /// Its number.
        id: u32,
        /// What was seen.
        seen: Seen,
    },
    /// What canaries heard.
    Heard {
        /// Everything since the last time.
        calls: Vec<Call>,
    },
}

/// Something that a canary heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Which canary.
    pub canary: u32,
    /// What was said; nothing when somebody connected and did not say it.
    pub nonce: Option<String>,
    /// The source that it saw.
    pub source: IpAddr,
}
