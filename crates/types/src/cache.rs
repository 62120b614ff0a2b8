//! What edges say of what they store, when the Platform asks them for a customer.

use crate::{AppId, CustomerId, StageName};
use serde::{Deserialize, Serialize};

/// A question about one customer's part of the caches; every edge answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheQuestion {
    /// Whose part. What an edge says is looked up with this id, so nothing of others can be in it.
    pub customer: CustomerId,
    /// What is asked.
    pub about: CacheAbout,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheAbout {
    /// The figures of all apps.
    Figures,
    /// What would become of a request.
    Why(CacheRequest),
}

/// A request that is not made, only judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRequest {
    /// Stage.
    pub stage: StageName,
    /// App.
    pub app: AppId,
    /// Method.
    pub method: String,
    /// Host as the `Host` field has it.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Fields, such as `Accept-Encoding`.
    pub fields: Vec<(String, String)>,
}

/// What one edge answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheAnswer {
    /// Name of the edge.
    pub edge: String,
    /// The answer.
    pub says: CacheSays,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheSays {
    /// Figures by app.
    Figures(Vec<CacheFigures>),
    /// A decision; nothing when the edge does not know the app.
    Why(Option<CacheDecision>),
}

/// What became of an app's requests since an edge knows it, and what it stores of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CacheFigures {
    /// Stage.
    pub stage: String,
    /// App.
    pub app: String,
    /// Requests that were answered from the store without asking anybody.
    pub hits: u64,
    /// Requests that went on, for an answer or to ask whether the stored one holds.
    pub misses: u64,
    /// Those of `misses` for which the stored answer was said to hold.
    pub validated: u64,
    /// Requests that shared the answer of another one that was on its way: neither hits nor misses.
    pub collapsed: u64,
    /// Stale answers of all kinds.
    pub stale: u64,
    /// Requests that the cache has no part in, such as those with a session.
    pub passed: u64,
    /// Responses that were stored.
    pub stored: u64,
    /// Addresses that had to leave for others.
    pub evicted: u64,
    /// Bytes that are stored now.
    pub bytes: u64,
}

impl CacheFigures {
    /// Part of the requests that could have been hits and were, from 0 to 1; nothing before the first one.
    #[allow(clippy::cast_precision_loss)] // a ratio for people
    pub fn hit_ratio(&self) -> Option<f64> {
        let all = self.hits + self.misses + self.collapsed;
        (all > 0).then(|| self.hits as f64 / all as f64)
    }

    /// Adds the figures of the same app at another edge.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.hits, other.hits),
            (&mut self.misses, other.misses),
            (&mut self.validated, other.validated),
            (&mut self.collapsed, other.collapsed),
            (&mut self.stale, other.stale),
            (&mut self.passed, other.passed),
            (&mut self.stored, other.stored),
            (&mut self.evicted, other.evicted),
            (&mut self.bytes, other.bytes),
        ];
        for (own, other) in pairs {
            *own = own.saturating_add(other);
        }
    }
}

/// What an edge would do with a request, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CacheDecision {
    /// What: `hit`, `hit and refresh`, `validate`, `complete`, `forward` or `refuse`.
    pub action: String,
    /// The ground.
    pub because: Ground,
    /// What is stored under the address, for whatever requests.
    pub stored: Vec<CacheVariant>,
    /// Why the last answer that was not stored was not.
    pub not_stored: Option<NotStoredGround>,
}

/// A ground and the section that gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Ground {
    /// For people.
    pub text: String,
    /// Such as `RFC 9111 §4.2`.
    pub section: String,
}

/// Why an answer was not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NotStoredGround {
    /// The ground.
    pub because: Ground,
    /// How long ago that was, in seconds.
    pub ago_s: u64,
}

/// One stored response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CacheVariant {
    /// It is the one that the request was judged by.
    pub chosen: bool,
    /// Status.
    pub status: u16,
    /// Seconds since the origin made it or said that it holds.
    pub age_s: u64,
    /// Seconds for which it is fresh; negative since when it is stale.
    pub ttl_s: i64,
    /// Bytes of its body that are there.
    pub bytes: u64,
    /// Whether that is all of it.
    pub whole: bool,
    /// Fields that it was chosen by (`Vary`).
    pub vary: Vec<String>,
    /// Cache groups.
    pub groups: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_ratio_counts_what_could_have_been_hits() {
        assert_eq!(CacheFigures::default().hit_ratio(), None);
        let mut figures =
            CacheFigures { hits: 3, misses: 1, collapsed: 2, passed: 90, ..CacheFigures::default() };
        assert_eq!(figures.hit_ratio(), Some(0.5));
        figures.add(&CacheFigures { hits: 6, bytes: 7, ..CacheFigures::default() });
        assert_eq!((figures.hit_ratio(), figures.bytes), (Some(0.75), 7));
    }
}
