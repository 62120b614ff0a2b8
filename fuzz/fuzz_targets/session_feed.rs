//! No bytes make the reader of the session feed panic or keep more than it may, and what is taken twice counts once.
#![no_main]

use bastide_identity::{Revoked, Took};
use bastide_types::feed::Feed;

const NOW: u64 = 1_000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(feed) = serde_json::from_slice::<Feed>(bytes) else { return };
    if feed.check().is_err() {
        return;
    }
    let mut revoked = Revoked::bounded(8);
    revoked.replace(std::slice::from_ref(&feed), NOW);
    assert!(revoked.len() <= 8 && revoked.position() == (feed.life, feed.last));
    assert!(!matches!(revoked.take(&feed, NOW), Took::Fits(true)));
    revoked.sweep(u64::MAX);
    assert!(revoked.is_empty());
});
