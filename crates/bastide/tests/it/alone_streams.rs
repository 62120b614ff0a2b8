//! What flows through a stand-alone edge: as it comes, and never as a whole in memory.

use crate::alone::start;
use anyhow::{Context, Result};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{LazyLock, Mutex, mpsc},
    time::Duration,
};

const LONG: Duration = Duration::from_mins(2);
const MIB: usize = 1024 * 1024;
/// What a body of any size may add to the edge's memory: buffers of a few connections.
const GROWTH_MIB_MAX: usize = 24;

/// The client has seen an event.
static SEEN: LazyLock<(Mutex<mpsc::Sender<()>>, Mutex<mpsc::Receiver<()>>)> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    (Mutex::new(sender), Mutex::new(receiver))
});

fn read_head(stream: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// An origin, one thread per connection; it ends with the test's process.
fn origin(answer: fn(&str, &mut TcpStream) -> std::io::Result<()>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // The edge hangs up when it likes.
                let _ = read_head(&mut stream).and_then(|head| answer(&head, &mut stream));
            });
        }
    });
    Ok(url)
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LONG))?;
    Ok(stream)
}

/// Most memory that the process ever had, in MiB.
fn peak_mib(pid: u32) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let kib: usize = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib / 1024)
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() -> Result<()> {
    let origin = origin(|_, stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        // Each event waits for the client to have seen the one before.
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            write!(stream, "{:x}\r\n{event}\r\n", event.len())?;
            SEEN.1.lock().unwrap().recv_timeout(LONG).map_err(std::io::Error::other)?;
        }
        write!(stream, "0\r\n\r\n")
    })?;
    // The rules read answers, but events are not held back for them.
    let edge = start(&["--origin", &origin]).await?;
    let mut stream = connect(edge.port)?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nUser-Agent: test\r\nConnection: close\r\n\r\n"
    )?;
    assert!(read_head(&mut stream)?.starts_with("HTTP/1.1 200 "));
    for number in 0..3 {
        let mut chunk = vec![0; format!("9\r\ndata: {number}\n\n\r\n").len()];
        stream.read_exact(&mut chunk)?;
        assert_eq!(String::from_utf8(chunk)?, format!("9\r\ndata: {number}\n\n\r\n"));
        SEEN.0.lock().unwrap().send(())?;
    }
    let mut end = String::new();
    stream.read_to_string(&mut end)?;
    assert_eq!(end, "0\r\n\r\n");
    Ok(())
}

#[tokio::test]
async fn large_bodies_pass_both_ways_and_the_edge_stays_small() -> Result<()> {
    const TOTAL: usize = 192 * MIB;
    let origin = origin(|head, stream| {
        let piece = vec![b'x'; MIB];
        if head.starts_with("GET") {
            // Fit for the cache, but far larger than an entry may be.
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {TOTAL}\r\n\r\n"
            )?;
            return (0..TOTAL / MIB).try_for_each(|_| stream.write_all(&piece));
        }
        let mut rest = TOTAL;
        let mut buffer = piece;
        while rest > 0 {
            let read = stream.read(&mut buffer)?;
            assert!(read > 0, "the upload broke off");
            rest -= read;
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
    })?;
    let edge = start(&["--origin", &origin, "--no-waf"]).await?;
    let before = peak_mib(edge.child.id())?;
    let mut buffer = vec![0; MIB];
    let mut stream = connect(edge.port)?;
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    read_head(&mut stream)?;
    // A reader that pauses at first: what it does not take must not pile up.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut taken = 0;
    while taken < TOTAL {
        let read = stream.read(&mut buffer)?;
        assert!(read > 0, "the download broke off after {taken}");
        taken += read;
    }
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {TOTAL}\r\n\r\n")?;
    for _ in 0..TOTAL / MIB {
        stream.write_all(&buffer)?;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.ends_with("done"), "{answer}");
    let grown = peak_mib(edge.child.id())? - before;
    assert!(grown <= GROWTH_MIB_MAX, "{TOTAL} bytes each way made the edge grow by {grown} MiB");
    Ok(())
}
