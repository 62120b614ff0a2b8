//! Unpacking a release of rules. Nothing of the archive decides where something is written: names are taken
//! apart, and only what rule sets are made of is kept.

use super::Contents;
use flate2::read::MultiGzDecoder;
use std::{io::Read, path::Path};

/// Most bytes of an archive, packed.
pub const PACKED_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Most bytes unpacked: everything, and one file.
const BYTES_MAX: u64 = 128 * 1024 * 1024;
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most entries.
const ENTRIES_MAX: usize = 20_000;
/// The set-up of a rule set, and how releases call it.
const SET_UP: &str = "crs-setup.conf";
const SET_UP_EXAMPLE: &str = "crs-setup.conf.example";

/// An archive that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is damaged, or no archive.
    #[error("it is no tar.gz archive, or damaged")]
    Damaged(#[source] std::io::Error),
    /// It is larger than rules are.
    #[error(
        "it unpacks to more than {BYTES_MAX} bytes, {ENTRIES_MAX} entries, or {FILE_BYTES_MAX} bytes in a file"
    )]
    TooLarge,
    /// A name in it leads out of it.
    #[error("the entry `{0}` leads out of the archive")]
    Outside(String),
    /// It holds no rules.
    #[error("it holds no rules: no `*.conf` in its first directory or below `rules/`")]
    NoRules,
}

