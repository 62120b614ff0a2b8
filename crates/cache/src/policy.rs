//! Whether an exchange may be stored at all (RFC 9111 §3), and the stricter rule of customers' sites.

use crate::control::CacheControl;
use http::{HeaderMap, Method, StatusCode, header};

/// What a site adds to the RFC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// A stand-alone edge before one origin.
    StandAlone,
    /// Customers' sites: nothing with credentials or cookies is shared, whatever the response says.
    Customer,
}

/// Whether the request may be answered from the store.
pub fn may_look_up(method: &Method, asked: &HeaderMap, control: &CacheControl) -> bool {
    let plain = *method == Method::GET || *method == Method::HEAD;
    plain
        && !control.no_cache
        && !is_old_no_cache(asked)
        && !asked.contains_key(header::AUTHORIZATION)
        && !asked.contains_key(header::RANGE)
}

/// `Pragma: no-cache`, which counts only without `Cache-Control` (RFC 9111 §5.4).
fn is_old_no_cache(asked: &HeaderMap) -> bool {
    !asked.contains_key(header::CACHE_CONTROL)
        && asked
            .get_all(header::PRAGMA)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .any(|line| line.split(',').any(|word| word.trim().eq_ignore_ascii_case("no-cache")))
}

/// Whether the response may be stored for everybody.
pub fn may_store(
    site: Site,
    method: &Method,
    asked: &HeaderMap,
    status: StatusCode,
    headers: &HeaderMap,
) -> bool {
    let (request, response) = (CacheControl::read(asked), CacheControl::read(headers));
    let understood = !matches!(status.as_u16(), 206 | 304) && !status.is_informational();
    if *method != Method::GET || !understood || asked.contains_key(header::RANGE) {
        return false;
    }
    if request.no_store || response.no_store || response.private || response.no_cache {
        return false;
    }
    let explicit = response.public || response.s_maxage.is_some();
    let authorized = asked.contains_key(header::AUTHORIZATION);
    let cookies = headers.contains_key(header::SET_COOKIE);
    match site {
        Site::Customer => !authorized && !cookies,
        // §3.5; and a response that sets a cookie is shared only when it says so itself.
        Site::StandAlone => (!authorized || explicit || response.must_revalidate) && (!cookies || explicit),
    }
}
