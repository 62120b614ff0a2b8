//! Transformations: bytes to bytes. A chain is a path in a tree, so that common beginnings are done once.
//!
//! They do what ModSecurity's do, byte for byte where that is defined: rules are written for its outputs.
//! Each knows the bytes without which it changes nothing, so that most are never run.

use crate::value::{ByteSet, Summary};
use base64::{
    Engine, engine::DecodePaddingMode, engine::GeneralPurposeConfig, engine::general_purpose::GeneralPurpose,
};

/// One transformation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Transform {
    /// Nothing; the root of all chains.
    None,
    Lowercase,
    Uppercase,
    UrlDecode,
    UrlDecodeUni,
    HtmlEntityDecode,
    JsDecode,
    CssDecode,
    EscapeSeqDecode,
    Utf8ToUnicode,
    RemoveNulls,
    ReplaceNulls,
    RemoveWhitespace,
    CompressWhitespace,
    Trim,
    TrimLeft,
    TrimRight,
    RemoveComments,
    ReplaceComments,
    RemoveCommentsChar,
    NormalizePath,
    NormalizePathWin,
    CmdLine,
    Base64Decode,
    Base64DecodeExt,
    Base64Encode,
    HexEncode,
    HexDecode,
    Sha1,
    Length,
    UrlEncode,
    SqlHexDecode,
}

/// A chain of transformations: the chain before its last step, and that step.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) before: u16,
    pub(crate) step: Transform,
    /// Bytes without which no step of the chain changes anything; `None` when one always does.
    changes: Option<ByteSet>,
}

impl Chain {
    /// The chain that does nothing.
    pub(crate) const ROOT: Self = Self { before: 0, step: Transform::None, changes: Some(ByteSet([0; 4])) };

    pub(crate) fn after(before: &Self, number: u16, step: Transform) -> Self {
        let changes = match (before.changes, step.changes()) {
            (Some(before), Some(own)) => Some(before.union(own)),
            _ => None,
        };
        Self { before: number, step, changes }
    }

    #[inline]
    pub(crate) fn is_identity_on(&self, value: &Summary) -> bool {
        self.changes.is_some_and(|changes| !changes.meets(&value.bytes))
    }

    /// The same for many values at once, of which these are all bytes.
    pub(crate) fn is_identity_for(&self, bytes: &ByteSet) -> bool {
        self.changes.is_some_and(|changes| !changes.meets(bytes))
    }
}

const UPPER: ByteSet = ByteSet::range(b'A', b'Z');
const SPACE: ByteSet = ByteSet::of(b" \t\n\r\x0b\x0c");
const NO_ASCII: ByteSet = ByteSet::range(0x80, 0xff);