/// Reads an archive whole: set-up, rules and their data, and plugins; names without the directory that
/// releases put around everything.
///
/// # Errors
/// When it is damaged, too large or holds no rules.
pub fn unpack(packed: impl Read) -> Result<Contents, ArchiveError> {
    let unpacked = MultiGzDecoder::new(packed.take(PACKED_BYTES_MAX)).take(BYTES_MAX + 1);
    let mut archive = tar::Archive::new(unpacked);
    let (mut contents, mut total) = (Contents::new(), 0_u64);
    for (number, entry) in archive.entries().map_err(ArchiveError::Damaged)?.enumerate() {
        let mut entry = entry.map_err(ArchiveError::Damaged)?;
        total = total.saturating_add(entry.size());
        if number >= ENTRIES_MAX || total > BYTES_MAX {
            return Err(ArchiveError::TooLarge);
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = normal(&name)?;
        if !entry.header().entry_type().is_file() || !is_kept(&path) {
            continue;
        }
        if entry.size() > FILE_BYTES_MAX {
            return Err(ArchiveError::TooLarge);
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(ArchiveError::Damaged)?;
        contents.insert(path, bytes);
    }
    let contents = settled(contents);
    if order(contents.keys()).any(|path| path != SET_UP) { Ok(contents) } else { Err(ArchiveError::NoRules) }
}

/// The parts of a name, joined again, if none leads out.
fn normal(name: &str) -> Result<String, ArchiveError> {
    let outside = || ArchiveError::Outside(name.chars().take(200).collect());
    if name.starts_with('/') || name.contains(['\\', '\0']) {
        return Err(outside());
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") { Err(outside()) } else { Ok(parts.join("/")) }
}

fn is_kept(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    !name.starts_with('.') && (ends(name, "conf") || ends(name, "data") || name == SET_UP_EXAMPLE)
}

fn ends(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|own| own == extension)
}

/// Without the one directory around everything, and with the example set-up as the set-up if there is no other.
fn settled(contents: Contents) -> Contents {
    let around =
        contents.keys().next().and_then(|path| path.split_once('/')).map(|(dir, _)| format!("{dir}/"));
    let around = around.filter(|dir| !["rules/", "plugins/"].contains(&dir.as_str()));
    let around = around.filter(|dir| contents.keys().all(|path| path.starts_with(dir.as_str())));
    let bare = |path: String| match &around {
        Some(dir) => path[dir.len()..].to_owned(),
        None => path,
    };
    let mut contents: Contents = contents.into_iter().map(|(path, bytes)| (bare(path), bytes)).collect();
    if let Some(example) = contents.remove(SET_UP_EXAMPLE) {
        contents.entry(SET_UP.to_owned()).or_insert(example);
    }
    contents.retain(|path, _| place(path).is_some());
    contents
}

/// Where a file belongs in the order of loading; data files belong with their rules.
fn place(path: &str) -> Option<u8> {
    let plugin = |end: &str| path.starts_with("plugins/") && path.ends_with(end);
    match path.split('/').count() {
        1 if path == SET_UP => Some(0),
        1 => Some(4),
        2 if path.starts_with("rules/") => Some(3),
        2 if plugin("-config.conf") => Some(1),
        2 if plugin("-before.conf") => Some(2),
        2 if plugin("-after.conf") => Some(5),
        2 if plugin(".data") => Some(6),
        _ => None,
    }
}

/// Rule files in the order in which they are loaded: set-up, what plugins put before, rules, what they put after.
pub(super) fn order<'c>(paths: impl Iterator<Item = &'c String>) -> impl Iterator<Item = &'c String> {
    let mut files: Vec<_> = paths
        .filter(|path| ends(path, "conf"))
        .filter_map(|path| place(path).map(|place| (place, path)))
        .collect();
    files.sort();
    files.into_iter().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    fn pack(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            // As it is: the builder would refuse names that lead out.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn a_release_is_unpacked_in_the_order_of_its_parts() {
        let packed = pack(&[
            ("crs-4/", ""),
            ("crs-4/crs-setup.conf.example", "set-up"),
            ("crs-4/rules/B.conf", "b"),
            ("crs-4/rules/A.conf", "a"),
            ("crs-4/rules/A.conf.example", "x"),
            ("crs-4/rules/a.data", "d"),
            ("crs-4/plugins/p-after.conf", "p"),
            ("crs-4/plugins/p-before.conf", "p"),
            ("crs-4/plugins/p-config.conf", "p"),
            ("crs-4/tests/deep/test.conf", "t"),
            ("crs-4/README.md", "r"),
        ]);
        let contents = unpack(&packed[..]).unwrap();
        let order: Vec<_> = order(contents.keys()).cloned().collect();
        let plugins = ["plugins/p-config.conf", "plugins/p-before.conf"];
        let rules = ["rules/A.conf", "rules/B.conf", "plugins/p-after.conf"];
        assert_eq!(order, [&["crs-setup.conf"][..], &plugins, &rules].concat());
        assert_eq!(contents["rules/a.data"], b"d");
        assert_eq!(contents.len(), 7);
    }

    #[test]
    fn what_leads_out_or_holds_nothing_is_refused() {
        for name in ["../x.conf", "/etc/x.conf", "a/../../x.conf", "rules/..\\x.conf"] {
            let refused = unpack(&pack(&[(name, "x")])[..]);
            assert!(matches!(refused, Err(ArchiveError::Outside(_))), "{name}: {refused:?}");
        }
        assert!(matches!(unpack(&pack(&[("a/README", "x")])[..]), Err(ArchiveError::NoRules)));
        assert!(matches!(unpack(&b"no archive"[..]), Err(ArchiveError::Damaged(_))));
        let packed = pack(&[("rules/a.conf", "SecAction"), ("rules/b.conf", "SecAction")]);
        assert!(unpack(&packed[..packed.len() / 2]).is_err());
    }

    #[test]
    fn an_archive_that_grows_without_end_is_refused() {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
        let mut header = tar::Header::new_gnu();
        header.set_path("rules/a.conf").unwrap();
        header.set_size(FILE_BYTES_MAX + 1);
        header.set_cksum();
        builder.append(&header, std::io::repeat(b'#').take(FILE_BYTES_MAX + 1)).unwrap();
        let packed = builder.into_inner().unwrap().finish().unwrap();
        assert!(packed.len() < 1024 * 1024);
        assert!(matches!(unpack(&packed[..]), Err(ArchiveError::TooLarge)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_no_name_leads_out(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            std::io::Write::write_all(&mut packed, &bytes).unwrap();
            if let Ok(contents) = unpack(&packed.finish().unwrap()[..]) {
                prop_assert!(contents.keys().all(|path| !path.split('/').any(|part| part == "..")));
            }
        }
    }
}
