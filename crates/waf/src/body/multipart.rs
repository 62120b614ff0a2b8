//! `multipart/form-data`, read strictly: whatever two parsers could read differently raises a flag, as
//! ModSecurity's do, or is a fault.

use super::{Limits, Sink};
use crate::variable::{Collection, Flag};

/// Longest content type, and longest line in the head of a part.
const CONTENT_TYPE_BYTES_MAX: usize = 1024;
const LINE_BYTES_MAX: usize = 4096;
/// Lines in the head of one part.
const LINES_MAX: usize = 64;
/// What makes a form one that two parsers may read differently.
const STRICT: &[Flag] = &[
    Flag::MultipartBoundaryQuoted,
    Flag::MultipartBoundarySpace,
    Flag::MultipartDataBefore,
    Flag::MultipartDataAfter,
    Flag::MultipartHeaderFolding,
    Flag::MultipartLfLine,
    Flag::MultipartMissingSemicolon,
    Flag::MultipartInvalidQuoting,
    Flag::MultipartInvalidPart,
    Flag::MultipartInvalidFolding,
    Flag::MultipartTooManyFiles,
];

pub(crate) fn parse(content_type: &[u8], bytes: &[u8], complete: bool, limits: &Limits, sink: &mut dyn Sink) {
    let mut reader = Reader { bytes, limits, sink, raised: Vec::new(), part: None, boundaries: 0, parts: 0 };
    let outcome = match reader.boundary(content_type) {
        Ok(boundary) => reader.body(&boundary, complete),
        Err(why) => Err(why),
    };
    if let Err(why) = outcome {
        // What was read of the part so far is looked at, too.
        reader.finish(bytes.len());
        reader.sink.raise(Flag::MultipartStrict);
        reader.sink.fail(&format!("multipart: {why}"));
    }
}

/// A part that is being read.
#[derive(Default)]
struct Part {
    /// Lines of its head, folded ones joined.
    head: Vec<Vec<u8>>,
    /// Where its data begins, once its head is over.
    data: Option<usize>,
    /// Whether a line of data was seen.
    has_data: bool,
    name: Option<Vec<u8>>,
    filename: Option<Vec<u8>>,
}

struct Reader<'r> {
    bytes: &'r [u8],
    limits: &'r Limits,
    sink: &'r mut dyn Sink,
    raised: Vec<Flag>,
    part: Option<Part>,
    boundaries: usize,
    parts: usize,
}

