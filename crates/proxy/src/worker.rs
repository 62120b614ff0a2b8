//! One worker thread per core, each with its own runtime and its own listening socket.

use socket2::{Domain, Protocol, Socket, Type};
use std::{future::Future, io, net::SocketAddr, num::NonZeroUsize};

/// Cores that this process may use; `taskset` is respected.
pub fn allowed_cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// A listening socket that others of the same process may share the port with.
pub fn reuse_port_listener(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Runs `work(index)` on `count` threads, each with a runtime of its own, until all have ended.
///
/// # Errors
/// When a thread or its runtime cannot be made; the first error of any `work` afterwards.
pub fn run_workers<F, W, E>(count: usize, work: F) -> io::Result<Result<(), E>>
where
    F: Fn(usize) -> W + Send + Sync,
    W: Future<Output = Result<(), E>>,
    E: Send,
{
    let mut runtimes = Vec::new();
    for _ in 0..count {
        runtimes.push(tokio::runtime::Builder::new_current_thread().enable_all().build()?);
    }
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, runtime) in runtimes.into_iter().enumerate() {
            let work = &work;
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn_scoped(scope, move || runtime.block_on(work(index)))?);
        }
        let mut outcome = Ok(());
        for thread in threads {
            let ended = thread.join().map_err(|_| io::Error::other("a worker panicked"))?;
            if outcome.is_ok() {
                outcome = ended;
            }
        }
        Ok(outcome)
    })
}
