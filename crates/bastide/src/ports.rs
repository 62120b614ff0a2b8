//! Ports of the inner hops: free ones on loopback, chosen once and kept, so that a restarted role is
//! found where it was. They lie below the ports that Linux gives to outgoing connections (32768 and
//! up), so that none of those sits on a role's port while the role restarts.

use crate::{files, layout::Layout};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    time::Duration,
};

/// Where ports are chosen from.
const RANGE: Range<u16> = 20_000..30_000;

/// How often a port of an earlier start is tried, and the pause between two tries.
const AGAIN: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Port of each process that listens inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports(BTreeMap<String, u16>);

impl Ports {
    /// The ports of earlier starts; a process without one, or whose port somebody else took, gets a
    /// new one.
    pub fn settle(layout: &Layout, processes: &[&str]) -> Result<Self> {
        let mut ports: Self = files::read_json(&layout.ports())?.unwrap_or(Self(BTreeMap::new()));
        let mut held = Vec::new();
        for process in processes {
            let listener =
                ports.0.get(*process).and_then(|port| bind_again(*port)).or_else(|| first_free(layout));
            let listener = listener.context("no free port on loopback")?;
            ports.0.insert((*process).to_owned(), listener.local_addr()?.port());
            held.push(listener);
        }
        files::write_private(&layout.ports(), &serde_json::to_vec_pretty(&ports)?)?;
        Ok(ports)
    }

    /// Address of a process.
    pub fn address(&self, process: &str) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0[process]).into()
    }
}

fn bind(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// A port of an earlier start is worth a moment: a process that is just ending, or that was forked and has not begun its
/// own program yet, may still hold it.
fn bind_again(port: u16) -> Option<TcpListener> {
    (0..AGAIN).find_map(|turn| {
        if turn > 0 {
            std::thread::sleep(PAUSE);
        }
        bind(port)
    })
}

/// The first free port from a place of the data directory's own, so that two installations on one
/// machine seldom try the same ones.
fn first_free(layout: &Layout) -> Option<TcpListener> {
    let mut hasher = DefaultHasher::new();
    layout.ports().hash(&mut hasher);
    let from = (hasher.finish() % RANGE.len() as u64) as usize;
    RANGE.cycle().skip(from).take(RANGE.len()).find_map(bind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_over_starts() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let first = Ports::settle(&layout, &["a", "b"]).unwrap();
        assert_ne!(first.address("a"), first.address("b"));
        assert_eq!(Ports::settle(&layout, &["a", "b"]).unwrap(), first);
    }

    #[test]
    fn a_port_that_is_held_for_a_moment_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let first = Ports::settle(&layout, &["a"]).unwrap();
        let held = TcpListener::bind(first.address("a")).unwrap();
        let moment = std::thread::spawn(move || {
            std::thread::sleep(PAUSE);
            drop(held);
        });
        assert_eq!(Ports::settle(&layout, &["a"]).unwrap(), first);
        moment.join().unwrap();
    }

    #[test]
    fn a_port_that_somebody_took_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let first = Ports::settle(&layout, &["a"]).unwrap();
        let _taken = TcpListener::bind(first.address("a")).unwrap();
        assert_ne!(Ports::settle(&layout, &["a"]).unwrap(), first);
    }
}
