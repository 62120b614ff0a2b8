//! Lifetime and age (RFC 9111 §4.2).

use crate::control::{CacheControl, seconds};
use http::{HeaderMap, StatusCode, header};
use std::time::{Duration, SystemTime};

/// Share of the time since the last change that is taken as lifetime when nothing else is said.
const HEURISTIC_SHARE: u32 = 10;
const HEURISTIC_MAX: Duration = Duration::from_hours(24);

/// How long a response is fresh, from its generation; zero when it is stale at once.
pub fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    control: &CacheControl,
    received: SystemTime,
) -> Duration {
    if let Some(seconds) = control.s_maxage.or(control.max_age) {
        return Duration::from_secs(seconds);
    }
    if let Some(expires) = headers.get(header::EXPIRES) {
        let Some(expires) = expires.to_str().ok().and_then(date) else { return Duration::ZERO };
        return expires.duration_since(generated(headers, received)).unwrap_or_default();
    }
    if !is_heuristic(status) && !control.public {
        return Duration::ZERO;
    }
    let modified = headers.get(header::LAST_MODIFIED).and_then(|value| value.to_str().ok()).and_then(date);
    let since = modified.and_then(|modified| generated(headers, received).duration_since(modified).ok());
    since.map_or(Duration::ZERO, |since| (since / HEURISTIC_SHARE).min(HEURISTIC_MAX))
}

/// Age of a response when it was received (§4.2.3): what the origin says, or what its Date tells.
pub fn initial_age(headers: &HeaderMap, requested: SystemTime, received: SystemTime) -> Duration {
    let apparent = received.duration_since(generated(headers, received)).unwrap_or_default();
    let delay = received.duration_since(requested).unwrap_or_default();
    // The first member counts; what is no number says nothing, one that is too large is very old (§5.1).
    let said = headers.get(header::AGE).and_then(|value| value.as_bytes().split(|b| *b == b',').next());
    let said = said.and_then(|value| seconds(value.trim_ascii())).unwrap_or(0);
    apparent.max(Duration::from_secs(said) + delay)
}

/// When a response was generated: its Date, or when it was received.
fn generated(headers: &HeaderMap, received: SystemTime) -> SystemTime {
    headers.get(header::DATE).and_then(|value| value.to_str().ok()).and_then(date).unwrap_or(received)
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// Statuses that may be stored without an explicit lifetime (RFC 9110 §15.1).
fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn check(fields: &[(HeaderName, &str)], expected: u64) {
        let headers = headers(fields);
        let found = lifetime(StatusCode::OK, &headers, &CacheControl::read(&headers), at(10_000));
        assert_eq!(found, Duration::from_secs(expected), "{fields:?}");
    }

    #[test]
    fn the_first_source_that_is_there_decides() {
        let (date, later) = (httpdate::fmt_http_date(at(10_000)), httpdate::fmt_http_date(at(10_100)));
        check(&[(header::CACHE_CONTROL, "max-age=5, s-maxage=7")], 7);
        check(&[(header::CACHE_CONTROL, "max-age=5"), (header::EXPIRES, &later)], 5);
        check(&[(header::EXPIRES, &later), (header::DATE, &date)], 100);
        check(&[(header::EXPIRES, "0")], 0);
        check(&[(header::LAST_MODIFIED, &httpdate::fmt_http_date(at(9_000))), (header::DATE, &date)], 100);
        check(&[(header::LAST_MODIFIED, &later), (header::DATE, &date)], 0);
        check(&[], 0);
    }

    #[test]
    fn age_is_the_larger_of_what_is_said_and_what_the_date_tells() {
        let old = httpdate::fmt_http_date(at(9_940));
        let age =
            |fields: &[(HeaderName, &str)]| initial_age(&headers(fields), at(9_999), at(10_000)).as_secs();
        assert_eq!(age(&[(header::DATE, &old)]), 60);
        assert_eq!(age(&[(header::DATE, &old), (header::AGE, "100")]), 101);
        assert_eq!(age(&[(header::AGE, "x")]), 1);
    }
}
