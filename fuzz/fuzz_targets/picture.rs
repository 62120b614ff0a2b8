//! Pictures that customers upload: any bytes are read to their end or refused, and what is taken has a size within its bounds.
#![no_main]

use bastide_types::picture::{Picture, SIDE_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = Picture::read(bytes) {
        assert!((1..=SIDE_MAX).contains(&picture.width) && (1..=SIDE_MAX).contains(&picture.height));
        // Nothing may follow it.
        assert!(Picture::read(&[bytes, b"<script>"].concat()).is_err());
    }
});
