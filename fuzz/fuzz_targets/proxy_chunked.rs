//! No bytes make the decoder of chunks panic, and how they arrive changes nothing.
#![no_main]

use bastide_proxy::h1::{framing::Decoder, head::Framing};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((size, wire)) = bytes.split_first() else { return };
    let whole = Decoder::decode_all(Framing::Chunked, wire);
    let pieces = Decoder::decode_pieces(Framing::Chunked, wire.chunks(usize::from(*size).max(1)));
    assert_eq!(whole.ok(), pieces.ok());
});