impl Transform {
    /// All of them.
    pub(crate) const ALL: &'static [Self] = &[
        Self::None,
        Self::Lowercase,
        Self::Uppercase,
        Self::UrlDecode,
        Self::UrlDecodeUni,
        Self::HtmlEntityDecode,
        Self::JsDecode,
        Self::CssDecode,
        Self::EscapeSeqDecode,
        Self::Utf8ToUnicode,
        Self::RemoveNulls,
        Self::ReplaceNulls,
        Self::RemoveWhitespace,
        Self::CompressWhitespace,
        Self::Trim,
        Self::TrimLeft,
        Self::TrimRight,
        Self::RemoveComments,
        Self::ReplaceComments,
        Self::RemoveCommentsChar,
        Self::NormalizePath,
        Self::NormalizePathWin,
        Self::CmdLine,
        Self::Base64Decode,
        Self::Base64DecodeExt,
        Self::Base64Encode,
        Self::HexEncode,
        Self::HexDecode,
        Self::Sha1,
        Self::Length,
        Self::UrlEncode,
        Self::SqlHexDecode,
    ];

    /// The transformation of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "none" => Self::None,
            "lowercase" => Self::Lowercase,
            "uppercase" => Self::Uppercase,
            "urldecode" => Self::UrlDecode,
            "urldecodeuni" => Self::UrlDecodeUni,
            "htmlentitydecode" => Self::HtmlEntityDecode,
            "jsdecode" => Self::JsDecode,
            "cssdecode" => Self::CssDecode,
            "escapeseqdecode" => Self::EscapeSeqDecode,
            "utf8tounicode" => Self::Utf8ToUnicode,
            "removenulls" => Self::RemoveNulls,
            "replacenulls" => Self::ReplaceNulls,
            "removewhitespace" => Self::RemoveWhitespace,
            "compresswhitespace" => Self::CompressWhitespace,
            "trim" => Self::Trim,
            "trimleft" => Self::TrimLeft,
            "trimright" => Self::TrimRight,
            "removecomments" => Self::RemoveComments,
            "replacecomments" => Self::ReplaceComments,
            "removecommentschar" => Self::RemoveCommentsChar,
            "normalizepath" | "normalisepath" => Self::NormalizePath,
            "normalizepathwin" | "normalisepathwin" => Self::NormalizePathWin,
            "cmdline" => Self::CmdLine,
            "base64decode" => Self::Base64Decode,
            "base64decodeext" => Self::Base64DecodeExt,
            "base64encode" => Self::Base64Encode,
            "hexencode" => Self::HexEncode,
            "hexdecode" => Self::HexDecode,
            "sha1" => Self::Sha1,
            "length" => Self::Length,
            "urlencode" => Self::UrlEncode,
            "sqlhexdecode" => Self::SqlHexDecode,
            _ => return None,
        })
    }

    /// Whether its output may be several times as long as its input.
    pub(crate) fn grows(self) -> bool {
        matches!(self, Self::Utf8ToUnicode | Self::UrlEncode | Self::HexEncode | Self::Base64Encode)
    }

    /// Bytes without which it changes nothing; `None` when it may change any value.
    const fn changes(self) -> Option<ByteSet> {
        Some(match self {
            Self::None => ByteSet([0; 4]),
            Self::Lowercase => UPPER,
            Self::Uppercase => ByteSet::range(b'a', b'z'),
            Self::UrlDecode | Self::UrlDecodeUni => ByteSet::of(b"%+"),
            Self::HtmlEntityDecode => ByteSet::of(b"&"),
            Self::JsDecode | Self::CssDecode | Self::EscapeSeqDecode => ByteSet::of(b"\\"),
            Self::Utf8ToUnicode => NO_ASCII.union(ByteSet::of(b"\0")),
            Self::RemoveNulls | Self::ReplaceNulls => ByteSet::of(b"\0"),
            Self::RemoveWhitespace => SPACE.union(ByteSet::of(b"\xa0\xc2")),
            Self::CompressWhitespace | Self::Trim | Self::TrimLeft | Self::TrimRight => SPACE,
            Self::ReplaceComments => ByteSet::of(b"/"),
            Self::RemoveComments => ByteSet::of(b"/<-#"),
            Self::RemoveCommentsChar => ByteSet::of(b"/*<-#"),
            Self::NormalizePath => ByteSet::of(b"/."),
            Self::NormalizePathWin => ByteSet::of(b"/.\\"),
            Self::CmdLine => UPPER.union(ByteSet::of(b"\"'\\^ ,;\t\r\n")),
            Self::SqlHexDecode => ByteSet::of(b"0"),
            Self::Base64Decode
            | Self::Base64DecodeExt
            | Self::Base64Encode
            | Self::HexEncode
            | Self::HexDecode
            | Self::Sha1
            | Self::Length
            | Self::UrlEncode => return None,
        })
    }

    /// Writes what becomes of `value` to `out`, which is empty; false when that is the value itself, and
    /// then `out` means nothing.
    pub(crate) fn apply(self, value: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Self::None => return false,
            Self::Lowercase => out.extend(value.iter().map(u8::to_ascii_lowercase)),
            Self::Uppercase => out.extend(value.iter().map(u8::to_ascii_uppercase)),
            Self::UrlDecode => url_decode(value, false, out),
            Self::UrlDecodeUni => url_decode(value, true, out),
            Self::HtmlEntityDecode => html_decode(value, out),
            Self::JsDecode => js_decode(value, out),
            Self::CssDecode => css_decode(value, out),
            Self::EscapeSeqDecode => escape_decode(value, out),
            Self::Utf8ToUnicode => utf8_to_unicode(value, out),
            Self::RemoveNulls => out.extend(value.iter().filter(|b| **b != 0)),
            Self::ReplaceNulls => out.extend(value.iter().map(|b| if *b == 0 { b' ' } else { *b })),
            Self::RemoveWhitespace => {
                out.extend(value.iter().filter(|b| !is_space(**b) && !matches!(b, 0xa0 | 0xc2)));
            }
            Self::CompressWhitespace => compress(value, out),
            Self::Trim => out.extend_from_slice(trim_right(trim_left(value))),
            Self::TrimLeft => out.extend_from_slice(trim_left(value)),
            Self::TrimRight => out.extend_from_slice(trim_right(value)),
            Self::RemoveComments => remove_comments(value, out),
            Self::ReplaceComments => replace_comments(value, out),
            Self::RemoveCommentsChar => remove_comment_marks(value, out),
            Self::NormalizePath => normalize(value, false, out),
            Self::NormalizePathWin => normalize(value, true, out),
            Self::CmdLine => cmd_line(value, out),
            Self::Base64Decode => base64_decode(value, false, out),
            Self::Base64DecodeExt => base64_decode(value, true, out),
            Self::Base64Encode => {
                out.extend_from_slice(base64::prelude::BASE64_STANDARD.encode(value).as_bytes());
            }
            Self::HexEncode => hex(value, out),
            Self::HexDecode => {
                out.extend(value.chunks_exact(2).map(|pair| any_digit(pair[0]) << 4 | any_digit(pair[1])));
            }
            Self::Sha1 => {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, value);
                out.extend_from_slice(digest.as_ref());
            }
            Self::Length => out.extend_from_slice(value.len().to_string().as_bytes()),
            Self::UrlEncode => url_encode(value, out),
            Self::SqlHexDecode => sql_hex_decode(value, out),
        }
        out.as_slice() != value
    }

    /// What becomes of a value.
    pub(crate) fn of(self, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.apply(value, &mut out) { out } else { value.to_vec() }
    }
}