impl Reader<'_> {
    fn raise(&mut self, flag: Flag) {
        if self.raised.contains(&flag) {
            return;
        }
        self.raised.push(flag);
        self.sink.raise(flag);
        if STRICT.contains(&flag) {
            self.sink.raise(Flag::MultipartStrict);
        }
    }

    /// The boundary that the content type names.
    fn boundary(&mut self, content_type: &[u8]) -> Result<Vec<u8>, &'static str> {
        if content_type.len() > CONTENT_TYPE_BYTES_MAX {
            return Err("the content type is too long");
        }
        const KIND: usize = b"multipart/form-data".len();
        let lower = content_type.to_ascii_lowercase();
        let mut found = memchr::memmem::find_iter(&lower, b"boundary");
        let at = found.next().ok_or("there is no boundary")?;
        if found.any(|again| memchr::memchr(b'=', &lower[again..]).is_some()) {
            return Err("there are two boundaries");
        }
        let between = content_type.get(KIND..at).unwrap_or_default();
        if !between.contains(&b';') {
            self.raise(Flag::MultipartMissingSemicolon);
        }
        if !between.trim_ascii_end().ends_with(b";") && !between.trim_ascii().is_empty() {
            return Err("the content type cannot be read");
        }
        let after = &content_type[at + b"boundary".len()..];
        let equals = memchr::memchr(b'=', after).ok_or("the boundary has no value")?;
        let value = &after[equals + 1..];
        if !after[..equals].trim_ascii().is_empty() {
            return Err("the boundary has another name");
        }
        if equals > 0 || value.first().is_some_and(u8::is_ascii_whitespace) {
            self.raise(Flag::MultipartBoundarySpace);
        }
        let value = value.trim_ascii_start();
        let boundary = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                self.raise(Flag::MultipartBoundaryQuoted);
                let end = memchr::memchr(b'"', quoted).ok_or("the boundary is half quoted")?;
                let rest = quoted[end + 1..].trim_ascii_start();
                if !rest.is_empty() && !rest.starts_with(b";") {
                    return Err("the boundary is half quoted");
                }
                &quoted[..end]
            }
            None => {
                let plain = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii_end();
                if plain.contains(&b'"') {
                    return Err("the boundary is half quoted");
                }
                plain
            }
        };
        let is_known = |b: &u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(b);
        if boundary.is_empty() || boundary.ends_with(b" ") || !boundary.iter().all(is_known) {
            return Err("the boundary holds other characters than it may");
        }
        Ok(boundary.to_vec())
    }

    fn body(&mut self, boundary: &[u8], complete: bool) -> Result<(), &'static str> {
        let delimiter = [b"--", boundary].concat();
        let mut at = 0;
        // How the line before this one ended.
        let mut before = LineEnd::None;
        while at < self.bytes.len() {
            let rest = &self.bytes[at..];
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let line = &rest[..length];
            let end = LineEnd::of(line);
            if self.is_delimiter(line, boundary, &delimiter, before)? {
                let after = &line[delimiter.len()..line.len() - end.len()];
                let is_final = after.starts_with(b"--");
                let after = if is_final { &after[2..] } else { after };
                let is_last_line = at + length == self.bytes.len();
                if !after.is_empty() || (end == LineEnd::None && !(is_final && is_last_line)) {
                    if !complete && is_last_line {
                        // Cut in the middle of a delimiter.
                        self.finish(at.saturating_sub(before.len()));
                        return Ok(());
                    }
                    return Err("a boundary line holds something else");
                }
                if before == LineEnd::Lf || end == LineEnd::Lf {
                    self.raise(Flag::MultipartLfLine);
                }
                self.finish(at - before.len());
                self.boundaries += 1;
                if is_final {
                    if !is_last_line {
                        self.raise(Flag::MultipartDataAfter);
                    }
                    return Ok(());
                }
                self.parts += 1;
                if self.parts > self.limits.arguments_max {
                    return Err("it has too many parts");
                }
                self.part = Some(Part::default());
            } else {
                self.line(at, line)?;
            }
            (at, before) = (at + length, end);
        }
        if !complete {
            self.finish(self.bytes.len());
            return Ok(());
        }
        Err(if self.boundaries == 0 { "it has no parts" } else { "the final boundary is missing" })
    }

    /// Whether a line ends a part. What only looks like it raises a flag.
    fn is_delimiter(
        &mut self,
        line: &[u8],
        boundary: &[u8],
        delimiter: &[u8],
        before: LineEnd,
    ) -> Result<bool, &'static str> {
        if line.len() > 3 && line.starts_with(b"--") {
            if line.starts_with(delimiter) {
                let nothing_yet = self.part.as_ref().is_some_and(|part| !part.has_data);
                if nothing_yet && self.boundaries > 0 {
                    if before == LineEnd::Lf {
                        self.raise(Flag::MultipartLfLine);
                    }
                    self.raise(Flag::MultipartInvalidPart);
                    return Ok(false);
                }
                return Ok(true);
            }
            let bare = line[2..].trim_ascii_start();
            let bare = bare.strip_prefix(b"\"").unwrap_or(bare);
            if bare.len() + 2 < line.len() && bare.starts_with(boundary) {
                return Err("a boundary is quoted or indented");
            }
            self.raise(Flag::MultipartUnmatchedBoundary);
        } else if memchr::memmem::find(line, delimiter).is_some() {
            self.raise(Flag::MultipartUnmatchedBoundary);
        }
        Ok(false)
    }

    /// A line that is no boundary.
    fn line(&mut self, at: usize, line: &[u8]) -> Result<(), &'static str> {
        let end = LineEnd::of(line);
        let Some(part) = &mut self.part else {
            self.raise(Flag::MultipartDataBefore);
            return Ok(());
        };
        if part.data.is_some() {
            part.has_data = true;
            return Ok(());
        }
        if line.len() > LINE_BYTES_MAX || part.head.len() >= LINES_MAX {
            return Err("the head of a part is too large");
        }
        if line.contains(&0) {
            return Err("there is a zero byte in the head of a part");
        }
        let text = &line[..line.len() - end.len()];
        let folded = text.first().is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | 0x0b | 0x0c));
        if text.is_empty() {
            part.data = Some(at + line.len());
            self.head_ends()?;
        } else if folded {
            let more = text.trim_ascii_start();
            let indent = &text[..text.len() - more.len()];
            let last = part.head.last_mut().ok_or("the head of a part begins in its middle")?;
            last.push(b' ');
            last.extend_from_slice(more);
            let odd = indent.iter().any(|b| !matches!(b, b' ' | b'\t'));
            self.raise(Flag::MultipartHeaderFolding);
            if odd {
                self.raise(Flag::MultipartInvalidFolding);
            }
        } else {
            match memchr::memchr(b':', text) {
                None => return Err("a line in the head of a part has no colon"),
                Some(0) => return Err("a line in the head of a part has no name"),
                Some(colon) => {
                    let name = &text[..=colon];
                    let begins =
                        |own: &Vec<u8>| own.get(..=colon).is_some_and(|own| own.eq_ignore_ascii_case(name));
                    if part.head.iter().any(begins) {
                        return Err("a part has two fields of one name");
                    }
                    part.head.push(text.to_vec());
                }
            }
        }
        match end {
            LineEnd::Lf | LineEnd::None => self.raise(Flag::MultipartLfLine),
            LineEnd::CrLf => {}
        }
        Ok(())
    }

    fn head_ends(&mut self) -> Result<(), &'static str> {
        let Some(part) = &mut self.part else { return Ok(()) };
        const NAME: &[u8] = b"content-disposition:";
        let is_it =
            |line: &&Vec<u8>| line.get(..NAME.len()).is_some_and(|own| own.eq_ignore_ascii_case(NAME));
        let line = part.head.iter().find(is_it).ok_or("a part has no Content-Disposition")?;
        let found = disposition(line[NAME.len()..].trim_ascii());
        let Ok(found) = found else {
            part.name = Some(Vec::new());
            return found.map(|_| ());
        };
        (part.name, part.filename) = (Some(found.name), found.filename);
        if found.invalid_quoting {
            self.raise(Flag::MultipartInvalidQuoting);
        }
        Ok(())
    }

    /// Hands a part over whose data ends here.
    fn finish(&mut self, end: usize) {
        let Some(part) = self.part.take() else { return };
        let name = part.name.unwrap_or_default();
        for line in &part.head {
            self.sink.add(Collection::PartHeaders, &name, line);
        }
        let Some(data) = part.data else { return };
        let data = self.bytes.get(data..end).unwrap_or_default();
        // With an empty file name browsers send no file, and some apps read a field.
        match part.filename.filter(|filename| !filename.is_empty()) {
            Some(filename) => {
                self.sink.add(Collection::Files, &name, &filename);
                self.sink.add(Collection::FilesSizes, &name, data.len().to_string().as_bytes());
                if self.limits.keep_files {
                    self.sink.add(Collection::FilesContent, &name, data);
                }
            }
            None => self.sink.add(Collection::ArgsPost, &name, data),
        }
    }
}

