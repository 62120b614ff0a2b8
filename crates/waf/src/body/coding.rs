//! Content codings of request bodies (RFC 9110 §8.4), undone before rules look at a body.
//!
//! The result is bounded, and with it the work: what would be larger is refused, as is whatever does not end as its
//! coding says.

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;
use std::io::Read;

/// Codings of one body; nobody needs two.
const CODINGS_MAX: usize = 2;
/// What a zstd frame may make us keep (RFC 9659).
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;
const BROTLI_BUFFER_BYTES: usize = 4096;

const BROKEN: &str = "the body is not what its content coding says";
const TOO_LARGE: &str = "the body is too large without its content coding";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            b"br" => Self::Brotli,
            b"zstd" => Self::Zstd,
            _ => return None,
        })
    }

    fn undo(self, bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, &'static str> {
        let mut room = Room { bytes: Vec::new(), most: bytes_max };
        match self {
            Self::Gzip => room.fill(MultiGzDecoder::new(bytes))?,
            Self::Deflate => deflate(bytes, &mut room)?,
            Self::Brotli => room.fill(brotli_decompressor::Decompressor::new(bytes, BROTLI_BUFFER_BYTES))?,
            Self::Zstd => zstd(bytes, &mut room)?,
        }
        Ok(room.bytes)
    }
}

/// Undoes the codings that a `Content-Encoding` field names; `None` when it names none.
///
/// # Errors
/// Why the body cannot be read.
pub(crate) fn undo(field: &[u8], bytes: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>, &'static str> {
    let names = field.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let names = names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
    let mut codings = Vec::new();
    for name in names {
        codings.push(Coding::named(name).ok_or("a content coding that is not known")?);
        if codings.len() > CODINGS_MAX {
            return Err("too many content codings");
        }
    }
    let mut decoded = None;
    for coding in codings.iter().rev() {
        decoded = Some(coding.undo(decoded.as_deref().unwrap_or(bytes), bytes_max)?);
    }
    Ok(decoded)
}

/// Where a result grows, up to a bound.
struct Room {
    bytes: Vec<u8>,
    most: usize,
}

impl Room {
    fn fill(&mut self, decoder: impl Read) -> Result<(), &'static str> {
        let left = self.most - self.bytes.len();
        let read = decoder.take(left as u64 + 1).read_to_end(&mut self.bytes).map_err(|_| BROKEN)?;
        if read > left { Err(TOO_LARGE) } else { Ok(()) }
    }
}

/// With the frame that the standard asks for (RFC 1950), or bare, as some send it.
fn deflate(bytes: &[u8], room: &mut Room) -> Result<(), &'static str> {
    let is_framed = matches!(bytes, [method, check, ..]
        if method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*check)) % 31 == 0);
    let rest = if is_framed {
        let mut decoder = ZlibDecoder::new(bytes);
        room.fill(&mut decoder)?;
        decoder.into_inner()
    } else {
        let mut decoder = DeflateDecoder::new(bytes);
        room.fill(&mut decoder)?;
        decoder.into_inner()
    };
    if rest.is_empty() { Ok(()) } else { Err(BROKEN) }
}

/// Frames one after the other; those that carry nothing (RFC 8878 §3.1.2) are left out.
fn zstd(bytes: &[u8], room: &mut Room) -> Result<(), &'static str> {
    let mut rest = bytes;
    while !rest.is_empty() {
        if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, after @ ..] = rest {
            let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            rest = after.get(length..).ok_or(BROKEN)?;
            continue;
        }
        let frame = StreamingDecoder::new_with_max_window_size(&mut rest, ZSTD_WINDOW_BYTES_MAX);
        room.fill(frame.map_err(|_| BROKEN)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;
    use std::io::Write;

    const BODY: &[u8] = b"a=1&b=words and words and words";
    /// `BODY` as a Brotli stream of one uncompressed meta-block (RFC 7932 §9.2).
    fn brotli(body: &[u8]) -> Vec<u8> {
        // Window of 16 bits; a meta-block that is not the last, of so many bytes, uncompressed; the last, empty one.
        let length = body.len() as u32 - 1;
        let head = length << 4 | 1 << 20;
        [&head.to_le_bytes()[..3], body, &[3]].concat()
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::default());
        out.write_all(body).unwrap();
        out.finish().unwrap()
    }

    fn zstd_of(body: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn each_coding_is_undone() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(BODY).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        bare.write_all(BODY).unwrap();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];
        for (name, packed) in [
            ("gzip", gzip(BODY)),
            ("X-GZIP", gzip(BODY)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
            ("zstd", zstd_of(BODY)),
            ("zstd", [&skippable[..], &zstd_of(BODY)].concat()),
            ("br", brotli(BODY)),
            ("zstd, identity, gzip", gzip(&zstd_of(BODY))),
        ] {
            assert_eq!(undo(name.as_bytes(), &packed, 100).unwrap().as_deref(), Some(BODY), "{name}");
        }
        assert_eq!(undo(b" identity , ", BODY, 100), Ok(None));
    }

    #[test]
    fn members_and_frames_are_one_body() {
        let half = BODY.len() / 2;
        let (one, two) = BODY.split_at(half);
        assert_eq!(undo(b"gzip", &[gzip(one), gzip(two)].concat(), 100).unwrap().unwrap(), BODY);
        assert_eq!(undo(b"zstd", &[zstd_of(one), zstd_of(two)].concat(), 100).unwrap().unwrap(), BODY);
    }

    #[test]
    fn what_cannot_be_read_whole_is_refused() {
        let refused = |name: &str, bytes: &[u8]| undo(name.as_bytes(), bytes, 1000).unwrap_err();
        assert_eq!(refused("compress", BODY), "a content coding that is not known");
        assert_eq!(refused("gzip, gzip, gzip", BODY), "too many content codings");
        let packed = gzip(BODY);
        assert_eq!(refused("gzip", BODY), BROKEN);
        assert_eq!(refused("gzip", &packed[..packed.len() - 9]), BROKEN);
        assert_eq!(refused("gzip", &[&packed[..], b"rest"].concat()), BROKEN);
        assert_eq!(refused("zstd", &[zstd_of(BODY), b"rest".to_vec()].concat()), BROKEN);
        assert_eq!(refused("deflate", b"plain text"), BROKEN);
        assert_eq!(refused("br", &brotli(BODY)[..20]), BROKEN);
    }

    #[test]
    fn bombs_are_refused_when_they_are_larger_than_allowed() {
        let bomb = vec![b'a'; 10_000_000];
        for (name, packed) in
            [("gzip", gzip(&bomb)), ("zstd", zstd_of(&bomb)), ("gzip, gzip", gzip(&gzip(&bomb)))]
        {
            let found = undo(name.as_bytes(), &packed, 100_000);
            assert_eq!(found, Err(TOO_LARGE), "{name}");
        }
        // A frame that would have us keep 1 GB.
        assert!(undo(b"zstd", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0xa0, 1, 0, 0], 1000).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(bytes: Vec<u8>, name in "(gzip|deflate|br|zstd)") {
            if let Ok(Some(found)) = undo(name.as_bytes(), &bytes, 1000) {
                prop_assert!(found.len() <= 1000);
            }
        }
    }
}
