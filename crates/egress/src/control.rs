//! The role's only door: the runtime role gives orders here, with the sockets they are about.
//!
//! The runtime role keeps the stream open. When it is gone, what was ordered goes on; the next runtime
//! role starts with a stream of its own and orders everything anew.

use crate::{
    Config, Error,
    caller::{Caller, Inside},
    dial::{Dial, NamespaceDialer},
    dns::NameService,
    journey::Station,
    resolve::{Names, Resolver},
};
use bastide_proxy::{flow_log::FlowLog, handover};
use bastide_types::{
    CustomerName, ReplicaId, StageName,
    egress::{EgressCaller, EgressOrder, EgressPolicy, EgressReceipt},
    network::{is_internal, is_internal_name},
};
use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc};
use tokio::{
    net::{TcpListener, UdpSocket, UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Runs the egress role until `stop`.
pub async fn run(
    config: Config,
    ready: Box<dyn FnOnce() + Send>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let names = Resolver::new(&config.name_servers)?;
    let flows = FlowLog::open(&config.flow_log).map_err(Error::file(&config.flow_log))?;
    let station = Arc::new(Station::new(names, NamespaceDialer::new(config.broker.clone()), flows));
    let listener = handover::listen(&config.control).map_err(Error::file(&config.control))?;
    ready();
    Control::new(station, &config, stop).serve(listener).await;
    Ok(())
}

/// What is served now.
pub struct Control<N, D> {
    station: Arc<Station<N, D>>,
    connections_max: usize,
    calls_per_s: u32,
    lookups_per_s: u32,
    stop: CancellationToken,
    tasks: TaskTracker,
    policies: HashMap<(CustomerName, StageName), watch::Sender<Arc<EgressPolicy>>>,
    replicas: HashMap<ReplicaId, Served>,
}

/// A replica that is served.
struct Served {
    stop: CancellationToken,
    inside: watch::Sender<Inside>,
}

impl<N: Names, D: Dial> Control<N, D> {
    /// Nothing is served yet.
    pub fn new(station: Arc<Station<N, D>>, config: &Config, stop: CancellationToken) -> Self {
        Self {
            station,
            connections_max: config.connections_max,
            calls_per_s: config.calls_per_s,
            lookups_per_s: config.lookups_per_s,
            stop,
            tasks: TaskTracker::new(),
            policies: HashMap::new(),
            replicas: HashMap::new(),
        }
    }

    /// Takes orders, one stream after the other, until it is told to stop; then cuts all calls.
    pub async fn serve(mut self, listener: UnixListener) {
        let stop = self.stop.clone();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let Ok((stream, _)) = stream else { continue };
            if !handover::same_user(&stream) {
                tracing::warn!("another user may not give orders");
                continue;
            }
            tokio::select! {
                end = self.orders(&stream) => tracing::debug!(error = %end, "the runtime role is gone"),
                () = stop.cancelled() => break,
            }
            // Whoever verifies is gone with it.
            self.station.canary().set(None);
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn orders(&mut self, stream: &UnixStream) -> std::io::Error {
        loop {
            let (text, sockets) = match handover::receive(stream).await {
                Ok(message) => message,
                Err(error) => return error,
            };
            let done = match serde_json::from_slice(&text) {
                Ok(order) => self.obey(order, sockets),
                Err(error) => Err(error.to_string()),
            };
            let receipt = match done {
                Ok(serves) => EgressReceipt { error: None, serves },
                Err(error) => EgressReceipt { error: Some(error), serves: Vec::new() },
            };
            let receipt = serde_json::to_vec(&receipt).unwrap_or_default();
            if let Err(error) = handover::send(stream, &receipt, &[]).await {
                return error;
            }
        }
    }

    /// The answer names replicas only when they were asked for.
    fn obey(&mut self, order: EgressOrder, sockets: Vec<OwnedFd>) -> Result<Vec<ReplicaId>, String> {
        match order {
            EgressOrder::Resume => return Ok(self.replicas.keys().copied().collect()),
            EgressOrder::Admit { caller, policy, names } => {
                self.dismiss(caller.replica);
                let inside = inside(names)?;
                let policy = self.enact(caller.customer.clone(), caller.stage.clone(), policy);
                self.admit(caller, policy, inside, sockets).map_err(|error| error.to_string())?;
            }
            EgressOrder::Names { replica, names } => {
                let inside = inside(names)?;
                let served = self.replicas.get(&replica).ok_or("this replica is not served")?;
                served.inside.send_replace(inside);
            }
            EgressOrder::Policy { customer, stage, policy } => {
                self.enact(customer, stage, policy);
            }
            EgressOrder::Dismiss { replica } => self.dismiss(replica),
            EgressOrder::Canary { canary } => {
                if canary.as_ref().is_some_and(|canary| !canary.is_well_named()) {
                    return Err("a canary has names of its own only".into());
                }
                self.station.canary().set(canary);
            }
        }
        Ok(Vec::new())
    }

    fn enact(
        &mut self,
        customer: CustomerName,
        stage: StageName,
        policy: EgressPolicy,
    ) -> watch::Receiver<Arc<EgressPolicy>> {
        let policy = Arc::new(policy);
        let sender =
            self.policies.entry((customer, stage)).or_insert_with(|| watch::channel(policy.clone()).0);
        sender.send_replace(policy);
        sender.subscribe()
    }

    fn admit(
        &mut self,
        who: EgressCaller,
        policy: watch::Receiver<Arc<EgressPolicy>>,
        inside: Inside,
        sockets: Vec<OwnedFd>,
    ) -> std::io::Result<()> {
        let [proxy, udp, tcp]: [OwnedFd; 3] =
            sockets.try_into().map_err(|_| std::io::Error::other("three sockets belong to a replica"))?;
        let proxy = listener(proxy)?;
        let tcp = listener(tcp)?;
        let udp = std::net::UdpSocket::from(udp);
        udp.set_nonblocking(true)?;
        let udp = UdpSocket::from_std(udp)?;
        let stop = self.stop.child_token();
        let (inside, found) = watch::channel(inside);
        self.replicas.insert(who.replica, Served { stop: stop.clone(), inside });
        let caller = Arc::new(Caller::new(who, policy, found, self.connections_max, self.calls_per_s));
        let names = NameService::new(self.station.clone(), caller.clone(), self.lookups_per_s);
        self.tasks.spawn(names.serve(udp, tcp, stop.clone()));
        self.tasks.spawn(self.station.clone().serve(proxy, caller, stop));
        Ok(())
    }

    fn dismiss(&mut self, replica: ReplicaId) {
        if let Some(served) = self.replicas.remove(&replica) {
            served.stop.cancel();
        }
    }
}

/// A name of ours that led elsewhere would take a call where the app does not mean it to go.
fn inside(names: Inside) -> Result<Inside, String> {
    match names.iter().find(|(name, address)| !is_internal_name(name) || !is_internal(**address)) {
        Some((name, address)) => Err(format!("`{name}` may not lead to {address}")),
        None => Ok(names),
    }
}

fn listener(socket: OwnedFd) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
