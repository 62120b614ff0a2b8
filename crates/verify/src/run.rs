//! A verification, from its first canary to its report.

use crate::{
    order::{Answer, Attempt, Call, Manner, Order},
    report::{About, Report, Row},
};
use bastide_isolation::{
    Plan, Topology,
    checks::{
        self, Arrival, Check, Expected, Facts, How, Listener, Medium, Place, Port, Seen, Target, Trials,
        judge, trials,
    },
};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::oneshot,
    time::timeout,
};

/// Longest answer of the prober.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Longest wait for the next answer: far more than any limit of an attempt.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often it is looked which addresses the host has.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A port for packets whose canary hears them all.
const ANY_PORT: u16 = 4444;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The prober does not start.
    #[error("cannot start the prober {0}")]
    Start(PathBuf, #[source] io::Error),
    /// The host's addresses cannot be read.
    #[error("cannot read this host's addresses")]
    Host(#[source] io::Error),
    /// The prober ended or said something that cannot be understood.
    #[error("the prober does not answer")]
    Prober(#[source] io::Error),
}

/// What is verified.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What there is. With a canary, when the way out is to be tried.
    pub topology: &'a Topology,
    /// What is known about it.
    pub facts: &'a Facts,
    /// Namespace that the gateways go out by; the prober's own when there is none.
    pub outside: Option<&'a Path>,
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For an answer by a path that should be closed. What arrives later is still heard by its canary.
    pub closed: Duration,
    /// For an answer by a path that should be open.
    pub open: Duration,
    /// For what is still on its way when the last attempt is over.
    pub settle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            closed: Duration::from_millis(1200),
            open: Duration::from_secs(8),
            settle: Duration::from_millis(300),
        }
    }
}

/// Verifies: controls, checks, controls again. `program` with `arguments` is the prober.
///
/// # Errors
/// When the prober cannot be used. A path that is open is no error, it stands in the report.
pub async fn verify(
    program: &Path,
    arguments: &[&str],
    subject: Subject<'_>,
    limits: Limits,
) -> Result<Report, Error> {
    let begun = Instant::now();
    let trials = trials(subject.topology, subject.facts);
    // Dropped when this is over, however that is.
    let (over, ended) = oneshot::channel();
    let staying = tokio::spawn(staying(subject.facts.host.clone(), ended));
    let mut prober = Prober::start(program, arguments, subject, trials).await?;
    let mut controls = prober.controls(subject, limits).await?;
    let rows = prober.checks(subject, limits, |_| true).await?;
    controls.extend(prober.controls(subject, limits).await?);
    let replicas = subject.topology.stages.iter().map(|stage| stage.replicas.len()).sum();
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let addresses = match subject.outside {
        None => {
            drop(over);
            staying.await.map_err(io::Error::other).flatten().map_err(Error::Host)?
        }
        // A given namespace is as it is.
        Some(_) => subject.facts.host.clone(),
    };
    Ok(Report::new(replicas, took_ms, rows, controls, &addresses))
}

/// Those of these addresses of the host that were there at every look until the end: one that went and came back proves nothing
/// either.
async fn staying(mut addresses: Vec<IpAddr>, mut ended: oneshot::Receiver<()>) -> io::Result<Vec<IpAddr>> {
    loop {
        let now = crate::facts::addresses()?;
        addresses.retain(|address| now.contains(address));
        if timeout(LOOK_EVERY, &mut ended).await.is_ok() {
            let now = crate::facts::addresses()?;
            addresses.retain(|address| now.contains(address));
            return Ok(addresses);
        }
    }
}

/// A prober whose canaries listen.
pub struct Prober {
    // Killed when this goes.
    _process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    trials: Trials,
    canaries: Vec<Canary>,
}

/// A canary, or why it does not listen.
struct Canary {
    words: String,
    port: Result<u16, NotListening>,
}

#[derive(Clone)]
struct NotListening {
    why: String,
    /// Its address is not there.
    absent: bool,
}

impl Prober {
    /// Starts it and makes all canaries listen.
    ///
    /// # Errors
    /// When it does not start or does not answer. A canary that does not listen is no error, its controls fail.
    pub async fn start(
        program: &Path,
        arguments: &[&str],
        subject: Subject<'_>,
        trials: Trials,
    ) -> Result<Self, Error> {
        let wrong = |error| Error::Start(program.to_owned(), error);
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(wrong)?;
        let (orders, answers) = (process.stdin.take(), process.stdout.take());
        let (Some(orders), Some(answers)) = (orders, answers) else {
            return Err(wrong(io::ErrorKind::BrokenPipe.into()));
        };
        let mut prober = Self {
            _process: process,
            orders,
            answers: BufReader::new(answers),
            trials,
            canaries: Vec::new(),
        };
        prober.open(subject).await.map_err(Error::Prober)?;
        Ok(prober)
    }

