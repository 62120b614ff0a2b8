//! Dates of HTTP (RFC 9110 §5.6.7): the three forms that a recipient must read, in any letter case.

use http::{HeaderMap, HeaderName, HeaderValue};

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Reads a date; seconds since 1970. `now_s` settles the century of a year with two digits.
///
/// Only GMT is a zone (RFC 9111 §4.2); a name of a day is read but not compared with the date.
pub fn parse(text: &[u8], now_s: i64) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (first, rest) = text.split_once(' ')?;
    match first.strip_suffix(',') {
        Some(day) if is_day(day, 3) => imf_fixdate(rest),
        Some(day) if is_day(day, usize::MAX) => rfc850(rest, now_s),
        Some(_) => None,
        None if is_day(first, 3) => asctime(rest),
        None => None,
    }
}

/// The date in the first line of a field. A field of several lines is a list, which no date is: invalid.
pub fn read(headers: &HeaderMap, name: &HeaderName, now_s: i64) -> Option<i64> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    parse(line.as_bytes(), now_s)
}

/// Writes a date as a field's value.
pub fn value(seconds: i64) -> HeaderValue {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let in_day = seconds.rem_euclid(86_400);
    let weekday = DAYS[(seconds.div_euclid(86_400) + 3).rem_euclid(7) as usize];
    let capital = |name: &str| format!("{}{}", name[..1].to_ascii_uppercase(), &name[1..3]);
    let text = format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        capital(weekday),
        capital(MONTHS[month as usize - 1]),
        in_day / 3600,
        in_day / 60 % 60,
        in_day % 60
    );
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// `18 Aug 2050 02:01:18 GMT`
fn imf_fixdate(text: &str) -> Option<i64> {
    let mut words = text.split(' ');
    let (day, month, year) = (number(words.next()?, 2)?, month(words.next()?)?, number(words.next()?, 4)?);
    let seconds = time(words.next()?)?;
    is_gmt(words.next()?, words.next())?;
    instant(year, month, day, seconds)
}

/// `18-Aug-50 02:01:18 GMT`
fn rfc850(text: &str, now_s: i64) -> Option<i64> {
    let mut words = text.split(' ');
    let mut parts = words.next()?.split('-');
    let (day, month) = (number(parts.next()?, 2)?, month(parts.next()?)?);
    let short = number(parts.next()?, 2)?;
    if parts.next().is_some() {
        return None;
    }
    let seconds = time(words.next()?)?;
    is_gmt(words.next()?, words.next())?;
    // The latest year with these two digits that is not more than 50 years ahead.
    let most = civil(now_s.div_euclid(86_400)).0 + 50;
    let year = most - (most - short).rem_euclid(100);
    let instant = |year| instant(year, month, day, seconds);
    let limit = now_s.saturating_add(50 * 31_556_952);
    match instant(year) {
        Some(found) if found <= limit => Some(found),
        _ => instant(year - 100),
    }
}

/// `Aug  8 02:01:18 2050`
fn asctime(text: &str) -> Option<i64> {
    let (name, rest) = text.split_at_checked(4)?;
    let month = month(name.strip_suffix(' ')?)?;
    let (day, rest) = rest.split_at_checked(2)?;
    let day = match day.strip_prefix(' ') {
        Some(digit) => number(digit, 1)?,
        None => number(day, 2)?,
    };
    let (clock, year) = rest.strip_prefix(' ')?.split_once(' ')?;
    instant(number(year, 4)?, month, day, time(clock)?)
}

fn is_day(name: &str, letters: usize) -> bool {
    DAYS.iter().any(|day| day[..letters.min(day.len())].eq_ignore_ascii_case(name))
}

fn month(name: &str) -> Option<i64> {
    MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name)).and_then(|at| i64::try_from(at + 1).ok())
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn time(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hours, minutes, seconds) =
        (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    // A leap second is a second, too.
    let valid = hours < 24 && minutes < 60 && seconds <= 60 && parts.next().is_none();
    valid.then_some(hours * 3600 + minutes * 60 + seconds)
}

