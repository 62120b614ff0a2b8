//! Pictures that somebody uploads to be shown to others: which kind, how large, and nothing else in the same bytes.
//!
//! PNG (third edition), JPEG (ITU-T T.81) and WebP (RFC 9649). No SVG: it can carry script. What a browser makes of the
//! pixels is not looked at, but the frame of the file is: it ends where the bytes end, and nothing moves.

use serde::Serialize;
use std::{fmt, str::FromStr};

/// Most pixels on a side.
pub const SIDE_MAX: u32 = 2048;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// Its kind.
    pub kind: PictureKind,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Kinds of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PictureKind {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    Webp,
}

/// Why bytes are no picture that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PictureFault {
    /// None of the three.
    #[error("it is neither PNG nor JPEG nor WebP")]
    Kind,
    /// Its frame.
    #[error("it is damaged, or something else follows it")]
    Damaged,
    /// Too large, or without a size.
    #[error("each side has 1 to {SIDE_MAX} pixels")]
    Size,
    /// It moves.
    #[error("it moves; a picture that stands still will do")]
    Moving,
}

impl PictureKind {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }
}

impl fmt::Display for PictureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PictureKind {
    type Err = PictureFault;

    fn from_str(text: &str) -> Result<Self, PictureFault> {
        let all = [Self::Png, Self::Jpeg, Self::Webp];
        all.into_iter().find(|kind| kind.as_str() == text).ok_or(PictureFault::Kind)
    }
}

impl Picture {
    /// Reads the frame of a file, once over all of it.
    ///
    /// # Errors
    /// [`PictureFault`].
    pub fn read(bytes: &[u8]) -> Result<Self, PictureFault> {
        let (kind, (width, height)) = if let Some(rest) = bytes.strip_prefix(PNG) {
            (PictureKind::Png, png(rest)?)
        } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            (PictureKind::Jpeg, jpeg(&bytes[2..])?)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            (PictureKind::Webp, webp(bytes)?)
        } else {
            return Err(PictureFault::Kind);
        };
        let is_good = |side| (1..=SIDE_MAX).contains(&side);
        if !is_good(width) || !is_good(height) {
            return Err(PictureFault::Size);
        }
        Ok(Self { kind, width, height })
    }
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Takes so many bytes off the front.
fn take<'b>(rest: &mut &'b [u8], count: usize) -> Result<&'b [u8], PictureFault> {
    let (taken, left) = rest.split_at_checked(count).ok_or(PictureFault::Damaged)?;
    *rest = left;
    Ok(taken)
}

/// A number of one to four bytes, the most significant first.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

/// The same, the least significant first.
fn reversed(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

/// Chunks from IHDR to IEND, with their pixels, and nothing after them. Their checksums are the browser's business.
fn png(mut rest: &[u8]) -> Result<(u32, u32), PictureFault> {
    let mut size = None;
    let mut has_pixels = false;
    loop {
        let length = number(take(&mut rest, 4)?) as usize;
        let kind = take(&mut rest, 4)?;
        let content = take(&mut rest, length)?;
        take(&mut rest, 4)?;
        match (kind, size) {
            (b"IHDR", None) if length == 13 => {
                size = Some((number(&content[..4]), number(&content[4..8])));
            }
            (b"IHDR", _) | (_, None) => return Err(PictureFault::Damaged),
            (b"acTL", _) => return Err(PictureFault::Moving),
            (b"IDAT", _) => has_pixels = true,
            (b"IEND", Some(size)) => {
                return if has_pixels && rest.is_empty() { Ok(size) } else { Err(PictureFault::Damaged) };
            }
            _ => {}
        }
    }
}

/// Segments up to the first scan (T.81 §B.1.1), with one frame among them, and the mark of the end at the very end.
fn jpeg(mut rest: &[u8]) -> Result<(u32, u32), PictureFault> {
    if !rest.ends_with(&[0xff, 0xd9]) {
        return Err(PictureFault::Damaged);
    }
    let mut size = None;
    loop {
        if take(&mut rest, 1)? != [0xff] {
            return Err(PictureFault::Damaged);
        }
        let mut mark = take(&mut rest, 1)?[0];
        while mark == 0xff {
            mark = take(&mut rest, 1)?[0];
        }
        // Marks without a segment have no business here: TEM, RSTn, SOI, EOI.
        if matches!(mark, 0x00 | 0x01 | 0xd0..=0xd9) {
            return Err(PictureFault::Damaged);
        }
        let length = number(take(&mut rest, 2)?) as usize;
        let content = take(&mut rest, length.checked_sub(2).ok_or(PictureFault::Damaged)?)?;
        match mark {
            // SOF0 to SOF15 without DHT, JPG and DAC.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                if content.len() < 6 || size.is_some() {
                    return Err(PictureFault::Damaged);
                }
                size = Some((number(&content[3..5]), number(&content[1..3])));
            }
            0xda => return size.ok_or(PictureFault::Damaged),
            _ => {}
        }
    }
}