    /// What it tries.
    pub fn trials(&self) -> &Trials {
        &self.trials
    }

    /// Those of another listener's port come after it in the list, and one at a time is soon enough.
    async fn open(&mut self, subject: Subject<'_>) -> io::Result<()> {
        for index in 0..self.trials.listeners.len() {
            let Listener { place, at, by, port } = self.trials.listeners[index].clone();
            let words = uuid::Uuid::new_v4().simple().to_string();
            let port = match port {
                Port::Any => Ok(0),
                Port::Fixed(port) => Ok(port),
                Port::Like(other) => self.canaries[other].port.clone(),
            };
            let port = match port {
                Err(why) => Err(why),
                Ok(port) => {
                    let namespace = namespace(&place, subject);
                    let at = SocketAddr::new(at, port);
                    let id = index as u32;
                    self.tell(&Order::Open { id, namespace, at, by, words: words.clone() }).await?;
                    match self.hear().await? {
                        Answer::Opened { port, .. } => Ok(port),
                        Answer::NotOpened { why, absent, .. } => Err(NotListening { why, absent }),
                        _ => return Err(unexpected()),
                    }
                }
            };
            self.canaries.push(Canary { words, port });
        }
        Ok(())
    }

    /// Tries everything that is always open.
    ///
    /// # Errors
    /// When the prober does not answer.
    pub async fn controls(&mut self, subject: Subject<'_>, limits: Limits) -> Result<Vec<Row>, Error> {
        let controls = self.trials.controls.clone();
        self.attempt(&controls, subject, limits).await.map_err(Error::Prober)
    }

    /// Tries what is to be proven and `wanted`; many at a time, floods alone and last.
    ///
    /// # Errors
    /// When the prober does not answer.
    pub async fn checks(
        &mut self,
        subject: Subject<'_>,
        limits: Limits,
        wanted: impl Fn(&Check) -> bool,
    ) -> Result<Vec<Row>, Error> {
        let (floods, others): (Vec<_>, Vec<_>) = self
            .trials
            .checks
            .iter()
            .filter(|check| wanted(check))
            .cloned()
            .partition(|check| matches!(check.how, How::Flood { .. }));
        let mut rows = self.attempt(&others, subject, limits).await.map_err(Error::Prober)?;
        for flood in floods {
            rows.extend(self.attempt(&[flood], subject, limits).await.map_err(Error::Prober)?);
        }
        Ok(rows)
    }

    async fn attempt(
        &mut self,
        list: &[Check],
        subject: Subject<'_>,
        limits: Limits,
    ) -> io::Result<Vec<Row>> {
        let nonces: Vec<_> = list.iter().map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
        let mut seen: Vec<Option<Seen>> = list.iter().map(|_| None).collect();
        let mut orders = Vec::new();
        for (index, check) in list.iter().enumerate() {
            match self.as_attempt(check) {
                Ok(attempt) => orders.push(Order::Try {
                    id: index as u32,
                    namespace: namespace(&check.from, subject),
                    nonce: nonces[index].clone(),
                    limit_ms: limit(check, limits).as_millis() as u64,
                    attempt,
                }),
                Err(why) => seen[index] = Some(Seen::Failed(why)),
            }
        }
        self.exchange(&orders, &mut seen).await?;
        tokio::time::sleep(limits.settle).await;
        self.tell(&Order::Collect).await?;
        let Answer::Heard { calls } = self.hear().await? else { return Err(unexpected()) };
        let mut heard: HashMap<&str, Vec<&Call>> = HashMap::new();
        for call in &calls {
            if let Some(nonce) = &call.nonce {
                heard.entry(nonce).or_default().push(call);
            }
        }
        let mut rows: Vec<_> = list
            .iter()
            .zip(&nonces)
            .zip(&seen)
            .map(|((check, nonce), seen)| {
                let seen = seen.clone().unwrap_or_else(|| Seen::Failed("no answer".into()));
                let heard = heard.get(nonce.as_str()).map_or(&[][..], Vec::as_slice);
                self.row(check, &seen, &self.arrivals(check, heard), subject)
            })
            .collect();
        rows.extend(calls.iter().filter_map(|call| self.stranger(call, subject)));
        Ok(rows)
    }

