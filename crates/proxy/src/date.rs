//! The Date field; its text is made once a second per thread.

use http::HeaderValue;
use std::{cell::RefCell, time::SystemTime};

/// The Date field's value for now.
pub(crate) fn now() -> HeaderValue {
    thread_local!(static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) });
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(made, value)| {
        if *made != second || value.is_empty() {
            *made = second;
            *value = HeaderValue::from_str(&httpdate::fmt_http_date(now)).expect("dates are plain text");
        }
        value.clone()
    })
}
