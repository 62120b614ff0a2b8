//! Threads for work that may take all cores and must not slow other work: they yield to everybody else.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

/// How much less than others they get: next to one busy thread of the usual priority about a tenth of a core.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// Threads of low priority; they end when this is dropped and what waits is done.
pub struct Workers {
    jobs: mpsc::Sender<Job>,
}

impl Workers {
    /// Starts this many threads.
    pub fn start(threads: usize) -> Self {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            let waiting = waiting.clone();
            std::thread::spawn(move || work(&waiting));
        }
        Self { jobs }
    }

    /// Does this on one of the threads; `None` when it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.jobs.send(Box::new(move || drop(tell.send(work())))).ok()?;
        told.await.ok()
    }
}

fn work(waiting: &Mutex<mpsc::Receiver<Job>>) {
    // Of this thread alone: Linux has a priority for each.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "threads that should yield have the usual priority");
    }
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics costs nobody the thread.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[tokio::test]
    async fn they_yield_and_those_who_ask_do_not() {
        let (before, workers) = (nice(), Workers::start(1));
        assert_eq!(workers.run(nice).await, Some(NICE.max(before)));
        assert_eq!(nice(), before);
    }

    #[tokio::test]
    async fn a_panic_costs_one_answer() {
        let workers = Workers::start(1);
        assert_eq!(workers.run(|| panic!("as a test wants it")).await, None::<()>);
        assert_eq!(workers.run(|| 1).await, Some(1));
    }
}