/// How a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    None,
    Lf,
    CrLf,
}

impl LineEnd {
    fn of(line: &[u8]) -> Self {
        match line {
            [.., b'\r', b'\n'] => Self::CrLf,
            [.., b'\n'] => Self::Lf,
            _ => Self::None,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Lf => 1,
            Self::CrLf => 2,
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Disposition {
    name: Vec<u8>,
    filename: Option<Vec<u8>>,
    invalid_quoting: bool,
}

/// `form-data; name="a"; filename="b"`; anything that is written otherwise is a fault.
fn disposition(text: &[u8]) -> Result<Disposition, &'static str> {
    const FAULT: &str = "a Content-Disposition cannot be read";
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let skip = |text: &mut &[u8]| {
        let from = text.iter().position(|b| !blank(b)).unwrap_or(text.len());
        *text = &text[from..];
    };
    let mut rest = text.strip_prefix(b"form-data").ok_or("a part is no form data")?;
    let mut found = Disposition::default();
    let (mut name, mut extended) = (None, None);
    skip(&mut rest);
    while !rest.is_empty() {
        rest = rest.strip_prefix(b";").ok_or(FAULT)?;
        skip(&mut rest);
        let end = rest.iter().position(|b| *b == b'=' || blank(b)).ok_or(FAULT)?;
        let parameter = &rest[..end];
        rest = &rest[end..];
        skip(&mut rest);
        rest = rest.strip_prefix(b"=").ok_or(FAULT)?;
        skip(&mut rest);
        let (value, quote, after) = if parameter == b"filename*" {
            let (value, after) = extended_value(rest).ok_or(FAULT)?;
            (value, None, after)
        } else {
            match rest.first() {
                Some(quote @ (b'"' | b'\'')) => {
                    let (value, after) = quoted(rest, *quote).ok_or(FAULT)?;
                    (value, Some(*quote), after)
                }
                Some(_) => {
                    let is_token = |b: &u8| (0x21..0x7f).contains(b) && !b"()<>@,;:\\\"/[]?=".contains(b);
                    let end = rest.iter().position(|b| !is_token(b)).unwrap_or(rest.len());
                    (rest[..end].to_vec(), None, &rest[end..])
                }
                None => return Err(FAULT),
            }
        };
        found.invalid_quoting |= quote == Some(b'\'') || quote.is_none() && value.contains(&b'\'');
        let place = match parameter {
            b"name" => &mut name,
            b"filename" => &mut found.filename,
            b"filename*" => &mut extended,
            _ => return Err(FAULT),
        };
        if place.replace(value).is_some() {
            return Err("a part has two names");
        }
        rest = after;
        skip(&mut rest);
    }
    found.name = name.filter(|name| !name.is_empty()).ok_or("a part has no name")?;
    if extended.is_some() && found.filename.is_none() {
        return Err("a file has no plain name");
    }
    Ok(found)
}

/// A text in quotes, and what follows it.
fn quoted(text: &[u8], quote: u8) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b'\\' => {
                let next = *text.get(at + 1)?;
                // Some browsers send backslashes that escape nothing.
                if next == quote || next == b'\\' {
                    at += 1;
                }
                out.push(text[at]);
            }
            byte if byte == quote => return Some((out, &text[at + 1..])),
            byte => out.push(byte),
        }
        at += 1;
    }
}

