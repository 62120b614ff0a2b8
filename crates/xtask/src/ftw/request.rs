//! Requests as bytes, exactly as go-ftw sends them, and one field by which the log is found.

use super::corpus::Input;
use anyhow::{Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::fmt::Write;

/// The field that names the test.
pub const MARKER: &str = "X-CRS-Test";
/// The rule of ours that tells it in the audit log; no rule set has this id.
pub const MARKER_RULE: u32 = 999_999_999;

/// The bytes of a request.
pub fn bytes(input: &Input, version: u8, marker: &str) -> Result<Vec<u8>> {
    if let Some(encoded) = &input.encoded_request {
        return Ok(marked(decoded(encoded)?, marker));
    }
    if let Some(raw) = &input.raw_request {
        return Ok(marked(raw.clone().into_bytes(), marker));
    }
    let mut headers: Vec<(String, String)> =
        input.headers.iter().map(|(name, value)| (name.clone(), value.clone().unwrap_or_default())).collect();
    let method = input.method.as_deref().unwrap_or("GET");
    let mut data = match (&input.data, &input.encoded_data) {
        (Some(data), _) => rendered(data),
        (None, Some(encoded)) => decoded(encoded)?,
        (None, None) => Vec::new(),
    };
    let completes = input.autocompletes();
    if !data.is_empty() && completes {
        if !has(&headers, "content-type") {
            headers.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
        }
        if values(&headers, "content-type").any(|kind| kind == "application/x-www-form-urlencoded") {
            data = form(data);
        }
    }
    if values(&headers, "content-type").any(|kind| kind.contains("multipart/form-data;")) {
        // The tests of version 1 that have CRLF already were written for a runner that did nothing here.
        if version > 1 || !data.windows(2).any(|two| two == b"\r\n") {
            data = with_crlf(&data);
        }
    }
    if completes {
        if !has(&headers, "connection") {
            headers.push(("Connection".into(), "close".into()));
        }
        // The go-ftw of version 1 gave a length to bodies only.
        let may_have_body = version > 1
            && (method.starts_with("POST")
                || method.contains("PUT")
                || method.contains("PATCH")
                || method.ends_with("DELETE"));
        if !has(&headers, "content-length") && (!data.is_empty() || may_have_body) {
            headers.push(("Content-Length".into(), data.len().to_string()));
        }
    }
    headers.push((MARKER.into(), marker.into()));
    let uri = input.uri.as_deref().unwrap_or("/");
    let version = input.version.as_deref().unwrap_or("HTTP/1.1");
    let mut head = format!("{method} {uri} {version}\r\n");
    for (name, value) in &headers {
        write!(head, "{name}: {value}\r\n")?;
    }
    head.push_str("\r\n");
    if head.len() > 1 << 20 {
        bail!("the head is too large");
    }
    Ok([head.into_bytes(), data].concat())
}

/// Base64, in which line ends mean nothing.
fn decoded(text: &str) -> Result<Vec<u8>> {
    let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    Ok(BASE64_STANDARD.decode(plain)?)
}

fn values<'h>(headers: &'h [(String, String)], wanted: &'h str) -> impl Iterator<Item = String> + 'h {
    headers
        .iter()
        .filter(move |(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.to_ascii_lowercase())
}

fn has(headers: &[(String, String)], wanted: &str) -> bool {
    headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted))
}

/// Puts the marker behind the first line.
fn marked(request: Vec<u8>, marker: &str) -> Vec<u8> {
    let Some(at) = request.windows(2).position(|two| two == b"\r\n") else { return request };
    let (line, rest) = request.split_at(at + 2);
    [line, format!("{MARKER}: {marker}\r\n").as_bytes(), rest].concat()
}

/// A text with its `{{ "x" | repeat n }}` written out; any other template makes it empty, as in go-ftw.
fn rendered(text: &str) -> Vec<u8> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((template, after)) = after.split_once("}}") else { return Vec::new() };
        let Some((word, count)) = repeat(template) else { return Vec::new() };
        out.push_str(before);
        out.push_str(&word.repeat(count));
        rest = after;
    }
    out.push_str(rest);
    out.into_bytes()
}

fn repeat(template: &str) -> Option<(&str, usize)> {
    let (word, action) = template.split_once('|')?;
    let word = word.trim().strip_prefix('"')?.strip_suffix('"')?;
    let count = action.trim().strip_prefix("repeat")?.trim().parse().ok()?;
    Some((word, count))
}

/// Encodes names and values of a form, unless it is encoded already.
fn form(data: Vec<u8>) -> Vec<u8> {
    if unescaped(&data).is_none_or(|plain| plain != data) {
        return data;
    }
    let mut pairs: Vec<&[u8]> = data.split(|b| *b == b'&').collect();
    if pairs.last().is_some_and(|last| last.is_empty()) {
        pairs.pop();
    }
    let encoded = pairs.into_iter().map(|pair| match pair.iter().position(|b| *b == b'=') {
        Some(at) => [escaped(&pair[..at]), b"=".to_vec(), escaped(&pair[at + 1..])].concat(),
        None => escaped(pair),
    });
    encoded.collect::<Vec<_>>().join(&b'&')
}

/// Percent-decoding of a whole query; `None` where an escape is broken.
fn unescaped(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                out.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &after[2..];
            }
            byte => out.push(*byte),
        }
    }
    Some(out)
}

fn escaped(data: &[u8]) -> Vec<u8> {
    let mut out = String::with_capacity(data.len());
    for byte in data {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(*byte)),
            byte => {
                let _never_fails = write!(out, "%{byte:02X}");
            }
        }
    }
    out.into_bytes()
}

fn with_crlf(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 64);
    for byte in data {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded_once() {
        assert_eq!(form(b"a=<b> c&d".to_vec()), b"a=%3Cb%3E+c&d");
        assert_eq!(form(b"a=%3C".to_vec()), b"a=%3C");
        assert_eq!(form(b"a=100%".to_vec()), b"a=100%", "a broken escape is sent as it is");
    }

    #[test]
    fn heads_are_completed() {
        let input = Input { method: Some("POST".into()), data: Some("a=b".into()), ..Input::default() };
        let text = String::from_utf8(bytes(&input, 2, "m").unwrap()).unwrap();
        assert_eq!(
            text,
            "POST / HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\nContent-Length: 3\r\nX-CRS-Test: m\r\n\r\na=b"
        );
        let plain = Input { autocomplete_headers: Some(false), ..Input::default() };
        assert_eq!(bytes(&plain, 2, "m").unwrap(), b"GET / HTTP/1.1\r\nX-CRS-Test: m\r\n\r\n");
    }

    #[test]
    fn templates_repeat() {
        assert_eq!(rendered("a{{ \"xy\" | repeat 3 }}b"), b"axyxyxyb");
        assert_eq!(rendered("{{ evil() }}"), b"");
    }
}
