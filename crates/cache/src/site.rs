//! What a site adds to the RFC where the RFC leaves a choice.

use crate::targeted::CDN_CACHE_CONTROL;
use http::HeaderName;

/// Choices of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Targeted fields that govern here, the most specific first (RFC 9213 §2.2).
    pub targets: Vec<HeaderName>,
    /// Answers to requests with `Authorization` may be stored where the RFC allows it (§3.5).
    pub share_authorized: bool,
    /// Answers that set a cookie may be stored when they are shared explicitly: by `public`, `s-maxage` or a
    /// targeted field (§7.3).
    pub share_cookies: bool,
    /// A lifetime may be guessed from `Last-Modified` when nothing is said (§4.2.2).
    pub guess_lifetime: bool,
    /// Clients may ask for fresher or older answers, or for what is stored only (§5.2.1).
    pub heed_clients: bool,
    /// How long past its lifetime an answer may be served when the origin cannot be reached, in seconds
    /// (§4.2.4); none without.
    pub stale_when_disconnected_s: Option<u64>,
    /// An explicit stale extension counts even beside `s-maxage`, which forbids stale answers otherwise.
    pub extensions_beat_s_maxage: bool,
}

impl Site {
    /// An edge that stands alone before one origin: exactly the RFC. Answers without any word about their
    /// lifetime are not given one.
    pub fn alone() -> Self {
        Self {
            targets: vec![CDN_CACHE_CONTROL],
            share_authorized: true,
            share_cookies: true,
            guess_lifetime: true,
            heed_clients: true,
            stale_when_disconnected_s: Some(24 * 60 * 60),
            extensions_beat_s_maxage: false,
        }
    }

    /// Customers' sites: nothing with credentials or cookies is shared, whatever the response says.
    pub fn customer() -> Self {
        Self {
            share_authorized: false,
            share_cookies: false,
            stale_when_disconnected_s: None,
            ..Self::alone()
        }
    }
}
