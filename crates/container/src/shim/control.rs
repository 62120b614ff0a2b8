//! The control socket: tells everybody connected how the container is, takes orders. One JSON value a line.

use crate::life::Life;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

/// Name of the socket in the state directory, which only root may enter.
pub(crate) const SOCKET: &str = "control.sock";
const CONNECTIONS_MAX: usize = 8;
const LINE_BYTES_MAX: usize = 256;

/// What the agent may order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// End the app: ask, and kill after this time.
    Stop {
        /// Milliseconds.
        grace_ms: u64,
    },
}

pub(crate) struct Control {
    listener: UnixListener,
    connections: Vec<Connection>,
    last: Option<Life>,
}

struct Connection {
    stream: UnixStream,
    line: Vec<u8>,
}

impl Control {
    /// Listens in the current directory: a short name, however long the path to it is. Standard input is the
    /// first connection.
    pub(crate) fn open() -> io::Result<Self> {
        let _ = fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET)?;
        listener.set_nonblocking(true)?;
        let first = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        first.set_nonblocking(true)?;
        Ok(Self { listener, connections: vec![Connection { stream: first, line: Vec::new() }], last: None })
    }

    /// Tells everybody.
    pub(crate) fn tell(&mut self, life: &Life) {
        self.connections.retain_mut(|connection| connection.tell(life).is_ok());
        self.last = Some(life.clone());
    }

    /// What to wait for.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.connections.iter().map(|c| c.stream.as_fd()))
    }

    /// Takes new connections and orders; never blocks.
    pub(crate) fn serve(&mut self) -> Vec<Order> {
        while let Ok((stream, _)) = self.listener.accept() {
            let mut connection = Connection { stream, line: Vec::new() };
            let told = connection.stream.set_nonblocking(true).and_then(|()| match &self.last {
                Some(life) => connection.tell(life),
                None => Ok(()),
            });
            if told.is_ok() {
                // The oldest goes: most likely its agent is dead.
                if self.connections.len() >= CONNECTIONS_MAX {
                    self.connections.remove(0);
                }
                self.connections.push(connection);
            }
        }
        let mut orders = Vec::new();
        self.connections.retain_mut(|connection| connection.read(&mut orders));
        orders
    }
}

impl Connection {
    fn tell(&mut self, life: &Life) -> io::Result<()> {
        let mut line = serde_json::to_vec(life)?;
        line.push(b'\n');
        // A few hundred bytes fit into the socket's buffer, or nobody reads there.
        self.stream.write_all(&line)
    }

    /// Reads what is there; false when the connection is of no use any more.
    fn read(&mut self, orders: &mut Vec<Order>) -> bool {
        let mut piece = [0; LINE_BYTES_MAX];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(length) => self.line.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.line.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(order) => orders.push(order),
                    Err(_) => return false,
                }
            }
            if self.line.len() > LINE_BYTES_MAX {
                return false;
            }
        }
    }
}