fn is_gmt(zone: &str, more: Option<&str>) -> Option<()> {
    (zone.eq_ignore_ascii_case("GMT") && more.is_none()).then_some(())
}

fn instant(year: i64, month: i64, day: i64, seconds: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (1..=last).contains(&day).then(|| days(year, month, day) * 86_400 + seconds)
}

/// Days since 1970 of a date of the Gregorian calendar, which begins its years in March here.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The other way round: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, SystemTime};

    /// 24 November 2026.
    const NOW: i64 = 1_795_564_800;

    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(parse(text.as_bytes(), NOW), expected, "{text}");
    }

    #[test]
    fn the_three_forms_are_read_in_any_letter_case() {
        let at = Some(2_544_400_878);
        check("Thu, 18 Aug 2050 02:01:18 GMT", at);
        check("THU, 18 aug 2050 02:01:18 gMT", at);
        check("Thursday, 18-Aug-50 02:01:18 GMT", at);
        check("thursDAY, 18-AUG-50 02:01:18 GMT", at);
        check("Thu Aug 18 02:01:18 2050", at);
        check("Thu Aug  8 02:01:18 2050", Some(2_543_536_878));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun, 21 Nov 2286 04:46:39 GMT", Some(10_000_039_599));
        check("Thu, 01 Jan 1960 00:00:00 GMT", Some(-315_619_200));
        check("Tue, 30 Jun 2015 23:59:60 GMT", Some(1_435_708_800));
    }

    #[test]
    fn everything_else_is_no_date() {
        for text in [
            "",
            "0",
            "-1",
            "Thu",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18 +0000",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT, x",
            "Thu, 18 Aug 2050 02:01:18 GMT ",
            " Thu, 18 Aug 2050 02:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Thu, 18 August 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:61 GMT",
            "Thursday, 18-Aug-2050 02:01:18 GMT",
            "Thu, 1 Aug 2050 02:01:18 GMT",
            "Thu Aug 8 02:01:18 2050",
            "Thu, +8 Aug 2050 02:01:18 GMT",
            "Foo, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT\u{e9}",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_year_with_two_digits_more_than_50_years_ahead_is_past() {
        check("Wednesday, 18-Nov-76 00:00:00 GMT", Some(3_372_883_200)); // 2076: not yet 50 years ahead
        check("Saturday, 18-Dec-76 00:00:00 GMT", Some(219_715_200)); // 1976
        check("Friday, 01-Jan-99 00:00:00 GMT", Some(915_148_800));
    }

    #[test]
    fn a_date_on_two_lines_is_none() {
        let mut headers = HeaderMap::new();
        headers.append("expires", HeaderValue::from_static("Thu, 18 Aug 2050 02:01:18 GMT"));
        assert!(read(&headers, &http::header::EXPIRES, NOW).is_some());
        headers.append("expires", HeaderValue::from_static("Thu, 18 Aug 2050 02:01:18 GMT"));
        assert!(read(&headers, &http::header::EXPIRES, NOW).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_as_another_library_writes_it(seconds in 0_i64..253_402_300_800) {
            let text = value(seconds);
            prop_assert_eq!(parse(text.as_bytes(), NOW), Some(seconds));
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds as u64);
            prop_assert_eq!(text.to_str().unwrap(), httpdate::fmt_http_date(at));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, now in -1_000_000_000_000_i64..1_000_000_000_000) {
            let _ = parse(&bytes, now);
        }

        #[test]
        fn no_text_like_a_date_makes_it_panic(text in "[A-Za-z]{3,9},? [0-9 -]{1,6}[A-Za-z]{3}[ -][0-9]{2,4} [0-9:]{5,9} ?[A-Z0-9]{0,4}") {
            let _ = parse(text.as_bytes(), NOW);
        }
    }
}
