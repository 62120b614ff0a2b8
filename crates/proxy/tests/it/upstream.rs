//! Answers of origins over HTTP/1: one meaning or none, nothing of one answer in the next, and bodies both ways at once.

use bastide_proxy::{
    Body, BodyError, Place, Pool, PoolLimits, Response, SendFailure, Upstream, UpstreamError,
};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Instant,
};

/// An origin that answers each head on a connection with the next of these texts, and closes after the last.
async fn scripted(answers: &'static [&'static str]) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (heads, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 1.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let heads = heads.clone();
            tokio::spawn(async move {
                for answer in answers {
                    let Some(head) = head(&mut stream).await else { return };
                    let _ = heads.send(format!("{number} {head}"));
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (addr, seen)
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

fn pool() -> Pool {
    Pool::new(PoolLimits::default())
}

async fn send(pool: &Pool, addr: SocketAddr, method: &str, body: Body) -> Result<Response, Box<SendFailure>> {
    let request = http::Request::builder().method(method).uri("/x").header("host", "a").body(body).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    pool.send(&Upstream::clear(Place::Address(addr)), request, deadline).await
}

async fn get(pool: &Pool, addr: SocketAddr) -> Result<Response, Box<SendFailure>> {
    send(pool, addr, "GET", Body::empty()).await
}

async fn text(response: Response) -> Result<String, BodyError> {
    let bytes = response.into_body().collect_up_to(1 << 20).await?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn each_framing_is_read_and_the_connection_used_again_where_it_may_be() {
    let (addr, mut seen) = scripted(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\nX-Sum: 1\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    ])
    .await;
    let pool = pool();
    for expected in ["one", "two", "", "until the end", "one"] {
        let answer = get(&pool, addr).await.unwrap();
        assert_eq!(text(answer).await.unwrap(), expected);
    }
    let mut connections = String::new();
    for _ in 0..5 {
        connections.push_str(&seen.recv().await.unwrap()[..1]);
    }
    assert_eq!(connections, "11112");
}

#[tokio::test]
async fn answers_without_one_meaning_are_broken() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\none",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "hello\r\n\r\n",
        "",
    ] {
        let (addr, _) = scripted(Vec::leak(vec![&*answer.to_owned().leak()])).await;
        let failure = get(&pool(), addr).await.unwrap_err();
        assert!(
            matches!(failure.error, UpstreamError::BeforeHead(_)) && failure.unsent.is_none(),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_body_that_ends_early_has_no_clean_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
    ] {
        let (addr, _) = scripted(Vec::leak(vec![&*answer.to_owned().leak()])).await;
        assert!(text(get(&pool(), addr).await.unwrap()).await.is_err(), "{answer}");
    }
}

#[tokio::test]
async fn what_nobody_asked_for_is_never_taken_for_an_answer() {
    const STOLEN: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
    let (addr, mut seen) = scripted(&[STOLEN, STOLEN]).await;
    let pool = pool();
    for connection in ["1", "2", "3"] {
        assert_eq!(text(get(&pool, addr).await.unwrap()).await.unwrap(), "ok");
        assert!(seen.recv().await.unwrap().starts_with(connection));
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced_silently() {
    let (addr, mut seen) = scripted(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]).await;
    let pool = pool();
    for connection in ["1", "2", "3"] {
        let body = Body::full("whole");
        assert_eq!(text(send(&pool, addr, "POST", body).await.unwrap()).await.unwrap(), "ok");
        assert!(seen.recv().await.unwrap().starts_with(connection));
        // The origin closes after its answer, which may take a moment to get here.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_and_the_next_one_is_read_right() {
    let (addr, _) = scripted(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ])
    .await;
    let pool = pool();
    let answer = send(&pool, addr, "HEAD", Body::empty()).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "5");
    assert_eq!(text(answer).await.unwrap(), "");
    assert_eq!(text(get(&pool, addr).await.unwrap()).await.unwrap(), "ok");
}

/// A body that comes through a channel.
fn channel() -> (mpsc::UnboundedSender<Result<Frame<Bytes>, BodyError>>, Body) {
    let (frames, comes) = mpsc::unbounded_channel();
    let frames_of = futures_util::stream::unfold(comes, |mut comes| async move {
        let frame = comes.recv().await?;
        Some((frame, comes))
    });
    (frames, Body::stream(StreamBody::new(frames_of)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BodyError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// An origin that begins its answer with the head of the request, and sends each byte of its body back, to the last
/// chunk or the end of the connection.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await.unwrap();
        let (mut seen, mut sent) = (Vec::new(), 0);
        while !seen.ends_with(b"\r\n0\r\n\r\n") && stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0)
        {
            stream.write_all(&seen[sent..]).await.unwrap();
            sent = seen.len();
        }
    });
    addr
}

#[tokio::test]
async fn bodies_go_both_ways_at_once() {
    let (frames, body) = channel();
    let answer = send(&pool(), echo().await, "POST", body).await.unwrap();
    let mut body = answer.into_body();
    for (piece, wire) in [("abc", "3\r\nabc\r\n"), ("defg", "4\r\ndefg\r\n")] {
        frames.send(data(piece)).unwrap();
        let mut back = Vec::new();
        while back.len() < wire.len() {
            let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
            back.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(back, wire.as_bytes());
    }
    drop(frames);
    assert_eq!(&body.collect_up_to(100).await.unwrap()[..], b"0\r\n\r\n");
}

#[tokio::test]
async fn an_upload_that_breaks_is_never_seen_as_whole() {
    let (frames, body) = channel();
    let mut answer = send(&pool(), echo().await, "POST", body).await.unwrap().into_body();
    frames.send(data("abc")).unwrap();
    assert_eq!(&answer.prefix(1).await.unwrap().bytes[..], b"3");
    frames.send(Err(BodyError::Incomplete)).unwrap();
    // The origin saw the end of the connection, and no last chunk.
    let all = answer.prefix(100).await.unwrap();
    assert_eq!((&all.bytes[..], all.complete), (&b"3\r\nabc\r\n"[..], true));
}

#[tokio::test]
async fn an_upload_that_breaks_before_the_answer_fails_the_request() {
    let (addr, mut seen) = scripted(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let (frames, body) = channel();
    frames.send(data("abc")).unwrap();
    frames.send(Err(BodyError::TimedOut)).unwrap();
    let failure = send(&pool(), silent, "POST", body).await.unwrap_err();
    assert!(matches!(failure.error, UpstreamError::BeforeHead(_)), "{failure:?}");
    // And one that closes at once gives no answer.
    assert!(get(&pool(), addr).await.is_err() && seen.try_recv().is_err());
}

#[tokio::test]
async fn an_origin_that_refuses_an_upload_early_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
        // It reads no more, but stays.
        std::future::pending::<()>().await;
    });
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let endless = futures_util::stream::repeat_with(move || Ok(Frame::data(piece.clone())));
    let answer = send(&pool(), addr, "POST", Body::stream(StreamBody::new(endless))).await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(text(answer).await.unwrap(), "big");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    let failure = get(&pool(), addr).await.unwrap_err();
    assert!(matches!(failure.error, UpstreamError::BeforeHead(_)), "{failure:?}");
}
