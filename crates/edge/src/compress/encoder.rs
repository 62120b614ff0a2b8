//! Encoders: bytes in, coded bytes out, as they come.

use bastide_cache::coding::Coding;
use bytes::Bytes;
use std::io::{self, Write};

/// How much work is put into a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// For one client that waits.
    Once,
    /// For all that will come.
    Kept,
}

/// Windows of Brotli (as a power of two) and pieces that it works in.
const BROTLI_WINDOW: u32 = 20;
const BROTLI_PIECE: usize = 4096;

/// An encoder in the middle of a body.
pub(crate) enum Encoder {
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// An encoder at the beginning of a body.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn new(coding: Coding, effort: Effort) -> io::Result<Self> {
        let level = |once, kept| if effort == Effort::Once { once } else { kept };
        Ok(match coding {
            Coding::Brotli => {
                let writer =
                    brotli::CompressorWriter::new(Vec::new(), BROTLI_PIECE, level(4, 6), BROTLI_WINDOW);
                Self::Brotli(Box::new(writer))
            }
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(
                Vec::new(),
                if effort == Effort::Once { 3 } else { 9 },
            )?),
            Coding::Gzip => {
                Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level(4, 6))))
            }
        })
    }

    /// Takes bytes in.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Brotli(own) => own.write_all(bytes),
            Self::Zstd(own) => own.write_all(bytes),
            Self::Gzip(own) => own.write_all(bytes),
        }
    }

    /// Makes all that came in readable for the client.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Brotli(own) => own.flush(),
            Self::Zstd(own) => own.flush(),
            Self::Gzip(own) => own.flush(),
        }
    }

    /// What has come out so far.
    pub(crate) fn take(&mut self) -> Bytes {
        let out = match self {
            Self::Brotli(own) => own.get_mut(),
            Self::Zstd(own) => own.get_mut(),
            Self::Gzip(own) => own.get_mut(),
        };
        std::mem::take(out).into()
    }

    /// How much of it there is.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Brotli(own) => own.get_ref().len(),
            Self::Zstd(own) => own.get_ref().len(),
            Self::Gzip(own) => own.get_ref().len(),
        }
    }

    /// The rest, with the end of the body.
    pub(crate) fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Brotli(own) => own.into_inner(),
            Self::Zstd(own) => own.finish()?,
            Self::Gzip(own) => own.finish()?,
        }
        .into())
    }
}

/// A whole body at once, to be kept.
///
/// # Errors
/// When there is no memory for it.
pub(crate) fn encoded(coding: Coding, bytes: &[u8]) -> io::Result<Bytes> {
    let mut encoder = Encoder::new(coding, Effort::Kept)?;
    encoder.write(bytes)?;
    encoder.finish()
}

#[cfg(test)]
pub(crate) fn decoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut plain = Vec::new();
    match coding {
        "br" => brotli::Decompressor::new(bytes, BROTLI_PIECE).read_to_end(&mut plain).unwrap(),
        "zstd" => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut plain).unwrap(),
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap(),
        other => panic!("{other}"),
    };
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_to_the_same(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6)) {
            let whole = pieces.concat();
            for coding in Coding::ALL {
                prop_assert_eq!(&decoded(coding.name(), &encoded(coding, &whole).unwrap()), &whole);
                let mut encoder = Encoder::new(coding, Effort::Once).unwrap();
                let mut out = Vec::new();
                for piece in &pieces {
                    encoder.write(piece).unwrap();
                    encoder.flush().unwrap();
                    out.extend_from_slice(&encoder.take());
                }
                out.extend_from_slice(&encoder.finish().unwrap());
                prop_assert_eq!(&decoded(coding.name(), &out), &whole);
            }
        }
    }
}