    /// Orders and answers at the same time, so that neither waits for room in the other's pipe.
    async fn exchange(&mut self, orders: &[Order], seen: &mut [Option<Seen>]) -> io::Result<()> {
        let (input, output) = (&mut self.orders, &mut self.answers);
        let tell = async {
            for order in orders {
                write(input, order).await?;
            }
            Ok(())
        };
        let hear = async {
            for _ in orders {
                let Answer::Tried { id, seen: saw } = read(output).await? else { return Err(unexpected()) };
                *seen.get_mut(id as usize).ok_or_else(unexpected)? = Some(saw);
            }
            Ok(())
        };
        tokio::try_join!(tell, hear)?;
        Ok(())
    }

    async fn tell(&mut self, order: &Order) -> io::Result<()> {
        write(&mut self.orders, order).await
    }

    async fn hear(&mut self) -> io::Result<Answer> {
        read(&mut self.answers).await
    }

    /// A check with what is known only now: ports and words.
    fn as_attempt(&self, check: &Check) -> Result<Attempt, String> {
        let canary = |index: usize| {
            let canary = &self.canaries[index];
            let port =
                canary.port.clone().map_err(|not| format!("its canary does not listen: {}", not.why))?;
            Ok::<_, String>((port, canary.words.clone()))
        };
        let (host, to, words) = match &check.to {
            Target::Listener(index) => {
                let (port, words) = canary(*index)?;
                (None, SocketAddr::new(self.trials.listeners[*index].at, port), words)
            }
            Target::At(index, address) => {
                let (port, words) = canary(*index)?;
                (None, SocketAddr::new(*address, port), words)
            }
            Target::Named(index, host) => {
                let (port, words) = canary(*index)?;
                (Some(host.clone()), SocketAddr::new(self.trials.listeners[*index].at, port), words)
            }
            Target::Service(at) => (None, *at, String::new()),
        };
        let proxy = |by| Attempt::Proxy {
            proxy: checks::PROXY.into(),
            by,
            host: host.clone().unwrap_or_else(|| to.ip().to_string()),
            port: to.port(),
            words: words.clone(),
        };
        Ok(match check.how.clone() {
            How::Tcp(from) => Attempt::Tcp { to, from, words },
            How::Udp(from) => Attempt::Udp { to, from, ttl: None, broadcast: false, words },
            How::Expiring(ttl) => Attempt::Udp { to, from: None, ttl: Some(ttl), broadcast: false, words },
            How::Broadcast => Attempt::Udp { to, from: None, ttl: None, broadcast: true, words },
            How::Crafted(packet) => {
                let port = if to.port() == 0 { ANY_PORT } else { to.port() };
                Attempt::Crafted { to: SocketAddr::new(to.ip(), port), packet }
            }
            How::Connect => proxy(Manner::Connect),
            How::Forward => proxy(Manner::Forward),
            How::Socks => proxy(Manner::Socks),
            How::Lookup { name, v6 } => Attempt::Lookup { server: to, name, v6 },
            How::Abstract => Attempt::Abstract { words },
            How::Ask(say) => Attempt::Ask { to, say },
            How::Flood { count, udp } => Attempt::Flood { to, count, udp, words },
        })
    }

    /// Calls that show how far something came. What its sender hears of itself is an error about it that came
    /// back, or the answer to an echo.
    fn arrivals(&self, check: &Check, heard: &[&Call]) -> Vec<Arrival> {
        let target = match check.to {
            Target::Listener(index) | Target::At(index, _) | Target::Named(index, _) => Some(index),
            Target::Service(_) => None,
        };
        let counts = |call: &&&Call| {
            let canary = call.canary as usize;
            let at_target = target == Some(canary);
            let elsewhere = self.trials.listeners.get(canary).is_some_and(|one| one.place != check.from);
            at_target || (elsewhere && !matches!(check.expected, Expected::Arrival(_)))
        };
        heard.iter().filter(counts).map(|call| Arrival { source: call.source }).collect()
    }

