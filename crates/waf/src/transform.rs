//! Transformations: bytes to bytes. A chain is a path in a tree, so that common beginnings are done once.

use base64::{
    Engine, engine::DecodePaddingMode, engine::GeneralPurposeConfig, engine::general_purpose::GeneralPurpose,
};
use std::borrow::Cow;

/// One transformation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Transform {
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

impl Transform {
    /// The transformation of this name; `Some(None)` for `none`.
    pub(crate) fn named(name: &str) -> Option<Option<Self>> {
        Some(Some(match name.to_ascii_lowercase().as_str() {
            "none" => return Some(None),
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
        }))
    }

    /// Applies it. What it does not change is given back as it is.
    pub(crate) fn apply(self, value: &[u8]) -> Cow<'_, [u8]> {
        let has = |bytes: &[u8]| value.iter().any(|b| bytes.contains(b));
        match self {
            Self::Lowercase if !value.iter().any(u8::is_ascii_uppercase) => Cow::Borrowed(value),
            Self::Lowercase => Cow::Owned(value.to_ascii_lowercase()),
            Self::Uppercase => Cow::Owned(value.to_ascii_uppercase()),
            Self::UrlDecode | Self::UrlDecodeUni if !has(b"%+") => Cow::Borrowed(value),
            Self::UrlDecode => Cow::Owned(url_decode(value, false)),
            Self::UrlDecodeUni => Cow::Owned(url_decode(value, true)),
            Self::HtmlEntityDecode if !has(b"&") => Cow::Borrowed(value),
            Self::HtmlEntityDecode => Cow::Owned(html_decode(value)),
            Self::JsDecode | Self::CssDecode | Self::EscapeSeqDecode if !has(b"\\") => Cow::Borrowed(value),
            Self::JsDecode => Cow::Owned(js_decode(value)),
            Self::CssDecode => Cow::Owned(css_decode(value)),
            Self::EscapeSeqDecode => Cow::Owned(escape_decode(value)),
            Self::Utf8ToUnicode if value.is_ascii() => Cow::Borrowed(value),
            Self::Utf8ToUnicode => Cow::Owned(utf8_to_unicode(value)),
            Self::RemoveNulls if !has(b"\0") => Cow::Borrowed(value),
            Self::RemoveNulls => Cow::Owned(value.iter().copied().filter(|b| *b != 0).collect()),
            Self::ReplaceNulls => Cow::Owned(value.iter().map(|b| if *b == 0 { b' ' } else { *b }).collect()),
            Self::RemoveWhitespace if !value.iter().any(|b| is_space(*b)) => Cow::Borrowed(value),
            Self::RemoveWhitespace => Cow::Owned(value.iter().copied().filter(|b| !is_space(*b)).collect()),
            Self::CompressWhitespace => compress(value),
            Self::Trim => Cow::Borrowed(trim_right(trim_left(value))),
            Self::TrimLeft => Cow::Borrowed(trim_left(value)),
            Self::TrimRight => Cow::Borrowed(trim_right(value)),
            Self::RemoveComments => Cow::Owned(remove_comments(value)),
            Self::ReplaceComments if memchr::memmem::find(value, b"/*").is_none() => Cow::Borrowed(value),
            Self::ReplaceComments => Cow::Owned(replace_comments(value)),
            Self::RemoveCommentsChar => Cow::Owned(remove_comment_marks(value)),
            Self::NormalizePath => normalize(value, false),
            Self::NormalizePathWin => normalize(value, true),
            Self::CmdLine => Cow::Owned(cmd_line(value)),
            Self::Base64Decode => Cow::Owned(base64_decode(value, false)),
            Self::Base64DecodeExt => Cow::Owned(base64_decode(value, true)),
            Self::Base64Encode => Cow::Owned(base64::prelude::BASE64_STANDARD.encode(value).into_bytes()),
            Self::HexEncode => Cow::Owned(hex(value)),
            Self::HexDecode => Cow::Owned(
                value
                    .chunks_exact(2)
                    .map(|pair| digit(pair[0]).unwrap_or(0) << 4 | digit(pair[1]).unwrap_or(0))
                    .collect(),
            ),
            Self::Sha1 => Cow::Owned(
                aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, value)
                    .as_ref()
                    .to_vec(),
            ),
            Self::Length => Cow::Owned(value.len().to_string().into_bytes()),
            Self::UrlEncode => Cow::Owned(url_encode(value)),
            Self::SqlHexDecode => Cow::Owned(sql_hex_decode(value)),
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0xa0)
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