/// One RIFF container that is as long as the file, and chunks that fill it (RFC 9649 §2.4 to §2.7).
fn webp(bytes: &[u8]) -> Result<(u32, u32), PictureFault> {
    let (length, mut rest) = (reversed(&bytes[4..8]) as usize, &bytes[12..]);
    if length.checked_add(8) != Some(bytes.len()) {
        return Err(PictureFault::Damaged);
    }
    let (mut canvas, mut picture) = (None, None);
    while !rest.is_empty() {
        let kind = take(&mut rest, 4)?;
        let length = reversed(take(&mut rest, 4)?) as usize;
        let content = take(&mut rest, length)?;
        take(&mut rest, length % 2)?;
        match kind {
            b"VP8X" if canvas.is_none() && picture.is_none() && length == 10 => {
                if content[0] & 0b10 != 0 {
                    return Err(PictureFault::Moving);
                }
                canvas = Some((reversed(&content[4..7]) + 1, reversed(&content[7..10]) + 1));
            }
            b"VP8 " | b"VP8L" if picture.is_none() => {
                let size = if kind == b"VP8 " { lossy(content) } else { lossless(content) };
                picture = Some(size.ok_or(PictureFault::Damaged)?);
            }
            b"VP8X" | b"VP8 " | b"VP8L" => return Err(PictureFault::Damaged),
            b"ANIM" | b"ANMF" => return Err(PictureFault::Moving),
            _ => {}
        }
    }
    match (canvas, picture) {
        (None, Some(size)) => Ok(size),
        // Of a still picture both say the same.
        (Some(canvas), Some(size)) if canvas == size => Ok(size),
        _ => Err(PictureFault::Damaged),
    }
}

/// The head of a key frame (RFC 6386 §9.1).
fn lossy(content: &[u8]) -> Option<(u32, u32)> {
    let head = content.get(..10)?;
    let is_key = head[0] & 1 == 0 && head[3..6] == [0x9d, 0x01, 0x2a];
    is_key.then(|| (reversed(&head[6..8]) & 0x3fff, reversed(&head[8..10]) & 0x3fff))
}

