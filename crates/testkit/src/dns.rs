//! A name server on loopback that says what a test tells it.

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, TXT},
    },
};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

type Records = HashMap<String, Vec<RData>>;

/// Answers until it is dropped. What it was not told does not exist.
pub struct Dns {
    address: SocketAddr,
    records: Arc<Mutex<Records>>,
    fails: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("sockets have a timeout");
        let address = socket.local_addr().expect("a bound socket has an address");
        let (records, fails, stop) =
            (Arc::<Mutex<Records>>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (known, failing, stopped) = (records.clone(), fails.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(answer) = answer(&query, &known, failing.load(Ordering::Relaxed)) {
                    // Who asked may be gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, records, fails, stop, thread: Some(thread) }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on a name has these texts and no others.
    pub fn set_texts(&self, name: &str, texts: &[&str]) {
        let data = texts.iter().map(|text| RData::TXT(TXT::new(vec![(*text).to_owned()]))).collect();
        self.set(name, RecordType::TXT, data);
    }

    /// From now on a name has this address.
    pub fn set_address(&self, name: &str, address: Ipv4Addr) {
        self.set(name, RecordType::A, vec![RData::A(A(address))]);
    }

    /// Whether it answers that it cannot answer.
    pub fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    fn set(&self, name: &str, kind: RecordType, data: Vec<RData>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let own = records.entry(name.to_ascii_lowercase()).or_default();
        own.retain(|old| old.record_type() != kind);
        own.extend(data);
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(query: &Message, records: &Records, fails: bool) -> Option<Vec<u8>> {
    let asked = query.queries.first()?.clone();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_query(asked.clone());
    let name: &Name = asked.name();
    let text = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    match records.get(&text) {
        _ if fails => answer.metadata.response_code = ResponseCode::ServFail,
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(data) => {
            for data in data.iter().filter(|data| data.record_type() == asked.query_type()) {
                answer.add_answer(Record::from_rdata(name.clone(), 60, data.clone()));
            }
        }
    }
    answer.to_vec().ok()
}