/// White space as C's `isspace` sees it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn trim_left(value: &[u8]) -> &[u8] {
    let from = value.iter().position(|b| !is_space(*b)).unwrap_or(value.len());
    &value[from..]
}

fn trim_right(value: &[u8]) -> &[u8] {
    let to = value.iter().rposition(|b| !is_space(*b)).map_or(0, |at| at + 1);
    &value[..to]
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The value of two hexadecimal digits.
fn byte_of(pair: &[u8]) -> Option<u8> {
    Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)
}

/// A digit as a reader takes it that does not check: what is none has some value, too.
fn any_digit(byte: u8) -> u8 {
    if byte >= b'A' { (byte & 0xdf).wrapping_sub(b'A').wrapping_add(10) } else { byte.wrapping_sub(b'0') }
}

fn hex(value: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend(value.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]));
}

/// The low byte of a code point; a full-width form (U+FF01 to U+FF5E) as the ASCII character that it
/// looks like.
fn narrow(code: u32) -> u8 {
    match code {
        0xff01..=0xff5e => (code - 0xff01 + 0x21) as u8,
        _ => code as u8,
    }
}

/// Four hexadecimal digits.
fn code_of(digits: &[u8]) -> Option<u32> {
    let digits = digits.get(..4)?;
    digits.iter().try_fold(0_u32, |code, b| Some(code << 4 | u32::from(digit(*b)?)))
}

