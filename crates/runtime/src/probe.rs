//! Asking a replica how it is: an HTTP GET on the way that gateways take.

use bastide_proxy::{Body, Pool, PoolLimits, Request};
use bastide_types::manifest::probes::Question;
use http::{HeaderValue, header};
use std::{future::Future, io};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// Asks once, over the connection that `connecting` makes; `Err` says in words what came instead.
pub(crate) async fn probe(
    connecting: impl Future<Output = io::Result<TcpStream>>,
    question: &Question,
) -> Result<(), String> {
    let deadline = Instant::now() + question.timeout;
    let path = &question.path;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().map_err(|_| format!("{path} is no path"))?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("bastide-probe"));
    let pool = Pool::new(PoolLimits { idle_max: 0, ..PoolLimits::default() });
    let stream = match timeout_at(deadline, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("GET {path}: no connection: {error}")),
        Err(_) => return Err(format!("GET {path}: no connection in time")),
    };
    match pool.send_over(stream, request, deadline).await {
        Ok(response) if question.any_answer || response.status().is_success() => Ok(()),
        Ok(response) => Err(format!("GET {path} answered {}", response.status())),
        Err(failure) => Err(format!("GET {path}: {}", failure.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// One answer of a server that says this.
    async fn asked(says: &'static str, any_answer: bool) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            assert!(head[..read].starts_with(b"GET /up HTTP/1.1\r\n"));
            stream.write_all(says.as_bytes()).await.unwrap();
        };
        let (path, timeout) = ("/up".to_owned(), Duration::from_mins(1));
        let question = Question { path, any_answer, interval: timeout, timeout, failures: 1 };
        let (answer, ()) = tokio::join!(probe(TcpStream::connect(address), &question), server);
        answer
    }

    #[tokio::test]
    async fn a_sign_of_life_is_less_than_readiness() {
        const GOOD: &str = "HTTP/1.1 204 No Content\r\n\r\n";
        const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        for (says, ready, lives) in
            [(GOOD, true, true), (BUSY, false, true), ("", false, false), ("no HTTP", false, false)]
        {
            assert_eq!(asked(says, false).await.is_ok(), ready, "{says}");
            assert_eq!(asked(says, true).await.is_ok(), lives, "{says}");
        }
        assert!(asked(BUSY, false).await.unwrap_err().contains("503"));
    }

    #[tokio::test]
    async fn who_does_not_answer_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (path, timeout) = ("/".to_owned(), Duration::from_millis(20));
        let question = Question { path, any_answer: true, interval: timeout, timeout, failures: 1 };
        let silent = probe(TcpStream::connect(listener.local_addr().unwrap()), &question).await;
        assert!(silent.is_err());
        let never = probe(std::future::pending(), &question).await;
        assert!(never.unwrap_err().contains("in time"));
        let refused = probe(async { Err(io::ErrorKind::ConnectionRefused.into()) }, &question).await;
        assert!(refused.unwrap_err().contains("refused"));
    }
}