/// `charset'language'name` with percent signs (RFC 5987).
fn extended_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let end = memchr::memchr(b';', text).unwrap_or(text.len());
    let value = &text[..end];
    let mut parts = value.splitn(3, |b| *b == b'\'');
    let (charset, _language, name) = (parts.next()?, parts.next()?, parts.next()?);
    let good = !charset.is_empty()
        && charset.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&+-^_`{}~".contains(b))
        && super::urlencoded::is_valid(name)
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"%!#$&+-.^_`~".contains(b));
    good.then(|| (value.to_vec(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Kept, TEST_LIMITS},
        *,
    };
    use proptest::prelude::*;

    fn read(content_type: &str, body: &str, complete: bool) -> Kept {
        let mut kept = Kept::default();
        parse(content_type.as_bytes(), body.as_bytes(), complete, &TEST_LIMITS, &mut kept);
        kept
    }

    fn form(body: &str) -> Kept {
        read("multipart/form-data; boundary=x", &body.replace('\n', "\r\n"), true)
    }

    fn field(name: &str, value: &str) -> (Collection, String, String) {
        (Collection::ArgsPost, name.into(), value.into())
    }

    const GOOD: &str = "--x\nContent-Disposition: form-data; name=\"a\"\n\none\ntwo\n--x\n\
        content-disposition: form-data; name=f; filename=\"n.txt\"\nContent-Type: text/plain\n\ndata\n--x--\n";

    #[test]
    fn fields_files_and_heads_of_parts_are_found() {
        let kept = form(GOOD);
        assert_eq!((kept.fault, kept.flags), (None, vec![]));
        let found = |collection| kept.found.iter().filter(move |(own, ..)| *own == collection).cloned();
        assert_eq!(found(Collection::ArgsPost).collect::<Vec<_>>(), [field("a", "one\r\ntwo")]);
        let files: Vec<_> = found(Collection::Files).map(|(_, name, value)| (name, value)).collect();
        assert_eq!(files, [("f".into(), "n.txt".into())]);
        assert_eq!(found(Collection::FilesSizes).next().unwrap().2, "4");
        assert_eq!(found(Collection::FilesContent).next().unwrap().2, "data");
        assert_eq!(found(Collection::PartHeaders).next_back().unwrap().2, "Content-Type: text/plain");
    }

    #[test]
    fn an_empty_file_name_hides_no_field() {
        let kept = form("--x\nContent-Disposition: form-data; name=a; filename=\"\"\n\nevil\n--x--\n");
        assert!(kept.found.contains(&field("a", "evil")));
    }

    #[test]
    fn what_two_parsers_may_read_differently_raises_a_flag() {
        let check = |body: &str, flag: Flag| {
            let kept = read("multipart/form-data; boundary=x", body, true);
            assert!(kept.flags.contains(&flag), "{flag:?} {kept:?} {body}");
        };
        let good = GOOD.replace('\n', "\r\n");
        check(GOOD, Flag::MultipartLfLine);
        check(&format!("before\r\n{good}"), Flag::MultipartDataBefore);
        check(&format!("{good}after"), Flag::MultipartDataAfter);
        check(&good.replace("one\r\n", "--y\r\n"), Flag::MultipartUnmatchedBoundary);
        check(&good.replace("one\r\n", "z--xy\r\n"), Flag::MultipartUnmatchedBoundary);
        check(&good.replace("; name=f", ";\r\n name=f"), Flag::MultipartHeaderFolding);
        check(&good.replace("; name=f", "; name='f'"), Flag::MultipartInvalidQuoting);
        check(&good.replace("\r\n\r\none\r\ntwo\r\n", "\r\n\r\n"), Flag::MultipartInvalidPart);
        for flag in [Flag::MultipartLfLine, Flag::MultipartStrict] {
            check(GOOD, flag);
        }
        let kind = |kind: &str, flag: Flag| {
            let kept = read(kind, &good, true);
            assert!(kept.fault.is_none() && kept.flags.contains(&flag), "{kind} {kept:?}");
        };
        kind("multipart/form-data; boundary=\"x\"", Flag::MultipartBoundaryQuoted);
        kind("multipart/form-data; boundary= x", Flag::MultipartBoundarySpace);
        kind("multipart/form-data boundary=x", Flag::MultipartMissingSemicolon);
        let other = read("multipart/form-data; charset=utf-8; boundary=x; y=z", &good, true);
        assert_eq!((other.fault, other.flags), (None, vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_a_fault() {
        let good = GOOD.replace('\n', "\r\n");
        for body in [
            "",
            "--x",
            "--x\r\n",
            &good.replace("--x--\r\n", ""),
            &good.replace("name=\"a\"", "name=\"a"),
            &good.replace("name=\"a\"", "name=\"\""),
            &good.replace("name=\"a\"", "name=\"a\"; name=b"),
            &good.replace("name=\"a\"", "Name=a"),
            &good.replace("name=\"a\"", "name=a; filename*=utf-8''b"),
            &good.replace("form-data; name=f", "attachment; name=f"),
            &good.replace("Content-Disposition: form-data; name=\"a\"", "X: y"),
            &good.replace("Content-Type: text/plain", "no colon"),
            &good.replace("Content-Type: text/plain", "Content-Disposition: form-data; name=z"),
            &good.replace("\r\n--x--", "\r\n--x zz\r\n--x--"),
            &good.replace("\r\ntwo\r\n", "\r\n-- x\r\n"),
            &good.replace("n.txt\"", "n\0\""),
            &"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nv\r\n".repeat(60),
        ] {
            let kept = read("multipart/form-data; boundary=x", body, true);
            assert!(kept.fault.is_some() && kept.flags.contains(&Flag::MultipartStrict), "{body}");
        }
        for kind in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=\"x",
            "multipart/form-data; boundary=x\"",
            "multipart/form-data; boundary=x*y",
            "multipart/form-data; z boundary=x",
        ] {
            assert!(read(kind, &good, true).fault.is_some(), "{kind}");
        }
    }

    #[test]
    fn of_a_form_that_is_cut_everything_before_the_cut_is_seen() {
        for body in ["\r\n\r\nev", "\r\n\r\nev\r\n--", "\r\n\r\nev\r\n--x-"] {
            let begin = "--x\r\nContent-Disposition: form-data; name=a";
            let kept = read("multipart/form-data; boundary=x", &format!("{begin}{body}"), false);
            assert!(
                kept.fault.is_none() && kept.found.iter().any(|(_, _, value)| value.starts_with("ev")),
                "{kept:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind: Vec<u8>, body in r#"((--x|--|\r\n|\n|Content-Disposition: form-data; name=a|; filename=|[a-z"'\\:;= ])){0,40}"#, complete: bool) {
            let mut kept = Kept::default();
            parse(&kind, body.as_bytes(), complete, &TEST_LIMITS, &mut kept);
            parse(b"multipart/form-data; boundary=x", body.as_bytes(), complete, &TEST_LIMITS, &mut kept);
        }
    }
}