pub(crate) fn url_decode(value: &[u8], unicode: bool, out: &mut Vec<u8>) {
    out.reserve(value.len());
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        match byte {
            b'%' => {
                let rest = &value[at + 1..];
                if unicode
                    && matches!(rest.first(), Some(b'u' | b'U'))
                    && let Some(code) = code_of(&rest[1..])
                {
                    out.push(narrow(code));
                    at += 6;
                    continue;
                }
                match byte_of(rest) {
                    Some(decoded) => {
                        out.push(decoded);
                        at += 3;
                    }
                    None => {
                        out.push(b'%');
                        at += 1;
                    }
                }
            }
            b'+' => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

fn url_encode(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b' ' => out.push(b'+'),
            b'*' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(*byte),
            _ => {
                out.push(b'%');
                hex(&[*byte], out);
            }
        }
    }
}

fn html_decode(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len());
    let mut at = 0;
    while at < value.len() {
        let next = memchr::memchr(b'&', &value[at..]).map_or(value.len(), |found| at + found);
        out.extend_from_slice(&value[at..next]);
        at = next;
        if at < value.len() {
            let (byte, length) = entity(&value[at..]).unwrap_or((b'&', 1));
            out.push(byte);
            at += length;
        }
    }
}

/// One entity: the byte that it stands for and its length. Numbers are read as C's `strtol` does and cut
/// to one byte.
fn entity(text: &[u8]) -> Option<(u8, usize)> {
    let semicolon = |end: usize| if text.get(end) == Some(&b';') { end + 1 } else { end };
    let number = |digits: &[u8], radix: i64| {
        digits.iter().fold(0_i64, |code, b| {
            code.saturating_mul(radix).saturating_add(i64::from(digit(*b).unwrap_or(0)))
        }) as u8
    };
    match text {
        [b'&', b'#', b'x' | b'X', rest @ ..] => {
            let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            (digits > 0).then(|| (number(&rest[..digits], 16), semicolon(3 + digits)))
        }
        [b'&', b'#', rest @ ..] => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            (digits > 0).then(|| (number(&rest[..digits], 10), semicolon(2 + digits)))
        }
        [b'&', rest @ ..] => {
            let letters = rest.iter().take(5).take_while(|b| b.is_ascii_alphanumeric()).count();
            let byte = match rest[..letters].to_ascii_lowercase().as_slice() {
                b"quot" => b'"',
                b"amp" => b'&',
                b"lt" => b'<',
                b"gt" => b'>',
                b"nbsp" => 0xa0,
                _ => return None,
            };
            Some((byte, semicolon(1 + letters)))
        }
        _ => None,
    }
}

fn js_decode(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len());
    let mut at = 0;
    while at < value.len() {
        let rest = &value[at..];
        let (byte, length) = match rest {
            [b'\\', b'u', digits @ ..] if code_of(digits).is_some() => {
                (narrow(code_of(digits).unwrap_or(0)), 6)
            }
            [b'\\', b'x', digits @ ..] if byte_of(digits).is_some() => (byte_of(digits).unwrap_or(0), 4),
            [b'\\', b'0'..=b'7', ..] => octal(&rest[1..], true),
            [b'\\', next, ..] => (simple_escape(*next), 2),
            _ => (rest[0], 1),
        };
        out.push(byte);
        at += length;
    }
}

/// Up to three octal digits; `bounded`: only two where three would be more than a byte holds.
fn octal(digits: &[u8], bounded: bool) -> (u8, usize) {
    let mut count = digits.iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
    if bounded && count == 3 && digits[0] > b'3' {
        count = 2;
    }
    let value = digits[..count].iter().fold(0_u32, |value, b| value * 8 + u32::from(b - b'0'));
    (value as u8, 1 + count)
}

