//! The resolver that an app finds inside its namespace: names to public addresses, and nothing else.
//!
//! Names below `internal` lead to what is inside that very namespace: the apps that it may call, its
//! database. They are answered from the runtime role's orders and never asked outside.
//!
//! It answers A and AAAA. Other types get an empty answer: they are of little use to an app and of much
//! use to a tunnel. Private answers are taken out, names that no call may reach are refused, and a
//! replica may ask only so often.

use crate::{
    caller::Caller,
    dial::Dial,
    journey::{Station, blank},
    pace::Pace,
    resolve::Names,
};
use bastide_types::{
    egress::{Host, forbidden_range},
    flow::{Flow, FlowVerdict},
    network::is_internal_name,
};
use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest message without EDNS (RFC 1035 §4.2.1).
const DATAGRAM_BYTES_MAX: usize = 512;
const QUERY_BYTES_MAX: usize = 1232;
/// So many addresses of one kind fit into a datagram, with the longest name.
const ADDRESSES_MAX: usize = 8;
/// How long an app may keep an answer, in seconds. Short, so that policies and addresses change soon.
const TTL_S: u32 = 30;
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(10);
/// Look-ups of one replica at a time.
const AT_ONCE: usize = 64;

/// The names that one replica asks for.
pub(crate) struct NameService<N, D> {
    station: Arc<Station<N, D>>,
    caller: Arc<Caller>,
    pace: Pace,
    at_once: Arc<Semaphore>,
}

impl<N: Names, D: Dial> NameService<N, D> {
    pub(crate) fn new(station: Arc<Station<N, D>>, caller: Arc<Caller>, per_s: u32) -> Arc<Self> {
        let pace = Pace::new(per_s, Instant::now());
        Arc::new(Self { station, caller, pace, at_once: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self: Arc<Self>, udp: UdpSocket, tcp: TcpListener, stop: CancellationToken) {
        let answers = TaskTracker::new();
        let udp = Arc::new(udp);
        let datagrams = self.datagrams(&udp, &answers, &stop);
        let streams = self.streams(&tcp, &answers, &stop);
        tokio::select! {
            () = datagrams => {}
            () = streams => {}
            () = stop.cancelled() => {}
        }
        answers.close();
        answers.wait().await;
    }

    async fn datagrams(
        self: &Arc<Self>,
        udp: &Arc<UdpSocket>,
        answers: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let mut query = vec![0; QUERY_BYTES_MAX];
        loop {
            self.pace.turn().await;
            let Ok(place) = self.at_once.clone().acquire_owned().await else { return };
            let Ok((length, from)) = udp.recv_from(&mut query).await else {
                // An ICMP error of an earlier answer shows up here.
                tokio::task::yield_now().await;
                continue;
            };
            let (service, udp, query, stop) =
                (self.clone(), udp.clone(), query[..length].to_vec(), stop.clone());
            answers.spawn(async move {
                let _place = place;
                let answer = tokio::select! {
                    answer = service.answer(&query) => answer,
                    () = stop.cancelled() => return,
                };
                if let Some(answer) = answer.filter(|answer| answer.len() <= DATAGRAM_BYTES_MAX) {
                    // A client that is gone asks again.
                    let _ = udp.send_to(&answer, from).await;
                }
            });
        }
    }

    async fn streams(self: &Arc<Self>, tcp: &TcpListener, answers: &TaskTracker, stop: &CancellationToken) {
        loop {
            self.pace.turn().await;
            let Ok(place) = self.at_once.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = tcp.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (service, stop) = (self.clone(), stop.clone());
            answers.spawn(async move {
                let _place = place;
                tokio::select! {
                    // However it ends, the connection is over.
                    _ = service.conversation(stream) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    /// Messages with their length before them (RFC 1035 §4.2.2).
    async fn conversation(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let length = timeout(IDLE, stream.read_u16()).await??;
            if usize::from(length) > QUERY_BYTES_MAX {
                return Ok(());
            }
            self.pace.turn().await;
            let mut query = vec![0; length.into()];
            timeout(IDLE, stream.read_exact(&mut query)).await??;
            let Some(answer) = self.answer(&query).await else { return Ok(()) };
            let mut framed =
                u16::try_from(answer.len()).map_err(std::io::Error::other)?.to_be_bytes().to_vec();
            framed.extend_from_slice(&answer);
            timeout(IDLE, stream.write_all(&framed)).await??;
        }
    }

    /// The answer to a query; `None` when it is none.
    async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.response_code = match (query.metadata.op_code, query.queries.as_slice()) {
            (OpCode::Query, [question]) if question.query_class() == DNSClass::IN => {
                answer.add_query(question.clone());
                match self.look_up(question.name(), question.query_type()).await {
                    Ok(addresses) => {
                        for address in addresses {
                            let data = match address {
                                IpAddr::V4(v4) => RData::A(v4.into()),
                                IpAddr::V6(v6) => RData::AAAA(v6.into()),
                            };
                            answer.add_answer(Record::from_rdata(question.name().clone(), TTL_S, data));
                        }
                        ResponseCode::NoError
                    }
                    Err(code) => code,
                }
            }
            (OpCode::Query, [_]) => ResponseCode::Refused,
            (OpCode::Query, _) => ResponseCode::FormErr,
            _ => ResponseCode::NotImp,
        };
        answer.to_vec().ok()
    }

    async fn look_up(&self, name: &Name, kind: RecordType) -> Result<Vec<IpAddr>, ResponseCode> {
        let begun = Instant::now();
        let text = name.to_ascii();
        let Ok(Host::Name(host)) = text.parse::<Host>() else { return Err(ResponseCode::NXDomain) };
        if is_internal_name(&host) {
            let address = self.caller.inside(&host).ok_or(ResponseCode::NXDomain)?;
            return Ok(if kind == RecordType::A { vec![address.into()] } else { Vec::new() });
        }
        let canary = self.station.canary().now();
        let is_canary = canary.as_ref().is_some_and(|canary| canary.knows(&Host::Name(host.clone())));
        if !is_canary && !self.caller.policy().may_resolve(&host) {
            let why = self.caller.policy().decide(&Host::Name(host.clone()), None, 0).why;
            self.note(host, why, begun);
            return Err(ResponseCode::Refused);
        }
        let wanted = |address: &IpAddr| match kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            _ => false,
        };
        if !matches!(kind, RecordType::A | RecordType::AAAA) {
            return Ok(Vec::new());
        }
        let found = match canary.as_ref().and_then(|canary| canary.answer(&host)) {
            Some(answer) => answer,
            None => match timeout(LOOKUP_LIMIT, self.station.names().addresses(&host)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(ResponseCode::NXDomain);
                }
                Ok(Err(_)) | Err(_) => return Err(ResponseCode::ServFail),
            },
        };
        let may_be_told = |address: &IpAddr| {
            forbidden_range(*address).is_none()
                || canary.as_ref().is_some_and(|canary| canary.is_at(*address))
        };
        let public: Vec<IpAddr> = found.iter().copied().filter(may_be_told).collect();
        if public.is_empty()
            && let Some(range) = found.first().and_then(|address| forbidden_range(*address))
        {
            self.note(host, format!("range: {range}"), begun);
        }
        Ok(public.into_iter().filter(wanted).take(ADDRESSES_MAX).collect())
    }

    fn note(&self, host: String, why: String, begun: Instant) {
        let flow = Flow { host, verdict: FlowVerdict::Refused, why, ..blank(&self.caller, "name", begun) };
        self.station.flows().record(flow);
    }
}
