//! Replicas that only the node's socket broker reaches.

use crate::world::{SHOP, World};
use bastide_proxy::handover;
use bastide_types::{
    ReplicaId,
    broker::{SocketOrder, SocketReceipt, SocketRefusal},
};
use http::Method;
use std::{
    collections::HashMap,
    net::SocketAddr,
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::task::JoinHandle;

/// A broker over these replicas; counts the orders.
pub struct Broker {
    pub orders: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Broker {
    pub fn start(path: &Path, replicas: HashMap<ReplicaId, SocketAddr>) -> Self {
        let listener = handover::listen(path).unwrap();
        let orders = Arc::new(AtomicUsize::new(0));
        let counter = orders.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (text, _) = handover::receive(&stream).await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let Ok(SocketOrder::Replica { replica }) = serde_json::from_slice(&text) else {
                    panic!("a gateway orders only replicas: {}", String::from_utf8_lossy(&text))
                };
                let made = tokio::net::TcpStream::connect(replicas[&replica]).await;
                let refusal = made.as_ref().err().map(|_| SocketRefusal::NotListening);
                let receipt = serde_json::to_vec(&SocketReceipt { refusal }).unwrap();
                let sockets: Vec<_> = made.iter().map(AsFd::as_fd).collect();
                handover::send(&stream, &receipt, &sockets).await.unwrap();
            }
        });
        Self { orders, task }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn shop() -> String {
    format!("{SHOP}/")
}

#[tokio::test]
async fn a_connection_is_ordered_once_and_then_used_again() {
    let world = World::by_broker().await;
    let mut by = Vec::new();
    for _ in 0..20 {
        let answer = world.get(&shop(), &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        by.push(answer.json()["by"].as_str().unwrap().to_owned());
    }
    assert!(by.windows(2).all(|pair| pair[0] != pair[1]), "{by:?}");
    assert_eq!(world.broker.as_ref().unwrap().orders.load(Ordering::SeqCst), 2, "one for each replica");
    world.end().await;
}

#[tokio::test]
async fn a_replica_that_the_broker_cannot_reach_is_passed_over() {
    let mut world = World::by_broker().await;
    world.shop[0].1.kill().await;
    for _ in 0..4 {
        let answer = world.send(Method::POST, &shop(), &[], "body").await;
        assert_eq!((answer.status, answer.json()["by"].as_str()), (200, Some("two")));
    }
    world.shop[1].1.kill().await;
    let answer = world.get(&shop(), &[]).await;
    assert_eq!((answer.status, answer.header("x-bastide-zone")), (200, "b"));
}

#[tokio::test]
async fn without_a_broker_kept_connections_go_on_and_new_ones_are_refused() {
    let mut world = World::by_broker().await;
    for _ in 0..2 {
        assert_eq!(world.get(&shop(), &[]).await.status, 200);
    }
    world.broker = None;
    for _ in 0..4 {
        assert_eq!(world.get(&shop(), &[]).await.status, 200);
    }
    for (_, replica) in &mut world.shop {
        replica.kill().await;
    }
    assert_eq!(world.get(&shop(), &[]).await.code(), "B-GW-0502");
}