fn hex(value: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    value.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]).collect()
}

/// A full-width code point read as the ASCII character that it looks like (U+FF01 to U+FF5E).
fn narrow(code: u32) -> u8 {
    match code {
        0xff01..=0xff5e => (code - 0xff01 + 0x21) as u8,
        _ => code as u8,
    }
}

pub(crate) fn url_decode(value: &[u8], unicode: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let rest = &value[at..];
        match rest {
            [b'%', b'u' | b'U', digits @ ..]
                if unicode && digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) =>
            {
                let code =
                    digits[..4].iter().fold(0_u32, |code, b| code << 4 | u32::from(digit(*b).unwrap_or(0)));
                out.push(narrow(code));
                at += 6;
            }
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0));
                at += 3;
            }
            [b'+', ..] => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                out.push(value[at]);
                at += 1;
            }
        }
    }
    out
}

fn url_encode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b' ' => out.push(b'+'),
            b'*' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(*byte),
            _ => {
                out.push(b'%');
                out.extend_from_slice(&hex(&[*byte]));
            }
        }
    }
    out
}

fn html_decode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        if value[at] == b'&' {
            if let Some((byte, length)) = entity(&value[at..]) {
                out.push(byte);
                at += length;
                continue;
            }
        }
        out.push(value[at]);
        at += 1;
    }
    out
}

/// One entity: the byte that it stands for and its length.
fn entity(text: &[u8]) -> Option<(u8, usize)> {
    let semicolon = |end: usize| if text.get(end) == Some(&b';') { end + 1 } else { end };
    match text {
        [b'&', b'#', b'x' | b'X', rest @ ..] => {
            let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            let code = rest[..digits]
                .iter()
                .fold(0_u32, |code, b| code.wrapping_shl(4) | u32::from(digit(*b).unwrap_or(0)));
            (digits > 0).then(|| (narrow(code), semicolon(3 + digits)))
        }
        [b'&', b'#', rest @ ..] => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let code = rest[..digits]
                .iter()
                .fold(0_u32, |code, b| code.wrapping_mul(10).wrapping_add(u32::from(b - b'0')));
            (digits > 0).then(|| (narrow(code), semicolon(2 + digits)))
        }
        [b'&', rest @ ..] => {
            let letters = rest.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
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

fn js_decode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let rest = &value[at..];
        let (byte, length) = match rest {
            [b'\\', b'u', digits @ ..]
                if digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) =>
            {
                let code =
                    digits[..4].iter().fold(0_u32, |code, b| code << 4 | u32::from(digit(*b).unwrap_or(0)));
                (narrow(code), 6)
            }
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0), 4)
            }
            [b'\\', b'0'..=b'7', ..] => octal(&rest[1..], 3),
            [b'\\', next, ..] => (simple_escape(*next), 2),
            _ => (rest[0], 1),
        };
        out.push(byte);
        at += length;
    }
    out
}

/// Up to `most` octal digits; at most 0o377.
fn octal(digits: &[u8], most: usize) -> (u8, usize) {
    let mut count = digits.iter().take(most).take_while(|b| (b'0'..=b'7').contains(b)).count();
    if count == 3 && digits[0] > b'3' {
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

fn escape_decode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let rest = &value[at..];
        let (byte, length) = match rest {
            [b'\\', b'x' | b'X', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0), 4)
            }
            [b'\\', b'0'..=b'7', ..] => octal(&rest[1..], 3),
            [b'\\', next, ..] => (simple_escape(*next), 2),
            _ => (rest[0], 1),
        };
        out.push(byte);
        at += length;
    }
    out
}

