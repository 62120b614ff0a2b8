//! Where the WAF's rules come from, and reading them from files: those that are named, else those that were
//! imported, else Debian's, else a few of our own.

use crate::Error;
use aws_lc_rs::digest::{Context, SHA256};
use bastide_types::Digest;
use bastide_waf::{Files, RuleSet, Settings, Source};
use std::{
    fmt, fs,
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

pub mod versions;

use versions::{Version, Versions};

/// Debian's set-up, and what a user of its package may have put beside it.
const DEBIAN_SET_UP: &str = "/etc/modsecurity/crs/crs-setup.conf";
const DEBIAN_BEFORE: &str = "/etc/modsecurity/crs/REQUEST-900-EXCLUSION-RULES-BEFORE-CRS.conf";
const DEBIAN_RULES: &str = "/usr/share/modsecurity-crs/rules";
const DEBIAN_AFTER: &str = "/etc/modsecurity/crs/RESPONSE-999-EXCLUSION-RULES-AFTER-CRS.conf";
/// Largest rules or data file, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most files that a glob or a directory may stand for.
const FILES_MAX: usize = 10_000;

/// Where rules are looked for.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Files, directories and globs that somebody named, in the order in which they are loaded.
    pub named: Vec<PathBuf>,
    /// Directory of the imported versions.
    pub versions: Option<PathBuf>,
}

/// Whose rules they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Somebody named them.
    Named,
    /// Imported.
    Imported(Version),
    /// Of the package `modsecurity-crs`.
    Debian,
    /// A few of our own.
    BuiltIn,
}

/// Rules that were found, not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose they are.
    pub origin: Origin,
    /// Files in the order in which they are loaded; none when built in.
    pub files: Vec<PathBuf>,
}

impl Places {
    /// Finds the rules that are in force here.
    ///
    /// # Errors
    /// When a path that was named holds no rules, or an imported version is damaged.
    pub fn find(&self) -> Result<Found, Error> {
        if !self.named.is_empty() {
            return Ok(Found { origin: Origin::Named, files: files(&self.named)? });
        }
        if let Some(current) =
            self.versions.as_ref().map(|dir| Versions::open(dir).current()).transpose()?.flatten()
        {
            return current.found();
        }
        let debian = [DEBIAN_SET_UP, DEBIAN_BEFORE, DEBIAN_RULES, DEBIAN_AFTER].map(PathBuf::from);
        if [DEBIAN_SET_UP, DEBIAN_RULES].iter().all(|path| Path::new(path).exists()) {
            let there: Vec<_> = debian.into_iter().filter(|path| path.exists()).collect();
            return Ok(Found { origin: Origin::Debian, files: files(&there)? });
        }
        Ok(Found { origin: Origin::BuiltIn, files: Vec::new() })
    }

    /// The imported version before the current one, for when that cannot be loaded.
    pub(crate) fn before(&self) -> Option<Result<Found, Error>> {
        if !self.named.is_empty() {
            return None;
        }
        let previous = Versions::open(self.versions.as_ref()?).previous().transpose()?;
        Some(previous.and_then(|version| version.found()))
    }
}

impl Found {
    /// Reads them.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&self) -> Result<Vec<Source>, Error> {
        if self.origin == Origin::BuiltIn {
            return Ok(vec![built_in()]);
        }
        if let Origin::Imported(version) = &self.origin {
            version.verify()?;
        }
        let one = |file: &PathBuf| {
            let bytes = read_bounded(file).map_err(|error| Error::file(file, error))?;
            Ok(Source { name: file.display().to_string(), bytes })
        };
        self.files.iter().map(one).collect()
    }

    /// Reads and compiles them as they are, to see whether they can be loaded.
    ///
    /// # Errors
    /// With file and line of the first thing that cannot be loaded.
    pub fn compile(&self, settings: &Settings) -> Result<RuleSet, Error> {
        Ok(RuleSet::compile(&self.read()?, &Directories, settings)?)
    }

    /// What changes when one of the files does, or a data file beside them.
    pub(crate) fn stamp(&self) -> Vec<Stamp> {
        let mut dirs: Vec<&Path> = self.files.iter().filter_map(|file| file.parent()).collect();
        dirs.dedup();
        let beside = dirs.into_iter().flat_map(|dir| with_extension(dir, "data").unwrap_or_default());
        let stamp = |path: PathBuf| {
            let meta = fs::metadata(&path).ok();
            let written = meta.as_ref().and_then(|meta| meta.modified().ok());
            Stamp { path, bytes: meta.map(|meta| meta.len()), written }
        };
        self.files.iter().cloned().chain(beside).map(stamp).collect()
    }
}

