//! Parts of the time of a request, in UTC.

use crate::{tx::write_count, variable::Time};

impl Time {
    /// Writes this part of a time in seconds since 1970, UTC.
    pub(super) fn write(self, now: u64, out: &mut Vec<u8>) {
        let (days, second) = (now / 86_400, now % 86_400);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let (year, month, day) = date(days);
        let two = |number: u64, out: &mut Vec<u8>| {
            out.extend_from_slice(&[b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]);
        };
        match self {
            Self::Clock => {
                for (part, end) in [(hour, &b":"[..]), (minute, b":"), (second % 60, b"")] {
                    two(part, out);
                    out.extend_from_slice(end);
                }
            }
            Self::Epoch => write_count(now, out),
            Self::Year => write_count(year, out),
            // As ModSecurity counts: months from 0.
            Self::Month => write_count(month - 1, out),
            Self::Day => write_count(day, out),
            Self::Hour => write_count(hour, out),
            Self::Minute => write_count(minute, out),
            Self::Second => write_count(second % 60, out),
            // 1970 began on a Thursday.
            Self::Weekday => write_count((days + 4) % 7, out),
        }
    }
}

/// Year, month and day of a day since 1970 in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years here begin in March, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_apart() {
        let check = |time: Time, now: u64, expected: &str| {
            let mut out = Vec::new();
            time.write(now, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        // 2024-02-29 23:59:58, a Thursday.
        let now = 1_709_251_198;
        for (time, expected) in [
            (Time::Clock, "23:59:58"),
            (Time::Epoch, "1709251198"),
            (Time::Year, "2024"),
            (Time::Month, "1"),
            (Time::Day, "29"),
            (Time::Hour, "23"),
            (Time::Minute, "59"),
            (Time::Second, "58"),
            (Time::Weekday, "4"),
        ] {
            check(time, now, expected);
        }
        check(Time::Day, 0, "1");
        check(Time::Year, 951_782_400, "2000");
    }
}
