//! Where a change comes from: known to whoever took the request, written down by whatever the request changes.

use std::future::Future;

tokio::task_local! {
    static ORIGIN: Origin;
}

/// Where a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Address of the network.
    pub address: String,
    /// Id of the request.
    pub request: String,
}

impl Origin {
    /// What `work` writes into the audit trail comes from here.
    pub async fn of<F: Future>(self, work: F) -> F::Output {
        ORIGIN.scope(self, work).await
    }

    /// Where the work of this moment comes from; nothing for what the Platform does by itself.
    pub(crate) fn now() -> Self {
        ORIGIN.try_with(Clone::clone).unwrap_or_default()
    }
}
