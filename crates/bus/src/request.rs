//! Request and reply, both sides. Every request carries an absolute deadline; what has expired is
//! dropped before it is begun, so a request that was stuck somewhere never runs as a ghost.

use crate::account::PAYLOAD_BYTES_MAX;
use crate::{Bus, BusError, jwt};
use async_nats::{HeaderMap, Message, RequestErrorKind};
use bastide_types::message::Reply;
use bastide_types::{Code, Problem};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Header: absolute deadline in milliseconds since 1970.
pub const DEADLINE: &str = "Bst-Deadline";
/// Longest life of a request, whatever its header says.
const LIFE_MAX: Duration = Duration::from_mins(1);
/// Requests in progress at one responder.
pub(crate) const IN_PROGRESS_MAX: usize = 512;
/// Room that a request's headers need within the broker's limit.
const HEADROOM: u64 = 4096;
const STOP_LIMIT: Duration = Duration::from_secs(5);
const PUBLISH_LIMIT: Duration = Duration::from_secs(1);

impl Bus {
    /// Asks and waits for the answer (`Reply<A>`), at most `limit`.
    ///
    /// # Errors
    /// [`BusError::NoResponders`] at once when nobody serves the subject, [`BusError::Disconnected`] at
    /// once when the connection is lost meanwhile, [`BusError::TimedOut`], [`BusError::Denied`], [`BusError::TooLarge`], [`BusError::Malformed`],
    /// [`BusError::Overloaded`], and [`BusError::Problem`] when the other side refused.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &str,
        query: &Q,
        limit: Duration,
    ) -> Result<A, BusError> {
        self.request_encoded(subject, encode(query)?, limit).await
    }

    pub(crate) async fn request_encoded<A: DeserializeOwned>(
        &self,
        subject: &str,
        query: Bytes,
        limit: Duration,
    ) -> Result<A, BusError> {
        let message = self.ask(subject, query, limit).await?;
        match decode::<Reply<A>>(&message.payload)? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Problem(problem) => Err(BusError::refusal(subject, problem)),
        }
    }

    /// Publishes without an answer; refused while not connected, so that nothing old arrives later.
    pub async fn publish<T: Serialize>(&self, subject: &str, message: &T) -> Result<(), BusError> {
        self.publish_encoded(subject, encode(message)?).await
    }

    pub(crate) async fn publish_encoded(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        if !self.is_connected() {
            return Err(BusError::TimedOut(subject.into()));
        }
        match tokio::time::timeout(PUBLISH_LIMIT, self.client.publish(subject.to_owned(), payload)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(BusError::Closed),
            Err(_) => Err(BusError::TimedOut(subject.into())),
        }
    }

    /// One request with our deadline header, its answer as it came.
    pub(crate) async fn ask(
        &self,
        subject: &str,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Message, BusError> {
        let mut headers = HeaderMap::new();
        headers.insert(DEADLINE, (now_ms() + limit.as_millis() as u64).to_string());
        self.ask_with(subject, async_nats::Request::new().payload(payload).headers(headers), limit).await
    }

    /// One request without any header, for the broker's own services.
    pub(crate) async fn ask_broker(
        &self,
        subject: &str,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Message, BusError> {
        self.ask_with(subject, async_nats::Request::new().payload(payload), limit).await
    }

    async fn ask_with(
        &self,
        subject: &str,
        request: async_nats::Request,
        limit: Duration,
    ) -> Result<Message, BusError> {
        let begun = tokio::time::Instant::now();
        self.connected(limit).await.map_err(|error| match error {
            BusError::TimedOut(_) => BusError::TimedOut(subject.into()),
            other => other,
        })?;
        let (mut denials, mut losses) = (self.denials(), self.losses());
        let left = limit.saturating_sub(begun.elapsed());
        let request = self.client.send_request(subject.to_owned(), request.timeout(Some(left)));
        tokio::select! {
            answer = request => answer.map_err(|error| fault(subject, &error)),
            () = denied(&mut denials, subject) => Err(BusError::Denied(subject.into())),
            // The question or its answer went with the connection: better told now than at the deadline.
            Ok(()) = losses.changed() => Err(BusError::Disconnected(subject.into())),
        }
    }
}

/// Resolves when the broker says that it forbids us `subject`.
async fn denied(denials: &mut tokio::sync::broadcast::Receiver<Arc<str>>, subject: &str) {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match denials.recv().await {
            Ok(forbidden) if *forbidden == *subject => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn fault(subject: &str, error: &async_nats::RequestError) -> BusError {
    match error.kind() {
        RequestErrorKind::NoResponders => BusError::NoResponders(subject.into()),
        RequestErrorKind::TimedOut => BusError::TimedOut(subject.into()),
        RequestErrorKind::MaxPayloadExceeded => {
            BusError::TooLarge { bytes: PAYLOAD_BYTES_MAX + 1, bytes_max: PAYLOAD_BYTES_MAX }
        }
        RequestErrorKind::InvalidSubject => BusError::Config(format!("`{subject}` is not a subject")),
        RequestErrorKind::Other => BusError::Closed,
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, BusError> {
    encode_within(value, PAYLOAD_BYTES_MAX)
}

/// As JSON, if a message of at most `payload_bytes_max` holds it. Checked here because the broker ends
/// the connection of a client that sends more than its account may.
pub(crate) fn encode_within<T: Serialize>(value: &T, payload_bytes_max: u64) -> Result<Bytes, BusError> {
    let encoded = serde_json::to_vec(value).map_err(|error| BusError::Malformed(error.to_string()))?;
    let (bytes, bytes_max) = (encoded.len() as u64, payload_bytes_max - HEADROOM);
    if bytes > bytes_max { Err(BusError::TooLarge { bytes, bytes_max }) } else { Ok(encoded.into()) }
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BusError> {
    serde_json::from_slice(bytes).map_err(|error| BusError::Malformed(error.to_string()))
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A request as a responder sees it.
pub(crate) struct Incoming {
    /// Account that asks, written by the broker.
    pub account: String,
    /// What it sent.
    pub payload: Bytes,
}

/// An answer.
pub(crate) struct Outgoing {
    /// Header fields.
    pub headers: Vec<(&'static str, String)>,
    /// Bytes.
    pub payload: Bytes,
}

impl Outgoing {
    /// A typed answer.
    pub(crate) fn reply<T: Serialize>(result: Result<T, Problem>) -> Self {
        let reply = match result {
            Ok(value) => encode(&Reply::Ok(value)),
            Err(problem) => encode(&Reply::<()>::Problem(problem)),
        };
        match reply {
            Ok(payload) => Self { headers: Vec::new(), payload },
            Err(error) => {
                tracing::error!(%error, "an answer could not be sent");
                Self::reply::<()>(Err(Code::Internal.problem()))
            }
        }
    }
}

/// Answers `subject` (`api.*.<service>.<method>`) within a queue group until `stop`. Each request runs
/// in its own task, cut at its deadline. `share` says how many of an account may be in progress; more are
/// refused at once, so that no stage takes the platform from the others. `subscribed` is called when
/// requests can come.
pub(crate) async fn serve<F, Fut>(
    bus: &Bus,
    subject: &'static str,
    group: &'static str,
    stop: &CancellationToken,
    share: impl Fn(&str) -> usize,
    subscribed: impl FnOnce(),
    handler: F,
) -> Result<(), BusError>
where
    F: Fn(Incoming) -> Fut,
    Fut: Future<Output = Outgoing> + Send + 'static,
{
    let mut requests =
        bus.client.queue_subscribe(subject, group.to_owned()).await.map_err(|_| BusError::Closed)?;
    bus.client.flush().await.map_err(|_| BusError::Closed)?;
    subscribed();
    let mut tasks = JoinSet::new();
    let mut busy = Busy::default();
    let mut draining = false;
    let end = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = stopped(stop, bus), if !draining => {
                // No more for us from here on; what the broker has sent already would reach nobody else.
                draining = true;
                end.as_mut().reset(tokio::time::Instant::now() + STOP_LIMIT);
                let _ = tokio::time::timeout(PUBLISH_LIMIT, requests.drain()).await;
            }
            () = &mut end, if draining => break,
            Some(done) = tasks.join_next_with_id() => busy.done(done),
            request = requests.next() => {
                let Some(request) = request else { break };
                let Some((account, reply, left)) = admitted(&request) else { continue };
                if !busy.has_room(&account, share(&account)) {
                    let refusal = Outgoing::reply::<()>(Err(Code::Overloaded.problem()));
                    send(bus.client.clone(), reply, refusal).await;
                    continue;
                }
                let answer = handler(Incoming { account: account.clone(), payload: request.payload });
                let client = bus.client.clone();
                let task = tasks.spawn(async move {
                    // Past its deadline nobody waits for the answer any more.
                    if let Ok(answer) = tokio::time::timeout(left, answer).await {
                        send(client, reply, answer).await;
                    }
                });
                busy.begun(task.id(), account);
            }
        }
    }
    let _ = tokio::time::timeout(STOP_LIMIT, async { while tasks.join_next().await.is_some() {} }).await;
    if draining { Ok(()) } else { Err(BusError::Closed) }
}

async fn stopped(stop: &CancellationToken, bus: &Bus) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = bus.closing().cancelled() => {}
    }
}

async fn send(client: async_nats::Client, reply: async_nats::Subject, answer: Outgoing) {
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers {
        headers.insert(name, value);
    }
    let sent = client.publish_with_headers(reply, headers, answer.payload);
    if !matches!(tokio::time::timeout(PUBLISH_LIMIT, sent).await, Ok(Ok(()))) {
        tracing::warn!("an answer could not be sent");
    }
}

/// Who asks, where the answer goes, and how long it may take; `None` when it must not be run.
fn admitted(request: &Message) -> Option<(String, async_nats::Subject, Duration)> {
    let reply = request.reply.clone()?;
    let account = account_of(&request.subject)?;
    let stated = request.headers.as_ref().and_then(|headers| headers.get(DEADLINE));
    let left = match stated {
        Some(stated) => {
            let left = stated.as_str().parse::<u64>().ok()?.checked_sub(now_ms()).filter(|left| *left > 0)?;
            LIFE_MAX.min(Duration::from_millis(left))
        }
        None => LIFE_MAX,
    };
    Some((account, reply, left))
}

/// The account that the broker wrote into a subject such as `api.<account>.blob.get`.
pub(crate) fn account_of(subject: &str) -> Option<String> {
    let account = subject.split('.').nth(1)?;
    jwt::is_public_key(account, 'A').then(|| account.to_owned())
}

/// Which accounts have how many requests in progress.
#[derive(Default)]
struct Busy {
    by_account: HashMap<String, usize>,
    by_task: HashMap<tokio::task::Id, String>,
}

impl Busy {
    fn has_room(&self, account: &str, share: usize) -> bool {
        let own = self.by_account.get(account).copied().unwrap_or(0);
        self.by_task.len() < IN_PROGRESS_MAX && own < share
    }

    fn begun(&mut self, task: tokio::task::Id, account: String) {
        *self.by_account.entry(account.clone()).or_default() += 1;
        self.by_task.insert(task, account);
    }

    fn done(&mut self, done: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match done {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a request on the bus ended in a panic");
                error.id()
            }
        };
        let Some(account) = self.by_task.remove(&id) else { return };
        if let Some(count) = self.by_account.get_mut(&account) {
            *count -= 1;
            if *count == 0 {
                self.by_account.remove(&account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_cannot_take_all_the_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut busy, mut tasks) = (Busy::default(), JoinSet::new());
            for _ in 0..2 {
                assert!(busy.has_room("greedy", 2));
                busy.begun(tasks.spawn(async {}).id(), "greedy".into());
            }
            assert!(!busy.has_room("greedy", 2) && busy.has_room("other", 2));
            busy.done(tasks.join_next_with_id().await.unwrap());
            assert!(busy.has_room("greedy", 2));
        });
    }

    #[test]
    fn the_account_is_the_second_token_and_must_be_a_key() {
        let key = nkeys::KeyPair::new_account().public_key();
        assert_eq!(account_of(&format!("api.{key}.state.get")), Some(key.clone()));
        for subject in ["", "api", "api.x.state.get", "api..state.get", &format!("{key}.api.state")] {
            assert_eq!(account_of(subject), None, "{subject}");
        }
    }

    #[test]
    fn what_the_account_may_not_send_is_refused_before_it_is_sent() {
        assert!(encode_within(&"x".repeat(1000), 6000).is_ok());
        assert!(matches!(
            encode_within(&"x".repeat(2000), 6000),
            Err(BusError::TooLarge { bytes_max: 1904, .. })
        ));
    }
}
