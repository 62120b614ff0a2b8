//! One line of the flow log: a call of an app to the outside, or one that was refused.

use crate::egress::EgressCaller;
use serde::Serialize;
use std::net::IpAddr;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowVerdict {
    /// It went out.
    Allowed,
    /// It went out; under `enforce` it would not have.
    Reported,
    /// It was refused.
    Refused,
    /// Nothing forbade it, and it failed.
    Failed,
}

/// One call.
#[derive(Debug, Clone, Serialize)]
pub struct Flow {
    /// When it ended, RFC 3339.
    pub time: String,
    /// Who called.
    #[serde(flatten)]
    pub who: EgressCaller,
    /// How it was asked for: `connect`, `http`, `socks` or `name` of the proxy; `tcp`, `udp` or `packet` when the
    /// app sent packets of its own.
    pub by: &'static str,
    /// The host that was named, and empty when it could not be read.
    pub host: String,
    /// The address that was dialled.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// What became of it.
    pub verdict: FlowVerdict,
    /// The rule, range, mode or error behind the verdict.
    pub why: String,
    /// Bytes from the app.
    pub bytes_out: u64,
    /// Bytes to the app.
    pub bytes_back: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}