    fn row(&self, check: &Check, seen: &Seen, arrived: &[Arrival], subject: Subject<'_>) -> Row {
        let judgement = judge(check, seen, arrived);
        Row {
            path: check.path.to_owned(),
            from: place_name(&check.from, subject),
            to: self.target_name(&check.to, &check.how, subject),
            how: how_name(&check.how),
            expected: expected_name(&check.expected),
            seen: judgement.seen,
            ok: judgement.ok,
            tried: !matches!(seen, Seen::Failed(_)),
            about: self.about(&check.to, subject),
        }
    }

    fn about(&self, target: &Target, subject: Subject<'_>) -> Option<About> {
        let index = match target {
            Target::Listener(index) | Target::At(index, _) | Target::Named(index, _) => *index,
            Target::Service(at) => {
                let is_hosts = subject.facts.services.iter().any(|(one, _)| one == at);
                return is_hosts.then_some(About::Service(*at));
            }
        };
        let listener = &self.trials.listeners[index];
        match (listener.port, &self.canaries[index].port) {
            _ if listener.place != Place::Host => None,
            (_, Err(not)) if not.absent => Some(About::AbsentAddress(listener.at)),
            (Port::Fixed(port), Err(_)) => Some(About::TakenPort(SocketAddr::new(listener.at, port))),
            _ if subject.facts.host.contains(&listener.at) => Some(About::Address(listener.at)),
            _ => None,
        }
    }

    /// Somebody who reached a canary that nobody else may reach, and did not say who it was: an attempt that
    /// was given up too early, or a stranger.
    fn stranger(&self, call: &Call, subject: Subject<'_>) -> Option<Row> {
        let listener = self.trials.listeners.get(call.canary as usize)?;
        let open = subject.topology.canary.as_ref().map(|canary| canary.open);
        let own = [listener.at, bastide_isolation::address::BROKER.into()];
        // The host may speak to itself: somebody else's verification tries what listens here.
        let by_host = listener.place == Place::Host && subject.facts.host.contains(&call.source);
        let from_itself = call.source.is_loopback() || own.contains(&call.source) || by_host;
        if call.nonce.is_some()
            || from_itself
            || listener.by == Medium::Abstract
            || open.is_some_and(|open| listener.at == open)
        {
            return None;
        }
        Some(Row {
            path: "unknown-caller".into(),
            from: call.source.to_string(),
            to: format!("{} at {}", place_name(&listener.place, subject), listener.at),
            how: medium_name(listener.by),
            expected: "nothing".into(),
            seen: "somebody came who did not say what for".into(),
            ok: false,
            tried: true,
            about: None,
        })
    }

    fn target_name(&self, target: &Target, how: &How, subject: Subject<'_>) -> String {
        let at = |index: usize| place_name(&self.trials.listeners[index].place, subject);
        match (target, how) {
            (_, How::Lookup { name, .. }) => name.clone(),
            (Target::Listener(index), _) if self.trials.listeners[*index].by == Medium::Abstract => {
                at(*index)
            }
            (Target::Listener(index), _) => match &self.trials.listeners[*index] {
                Listener { at: address, port: Port::Fixed(port), .. } => {
                    format!("{} at {address} port {port}", at(*index))
                }
                Listener { at: address, .. } => format!("{} at {address}", at(*index)),
            },
            (Target::At(index, address), _) => format!("{} at {address}", at(*index)),
            (Target::Named(index, host), _) => format!("{} as {host}", at(*index)),
            (Target::Service(at), _) => match subject.facts.services.iter().find(|(one, _)| one == at) {
                Some((_, name)) => format!("host {name} at {at}"),
                None => at.to_string(),
            },
        }
    }
}

async fn write(orders: &mut ChildStdin, order: &Order) -> io::Result<()> {
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    timeout(PATIENCE, orders.write_all(&line)).await?
}

async fn read(answers: &mut BufReader<ChildStdout>) -> io::Result<Answer> {
    let mut line = Vec::new();
    let mut answer = answers.take(ANSWER_BYTES_MAX);
    if timeout(PATIENCE, answer.read_until(b'\n', &mut line)).await?? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"));
    }
    Ok(serde_json::from_slice(&line)?)
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it answered something else")
}

/// Nothing has to come by a closed path, so there a short wait will do.
fn limit(check: &Check, limits: Limits) -> Duration {
    match (&check.expected, &check.how) {
        // What a proxy or a name service says is an answer, even when it is a no.
        (_, How::Connect | How::Forward | How::Socks | How::Lookup { .. }) => limits.open,
        (Expected::Nothing | Expected::Silence | Expected::AtMost(_) | Expected::Arrival(_), _) => {
            limits.closed
        }
        _ => limits.open,
    }
}

