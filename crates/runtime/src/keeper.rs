//! Looks after one replica: starts it, asks how it is, starts it again, and drains it in the end.

use crate::{
    driver::{Life, Started},
    restart::Pasts,
    told::Told,
};
use bastide_types::{
    AppName, ReplicaId, ZoneName,
    manifest::{Manifest, probes::Question},
    message::{LastEnd, Reach, ReplicaState},
};
use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time between the word that a replica drains and its SIGTERM: gateways hear it first.
const DRAIN_NOTICE: Duration = Duration::from_millis(500);
/// A replica that is not ready is asked at least this often: the sooner it gets requests again.
const NOT_READY_EVERY: Duration = Duration::from_millis(500);
/// Wait before a replica that could not even be started is tried again. It doubles: what is missing is most
/// likely the image or something of the host, and no fault of the app.
const UNSTARTED_FIRST: Duration = Duration::from_secs(1);
const UNSTARTED_LONGEST: Duration = Duration::from_secs(30);

/// What is done with a replica.
pub(crate) trait Replica: Send + Sync + 'static {
    /// Starts it; `Err` says why that did not work.
    fn start(&self) -> impl Future<Output = Result<Started, String>> + Send;
    /// It runs already: makes what it needs beside its process.
    fn resume(&self) -> impl Future<Output = ()> + Send;
    /// Asks it; `Err` says what came instead of a good answer.
    fn ask(&self, question: &Question) -> impl Future<Output = Result<(), String>> + Send;
    /// Ends it, at once after `grace`, and takes away what was made beside it.
    fn stop(&self, grace: Duration) -> impl Future<Output = ()> + Send;
}

/// Looks after one replica.
pub(crate) struct Keeper<R> {
    pub(crate) replica: R,
    pub(crate) id: ReplicaId,
    pub(crate) app: AppName,
    pub(crate) zone: ZoneName,
    pub(crate) manifest: Manifest,
    /// Divides all waits: 1, but in tests.
    pub(crate) hurry: u32,
    pub(crate) told: Arc<Told>,
    pub(crate) pasts: Arc<Pasts>,
}

/// How one life of a replica ended.
enum Outcome {
    /// It could not be started.
    Unstarted(String),
    /// It ended by itself.
    Ended(String),
    /// It runs, but is not well: it must be ended.
    Unwell(String),
}

