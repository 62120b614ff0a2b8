//! Layers come plain, gzipped or as zstd, also in several members or frames. What counts is how the bytes
//! begin: media types are often wrong.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    FrameDecoder, StreamingDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};
use std::io::{self, BufRead, BufReader, Read};

/// Largest window of a zstd frame: what a reader must hold in memory. `zstd --long` stays within it.
const WINDOW_BYTES_MAX: u64 = 128 * 1024 * 1024;
const GZIP: &[u8] = &[0x1f, 0x8b];
/// Little endian 0xFD2FB528, and the first byte that all skippable frames share behind their first nibble.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The content of a layer, whatever it is packed with.
pub(crate) fn unpacked<'a>(packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut packed = BufReader::with_capacity(64 * 1024, packed);
    let head = packed.fill_buf()?;
    if head.starts_with(GZIP) {
        Ok(Box::new(MultiGzDecoder::new(packed)))
    } else if head.starts_with(ZSTD) || is_skippable(head) {
        Ok(Box::new(Zstd { source: Some(packed), frame: None }))
    } else {
        Ok(Box::new(packed))
    }
}

/// Whether content that begins so is packed.
pub(crate) fn is_packed(head: &[u8]) -> bool {
    head.starts_with(GZIP) || head.starts_with(ZSTD) || is_skippable(head)
}

/// RFC 8878 §3.1.2: 0x184D2A50 to 0x184D2A5F.
fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Frames one after the other, skippable ones left out.
struct Zstd<R: BufRead> {
    /// Between two frames.
    source: Option<R>,
    /// Within one.
    frame: Option<StreamingDecoder<R, FrameDecoder>>,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let read = frame.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                self.source = self.frame.take().map(StreamingDecoder::into_inner);
            }
            let Some(mut source) = self.source.take() else {
                return Err(io::Error::other("it was read on after an error"));
            };
            if source.fill_buf()?.is_empty() {
                self.source = Some(source);
                return Ok(0);
            }
            if is_skippable(source.fill_buf()?) {
                let mut head = [0; 8];
                source.read_exact(&mut head)?;
                let length = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
                if io::copy(&mut source.by_ref().take(length), &mut io::sink())? != length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.source = Some(source);
                continue;
            }
            self.frame = Some(frame(source)?);
        }
    }
}

fn frame<R: BufRead>(source: R) -> io::Result<StreamingDecoder<R, FrameDecoder>> {
    StreamingDecoder::new_with_max_window_size(source, WINDOW_BYTES_MAX).map_err(|error| match error {
        FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::BadMagicNumber(_)) => {
            io::Error::other("something that is not zstd follows a zstd frame")
        }
        error => io::Error::other(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        unpacked(packed)?.read_to_end(&mut content)?;
        Ok(content)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(content).unwrap();
        packer.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn several_members_and_frames_are_one_content() {
        assert_eq!(read(b"plain").unwrap(), b"plain");
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let frames = [skipped.clone(), zstd(b"one "), skipped.clone(), zstd(b"two"), skipped].concat();
        assert_eq!(read(&frames).unwrap(), b"one two");
        let large = vec![7; 3_000_000];
        assert!(read(&zstd(&large)).unwrap() == large);
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let good = [zstd(b"some content that is long enough to be packed"), gzip(b"x")].concat();
        assert!(read(&good).is_err(), "gzip behind zstd");
        let good = zstd(&b"some content, some content, some content".repeat(20));
        for length in 1..good.len() {
            assert!(length < 4 || read(&good[..length]).is_err(), "cut at {length}");
            let mut changed = good.clone();
            changed[length] ^= 0x55;
            let _ = read(&changed);
        }
        // A window of 2 TiB, as the frame header says: nobody gives it that memory.
        assert!(read(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 1, 0, 0]).is_err());
        assert!(read(&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }
}
