//! Ports of the inner hops: free ones on loopback, chosen once and kept, so that a restarted role is
//! found where it was.

use crate::{files, layout::Layout};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

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
            let wanted = ports.0.get(*process).copied().unwrap_or(0);
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
                .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
                .context("no free port on loopback")?;
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
    fn a_port_that_somebody_took_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let first = Ports::settle(&layout, &["a"]).unwrap();
        let _taken = TcpListener::bind(first.address("a")).unwrap();
        assert_ne!(Ports::settle(&layout, &["a"]).unwrap(), first);
    }
}