/// Digest of rules as they were read.
pub(crate) fn digest_of(sources: &[Source]) -> Digest {
    let mut context = Context::new(&SHA256);
    for source in sources {
        context.update(&(source.bytes.len() as u64).to_be_bytes());
        context.update(&source.bytes);
    }
    let mut sha = [0; 32];
    sha.copy_from_slice(context.finish().as_ref());
    Digest::from_sha256(sha)
}

/// How a file looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    path: PathBuf,
    bytes: Option<u64>,
    written: Option<SystemTime>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => f.write_str("named"),
            Self::Imported(version) => write!(f, "imported {}", version.digest.short()),
            Self::Debian => f.write_str("Debian's modsecurity-crs"),
            Self::BuiltIn => f.write_str("built-in"),
        }
    }
}

/// Our own few rules, for where there are no others.
pub fn built_in() -> Source {
    Source { name: "built-in.conf".into(), bytes: include_bytes!("rules/built_in.conf").to_vec() }
}

/// Files that paths stand for, in order: a directory gives its `*.conf`, a glob whatever it matches.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let none = |path: &Path, why: &str| Error::NoRules { path: path.to_owned(), why: why.to_owned() };
    let mut all = Vec::new();
    for path in paths {
        let is_glob = !path.exists() && path.to_string_lossy().contains(['*', '?']);
        let found = if is_glob { expand(path).map_err(|why| none(path, &why))? } else { vec![path.clone()] };
        if found.is_empty() {
            return Err(none(path, "nothing matches"));
        }
        for path in found {
            if !path.is_dir() {
                all.push(path);
                continue;
            }
            let own = with_extension(&path, "conf").map_err(|error| Error::file(&path, error))?;
            if own.is_empty() {
                return Err(none(&path, "the directory holds no rules (*.conf)"));
            }
            all.extend(own);
        }
    }
    Ok(all)
}

/// Files of a directory by the end of their names, in order.
fn with_extension(dir: &Path, extension: &str) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.take(FILES_MAX).flatten().map(|entry| entry.path());
    let is_hidden =
        |file: &Path| file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_wanted = |file: &PathBuf| file.extension().is_some_and(|own| own == extension) && !is_hidden(file);
    let mut found: Vec<_> = entries.filter(is_wanted).collect();
    found.sort();
    Ok(found)
}

/// Paths that a glob stands for, in order. `*` and `?` stand for what a shell's would: never a `/`, and
/// never the dot that a hidden name begins with.
fn expand(glob: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    for part in glob.components() {
        let name = part.as_os_str().to_string_lossy();
        let is_pattern = matches!(part, Component::Normal(_)) && name.contains(['*', '?']);
        if !is_pattern {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let mut next = Vec::new();
        for dir in &found {
            let begin = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            let Ok(entries) = fs::read_dir(begin) else { continue };
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            next.extend(names.filter(|own| is_like(&name, own)).map(|own| dir.join(own)));
            if next.len() > FILES_MAX {
                return Err(format!("more than {FILES_MAX} files match"));
            }
        }
        found = next;
    }
    found.retain(|path| path.exists());
    found.sort();
    Ok(found)
}

fn is_like(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where the last star was, and what it stands for so far: enough to go back to, so the time is bounded.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

fn read_bounded(file: &Path) -> std::io::Result<Vec<u8>> {
    let meta = fs::metadata(file)?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("no file of at most {FILE_BYTES_MAX} bytes")));
    }
    fs::read(file)
}

/// Looks data files and includes up beside the file that names them.
#[derive(Debug, Clone, Copy)]
pub struct Directories;

impl Directories {
    fn locate(from: &str, path: &str) -> PathBuf {
        let beside = Path::new(from).parent().unwrap_or(Path::new("."));
        beside.join(path)
    }
}