fn simple_escape(byte: u8) -> u8 {
    match byte {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        other => other,
    }
}

fn escape_decode(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len());
    let mut at = 0;
    while at < value.len() {
        let rest = &value[at..];
        let (byte, length) = match rest {
            [b'\\', b'x' | b'X', digits @ ..] if byte_of(digits).is_some() => {
                (byte_of(digits).unwrap_or(0), 4)
            }
            [b'\\', b'0'..=b'7', ..] => octal(&rest[1..], false),
            [b'\\', next, ..] => (simple_escape(*next), 2),
            _ => (rest[0], 1),
        };
        out.push(byte);
        at += length;
    }
}

fn css_decode(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len());
    let mut at = 0;
    while at < value.len() {
        if value[at] != b'\\' {
            out.push(value[at]);
            at += 1;
            continue;
        }
        let rest = &value[at + 1..];
        let digits = rest.iter().take(6).take_while(|b| b.is_ascii_hexdigit()).count();
        if digits > 0 {
            let code =
                rest[..digits].iter().fold(0_u32, |code, b| code << 4 | u32::from(digit(*b).unwrap_or(0)));
            out.push(narrow(code));
            at += 1 + digits;
            if value.get(at).is_some_and(|b| is_space(*b)) {
                at += 1;
            }
        } else if rest.first() == Some(&b'\n') {
            at += 2;
        } else if let Some(next) = rest.first() {
            out.push(*next);
            at += 2;
        } else {
            at += 1;
        }
    }
}

/// Characters beyond ASCII become `%uXXXX`. What is no UTF-8 is treated as ModSecurity does, on whose
/// outputs rules count: of a sequence that breaks off the first byte is dropped, one that is longer than
/// need be or a surrogate is decoded and followed by its first byte, and NUL disappears.
fn utf8_to_unicode(value: &[u8], out: &mut Vec<u8>) {
    use std::io::Write;
    out.reserve(value.len() * 2);
    let mut at = 0;
    while let Some(&first) = value.get(at) {
        let rest = &value[at..];
        let tail = |n: usize| {
            let bytes = rest.get(1..=n)?;
            bytes
                .iter()
                .try_fold(0_u32, |code, b| (b & 0xc0 == 0x80).then_some(code << 6 | u32::from(b & 0x3f)))
        };
        let (length, least, decoded) = match first {
            0 => {
                at += 1;
                continue;
            }
            0x01..=0x7f => {
                out.push(first);
                at += 1;
                continue;
            }
            0xc0..=0xdf => (2, 0x80, tail(1).map(|low| u32::from(first & 0x1f) << 6 | low)),
            0xe0..=0xef => (3, 0x800, tail(2).map(|low| u32::from(first & 0x0f) << 12 | low)),
            0xf0..=0xf7 => {
                if first >= 0xf5 {
                    out.push(first);
                }
                (4, 0x10000, tail(3).map(|low| u32::from(first & 0x07) << 18 | low))
            }
            _ => {
                out.push(first);
                at += 1;
                continue;
            }
        };
        match decoded {
            None => at += 1,
            Some(code) => {
                let _never_fails = write!(out, "%u{code:04x}");
                if code < least || (0xd800..=0xdfff).contains(&code) {
                    out.push(first);
                }
                at += length;
            }
        }
    }
}

fn compress(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len());
    let mut within = false;
    for byte in value {
        let space = is_space(*byte);
        if !space {
            out.push(*byte);
        } else if !within {
            out.push(b' ');
        }
        within = space;
    }
}

fn replace_comments(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(at) = memchr::memmem::find(rest, b"/*") {
        out.extend_from_slice(&rest[..at]);
        out.push(b' ');
        match memchr::memmem::find(&rest[at + 2..], b"*/") {
            Some(end) => rest = &rest[at + 2 + end + 2..],
            None => return,
        }
    }
    out.extend_from_slice(rest);
}

