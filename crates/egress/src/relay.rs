//! Bytes between an app and its destination, counted, until both are done or nothing moves any more.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until},
};

/// Longest silence of both sides. Clouds' NAT gateways end idle connections after 350 s; ours waits longer.
pub(crate) const IDLE: Duration = Duration::from_mins(15);
const PIECE: usize = 16 * 1024;

/// Bytes that went each way; readable while they go.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) out: AtomicU64,
    pub(crate) back: AtomicU64,
}

/// Carries bytes both ways. A side that has said all it has to say is closed towards the other.
pub(crate) async fn relay<A, B>(app: A, destination: B, counted: &Counted, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (app_read, app_write) = tokio::io::split(app);
    let (far_read, far_write) = tokio::io::split(destination);
    let moved = || counted.out.load(Ordering::Relaxed) + counted.back.load(Ordering::Relaxed);
    let both = async {
        tokio::try_join!(carry(app_read, far_write, &counted.out), carry(far_read, app_write, &counted.back))
            .map(|_| ())
    };
    let silence = async {
        let mut before = moved();
        let mut until = Instant::now() + idle;
        loop {
            sleep_until(until).await;
            let now = moved();
            if now == before {
                return;
            }
            before = now;
            until = Instant::now() + idle;
        }
    };
    tokio::select! {
        outcome = both => outcome,
        () = silence => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn carry<R, W>(mut from: R, mut to: W, count: &AtomicU64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut piece = vec![0; PIECE];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..read]).await?;
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}
