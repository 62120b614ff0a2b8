//! Bytes between two connections, counted, until both sides are done or nothing moves any more.
//!
//! Whoever reads slowly makes the other side wait: never more than a piece each way is held here.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until},
};

/// Bytes held for each direction.
pub const PIECE: usize = 16 * 1024;

/// Bytes that went each way; readable while they go.
#[derive(Debug, Default)]
pub struct Counted {
    /// From the first side to the second.
    pub out: AtomicU64,
    /// From the second side to the first.
    pub back: AtomicU64,
}

/// Carries bytes both ways. A side that has said all it has to say is closed towards the other.
///
/// # Errors
/// `TimedOut` after `idle` (to twice that) without a byte on either side; else what went wrong with a connection.
pub async fn relay<A, B>(near: A, far: B, counted: &Counted, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    let moved = || counted.out.load(Ordering::Relaxed) + counted.back.load(Ordering::Relaxed);
    let both = async {
        tokio::try_join!(
            carry(near_read, far_write, &counted.out),
            carry(far_read, near_write, &counted.back)
        )
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    const PATIENCE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_side_that_has_said_all_still_hears_the_other() {
        let (mut client, near) = duplex(64);
        let (mut server, far) = duplex(64);
        let counted = Counted::default();
        let both = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut asked = String::new();
            server.read_to_string(&mut asked).await.unwrap();
            server.write_all(b"a longer answer").await.unwrap();
            server.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            (asked, answer)
        };
        let (end, (asked, answer)) = tokio::join!(relay(near, far, &counted, PATIENCE), both);
        end.unwrap();
        assert_eq!((asked.as_str(), answer.as_str()), ("question", "a longer answer"));
        assert_eq!((counted.out.into_inner(), counted.back.into_inner()), (8, 15));
    }

    #[tokio::test]
    async fn silence_of_both_sides_ends_it() {
        let (mut client, near) = duplex(64);
        let (_server, far) = duplex(64);
        client.write_all(b"x").await.unwrap();
        let counted = Counted::default();
        let end = relay(near, far, &counted, Duration::from_millis(20)).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(counted.out.into_inner(), 1);
    }

    #[tokio::test]
    async fn a_slow_reader_makes_the_sender_wait() {
        let (mut client, near) = duplex(1);
        let (_server, far) = duplex(1);
        let counted = Counted::default();
        let sent = AtomicU64::new(0);
        let flood = async {
            loop {
                client.write_all(b"x").await.unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
                // Whatever else can run, does.
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = relay(near, far, &counted, PATIENCE) => panic!("nobody closed"),
            () = flood => {}
            () = async { for _ in 0..200_000 { tokio::task::yield_now().await } } => {}
        }
        let most = 2 * PIECE as u64 + 8;
        assert!((1..most).contains(&sent.load(Ordering::Relaxed)), "{sent:?}");
    }
}
