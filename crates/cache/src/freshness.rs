//! Lifetime and age (RFC 9111 §4.2). All arithmetic saturates.

use crate::{
    Moment,
    control::{CacheControl, seconds},
    date,
    targeted::Governing,
};
use http::{HeaderMap, StatusCode, header};

/// Share of the time since the last change that is taken as lifetime when nothing else is said.
const HEURISTIC_SHARE: u64 = 10;
/// Longest lifetime that is only guessed: 24 hours.
const HEURISTIC_MAX_S: u64 = 24 * 60 * 60;

/// Where a lifetime comes from; the first that is there wins, even if it is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `s-maxage`.
    SharedMaxAge,
    /// `max-age`.
    MaxAge,
    /// `Expires` minus `Date`.
    Expires,
    /// A share of the time since the last change (§4.2.2).
    Heuristic,
    /// Nothing said how long.
    Unsaid,
}

/// How long a response is fresh, from its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Seconds; 0 is stale at once.
    pub seconds: u64,
    /// Says who.
    pub source: Source,
}

impl Lifetime {
    /// The lifetime of a response that was received at `received`.
    pub fn of(
        status: StatusCode,
        headers: &HeaderMap,
        governing: &Governing,
        may_guess: bool,
        received: Moment,
    ) -> Self {
        let control = &governing.control;
        if let Some(seconds) = control.s_maxage {
            return Self { seconds, source: Source::SharedMaxAge };
        }
        if let Some(seconds) = control.max_age {
            return Self { seconds, source: Source::MaxAge };
        }
        let now_s = received.wall_s();
        if !governing.targeted && headers.contains_key(header::EXPIRES) {
            let expires = date::read(headers, &header::EXPIRES, now_s);
            let left = expires.map_or(0, |expires| expires.saturating_sub(generated(headers, received)));
            return Self { seconds: u64::try_from(left).unwrap_or(0), source: Source::Expires };
        }
        if may_guess && (is_heuristic(status) || control.public) {
            let modified = date::read(headers, &header::LAST_MODIFIED, now_s);
            let since = modified.map_or(0, |modified| generated(headers, received).saturating_sub(modified));
            let seconds = (u64::try_from(since).unwrap_or(0) / HEURISTIC_SHARE).min(HEURISTIC_MAX_S);
            return Self { seconds, source: Source::Heuristic };
        }
        Self { seconds: 0, source: Source::Unsaid }
    }

    /// Whether the origin said how long, rightly or not.
    pub fn is_explicit(self) -> bool {
        matches!(self.source, Source::SharedMaxAge | Source::MaxAge | Source::Expires)
    }
}

/// Milliseconds that a response is old when it arrives (§4.2.3): the larger of what is said on the way, with
/// the time the exchange took, and what its Date tells.
pub fn initial_age_ms(headers: &HeaderMap, requested: Moment, received: Moment) -> u64 {
    let apparent_s = received.wall_s().saturating_sub(generated(headers, received));
    let apparent_ms = u64::try_from(apparent_s).unwrap_or(0).saturating_mul(1000);
    let corrected_ms = said_age_s(headers).saturating_mul(1000).saturating_add(received.since(requested));
    apparent_ms.max(corrected_ms)
}

/// What `Age` says: the first member of a list counts, what is no number says nothing, what overflows is
/// very old (§5.1).
pub fn said_age_s(headers: &HeaderMap) -> u64 {
    let first = headers.get(header::AGE).and_then(|value| value.as_bytes().split(|b| *b == b',').next());
    let first = first.map(<[u8]>::trim_ascii).filter(|digits| !digits.starts_with(b"\""));
    first.and_then(seconds).unwrap_or(0)
}

/// When a response was generated, in seconds since 1970: its Date, or when it was received if there is none
/// that is valid.
pub fn generated(headers: &HeaderMap, received: Moment) -> i64 {
    date::read(headers, &header::DATE, received.wall_s()).unwrap_or_else(|| received.wall_s())
}

