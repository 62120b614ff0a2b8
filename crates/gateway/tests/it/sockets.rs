//! WebSockets, from a client's HTTP/1 over the edge's HTTP/2 to an app's HTTP/1.

use crate::world::{LONG, Server, World};
use bastide_proxy::{Body, Pool, PoolLimits, RefusedHead, Request, Response, Service, Upstream};
use bastide_types::Role;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// An app that says who asks in its 101 and then sends back what it hears.
pub async fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head).to_lowercase();
                let field = |name: &str| {
                    head.lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_default()
                        .trim()
                        .to_owned()
                };
                let (user, cookie) = (field("x-bastide-user:"), field("cookie:"));
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                     X-Bastide-Cacheable: evil\r\nX-User: [{user}]\r\nX-Cookie: [{cookie}]\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await?;
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    addr
}

/// The edge's part: sends everything on to the gateway.
pub struct Edge(Pool, Upstream);

impl Edge {
    pub fn of(world: &World) -> Self {
        Self(Pool::new(PoolLimits::default()), world.upstream(Role::Edge, "edge"))
    }
}

impl Service for Edge {
    async fn call(&self, mut request: Request) -> Response {
        bastide_proxy::headers::strip_hop_by_hop(request.headers_mut());
        self.0.send(&self.1, request, Instant::now() + LONG).await.unwrap()
    }
    async fn refuse(&self, _: RefusedHead) -> Response {
        Response::new(Body::empty())
    }
}

async fn talk(world: &World, host: &str, path: &str, fields: &str) -> String {
    let edge = Server::start(Edge::of(world), None);
    let mut stream = TcpStream::connect(edge.addr).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}:8443\r\nConnection: Upgrade\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"ping-pong").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

pub const APPS: &str = "demo.apps.localhost";
pub const SOCKET: &str = "Upgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n";

#[tokio::test]
async fn a_websocket_reaches_an_app_with_the_same_checks_as_a_request() {
    let world = World::new().await;
    let open = talk(&world, APPS, "/live/", SOCKET).await;
    assert!(open.starts_with("HTTP/1.1 101"), "{open}");
    assert!(open.ends_with("ping-pong"), "{open}");
    assert!(!open.to_lowercase().contains("x-bastide-cacheable"), "{open}");
    let token = world.keys.shop_token(|claims| claims.aud = "https://demo.apps.localhost:8443/live".into());
    let signed_in = format!("{SOCKET}Authorization: Bearer {token}\r\nCookie: __Host-bst=x; own=1\r\n");
    let answer = talk(&world, APPS, "/live/me", &signed_in).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("[ann]") && answer.contains("[own=1]"), "{answer}");
    let refused = talk(&world, APPS, "/live/me", SOCKET).await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
}

#[tokio::test]
async fn a_page_of_another_site_opens_no_websocket_in_a_users_name() {
    let world = World::new().await;
    let secret = "s".repeat(43);
    world.state.sessions.lock().unwrap().insert(secret.clone(), "ann".into());
    let from = async |origin: &str| {
        let fields = format!("{SOCKET}Cookie: __Host-bst={secret}\r\nOrigin: {origin}\r\n");
        talk(&world, APPS, "/live/me", &fields).await
    };
    let cross = from("https://evil.example").await;
    assert!(cross.starts_with("HTTP/1.1 403") && cross.contains("B-ID-0406"), "{cross}");
    let own = from("https://demo.apps.localhost:8443").await;
    assert!(own.starts_with("HTTP/1.1 101") && own.contains("[ann]"), "{own}");
}

#[tokio::test]
async fn no_other_upgrade_passes_and_none_to_the_platform() {
    let world = World::new().await;
    let foreign = talk(&world, APPS, "/live/", "Upgrade: foo/2\r\n").await;
    assert!(foreign.starts_with("HTTP/1.1 501") && foreign.contains("B-GW-0501"), "{foreign}");
    let platform = talk(&world, "demo.platform.localhost", "/identity/jwks", SOCKET).await;
    assert!(platform.starts_with("HTTP/1.1 501"), "{platform}");
}
