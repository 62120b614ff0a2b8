//! Fields of a response that are ready to be sent: a cache sends the same ones many times.

use bytes::Bytes;
use http::HeaderMap;
use std::sync::Arc;

/// Fields in the form of each protocol; in the extensions of a response. They go out beside those of its map.
///
/// Whoever prepares them sees to it that there is a `Date` among them, and nothing that belongs to one connection or
/// says how long the body is.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Lines of HTTP/1, each ended.
    pub wire: Bytes,
    /// The same fields.
    pub fields: Arc<HeaderMap>,
}

impl Prepared {
    /// All fields of a response: these, and behind them those of its map.
    pub fn with(&self, own: HeaderMap) -> HeaderMap {
        let mut all = HeaderMap::clone(&self.fields);
        all.reserve(own.len() + 1);
        let mut last = None;
        for (name, value) in own {
            last = name.or(last);
            if let Some(name) = &last {
                all.append(name.clone(), value);
            }
        }
        all
    }
}
