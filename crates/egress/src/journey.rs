//! The way of one call: what is asked, what the policy says, where it leads, and the bytes.

use crate::{
    caller::Caller,
    canary::Canary,
    destination::{Destination, destination},
    dial::Dial,
    error::Refusal,
    http,
    resolve::Names,
    socks,
};
use bastide_proxy::{
    flow_log::FlowLog,
    relay::{Counted, relay},
};
use bastide_types::{
    egress::Host,
    flow::{Flow, FlowVerdict},
};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest wait for what a client wants.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for a destination, all its addresses together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest silence of both sides. Clouds' NAT gateways end idle connections after 350 s; ours waits longer.
const IDLE: Duration = Duration::from_mins(15);

/// What serves calls: how names are found, how the outside is reached, and where flows are noted.
pub struct Station<N, D> {
    names: N,
    dialer: D,
    flows: FlowLog,
    canary: Canary,
}

/// What a client asked for, and in which language it is answered.
enum Asked {
    Http(http::Asked),
    Socks(Host, u16),
}

impl Asked {
    fn by(&self) -> &'static str {
        match self {
            Self::Http(asked) if asked.tunnel => "connect",
            Self::Http(_) => "http",
            Self::Socks(..) => "socks",
        }
    }

    fn to(&self) -> (&Host, u16) {
        match self {
            Self::Http(asked) => (&asked.host, asked.port),
            Self::Socks(host, port) => (host, *port),
        }
    }
}

impl<N: Names, D: Dial> Station<N, D> {
    /// A station.
    pub fn new(names: N, dialer: D, flows: FlowLog) -> Self {
        Self { names, dialer, flows, canary: Canary::default() }
    }

    pub(crate) fn names(&self) -> &N {
        &self.names
    }

    pub(crate) fn canary(&self) -> &Canary {
        &self.canary
    }

    pub(crate) fn flows(&self) -> &FlowLog {
        &self.flows
    }

    /// Serves the calls of one replica until `stop`, then cuts them.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, caller: Arc<Caller>, stop: CancellationToken) {
        let calls = TaskTracker::new();
        let accept = async {
            loop {
                // Without a free place the next call waits in the backlog.
                let Ok(place) = caller.connections.clone().acquire_owned().await else { return };
                caller.pace.turn().await;
                match listener.accept().await {
                    Ok((client, _)) => {
                        let (station, caller, stop) = (self.clone(), caller.clone(), stop.clone());
                        calls.spawn(async move {
                            let _place = place;
                            tokio::select! {
                                () = station.call(client, &caller) => {}
                                () = stop.cancelled() => {}
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, replica = %caller.who.replica, "cannot accept a call");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = stop.cancelled() => {}
        }
        calls.close();
        calls.wait().await;
    }

    /// The way of one call. Read it downwards.
    async fn call(&self, mut client: TcpStream, caller: &Caller) {
        let begun = Instant::now();
        let asked = match timeout(ASK_LIMIT, ask(&mut client)).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(refusal)) => {
                self.unreadable(caller, &refusal, begun);
                let _ = http::refuse(&mut client, &refusal).await;
                return;
            }
            Err(_) => return,
        };
        let (host, port) = asked.to();
        let (policy, canary) = (caller.policy(), self.canary.now());
        let to =
            match timeout(CONNECT_LIMIT, destination(&policy, &self.names, canary.as_deref(), host, port))
                .await
            {
                Ok(Ok(to)) => to,
                Ok(Err((refusal, decision))) => {
                    let verdict = if decision.is_some() { FlowVerdict::Refused } else { FlowVerdict::Failed };
                    return self.refuse(client, caller, &asked, refusal, verdict, begun).await;
                }
                Err(_) => {
                    return self
                        .refuse(client, caller, &asked, Refusal::TimedOut, FlowVerdict::Failed, begun)
                        .await;
                }
            };
        let (far, address) = match timeout(CONNECT_LIMIT, self.connect(caller, &to)).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(refusal)) => {
                return self.refuse(client, caller, &asked, refusal, FlowVerdict::Failed, begun).await;
            }
            Err(_) => {
                return self
                    .refuse(client, caller, &asked, Refusal::TimedOut, FlowVerdict::Failed, begun)
                    .await;
            }
        };
        let counted = Counted::default();
        let mut note = Note {
            station: self,
            caller,
            asked: &asked,
            to: &to,
            address,
            counted: &counted,
            begun,
            why: None,
        };
        note.why = carry(client, far, &asked, &counted).await.err().map(|error| error.to_string());
    }