/// The head of a lossless picture (RFC 9649 §3.4): 14 bits for each side.
fn lossless(content: &[u8]) -> Option<(u32, u32)> {
    let head = content.get(..5)?;
    let bits = reversed(&head[1..5]);
    (head[0] == 0x2f && bits >> 29 == 0).then_some(((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(kind: &[u8], content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[..], kind, content, &[0; 4]].concat()
    }

    fn a_png(width: u32, height: u32, between: &[u8]) -> Vec<u8> {
        let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
        [PNG, &chunk(b"IHDR", &head), between, &chunk(b"IDAT", b"pixels"), &chunk(b"IEND", b"")].concat()
    }

    fn a_jpeg(width: u16, height: u16) -> Vec<u8> {
        let size = [&[8][..], &height.to_be_bytes(), &width.to_be_bytes(), &[1, 1, 0x11, 0]].concat();
        let frame = [&[0xff, 0xc0, 0, 11][..], &size].concat();
        [&[0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2][..], &frame, &[0xff, 0xda, 0, 2, 7, 7, 7, 0xff, 0xd9]].concat()
    }

    fn a_webp(chunks: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut all = b"WEBP".to_vec();
        for (kind, content) in chunks {
            all.extend_from_slice(kind);
            all.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
            all.extend_from_slice(content);
            all.resize(all.len() + content.len() % 2, 0);
        }
        [b"RIFF", &u32::try_from(all.len()).unwrap().to_le_bytes()[..], &all].concat()
    }

    const LOSSY: &[u8] = &[0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 0x40, 48, 0x80];
    /// 64 × 48 pixels: 63 and 47 in 14 bits each.
    const LOSSLESS: &[u8] = &[0x2f, 0x3f, 0xc0, 0x0b, 0];

    fn check(bytes: &[u8], expected: Result<(PictureKind, u32, u32), PictureFault>) {
        let found = Picture::read(bytes).map(|one| (one.kind, one.width, one.height));
        assert_eq!(found, expected, "{bytes:02x?}");
    }

    #[test]
    fn each_kind_says_how_large_it_is() {
        check(&a_png(64, 48, b""), Ok((PictureKind::Png, 64, 48)));
        check(&a_jpeg(64, 48), Ok((PictureKind::Jpeg, 64, 48)));
        check(&a_webp(&[(b"VP8 ", LOSSY)]), Ok((PictureKind::Webp, 64, 48)));
        check(&a_webp(&[(b"VP8L", LOSSLESS)]), Ok((PictureKind::Webp, 64, 48)));
        let canvas = [0x10, 0, 0, 0, 63, 0, 0, 47, 0, 0];
        check(
            &a_webp(&[(b"VP8X", &canvas), (b"ALPH", b"abc"), (b"VP8 ", LOSSY)]),
            Ok((PictureKind::Webp, 64, 48)),
        );
        check(&a_webp(&[(b"VP8X", &canvas), (b"VP8L", LOSSLESS)]), Ok((PictureKind::Webp, 64, 48)));
    }

    #[test]
    fn what_is_none_of_the_three_is_not_taken() {
        for bytes in [
            &b""[..],
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"GIF89a",
            b"\xff\xd8",
            b"RIFF\0\0\0\0WAVE",
            b"%PDF-1.7",
            b"BM",
        ] {
            check(bytes, Err(PictureFault::Kind));
        }
    }

    #[test]
    fn sides_have_bounds() {
        for (width, height) in [(0, 48), (64, 0), (SIDE_MAX + 1, 1), (1, u32::MAX)] {
            check(&a_png(width, height, b""), Err(PictureFault::Size));
        }
        check(&a_jpeg(0, 48), Err(PictureFault::Size));
        check(&a_jpeg(u16::MAX, 48), Err(PictureFault::Size));
    }

    #[test]
    fn nothing_follows_a_picture_and_nothing_is_missing() {
        for good in [a_png(64, 48, b""), a_jpeg(64, 48), a_webp(&[(b"VP8 ", LOSSY)])] {
            let more = [&good[..], b"<script>alert(1)</script>"].concat();
            check(&more, Err(PictureFault::Damaged));
            for end in 12..good.len() {
                assert!(Picture::read(&good[..end]).is_err(), "{end} of {good:02x?}");
            }
        }
        let no_pixels = [PNG, &chunk(b"IHDR", &[0; 13]), &chunk(b"IEND", b"")].concat();
        check(&no_pixels, Err(PictureFault::Damaged));
        check(&a_webp(&[]), Err(PictureFault::Damaged));
        check(&a_webp(&[(b"VP8 ", LOSSY), (b"VP8 ", LOSSY)]), Err(PictureFault::Damaged));
        let other = [0x10, 0, 0, 0, 64, 0, 0, 47, 0, 0];
        check(&a_webp(&[(b"VP8X", &other), (b"VP8 ", LOSSY)]), Err(PictureFault::Damaged));
    }

    #[test]
    fn nothing_moves() {
        check(&a_png(64, 48, &chunk(b"acTL", &[0; 8])), Err(PictureFault::Moving));
        let canvas = [0x02, 0, 0, 0, 63, 0, 0, 47, 0, 0];
        check(&a_webp(&[(b"VP8X", &canvas), (b"VP8 ", LOSSY)]), Err(PictureFault::Moving));
        check(&a_webp(&[(b"ANMF", b"abcd"), (b"VP8 ", LOSSY)]), Err(PictureFault::Moving));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_take_something_without_a_size(
            start in prop_oneof![Just(PNG.to_vec()), Just(vec![0xff, 0xd8, 0xff]), Just(b"RIFF".to_vec()), Just(Vec::new())],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(picture) = Picture::read(&[start, rest].concat()) {
                prop_assert!((1..=SIDE_MAX).contains(&picture.width) && (1..=SIDE_MAX).contains(&picture.height));
            }
        }

        #[test]
        fn a_picture_with_one_byte_changed_is_read_to_its_end_or_refused(
            which in 0_usize..3, at in any::<usize>(), byte in any::<u8>(),
        ) {
            let mut bytes = [a_png(64, 48, b""), a_jpeg(64, 48), a_webp(&[(b"VP8L", LOSSLESS)])][which].clone();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Picture::read(&bytes);
        }
    }
}