impl<R: Replica> Keeper<R> {
    /// Keeps it running until `drain`, then stops it; after `over` alone it is left as it is. `first` is a life
    /// that began already.
    pub(crate) async fn keep(
        self,
        mut first: Option<Started>,
        drain: CancellationToken,
        over: CancellationToken,
    ) {
        let (id, grace) = (self.id, Duration::from_secs(self.manifest.app.grace_s.into()));
        let mut past = self.pasts.of(id);
        let mut unstarted = UNSTARTED_FIRST;
        self.told.set_past(id, &past);
        while !drain.is_cancelled() {
            let healthy_since = OnceLock::new();
            let outcome = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                () = over.cancelled() => return,
                outcome = self.live(first.take(), &healthy_since) => outcome,
            };
            let (why, wait, grace) = match outcome {
                Outcome::Unstarted(why) => {
                    let wait = unstarted;
                    unstarted = (unstarted * 2).min(UNSTARTED_LONGEST);
                    (why, wait, Duration::ZERO)
                }
                Outcome::Ended(why) => {
                    let healthy = healthy_since.get().map(Instant::elapsed);
                    (why, past.ended(healthy), Duration::ZERO)
                }
                Outcome::Unwell(why) => {
                    let healthy = healthy_since.get().map(Instant::elapsed);
                    (why, past.ended(healthy), grace)
                }
            };
            tracing::warn!(replica = %id, app = %self.app, zone = %self.zone, why, again_in = ?wait, "replica ended");
            past.last_end = Some(LastEnd { at_s: now_s(), why: why.clone() });
            self.told.set_past(id, &past);
            self.told.set(id, ReplicaState::Failed, None, Some(why));
            self.pasts.keep(id, Some(past.clone()));
            tokio::select! {
                biased;
                () = over.cancelled() => return,
                () = self.replica.stop(grace) => {}
            }
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                () = over.cancelled() => return,
                () = self.pause(wait) => {}
            }
            past.restarts = past.restarts.saturating_add(1);
            self.told.set_past(id, &past);
            self.pasts.keep(id, Some(past.clone()));
        }
        self.told.set(id, ReplicaState::Draining, None, None);
        self.pause(DRAIN_NOTICE).await;
        self.replica.stop(grace).await;
        self.pasts.keep(id, None);
        self.told.forget(id);
        tracing::info!(replica = %id, app = %self.app, "replica stopped");
    }

    async fn pause(&self, wait: Duration) {
        tokio::time::sleep(wait / self.hurry).await;
    }

    /// One life of the replica.
    async fn live(&self, begun: Option<Started>, healthy_since: &OnceLock<Instant>) -> Outcome {
        self.told.set(self.id, ReplicaState::Starting, None, None);
        let begun = match begun {
            Some(begun) => {
                self.replica.resume().await;
                Ok(begun)
            }
            None => self.replica.start().await,
        };
        let Started { reach, mut life } = match begun {
            Ok(started) => started,
            Err(why) => return Outcome::Unstarted(why),
        };
        let mut ended = life.clone();
        let unwell = tokio::select! {
            biased;
            end = ended.wait_for(|life| *life != Life::Running) => {
                drop(end);
                None
            }
            why = self.watch(reach, healthy_since) => Some(why),
        };
        match (unwell, life.borrow_and_update().clone()) {
            (_, Life::Ended(why)) => Outcome::Ended(why),
            (Some(why), Life::Running) => Outcome::Unwell(why),
            (None, Life::Running) => Outcome::Ended("its driver ended".into()),
        }
    }

    /// Asks until it must be replaced; returns why.
    async fn watch(&self, reach: Reach, healthy_since: &OnceLock<Instant>) -> String {
        if let Some(why) = self.starts(reach).await {
            return why;
        }
        tokio::select! {
            never = self.readiness(reach, healthy_since) => match never {},
            why = self.liveness() => why,
        }
    }

    /// Waits until it has started; `Some` says that it took too long.
    async fn starts(&self, reach: Reach) -> Option<String> {
        let (question, limit) = self.manifest.startup();
        let deadline = Instant::now() + limit / self.hurry;
        loop {
            let Err(why) = self.replica.ask(&question).await else { return None };
            if Instant::now() >= deadline {
                return Some(format!("it did not start within {} s: {why}", limit.as_secs()));
            }
            self.told.set(self.id, ReplicaState::Starting, Some(reach), Some(why));
            self.pause(question.interval).await;
        }
    }

    /// Tells whether it may get requests, for ever.
    async fn readiness(&self, reach: Reach, healthy_since: &OnceLock<Instant>) -> Infallible {
        let question = self.manifest.readiness();
        let (mut ready, mut bad) = (false, 0);
        loop {
            match self.replica.ask(&question).await {
                Ok(()) => {
                    if !ready {
                        tracing::info!(replica = %self.id, app = %self.app, zone = %self.zone, "replica ready");
                    }
                    (ready, bad) = (true, 0);
                    healthy_since.get_or_init(Instant::now);
                    self.told.set(self.id, ReplicaState::Ready, Some(reach), None);
                }
                Err(why) => {
                    bad += 1;
                    if !ready || bad >= question.failures {
                        if ready {
                            tracing::warn!(replica = %self.id, app = %self.app, zone = %self.zone, why, "replica not ready");
                        }
                        ready = false;
                        self.told.set(self.id, ReplicaState::Starting, Some(reach), Some(why));
                    }
                }
            }
            let pause = if ready { question.interval } else { question.interval.min(NOT_READY_EVERY) };
            self.pause(pause).await;
        }
    }

    /// Waits until it does not live any more; returns why.
    async fn liveness(&self) -> String {
        let question = self.manifest.liveness();
        let mut bad = 0;
        loop {
            self.pause(question.interval).await;
            match self.replica.ask(&question).await {
                Ok(()) => bad = 0,
                Err(why) => {
                    bad += 1;
                    if bad >= question.failures {
                        return format!("it gave no sign of life, {bad} times in a row: {why}");
                    }
                }
            }
        }
    }
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::message::ReplicaFact;
    use std::{collections::HashMap, sync::Mutex};
    use tokio::sync::watch;

    /// How much shorter waits are than in life.
    const HURRY: u32 = 500;

    /// A replica that answers as it is told.
    #[derive(Clone, Default)]
    struct Fake(Arc<Inner>);

    #[derive(Default)]
    struct Inner {
        /// Bad answers by path; other paths are fine.
        answers: Mutex<HashMap<String, String>>,
        life: Mutex<Option<watch::Sender<Life>>>,
        refuses: Mutex<Option<String>>,
        log: Mutex<Vec<String>>,
    }

    impl Fake {
        fn answer(&self, path: &str, bad: Option<&str>) {
            let mut answers = self.0.answers.lock().unwrap();
            match bad {
                Some(bad) => answers.insert(path.to_owned(), bad.to_owned()),
                None => answers.remove(path),
            };
        }
        fn end(&self, why: &str) {
            self.0.life.lock().unwrap().take().unwrap().send_replace(Life::Ended(why.to_owned()));
        }
        fn note(&self, what: String) {
            self.0.log.lock().unwrap().push(what);
        }
        fn log(&self) -> Vec<String> {
            self.0.log.lock().unwrap().clone()
        }
        fn begin(&self) -> Started {
            let (sender, life) = watch::channel(Life::Running);
            *self.0.life.lock().unwrap() = Some(sender);
            Started { reach: Reach::Broker, life }
        }
    }

    impl Replica for Fake {
        async fn start(&self) -> Result<Started, String> {
            if let Some(why) = self.0.refuses.lock().unwrap().take() {
                return Err(why);
            }
            self.note("start".into());
            Ok(self.begin())
        }
        async fn resume(&self) {
            self.note("resume".into());
        }
        async fn ask(&self, question: &Question) -> Result<(), String> {
            self.0.answers.lock().unwrap().get(&question.path).cloned().map_or(Ok(()), Err)
        }
        async fn stop(&self, grace: Duration) {
            self.note(format!("stop {}", grace.as_secs()));
        }
    }

    struct World {
        fake: Fake,
        told: Arc<Told>,
        id: ReplicaId,
        drain: CancellationToken,
        over: CancellationToken,
        keeping: tokio::task::JoinHandle<()>,
        pasts: Arc<Pasts>,
        _dir: tempfile::TempDir,
    }

    impl World {
        fn new(fake: Fake, first: Option<Started>) -> Self {
            let manifest = r#"{"app":{"name":"shop","kind":"static"},"probes":{"startup":{"path":"/s","limit_s":20},
                "readiness":{"path":"/r","failures":2},"liveness":{"path":"/l","failures":3}}}"#;
            let (told, id, dir) =
                (Arc::new(Told::default()), ReplicaId::generate(), tempfile::tempdir().unwrap());
            let pasts = Arc::new(Pasts::load(dir.path().join("pasts")));
            told.set(id, ReplicaState::Starting, None, None);
            let (drain, over) = (CancellationToken::new(), CancellationToken::new());
            let keeper = Keeper {
                replica: fake.clone(),
                id,
                app: AppName::new("shop").unwrap(),
                zone: ZoneName::new("a").unwrap(),
                manifest: serde_json::from_str(manifest).unwrap(),
                hurry: HURRY,
                told: told.clone(),
                pasts: pasts.clone(),
            };
            let keeping = tokio::spawn(keeper.keep(first, drain.clone(), over.clone()));
            Self { fake, told, id, drain, over, keeping, pasts, _dir: dir }
        }

        /// Waits for a fact.
        async fn until(&self, what: impl Fn(&ReplicaFact) -> bool) -> ReplicaFact {
            let mut facts = self.told.subscribe();
            let found = facts.wait_for(|all| all.get(&self.id).is_some_and(&what)).await.unwrap();
            found[&self.id].clone()
        }

        async fn ready(&self) -> ReplicaFact {
            self.until(|fact| fact.state == ReplicaState::Ready).await
        }
    }

    #[tokio::test]
    async fn not_ready_is_out_of_rotation_and_nothing_else() {
        let world = World::new(Fake::default(), None);
        world.ready().await;
        world.fake.answer("/r", Some("it answered 503"));
        let fact = world.until(|fact| fact.state == ReplicaState::Starting).await;
        assert_eq!(fact.reason.as_deref(), Some("it answered 503"));
        world.fake.answer("/r", None);
        let fact = world.ready().await;
        assert_eq!((fact.restarts, fact.last_end, fact.reason), (0, None, None));
        assert_eq!(world.fake.log(), ["start"]);
    }

    #[tokio::test]
    async fn one_that_gives_no_sign_of_life_is_replaced_politely() {
        let world = World::new(Fake::default(), None);
        world.ready().await;
        world.fake.answer("/l", Some("no connection"));
        world.until(|fact| fact.state == ReplicaState::Failed).await;
        world.fake.answer("/l", None);
        let fact = world.until(|fact| fact.state == ReplicaState::Ready && fact.restarts == 1).await;
        assert!(fact.last_end.unwrap().why.contains("no sign of life, 3 times in a row: no connection"));
        assert_eq!(world.fake.log(), ["start", "stop 10", "start"]);
    }

    #[tokio::test]
    async fn one_that_never_starts_is_replaced() {
        let fake = Fake::default();
        fake.answer("/s", Some("refused"));
        let world = World::new(fake, None);
        let starting = |fact: &ReplicaFact| fact.state == ReplicaState::Starting;
        world.until(|fact| starting(fact) && fact.reason.as_deref() == Some("refused")).await;
        let fact = world.until(|fact| fact.state == ReplicaState::Failed).await;
        assert_eq!(fact.reason.unwrap(), "it did not start within 20 s: refused");
        world.fake.answer("/s", None);
        assert!(world.ready().await.restarts > 0);
    }

    #[tokio::test]
    async fn how_it_ended_stays_known_when_it_runs_again_and_over_the_end_of_the_agent() {
        let world = World::new(Fake::default(), None);
        world.ready().await;
        world.fake.end("it ended with exit code 3");
        world.until(|fact| fact.restarts == 1 && fact.state == ReplicaState::Ready).await;
        world.fake.end("it was ended by SIGKILL (out of memory: its limit is 64 MiB)");
        let fact = world.until(|fact| fact.restarts == 2 && fact.state == ReplicaState::Ready).await;
        assert!(fact.last_end.clone().unwrap().why.contains("out of memory"));
        let past = world.pasts.of(world.id);
        assert_eq!((past.restarts, past.in_a_row, past.last_end), (2, 2, fact.last_end));
        assert_eq!(world.fake.log(), ["start", "stop 0", "start", "stop 0", "start"]);
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_tried_again_and_is_no_crash() {
        let fake = Fake::default();
        *fake.0.refuses.lock().unwrap() = Some("no image: the bus is away".into());
        let world = World::new(fake, None);
        let fact = world.until(|fact| fact.state == ReplicaState::Failed).await;
        assert_eq!(fact.reason.as_deref(), Some("no image: the bus is away"));
        world.ready().await;
        assert_eq!(world.pasts.of(world.id).in_a_row, 0);
    }

    #[tokio::test]
    async fn it_drains_first_and_is_forgotten_then() {
        let world = World::new(Fake::default(), None);
        world.ready().await;
        world.drain.cancel();
        world.until(|fact| fact.state == ReplicaState::Draining).await;
        world.keeping.await.unwrap();
        assert!(!world.told.knows(world.id));
        assert_eq!(world.fake.log(), ["start", "stop 10"]);
    }

    #[tokio::test]
    async fn one_that_runs_already_is_resumed_and_left_running_by_the_end_of_the_agent() {
        let fake = Fake::default();
        let started = fake.begin();
        let world = World::new(fake, Some(started));
        world.ready().await;
        world.over.cancel();
        world.keeping.await.unwrap();
        assert_eq!(world.fake.log(), ["resume"]);
        assert_eq!(world.told.subscribe().borrow()[&world.id].state, ReplicaState::Ready);
    }
}
