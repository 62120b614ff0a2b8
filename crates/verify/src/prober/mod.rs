//! The prober: a process with one thread that makes sockets inside namespaces and does what it is told.
//!
//! A process of its own, so that its thousands of sockets, its floods and its rights are nobody else's.

mod attempt;
mod canary;
mod namespace;
pub mod packet;

use crate::order::{Answer, Order};
use attempt::Caller;
use namespace::Namespaces;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    io,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::pipe,
    sync::{Semaphore, mpsc},
};

/// Longest order, in bytes.
const ORDER_BYTES_MAX: u64 = 64 * 1024;
/// Sockets for other things than attempts: canaries and what comes to them.
const SPARE: u64 = 1024;
/// Attempts at a time, whatever the number of sockets.
const AT_ONCE_MAX: u64 = 3000;

/// Does what it is told on standard input, answers on standard output, ends when the input ends.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // Canaries and attempts at both ends of a connection take two sockets each.
    let at_once = (most.saturating_sub(SPARE) / 3).clamp(64, AT_ONCE_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(orders(at_once as usize))
}

async fn orders(at_once: usize) -> io::Result<()> {
    let input = pipe::Receiver::from_owned_fd(own(io::stdin())?)?;
    let output = pipe::Sender::from_owned_fd(own(io::stdout())?)?;
    let (say, answers) = mpsc::channel(1024);
    tokio::spawn(tell(output, answers));
    let namespaces = Arc::new(Mutex::new(Namespaces::open()?));
    let (ears, places) = (canary::Ears::default(), Arc::new(Semaphore::new(at_once)));
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut order = (&mut input).take(ORDER_BYTES_MAX);
        if order.read_until(b'\n', &mut line).await? == 0 {
            // Whoever started it is gone, and nobody hears what attempts still come to.
            return Ok(());
        }
        match serde_json::from_slice(&line)? {
            Order::Open { id, namespace, at, by, words } => {
                let opened = {
                    let mut namespaces = namespaces.lock().unwrap_or_else(PoisonError::into_inner);
                    canary::open(&mut namespaces, namespace.as_deref(), id, at, by, &words, &ears)
                };
                let answer = match opened {
                    Ok(port) => Answer::Opened { id, port },
                    Err(error) => {
                        let absent = error.kind() == io::ErrorKind::AddrNotAvailable;
                        Answer::NotOpened { id, why: error.to_string(), absent }
                    }
                };
                let _ = say.send(answer).await;
            }
            Order::Try { id, namespace, nonce, limit_ms, attempt } => {
                let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
                let limit = Duration::from_millis(limit_ms);
                let caller = Caller { namespaces: namespaces.clone(), namespace, nonce, limit };
                let say = say.clone();
                tokio::spawn(async move {
                    let seen = caller.make(attempt).await;
                    drop(place);
                    let _ = say.send(Answer::Tried { id, seen }).await;
                });
            }
            Order::Collect => {
                let _ = say.send(Answer::Heard { calls: ears.take() }).await;
            }
        }
    }
}

async fn tell(mut output: pipe::Sender, mut answers: mpsc::Receiver<Answer>) -> io::Result<()> {
    while let Some(answer) = answers.recv().await {
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        output.write_all(&line).await?;
    }
    Ok(())
}

fn own(stream: impl std::os::fd::AsFd) -> io::Result<std::os::fd::OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}
