//! Headers of a tar: which entry comes next, under which name. Long names are read here and not by the tar
//! reader, which would hold in memory whatever an entry says it is.

use crate::{
    Error, Result,
    error::{refused, shown},
};
use std::io::{self, Read};
use tar::EntryType;

/// Bytes of an entry that only says something about the next one.
const EXTENSION_BYTES_MAX: u64 = 1024 * 1024;

/// What a header says.
#[derive(Debug)]
pub(crate) struct Head {
    /// Path as it stands there.
    pub(crate) path: Vec<u8>,
    /// Where a link leads.
    pub(crate) link: Vec<u8>,
    /// Kind of entry.
    pub(crate) kind: EntryType,
    /// Rights.
    pub(crate) mode: u32,
    /// Bytes of content.
    pub(crate) size: u64,
    /// Where the content begins in the tar.
    pub(crate) position: u64,
}

/// Shows every entry of a tar, at most `heads_max` of them (those about others count too).
pub(crate) fn each<R: Read>(
    tar: R,
    heads_max: usize,
    mut visit: impl FnMut(Head, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut archive = tar::Archive::new(tar);
    let mut next = Next::default();
    for (count, entry) in archive.entries().map_err(broken)?.raw(true).enumerate() {
        let mut entry = entry.map_err(broken)?;
        if count >= heads_max {
            return Err(Error::TooLarge(format!("it holds more than {heads_max} entries")));
        }
        if next.take(&mut entry)? {
            continue;
        }
        let said = std::mem::take(&mut next);
        let header = entry.header();
        let kind = header.entry_type();
        let path = said.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = said.link.unwrap_or_else(|| {
            header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
        });
        let size = entry.size();
        if said.size.is_some_and(|other| other != size) {
            // Another length than the header's would shift all that follows.
            return refused(format!("`{}` has two lengths", shown(&path)));
        }
        if said.sparse {
            return refused(format!("`{}` is a sparse file", shown(&path)));
        }
        // A directory in the oldest form: a file whose name ends with `/`.
        let kind = match kind {
            EntryType::Regular if path.ends_with(b"/") => EntryType::Directory,
            EntryType::Continuous => EntryType::Regular,
            kind => kind,
        };
        // Some writers leave it empty.
        let mode = header.mode().unwrap_or(0);
        let head = Head { path, link, kind, mode, size, position: entry.raw_file_position() };
        visit(head, &mut entry)?;
    }
    Ok(())
}

pub(crate) fn broken(error: io::Error) -> Error {
    if error
        .get_ref()
        .is_some_and(<dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static>::is::<TooMuch>)
    {
        return Error::TooLarge("it unpacks to too much".into());
    }
    Error::Refused(format!("it is not a tar, or damaged: {error}"))
}

/// Says that a [`Bounded`] reader came to its end.
#[derive(Debug, thiserror::Error)]
#[error("too much")]
struct TooMuch;

/// A reader that gives at most so many bytes; more is an error and not an end.
pub(crate) struct Bounded<R> {
    pub(crate) inner: R,
    pub(crate) left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(TooMuch))?;
        Ok(read)
    }
}

/// What was said about the entry that comes next.
#[derive(Default)]
struct Next {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Next {
    /// Takes an entry that only says something about the next one; false when it is none of these.
    fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<bool> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.path = Some(until_nul(content(entry)?)),
            EntryType::GNULongLink => self.link = Some(until_nul(content(entry)?)),
            EntryType::XHeader => {
                for (key, value) in records(&content(entry)?)? {
                    match key {
                        b"path" => self.path = Some(value.to_owned()),
                        b"linkpath" => self.link = Some(value.to_owned()),
                        b"size" => {
                            let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                            self.size =
                                Some(text.ok_or_else(|| Error::Refused("a length is no number".into()))?);
                        }
                        key => self.sparse |= key.starts_with(b"GNU.sparse."),
                    }
                }
            }
            EntryType::XGlobalHeader => {
                // For all entries that follow: a comment is fine, a name for all of them is not.
                let content = content(entry)?;
                let named = |(key, _): &(&[u8], &[u8])| matches!(*key, b"path" | b"linkpath" | b"size");
                if records(&content)?.iter().any(named) {
                    return refused("one name or length is said for all entries");
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    name
}

fn content<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>> {
    let size = entry.size();
    if size > EXTENSION_BYTES_MAX {
        return Err(Error::TooLarge("a name or its attributes are longer than 1 MiB".into()));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(broken)?;
    if content.len() as u64 != size {
        return refused("it is cut short");
    }
    Ok(content)
}

/// Records `length key=value\n` (POSIX pax). Values may hold newlines, so the length alone says where one ends.
fn records(mut content: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let bad = || Error::Refused("an extended header is malformed".into());
    let mut found = Vec::new();
    // Some writers pad with NUL.
    while content.first().is_some_and(|byte| *byte != 0) {
        let space = content.iter().take(12).position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length: usize =
            std::str::from_utf8(&content[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        let record = content.get(space + 1..length).ok_or_else(bad)?;
        let (record, end) = record.split_at_checked(record.len().wrapping_sub(1)).ok_or_else(bad)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        if end != b"\n" {
            return Err(bad());
        }
        found.push((&record[..equals], &record[equals + 1..]));
        content = &content[length..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_long_as_they_say() {
        let found = records(b"10 path=a\n15 path=a\nb\ncd\n\0\0").unwrap();
        assert_eq!(found, [(&b"path"[..], &b"a"[..]), (b"path", b"a\nb\ncd")]);
        for bad in [
            &b"8 path=a\n"[..],
            b"11 path=a\n",
            b"99999999999999999999 path=a\n",
            b"path=a\n",
            b"0 x=\n",
            b"1 x=\n",
            b"2 ",
            b"3 \n",
            b"7 pathx\n",
            b"10 path=ax",
        ] {
            assert!(records(bad).is_err(), "{}", shown(bad));
        }
    }
}
