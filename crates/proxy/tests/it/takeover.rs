//! One process takes over from another: what waits, what is open and what is on its way keeps its answer.

use crate::raw_h2::{Client, END_HEADERS, END_STREAM, GOAWAY, HEADERS, block, frame, head, tls};
use bastide_proxy::{
    Accept, Body, Limits, Listener, RefusedHead, Request, Response, Service, handover, serve,
    takeover::{self, Sockets},
};
use std::{io, net::SocketAddr, os::fd::AsFd, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A service that says its name once it is let.
struct Named {
    name: &'static str,
    may_answer: Semaphore,
    asked: Semaphore,
}

impl Named {
    fn new(name: &'static str, answers: usize) -> Arc<Self> {
        Arc::new(Self { name, may_answer: Semaphore::new(answers), asked: Semaphore::new(0) })
    }
}

impl Service for Named {
    async fn call(&self, _: Request) -> Response {
        self.asked.add_permits(1);
        self.may_answer.acquire().await.unwrap().forget();
        Response::new(Body::full(self.name))
    }
    async fn refuse(&self, head: RefusedHead) -> Response {
        http::Response::builder().status(head.status).body(Body::empty()).unwrap()
    }
}

/// What stands for one process.
struct Life {
    leave: CancellationToken,
    stop: CancellationToken,
    served: JoinHandle<io::Result<()>>,
}

fn live<S: Service>(tcp: std::net::TcpListener, tls: Option<Accept>, service: Arc<S>) -> Life {
    let (leave, stop) = (CancellationToken::new(), CancellationToken::new());
    let listener = Listener { leave: leave.clone(), ..Listener::new(tcp, tls, Limits::default()) };
    let served = tokio::spawn(serve(listener, service, stop.clone()));
    Life { leave, stop, served }
}

fn listening() -> (SocketAddr, std::net::TcpListener) {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    (tcp.local_addr().unwrap(), tcp)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends a request and reads its answer, whose body is one byte.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(GET).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "closed before the answer");
    }
    if bytes.ends_with(b"\r\n\r\n") {
        stream.read_buf(&mut bytes).await.unwrap();
    }
    String::from_utf8(bytes).unwrap().to_lowercase()
}

#[tokio::test]
async fn who_leaves_answers_what_is_under_way_and_one_more_request_of_each_connection() {
    let (addr, tcp) = listening();
    let service = Named::new("x", 1);
    let life = live(tcp, None, service.clone());
    let mut between = TcpStream::connect(addr).await.unwrap();
    assert!(!ask(&mut between).await.contains("connection: close"));
    let mut waiting = TcpStream::connect(addr).await.unwrap();
    waiting.write_all(GET).await.unwrap();
    service.asked.acquire_many(2).await.unwrap().forget();
    life.leave.cancel();
    service.may_answer.add_permits(2);
    let last = answer(&mut waiting).await;
    assert!(last.contains("connection: close"), "{last}");
    // It was idle when the end began, and is served all the same.
    let last = ask(&mut between).await;
    assert!(last.contains("connection: close"), "{last}");
    for stream in [&mut waiting, &mut between] {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    drop((waiting, between));
    life.served.await.unwrap().unwrap();
    assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn clients_of_http_2_are_told_to_go_and_get_their_answers() {
    let tls = tls();
    let (addr, tcp) = listening();
    let service = Named::new("x", 0);
    let life = live(tcp, Some(tls.accept.clone()), service.clone());
    let mut client = Client::connect(addr, &tls).await;
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&head("GET", "/", &[])));
    client.send(&get).await;
    service.asked.acquire().await.unwrap().forget();
    life.leave.cancel();
    loop {
        let frame = client.next().await.expect("the connection stays");
        if frame.kind == GOAWAY {
            assert_eq!(frame.payload[4..8], [0; 4], "no error");
            break;
        }
    }
    service.may_answer.add_permits(1);
    assert_eq!(client.status(1).await, 200);
    drop(client);
    life.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_goes_on_when_another_one_serves_ends_when_it_is_told_to() {
    let (addr, tcp) = listening();
    let life = live(tcp, None, Named::new("x", 1));
    let mut idle = TcpStream::connect(addr).await.unwrap();
    ask(&mut idle).await;
    life.leave.cancel();
    life.stop.cancel();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    life.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn sockets_pass_from_one_to_the_next_and_a_failed_one_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let door = dir.path().join("takeover.sock");
    assert!(takeover::fetch(&door).await.unwrap().is_none(), "nobody serves");
    let mut own = Sockets::default();
    let sockets = own.listen(([127, 0, 0, 1], 0).into(), 6).unwrap();
    let addr = sockets[0].local_addr().unwrap();
    let copies = sockets.iter().map(|socket| socket.try_clone().unwrap()).collect();
    let lives: Vec<_> = sockets.into_iter().map(|tcp| live(tcp, None, Named::new("a", 1_000))).collect();
    let (leave, stop) = (CancellationToken::new(), CancellationToken::new());
    let offered = {
        let (door, leave, stop) = (handover::listen(&door).unwrap(), leave.clone(), stop.clone());
        tokio::spawn(async move { takeover::offer(door, copies, &leave, &stop).await })
    };
    // One asks for nothing of sense, one dies before it is ready.
    let nonsense = handover::connect(&door).await.unwrap();
    handover::send(&nonsense, b"sockets, please", &[]).await.unwrap();
    assert!(handover::receive(&nonsense).await.is_err());
    drop(takeover::fetch(&door).await.unwrap().unwrap());
    assert!(!leave.is_cancelled());
    assert!(ask(&mut TcpStream::connect(addr).await.unwrap()).await.ends_with('a'));
    // The third gets ready.
    let mut former = takeover::fetch(&door).await.unwrap().unwrap();
    let other = former.sockets.listen(([127, 0, 0, 1], 0).into(), 1).unwrap();
    assert_ne!(other[0].local_addr().unwrap(), addr, "another address is another socket");
    let taken = former.sockets.listen(addr, 8).unwrap();
    assert_eq!(taken.len(), 8, "two more workers share sockets");
    // These wait in backlogs while nobody accepts.
    for life in &lives {
        life.leave.cancel();
    }
    for life in lives {
        life.served.await.unwrap().unwrap();
    }
    let mut waiting = Vec::new();
    for _ in 0..60 {
        waiting.push(TcpStream::connect(addr).await.unwrap());
    }
    former.done().await.unwrap();
    offered.await.unwrap();
    assert!(leave.is_cancelled());
    let next: Vec<_> = taken.into_iter().map(|tcp| live(tcp, None, Named::new("b", 1_000))).collect();
    for mut stream in waiting {
        assert!(ask(&mut stream).await.ends_with('b'));
    }
    assert!(takeover::fetch(&door).await.unwrap().is_none(), "the door is closed until it is opened anew");
    for life in next {
        life.stop.cancel();
    }
}

#[tokio::test]
async fn what_is_no_listening_socket_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let door = dir.path().join("takeover.sock");
    let (pipe, _other) = UnixStream::pair().unwrap();
    for (text, descriptors) in [
        (&b"last"[..], vec![pipe.as_fd()]),
        (b"here you are", vec![]),
        (b"last", vec![pipe.as_fd(), pipe.as_fd()]),
    ] {
        let listener = handover::listen(&door).unwrap();
        let (fetched, ()) = tokio::join!(takeover::fetch(&door), async {
            let (stream, _) = listener.accept().await.unwrap();
            handover::receive(&stream).await.unwrap();
            handover::send(&stream, text, &descriptors).await.unwrap();
        });
        assert_eq!(fetched.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