/// Takes comments away. Inside of one either kind of end counts, and the byte after an end is kept
/// whatever it is.
fn remove_comments(value: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    let mut inside = false;
    while at < value.len() {
        let rest = &value[at..];
        if inside {
            let end = [(&b"*/"[..], 2), (b"-->", 3)].into_iter().find(|(mark, _)| rest.starts_with(mark));
            match end {
                Some((_, length)) => {
                    inside = false;
                    at += length;
                    if let Some(byte) = value.get(at) {
                        out.push(*byte);
                    }
                    at += 1;
                }
                None => at += 1,
            }
        } else if rest.starts_with(b"/*") {
            inside = true;
            at += 2;
        } else if rest.starts_with(b"<!--") {
            inside = true;
            at += 4;
        } else if rest.starts_with(b"--") || rest[0] == b'#' {
            break;
        } else {
            out.push(rest[0]);
            at += 1;
        }
    }
    if inside {
        out.push(b' ');
    }
}

fn remove_comment_marks(value: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < value.len() {
        let rest = &value[at..];
        let marks = [&b"/*"[..], b"*/", b"<!--", b"-->", b"--", b"#"];
        match marks.into_iter().find(|mark| rest.starts_with(mark)) {
            Some(mark) => at += mark.len(),
            None => {
                out.push(rest[0]);
                at += 1;
            }
        }
    }
}

/// Resolves `.`, `..` and repeated slashes; a leading `..` of a relative path stays.
fn normalize(value: &[u8], windows: bool, out: &mut Vec<u8>) {
    let is_slash = |b: u8| b == b'/' || windows && b == b'\\';
    let absolute = value.first().is_some_and(|b| is_slash(*b));
    let slash_end = value.last().is_some_and(|b| is_slash(*b));
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in value.split(|b| is_slash(*b)) {
        match segment {
            b"" | b"." => {}
            b".." => match segments.last() {
                Some(last) if *last != b".." => {
                    segments.pop();
                }
                _ if absolute => {}
                _ => segments.push(segment),
            },
            name => segments.push(name),
        }
    }
    if absolute {
        out.push(b'/');
    }
    for (n, segment) in segments.iter().enumerate() {
        if n > 0 {
            out.push(b'/');
        }
        out.extend_from_slice(segment);
    }
    if slash_end && !segments.is_empty() {
        out.push(b'/');
    }
}

/// Undoes what shells ignore: quotes, carets, backslashes; commas, semicolons and white space become one
/// space, none before a slash or an opening parenthesis.
fn cmd_line(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len());
    for byte in value {
        match byte {
            b'"' | b'\'' | b'\\' | b'^' => {}
            b' ' | b',' | b';' | b'\t' | b'\r' | b'\n' => {
                if out.last() != Some(&b' ') {
                    out.push(b' ');
                }
            }
            b'/' | b'(' => {
                if out.last() == Some(&b' ') {
                    out.pop();
                }
                out.push(*byte);
            }
            _ => out.push(byte.to_ascii_lowercase()),
        }
    }
}

/// Of a text that is no Base64 to its end, what comes before; leniently, whatever of it is.
fn base64_decode(value: &[u8], lenient: bool, out: &mut Vec<u8>) {
    let engine = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let known = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    let clean: Vec<u8> = if lenient {
        value.iter().copied().filter(known).collect()
    } else {
        value.iter().copied().take_while(known).collect()
    };
    let whole = if clean.len() % 4 == 1 { &clean[..clean.len() - 1] } else { &clean };
    // Nothing but the alphabet and a good length is left, so that this does not fail.
    let _cannot_fail = engine.decode_vec(whole, out);
}