impl Files for Directories {
    fn read(&self, from: &str, path: &str) -> Result<Vec<u8>, String> {
        let path = Self::locate(from, path);
        read_bounded(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn expand(&self, from: &str, glob: &str) -> Result<Vec<String>, String> {
        let path = Self::locate(from, glob);
        let found = if path.exists() { vec![path] } else { expand(&path)? };
        Ok(found.into_iter().map(|path| path.display().to_string()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_waf::{Connection, Verdict};
    use proptest::prelude::*;

    #[test]
    fn a_glob_means_what_a_shell_makes_of_it() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a/1.conf", "a/2.conf", "a/.hidden.conf", "a/x.data", "b/3.conf"] {
            fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            fs::write(dir.path().join(file), "").unwrap();
        }
        let check = |glob: &str, expected: &[&str]| {
            let found = files(&[dir.path().join(glob)]).map_err(|error| error.to_string());
            let expected: Vec<_> = expected.iter().map(|file| dir.path().join(file)).collect();
            assert_eq!(found.unwrap_or_default(), expected, "{glob}");
        };
        check("a/*.conf", &["a/1.conf", "a/2.conf"]);
        check("*/?.conf", &["a/1.conf", "a/2.conf", "b/3.conf"]);
        check("a", &["a/1.conf", "a/2.conf"]);
        check("?", &["a/1.conf", "a/2.conf", "b/3.conf"]);
        check("a/x.data", &["a/x.data"]);
        check("c/*.conf", &[]);
        let refused = files(&[dir.path().join("a/*.rules")]).unwrap_err();
        assert!(refused.to_string().ends_with("a/*.rules: nothing matches"), "{refused}");
    }

    fn simple(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some(b'*'), _) => simple(&pattern[1..], name) || !name.is_empty() && simple(pattern, &name[1..]),
            (Some(p), Some(n)) => (*p == b'?' || p == n) && simple(&pattern[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_they_are_defined(pattern in "[ab*?]{0,6}", name in "[ab]{0,8}") {
            prop_assert_eq!(is_like(&pattern, &name), simple(pattern.as_bytes(), name.as_bytes()));
        }
    }

    /// The rules that our own rules' verdict on a GET with this query names.
    fn built_in_says(query: &str, agent: &str) -> Vec<u32> {
        let found = Found { origin: Origin::BuiltIn, files: Vec::new() };
        let set = std::sync::Arc::new(found.compile(&Settings::default()).unwrap());
        assert!(set.rules() >= 15 && set.warnings().is_empty(), "{} {:?}", set.rules(), set.warnings());
        let here = ([127, 0, 0, 1], 1).into();
        let connection = Connection { client: here, server: here, unique_id: "x".into(), now: 0 };
        let mut transaction = set.begin(connection);
        let fields = [(&b"Host"[..], &b"shop.example"[..]), (b"User-Agent", agent.as_bytes())];
        let target = format!("/shop/?{query}");
        let head = transaction.request_head(b"GET", target.as_bytes(), b"HTTP/1.1", fields.into_iter());
        let verdict = if head == Verdict::Pass { transaction.request_body(b"", true) } else { head };
        let ids: Vec<u32> = transaction.finish().matches.iter().map(|one| one.id).collect();
        assert_eq!(verdict != Verdict::Pass, !ids.is_empty(), "{query}: {ids:?}");
        ids
    }

    #[test]
    fn our_own_rules_know_plain_attacks() {
        for (query, rule) in [
            ("q=1%27%20or%20%271%27=%271", 10_230),
            ("q=1+UNION+SELECT+a,b+FROM+users--", 10_230),
            ("q=%3Cscript%3Ealert(1)%3C/script%3E", 10_240),
            ("f=../../x", 10_220),
            ("f=..%252f..%252fx", 10_220),
            ("f=/etc/passwd", 10_221),
            ("u=gopher://127.0.0.1/", 10_222),
            ("x=a%00b", 10_210),
            ("h=%0d%0aSet-Cookie:+a=b", 10_211),
            ("c=;cat+/x", 10_250),
            ("c=%7Cid", 10_250),
            ("c=$(curl+x)", 10_250),
            ("c=x;sleep+5", 10_250),
            ("x=$%7Bjndi:ldap://a%7D", 10_251),
            ("p=%3C?php+x", 10_252),
        ] {
            assert!(built_in_says(query, "agent").contains(&rule), "{query}");
        }
        assert!(built_in_says("q=1", "x' or '1'='1").contains(&10_230));
    }

    #[test]
    fn our_own_rules_let_prose_pass() {
        for text in [
            "O'Brien and sons",
            "1 or 2 people will come",
            "rock and roll; cat food",
            "Tom & id",
            "please select a seat from the list",
            "price < 10 and > 5",
            "C:/Users/me",
            "a..b",
            "see ../images",
            "{\"a\":[1,2]}",
            "https://example.com/?a=b",
            "echo hello | less",
            "data: yes",
            "sleep; then go",
            "100% sure & 50% off",
            "(id)",
            "my.environment",
        ] {
            let query = text.bytes().fold(String::new(), |query, b| query + &format!("%{b:02x}"));
            let said = built_in_says(&format!("q={query}"), "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)");
            assert!(said.is_empty(), "{text}: {said:?}");
        }
    }
}