fn css_decode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
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
    out
}

/// Characters beyond ASCII become `%uXXXX`; bytes that are no UTF-8 stay.
fn utf8_to_unicode(value: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = Vec::with_capacity(value.len() * 2);
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_ascii() {
                out.push(c as u8);
            } else {
                let _ = write!(out, "%u{:04x}", c as u32);
            }
        }
        out.extend_from_slice(chunk.invalid());
    }
    out
}

fn compress(value: &[u8]) -> Cow<'_, [u8]> {
    let plain = !value.windows(2).any(|pair| is_space(pair[0]) && is_space(pair[1]))
        && !value.iter().any(|b| is_space(*b) && *b != b' ');
    if plain {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        if is_space(*byte) {
            if out.last() != Some(&b' ') {
                out.push(b' ');
            }
        } else {
            out.push(*byte);
        }
    }
    Cow::Owned(out)
}

fn replace_comments(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memchr::memmem::find(rest, b"/*") {
        out.extend_from_slice(&rest[..at]);
        out.push(b' ');
        match memchr::memmem::find(&rest[at + 2..], b"*/") {
            Some(end) => rest = &rest[at + 2 + end + 2..],
            None => return out,
        }
    }
    out.extend_from_slice(rest);
    out
}

fn remove_comments(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        match &value[at..] {
            [b'/', b'*', rest @ ..] => match memchr::memmem::find(rest, b"*/") {
                Some(end) => at += end + 4,
                None => break,
            },
            [b'<', b'!', b'-', b'-', rest @ ..] => match memchr::memmem::find(rest, b"-->") {
                Some(end) => at += end + 7,
                None => break,
            },
            [b'-', b'-', ..] | [b'#', ..] => break,
            [byte, ..] => {
                out.push(*byte);
                at += 1;
            }
            [] => break,
        }
    }
    out
}

fn remove_comment_marks(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        match &value[at..] {
            [b'/', b'*', ..] | [b'*', b'/', ..] | [b'-', b'-', b'>', ..]
                if !value[at..].starts_with(b"-->") =>
            {
                at += 2
            }
            [b'<', b'!', b'-', b'-', ..] => at += 4,
            [b'-', b'-', b'>', ..] => at += 3,
            [b'-', b'-', ..] => at += 2,
            [b'#', ..] => at += 1,
            [byte, ..] => {
                out.push(*byte);
                at += 1;
            }
            [] => break,
        }
    }
    out
}

/// Resolves `.`, `..` and repeated slashes; a leading `..` of a relative path stays.
fn normalize(value: &[u8], windows: bool) -> Cow<'_, [u8]> {
    let converted: Cow<'_, [u8]> = if windows && value.contains(&b'\\') {
        Cow::Owned(value.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect())
    } else {
        Cow::Borrowed(value)
    };
    let dirty = memchr::memmem::find(&converted, b"//").is_some()
        || converted.split(|b| *b == b'/').any(|segment| segment == b"." || segment == b"..");
    if !dirty {
        return converted;
    }
    let absolute = converted.first() == Some(&b'/');
    let slash_end = converted.ends_with(b"/") || converted.ends_with(b"/.") || converted.ends_with(b"/..");
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in converted.split(|b| *b == b'/') {
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
    let mut out = Vec::with_capacity(converted.len());
    if absolute {
        out.push(b'/');
    }
    out.extend_from_slice(&segments.join(&b'/'));
    if slash_end && !segments.is_empty() {
        out.push(b'/');
    }
    Cow::Owned(out)
}