fn sql_hex_decode(value: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < value.len() {
        if let [b'0', b'x' | b'X', rest @ ..] = &value[at..] {
            let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count() & !1;
            if digits > 0 {
                out.extend(rest[..digits].chunks_exact(2).filter_map(byte_of));
                at += 2 + digits;
                continue;
            }
        }
        out.push(value[at]);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(name: &str, from: &[u8], to: &[u8]) {
        let transform = Transform::named(name).unwrap();
        let shown = String::from_utf8_lossy(from).into_owned();
        assert_eq!(transform.of(from), to, "{name} of {shown}");
    }

    #[test]
    fn each_transformation_does_what_its_name_says() {
        check("lowercase", b"AbC", b"abc");
        check("uppercase", b"AbC", b"ABC");
        check("urlDecodeUni", b"a%20b+c%u0041%uff1c%zz%4", b"a b cA<%zz%4");
        check("urlDecode", b"%u0041%41", b"%u0041A");
        check("htmlEntityDecode", b"&lt;a&#x3e;&#62&quot;&amp;&unknown;&", b"<a>>\"&&unknown;&");
        check("htmlEntityDecode", b"&nbsp&#x&#;&#xfe3c;&ltx;", b"\xa0&#x&#;<&ltx;");
        check("jsDecode", b"\\x41\\u0042\\103\\n\\q\\uff1c\\400\\", b"ABC\nq< 0\\");
        check("cssDecode", b"ja\\vascript\\41 x\\0000423\\ff1c\\\nz\\", b"javascriptAxB3<z");
        check("utf8toUnicode", "a\u{e4}\u{1f600}".as_bytes(), b"a%u00e4%u1f600");
        check("utf8toUnicode", b"\xc0\xa7x\xc3(\0\x80\xed\xa0\x80", b"%u0027\xc0x(\x80%ud800\xed");
        check("removeNulls", b"a\0b", b"ab");
        check("replaceNulls", b"a\0b", b"a b");
        check("removeWhitespace", b"a b\tc\xc2\xa0", b"abc");
        check("compressWhitespace", b"a \t b\n", b"a b ");
        check("replaceComments", b"a/*x*/b/*", b"a b ");
        check("removeComments", b"a/*x*/b--c", b"ab");
        check("removeComments", b"a<!-- x*/#b/*", b"a#b ");
        check("removeCommentsChar", b"a/*b*/c<!--d-->e--f#g-", b"abcdefg-");
        check("normalizePath", b"/a/./b/../c//d", b"/a/c/d");
        check("normalizePath", b"../../etc", b"../../etc");
        check("normalisePathWin", b"a\\..\\b", b"b");
        check("cmdLine", b"C^md \"/c\" ,, DIR", b"cmd/c dir");
        check("base64Decode", b"aGk=", b"hi");
        check("base64Decode", b"aGk*aGk", b"hi");
        check("base64DecodeExt", b"aG.k", b"hi");
        check("base64Encode", b"hi", b"aGk=");
        check("hexEncode", b"\x01\xff", b"01ff");
        check("hexDecode", b"01fF4", b"\x01\xff");
        check("length", b"abc", b"3");
        check("length", b"", b"0");
        check("trim", b" a ", b"a");
        check("trimLeft", b" a ", b"a ");
        check("trimRight", b" a ", b" a");
        check("urlEncode", b"a b\xff", b"a+b%ff");
        check("sqlHexDecode", b"x 0x414243 y 0x4", b"x ABC y 0x4");
        check("escapeSeqDecode", b"a\\x41\\101\\t\\777\\xg", b"aAA\t\xffxg");
        check(
            "sha1",
            b"abc",
            b"\xa9\x99\x3e\x36\x47\x06\x81\x6a\xba\x3e\x25\x71\x78\x50\xc2\x6c\x9c\xd0\xd8\x9d",
        );
    }

    proptest! {
        #[test]
        fn without_its_bytes_a_transformation_changes_nothing(value in "[ -~\\x00-\\x1f\u{a0}\u{c2}]{0,12}", raw: Vec<u8>) {
            crate::transform_all(value.as_bytes());
            crate::transform_all(&raw);
        }
    }
}
