//! What can go wrong on the bus, by what the caller does about it.

use bastide_types::{Code, Problem};
use std::path::PathBuf;

/// Why something on the bus did not work.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The configuration or a credential is wrong: a person must act.
    #[error("the bus configuration is not usable: {0}")]
    Config(String),
    /// A file could not be read or written.
    #[error("{}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody serves this: try again later.
    #[error("nobody answers on `{0}`")]
    NoResponders(String),
    /// No answer within the deadline, or no connection to the broker until then.
    #[error("no answer in time on `{0}`")]
    TimedOut(String),
    /// The connection was lost while waiting: whether it ran is not known.
    #[error("the connection was lost while waiting for `{0}`")]
    Disconnected(String),
    /// The broker refused it: our own permissions forbid it, which is a fault to look into.
    #[error("the broker forbids `{0}`")]
    Denied(String),
    /// What came is not what was agreed.
    #[error("a message on the bus is malformed: {0}")]
    Malformed(String),
    /// A signature is missing or wrong.
    #[error("the signature is not valid")]
    Signature,
    /// The other side has as much to do as it takes, of all or of us: ask again later. It did not run.
    #[error("`{0}` is asked too much at once")]
    Overloaded(String),
    /// The other side refused, and says why.
    #[error("the Platform refused")]
    Problem(#[source] Problem),
    /// Larger than allowed.
    #[error("too large: {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// Size found.
        bytes: u64,
        /// Size allowed.
        bytes_max: u64,
    },
    /// There is no such content, or it is not for us.
    #[error("there is no content {0}")]
    NoContent(bastide_types::Digest),
    /// What the broker did after taking a claim differs from what was asked.
    #[error("the broker did not take account {account}: {why}")]
    Claim {
        /// Public key of the account.
        account: String,
        /// What it said or stored instead.
        why: String,
    },
    /// The connection is closed for good.
    #[error("the connection to the broker is closed")]
    Closed,
}

impl BusError {
    /// What a refusal of the other side means for whoever asked on `subject`.
    pub(crate) fn refusal(subject: &str, problem: Problem) -> Self {
        if problem.code == Code::Overloaded.as_str() {
            Self::Overloaded(subject.into())
        } else {
            Self::Problem(problem)
        }
    }
}
