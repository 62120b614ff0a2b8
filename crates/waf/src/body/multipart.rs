//! `multipart/form-data`, read strictly: whatever two parsers could read differently sets a flag.

use super::{ARGUMENTS_MAX, Parsed};

const PARTS_MAX: usize = 1000;
const PART_HEAD_BYTES_MAX: usize = 16 * 1024;

pub(crate) fn parse(content_type: &[u8], bytes: &[u8], complete: bool) -> Parsed {
    let mut parsed = Parsed::default();
    let Some(boundary) = boundary(content_type, &mut parsed) else {
        parsed.flags.multipart_strict_error = true;
        parsed.fail("multipart without a boundary");
        return parsed;
    };
    let delimiter = [b"--", boundary.as_slice()].concat();
    let Some(mut rest) = first_part(bytes, &delimiter, &mut parsed) else {
        if complete {
            parsed.flags.multipart_strict_error = true;
            parsed.fail("multipart without parts");
        }
        return parsed;
    };
    let mut parts = 0;
    loop {
        parts += 1;
        if parts > PARTS_MAX || parsed.arguments.len() > ARGUMENTS_MAX {
            parsed.fail("multipart holds too many parts");
            return parsed;
        }
        let (part, after) = match next_delimiter(rest, &delimiter) {
            Some((end, after)) => (&rest[..end], Some(after)),
            None => (rest, None),
        };
        read_part(part, &delimiter, &mut parsed);
        match after {
            None => {
                if complete {
                    parsed.flags.multipart_strict_error = true;
                    parsed.flags.multipart_unmatched_boundary = true;
                    parsed.fail("multipart: the final boundary is missing");
                }
                return parsed;
            }
            Some(after) if after.starts_with(b"--") => {
                // Nothing but white space belongs after the end.
                if !after[2..].trim_ascii().is_empty() {
                    parsed.flags.multipart_strict_error = true;
                }
                return parsed;
            }
            Some(after) => rest = line_end(after, &mut parsed),
        }
    }
}

fn boundary(content_type: &[u8], parsed: &mut Parsed) -> Option<Vec<u8>> {
    let lower = content_type.to_ascii_lowercase();
    let mut found = memchr::memmem::find_iter(&lower, b"boundary=");
    let at = found.next()? + b"boundary=".len();
    if found.next().is_some() {
        parsed.flags.multipart_strict_error = true;
    }
    let text = &content_type[at..];
    let value = match text.first()? {
        b'"' => text[1..].split(|b| *b == b'"').next()?,
        _ => text.split(|b| matches!(b, b';' | b',' | b' ' | b'\t')).next()?,
    };
    let plain = !value.is_empty() && value.len() <= 70 && value.iter().all(|b| (0x20..0x7f).contains(b));
    plain.then(|| value.to_vec())
}

/// What follows the first delimiter line.
fn first_part<'b>(bytes: &'b [u8], delimiter: &[u8], parsed: &mut Parsed) -> Option<&'b [u8]> {
    if let Some(after) = bytes.strip_prefix(delimiter) {
        return Some(line_end(after, parsed));
    }
    let (end, after) = next_delimiter(bytes, delimiter)?;
    // A preamble is legal and nobody sends one.
    if !bytes[..end].trim_ascii().is_empty() {
        parsed.flags.multipart_strict_error = true;
    }
    Some(line_end(after, parsed))
}

/// Where the part before the next delimiter line ends, and what follows the delimiter.
fn next_delimiter<'b>(bytes: &'b [u8], delimiter: &[u8]) -> Option<(usize, &'b [u8])> {
    memchr::memmem::find_iter(bytes, delimiter).find_map(|at| {
        let before = &bytes[..at];
        let end = before.strip_suffix(b"\r\n").or_else(|| before.strip_suffix(b"\n"))?.len();
        Some((end, &bytes[at + delimiter.len()..]))
    })
}

fn line_end<'b>(bytes: &'b [u8], parsed: &mut Parsed) -> &'b [u8] {
    if let Some(rest) = bytes.strip_prefix(b"\r\n") {
        return rest;
    }
    parsed.flags.multipart_strict_error = true;
    memchr::memchr(b'\n', bytes).map_or(&b""[..], |at| &bytes[at + 1..])
}

fn read_part(part: &[u8], delimiter: &[u8], parsed: &mut Parsed) {
    let (head, body) = match memchr::memmem::find(part, b"\r\n\r\n") {
        Some(at) => (&part[..at], &part[at + 4..]),
        None => match memchr::memmem::find(part, b"\n\n") {
            Some(at) => {
                parsed.flags.multipart_strict_error = true;
                (&part[..at], &part[at + 2..])
            }
            None => {
                parsed.flags.multipart_strict_error = true;
                (part, &b""[..])
            }
        },
    };
    if head.len() > PART_HEAD_BYTES_MAX {
        parsed.fail("multipart: the head of a part is too large");
        return;
    }
    // Something that looks like a boundary inside of a part.
    if body
        .split(|b| *b == b'\n')
        .any(|line| line.starts_with(b"--") && line.len() > 4 && !line.starts_with(delimiter))
    {
        parsed.flags.multipart_unmatched_boundary = true;
    }
    let (mut name, mut filename) = (None, None);
    for line in head
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
    {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            parsed.flags.multipart_strict_error = true;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            parsed.flags.multipart_strict_error = true;
            continue;
        };
        if line[..colon].eq_ignore_ascii_case(b"content-disposition") {
            name = parameter(&line[colon + 1..], b"name");
            filename = parameter(&line[colon + 1..], b"filename");
        }
    }
    let key = name.clone().unwrap_or_default();
    for line in head
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
    {
        parsed.part_headers.push((key.clone(), line.to_vec()));
    }
    match (name, filename) {
        (Some(name), Some(filename)) => {
            parsed.sizes.push((name.clone(), body.len().to_string().into_bytes()));
            parsed.files.push((name, filename));
        }
        (Some(name), None) => parsed.arguments.push((name, body.to_vec())),
        (None, _) => parsed.flags.multipart_strict_error = true,
    }
}

/// A parameter of a field, quoted or not.
fn parameter(text: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b';', rest) {
        rest = rest[at + 1..].trim_ascii_start();
        let Some(equals) = memchr::memchr(b'=', rest) else { return None };
        let name = rest[..equals].trim_ascii();
        let value = rest[equals + 1..].trim_ascii_start();
        let (value, after) = match value.first() {
            Some(quote @ (b'"' | b'\'')) => {
                let mut out = Vec::new();
                let mut at = 1;
                while let Some(byte) = value.get(at) {
                    match byte {
                        b'\\' if value.get(at + 1).is_some_and(|next| next == quote || *next == b'\\') => {
                            out.push(value[at + 1]);
                            at += 2;
                            continue;
                        }
                        byte if byte == quote => break,
                        byte => out.push(*byte),
                    }
                    at += 1;
                }
                (out, value.get(at + 1..).unwrap_or_default())
            }
            _ => {
                let end = memchr::memchr(b';', value).unwrap_or(value.len());
                (value[..end].trim_ascii_end().to_vec(), &value[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
    None
}