    async fn connect(&self, caller: &Caller, to: &Destination) -> Result<(TcpStream, SocketAddr), Refusal> {
        let mut last = None;
        for address in &to.addresses {
            match self.dialer.dial(&caller.who, *address).await {
                Ok(far) => return Ok((far, *address)),
                Err(error) => last = Some(error),
            }
        }
        Err(Refusal::Connect(last.unwrap_or_else(|| std::io::ErrorKind::NotFound.into())))
    }

    async fn refuse(
        &self,
        mut client: TcpStream,
        caller: &Caller,
        asked: &Asked,
        refusal: Refusal,
        verdict: FlowVerdict,
        begun: Instant,
    ) {
        let (host, port) = asked.to();
        let why = match &refusal {
            Refusal::Policy { why } => why.clone(),
            other => other.to_string(),
        };
        let flow = Flow { host: host.to_string(), port, verdict, why, ..blank(caller, asked.by(), begun) };
        self.flows.record(flow);
        // A client that is gone needs no answer.
        let _ = match asked {
            Asked::Http(_) => http::refuse(&mut client, &refusal).await.map_err(|_| ()),
            Asked::Socks(..) => socks::refuse(&mut client, &refusal).await.map_err(|_| ()),
        };
    }

    fn unreadable(&self, caller: &Caller, refusal: &Refusal, begun: Instant) {
        let flow = Flow {
            verdict: FlowVerdict::Refused,
            why: refusal.to_string(),
            ..blank(caller, "connect", begun)
        };
        self.flows.record(flow);
    }
}

async fn ask(client: &mut TcpStream) -> Result<Asked, Refusal> {
    let first = client.read_u8().await.map_err(|error| Refusal::Request(error.to_string()))?;
    if first == socks::VERSION {
        return socks::request(client).await.map(|(host, port)| Asked::Socks(host, port));
    }
    http::request(client, vec![first]).await.map(Asked::Http)
}

async fn carry(
    mut client: TcpStream,
    mut far: TcpStream,
    asked: &Asked,
    counted: &Counted,
) -> std::io::Result<()> {
    match asked {
        Asked::Http(http) => {
            if http.tunnel {
                http::accept(&mut client).await?;
            }
            far.write_all(&http.first).await?;
            counted.out.fetch_add(http.first.len() as u64, Ordering::Relaxed);
        }
        Asked::Socks(..) => socks::accept(&mut client).await.map_err(std::io::Error::other)?,
    }
    relay(client, far, counted, IDLE).await
}

/// Notes a call when it ends, however it ends.
struct Note<'a, N: Names, D: Dial> {
    station: &'a Station<N, D>,
    caller: &'a Caller,
    asked: &'a Asked,
    to: &'a Destination,
    address: SocketAddr,
    counted: &'a Counted,
    begun: Instant,
    why: Option<String>,
}

impl<N: Names, D: Dial> Drop for Note<'_, N, D> {
    fn drop(&mut self) {
        let (host, port) = self.asked.to();
        let decision = &self.to.decision;
        self.station.flows.record(Flow {
            host: host.to_string(),
            port,
            address: Some(self.address.ip()),
            verdict: if decision.reported { FlowVerdict::Reported } else { FlowVerdict::Allowed },
            why: match self.why.take() {
                Some(end) => format!("{} ({end})", decision.why),
                None => decision.why.clone(),
            },
            bytes_out: self.counted.out.load(Ordering::Relaxed),
            bytes_back: self.counted.back.load(Ordering::Relaxed),
            ..blank(self.caller, self.asked.by(), self.begun)
        });
    }
}

pub(crate) fn blank(caller: &Caller, by: &'static str, begun: Instant) -> Flow {
    Flow {
        time: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        who: caller.who.clone(),
        by,
        host: String::new(),
        address: None,
        port: 0,
        verdict: FlowVerdict::Failed,
        why: String::new(),
        bytes_out: 0,
        bytes_back: 0,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}