/// Undoes what shells ignore: quotes, carets, backslashes; commas, semicolons and white space become one
/// space, none before a slash or an opening parenthesis.
fn cmd_line(value: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(value.len());
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
    out
}

fn base64_decode(value: &[u8], lenient: bool) -> Vec<u8> {
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
        value.iter().copied().take_while(|b| known(b) || *b == b'=').filter(|b| *b != b'=').collect()
    };
    let whole = if clean.len() % 4 == 1 { &clean[..clean.len() - 1] } else { &clean };
    engine.decode(whole).unwrap_or_default()
}

fn sql_hex_decode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        if let [b'0', b'x' | b'X', rest @ ..] = &value[at..] {
            let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count() & !1;
            if digits > 0 {
                out.extend(
                    rest[..digits]
                        .chunks_exact(2)
                        .map(|pair| digit(pair[0]).unwrap_or(0) << 4 | digit(pair[1]).unwrap_or(0)),
                );
                at += 2 + digits;
                continue;
            }
        }
        out.push(value[at]);
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(name: &str, from: &[u8], to: &[u8]) {
        let transform = Transform::named(name).unwrap().unwrap();
        assert_eq!(&*transform.apply(from), to, "{name} of {}", String::from_utf8_lossy(from));
    }

    #[test]
    fn each_transformation_does_what_its_name_says() {
        check("lowercase", b"AbC", b"abc");
        check("urlDecodeUni", b"a%20b+c%u0041%uff1c%zz%4", b"a b cA<%zz%4");
        check("urlDecode", b"%u0041%41", b"%u0041A");
        check("htmlEntityDecode", b"&lt;a&#x3e;&#62&quot;&amp;&unknown;", b"<a>>\"&&unknown;");
        check("jsDecode", b"\\x41\\u0042\\103\\n\\q", b"ABC\nq");
        check("cssDecode", b"ja\\vascript\\41 x\\0000423", b"javascriptAxB3");
        check("utf8toUnicode", "aä".as_bytes(), b"a%u00e4");
        check("removeNulls", b"a\0b", b"ab");
        check("removeWhitespace", b"a b\tc", b"abc");
        check("compressWhitespace", b"a \t b", b"a b");
        check("replaceComments", b"a/*x*/b/*", b"a b ");
        check("removeComments", b"a/*x*/b--c", b"ab");
        check("normalizePath", b"/a/./b/../c//d", b"/a/c/d");
        check("normalizePath", b"../../etc", b"../../etc");
        check("normalisePathWin", b"a\\..\\b", b"b");
        check("cmdLine", b"C^md \"/c\" ,, DIR", b"cmd/c dir");
        check("base64Decode", b"aGk=", b"hi");
        check("base64DecodeExt", b"aG.k", b"hi");
        check("hexEncode", b"\x01\xff", b"01ff");
        check("length", b"abc", b"3");
        check("trim", b" a ", b"a");
        check("sqlHexDecode", b"x 0x414243 y", b"x ABC y");
        check("escapeSeqDecode", b"a\\x41\\101\\t", b"aAA\t");
        assert_eq!(hex(&Transform::Sha1.apply(b"abc")), b"a9993e364706816aba3e25717850c26c9cd0d89d");
    }

    proptest! {
        #[test]
        fn no_bytes_make_any_of_them_panic(bytes: Vec<u8>) {
            for name in [
                "lowercase", "urldecode", "urldecodeuni", "htmlentitydecode", "jsdecode", "cssdecode", "escapeseqdecode",
                "utf8tounicode", "removenulls", "replacenulls", "removewhitespace", "compresswhitespace", "trim",
                "removecomments", "replacecomments", "removecommentschar", "normalizepath", "normalizepathwin", "cmdline",
                "base64decode", "base64decodeext", "base64encode", "hexencode", "hexdecode", "sha1", "length", "urlencode",
                "sqlhexdecode",
            ] {
                let _ = Transform::named(name).unwrap().unwrap().apply(&bytes);
            }
        }
    }
}