fn namespace(place: &Place, subject: Subject<'_>) -> Option<PathBuf> {
    let name = place.namespace(&subject.topology.installation);
    if name == Plan::OUTSIDE {
        return subject.outside.map(Path::to_owned);
    }
    Some(Path::new("/run/netns").join(name))
}

fn place_name(place: &Place, subject: Subject<'_>) -> String {
    match place {
        Place::Replica(id) => {
            let id_text = id.to_string();
            // The first letters of ids made in the same second are the same.
            let short = id_text.get(id_text.len().saturating_sub(6)..).unwrap_or(&id_text);
            let mut all = subject.topology.stages.iter().flat_map(|stage| &stage.replicas);
            let zone = all.find(|replica| replica.id == *id).map(|replica| format!(" in {}", replica.zone));
            let zone = zone.unwrap_or_default();
            match subject.facts.apps.get(id) {
                Some(app) => format!("{}/{}/{}{zone} ({short})", app.customer, app.stage, app.app),
                None => format!("replica{zone} ({short})"),
            }
        }
        Place::Router(account) => {
            let stages = subject.topology.stages.iter();
            let mut replicas = stages.filter(|stage| stage.account == *account).flat_map(|one| &one.replicas);
            match replicas.find_map(|replica| subject.facts.apps.get(&replica.id)) {
                Some(app) => format!("router of {}/{}", app.customer, app.stage),
                None => "router".into(),
            }
        }
        Place::Gateway(zone) => format!("gateway of {zone}"),
        Place::Probe(zone) => format!("behind gateway of {zone}"),
        Place::Host => "host".into(),
        Place::Canary => "machine outside".into(),
        Place::Bystander => "other machine outside".into(),
    }
}

fn medium_name(medium: Medium) -> String {
    match medium {
        Medium::Tcp => "tcp".into(),
        Medium::Udp => "udp".into(),
        Medium::Raw(protocol) => format!("protocol {protocol}"),
        Medium::Abstract => "unix".into(),
    }
}

fn how_name(how: &How) -> String {
    match how {
        How::Tcp(_) => "tcp".into(),
        How::Udp(_) => "udp".into(),
        How::Expiring(ttl) => format!("udp with ttl {ttl}"),
        How::Broadcast => "udp to everybody".into(),
        How::Crafted(crafted) => {
            let what = match crafted.content {
                checks::Content::Udp => "crafted udp".into(),
                checks::Content::MidStream => "crafted tcp".into(),
                checks::Content::Echo => "icmp echo".into(),
                checks::Content::Protocol(protocol) => format!("protocol {protocol}"),
            };
            match crafted.source {
                Some(source) if !crafted.routed_by_source => format!("{what} from {source}"),
                _ => what,
            }
        }
        How::Connect => "http connect".into(),
        How::Forward => "http get".into(),
        How::Socks => "socks".into(),
        How::Lookup { v6: true, .. } => "dns aaaa".into(),
        How::Lookup { v6: false, .. } => "dns a".into(),
        How::Abstract => "unix".into(),
        How::Ask(_) => "tcp".into(),
        How::Flood { count, udp } => format!("{count} {} at a time", if *udp { "udp" } else { "tcp" }),
    }
}

fn expected_name(expected: &Expected) -> String {
    match expected {
        Expected::Nothing => "nothing".into(),
        Expected::Silence => "silence".into(),
        Expected::Told => "no way".into(),
        Expected::Answer(None) | Expected::Bytes => "answer".into(),
        Expected::Answer(Some(source)) => format!("answer from {source}"),
        Expected::Arrival(None) => "arrival".into(),
        Expected::Arrival(Some(source)) => format!("arrival from {source}"),
        Expected::Reset => "reset".into(),
        Expected::Listens => "listener".into(),
        Expected::Names(names) => {
            format!("addresses {}", names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        Expected::AtMost(most) => format!("most {most}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_away_at_one_look_has_not_stayed() {
        let own = crate::facts::addresses().unwrap();
        let (over, ended) = oneshot::channel();
        let mut all = own.clone();
        // For documentation: no host has it.
        all.push("192.0.2.77".parse().unwrap());
        let staying = tokio::spawn(staying(all, ended));
        drop(over);
        let stayed = staying.await.unwrap().unwrap();
        assert!(stayed.iter().all(|address| own.contains(address)));
    }
}