/// Statuses that may be stored without an explicit lifetime (RFC 9110 §15.1).
pub fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether the directives alone forbid every stale answer (§4.2.4, §5.2.2.2, §5.2.2.8, §5.2.2.10).
///
/// `s-maxage` implies `proxy-revalidate`; a site may allow that an explicit stale extension beside it counts.
pub fn forbids_stale(control: &CacheControl, extensions_beat_s_maxage: bool) -> bool {
    let extended = control.stale_while_revalidate.is_some() || control.stale_if_error.is_some();
    control.must_revalidate
        || control.proxy_revalidate
        || control.no_cache.is_all()
        || (control.s_maxage.is_some() && !(extensions_beat_s_maxage && extended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targeted::{CDN_CACHE_CONTROL, governing};
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const START_S: i64 = 1_795_564_800;

    fn at(seconds: u64) -> Moment {
        Moment { wall_ms: START_S as u64 * 1000, steady_ms: 5_000 }.after(seconds * 1000)
    }

    fn day(offset: i64) -> String {
        date::value(START_S + offset).to_str().unwrap().to_owned()
    }

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn lifetime(status: u16, fields: &[(HeaderName, &str)]) -> Lifetime {
        let headers = headers(fields);
        let status = StatusCode::from_u16(status).unwrap();
        Lifetime::of(status, &headers, &governing(&headers, &[CDN_CACHE_CONTROL]), true, at(0))
    }

    fn check(fields: &[(HeaderName, &str)], seconds: u64, source: Source) {
        assert_eq!(lifetime(200, fields), Lifetime { seconds, source }, "{fields:?}");
    }

    #[test]
    fn the_first_source_that_is_there_decides_even_if_it_is_invalid() {
        let (date, later) = (day(0), day(100));
        let control = |text| (header::CACHE_CONTROL, text);
        check(&[control("max-age=5, s-maxage=7")], 7, Source::SharedMaxAge);
        check(&[control("max-age=5, s-maxage=x")], 0, Source::SharedMaxAge);
        check(&[control("max-age=5"), (header::EXPIRES, &later)], 5, Source::MaxAge);
        check(&[control("max-age=-5"), (header::EXPIRES, &later)], 0, Source::MaxAge);
        check(&[(header::EXPIRES, &later), (header::DATE, &date)], 100, Source::Expires);
        check(&[(header::EXPIRES, "0"), (header::LAST_MODIFIED, &day(-1000))], 0, Source::Expires);
        check(&[], 0, Source::Heuristic);
    }

    #[test]
    fn a_targeted_field_makes_expires_count_for_nothing() {
        let later = day(100);
        let targeted = |text| (CDN_CACHE_CONTROL, text);
        check(&[targeted("max-age=9"), (header::EXPIRES, &later)], 9, Source::MaxAge);
        check(&[targeted("max-age=9.5"), (header::LAST_MODIFIED, &day(-1000))], 0, Source::MaxAge);
        check(
            &[targeted("none"), (header::EXPIRES, &later), (header::LAST_MODIFIED, &day(-1000))],
            100,
            Source::Heuristic,
        );
    }

    #[test]
    fn expires_counts_from_the_date_and_never_below_zero() {
        check(&[(header::EXPIRES, &day(300)), (header::DATE, &day(400))], 0, Source::Expires);
        check(&[(header::EXPIRES, &day(-300)), (header::DATE, &day(-400))], 100, Source::Expires);
        check(&[(header::EXPIRES, &day(50)), (header::DATE, "foo")], 50, Source::Expires);
        check(&[(header::EXPIRES, &day(50))], 50, Source::Expires);
        for invalid in ["", "0", "-1", "tomorrow", "Thu, 18 Aug 2050 02:01:18 UTC"] {
            check(&[(header::EXPIRES, invalid)], 0, Source::Expires);
        }
    }

    #[test]
    fn a_lifetime_is_guessed_only_where_nothing_is_said() {
        let modified = |ago: i64| day(-ago);
        check(&[(header::LAST_MODIFIED, &modified(1000))], 100, Source::Heuristic);
        check(&[(header::LAST_MODIFIED, &modified(1000)), (header::DATE, &day(-500))], 50, Source::Heuristic);
        check(&[(header::LAST_MODIFIED, &modified(100 * 86_400 * 10))], HEURISTIC_MAX_S, Source::Heuristic);
        check(&[(header::LAST_MODIFIED, &modified(-1000))], 0, Source::Heuristic);
        check(&[(header::LAST_MODIFIED, "yesterday")], 0, Source::Heuristic);
        let old = modified(1000);
        for status in [201, 202, 302, 307, 400, 403, 500, 502, 503, 504, 599] {
            let unsaid = Lifetime { seconds: 0, source: Source::Unsaid };
            assert_eq!(lifetime(status, &[(header::LAST_MODIFIED, &old)]), unsaid, "{status}");
            let public = [(header::LAST_MODIFIED, old.as_str()), (header::CACHE_CONTROL, "public")];
            assert_eq!(lifetime(status, &public).seconds, 100, "{status}");
        }
        for status in [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(lifetime(status, &[(header::LAST_MODIFIED, &old)]).seconds, 100, "{status}");
        }
    }

    #[test]
    fn age_is_the_larger_of_what_is_said_and_what_the_date_tells() {
        let age = |fields: &[(HeaderName, &str)]| initial_age_ms(&headers(fields), at(9_999), at(10_000));
        let old = day(9_940);
        assert_eq!(age(&[(header::DATE, &old)]), 60_000);
        assert_eq!(age(&[(header::DATE, &old), (header::AGE, "100")]), 101_000);
        assert_eq!(age(&[(header::DATE, &old), (header::AGE, "5")]), 60_000);
        assert_eq!(age(&[(header::DATE, &day(20_000))]), 1_000, "a Date ahead of us makes nothing younger");
        assert_eq!(age(&[]), 1_000);
    }

    #[test]
    fn age_is_read_from_the_first_member_that_is_a_number() {
        let said = |lines: &[&str]| {
            let fields: Vec<_> = lines.iter().map(|line| (header::AGE, *line)).collect();
            said_age_s(&headers(&fields))
        };
        assert_eq!(said(&["7200, 0"]), 7200);
        assert_eq!(said(&["0, 7200"]), 0);
        assert_eq!(said(&["7200", "0"]), 7200);
        assert_eq!(said(&["0", "7200"]), 0);
        for none in ["abc", "-7200", "7200.0", "7200;foo=bar", "+5", "", "\"5\"", "0x10", "5 s"] {
            assert_eq!(said(&[none]), 0, "{none}");
        }
        for large in ["2147483648", "99999999999999999999999"] {
            assert_eq!(said(&[large]), crate::control::SECONDS_MAX, "{large}");
        }
    }

    #[test]
    fn stale_is_forbidden_by_these_directives() {
        let forbids = |text: &str, despite| {
            forbids_stale(&CacheControl::read(&headers(&[(header::CACHE_CONTROL, text)])), despite)
        };
        for control in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=5"] {
            assert!(forbids(control, false) && forbids(control, true), "{control}");
        }
        for control in ["max-age=5, stale-if-error=9", "no-cache=\"set-cookie\"", "private"] {
            assert!(!forbids(control, false), "{control}");
        }
        assert!(forbids("s-maxage=5, stale-while-revalidate=9", false));
        assert!(!forbids("s-maxage=5, stale-while-revalidate=9", true));
        assert!(forbids("s-maxage=5, must-revalidate, stale-while-revalidate=9", true));
    }

    proptest! {
        #[test]
        fn no_values_overflow(age in "[0-9]{0,30}", date in -62_000_000_000_i64..253_000_000_000, expires in -62_000_000_000_i64..253_000_000_000, wall in any::<u64>(), steady in any::<u64>(), later in any::<u64>()) {
            let mut headers = headers(&[(header::AGE, age.as_str())]);
            headers.insert(header::DATE, date::value(date));
            headers.insert(header::EXPIRES, date::value(expires));
            let requested = Moment { wall_ms: wall, steady_ms: steady };
            let received = requested.after(later);
            initial_age_ms(&headers, requested, received);
            Lifetime::of(StatusCode::OK, &headers, &governing(&headers, &[]), true, received);
        }
    }
}
