//! A request as people write it for curl, taken apart.

use anyhow::{Context, Result, bail};
use std::{fs, path::Path};

/// A request that would be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target as it would be sent.
    pub target: String,
    /// Host without port.
    pub host: String,
    /// Fields.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// Options of curl with a value that change nothing of what is sent.
const WITH_VALUE: &[&str] = &[
    "-o",
    "--output",
    "-m",
    "--max-time",
    "--connect-timeout",
    "--cacert",
    "-w",
    "--write-out",
    "--resolve",
    "--retry",
    "-D",
    "--dump-header",
    "-c",
    "--cookie-jar",
    "-x",
    "--proxy",
    "--cert",
    "--key",
];
/// Options of curl with a value that are understood.
const KNOWN: &[&str] = &[
    "-X",
    "--request",
    "-H",
    "--header",
    "-d",
    "--data",
    "--data-raw",
    "--data-ascii",
    "--data-binary",
    "--data-urlencode",
    "--json",
    "-A",
    "--user-agent",
    "-e",
    "--referer",
    "-b",
    "--cookie",
    "-F",
    "--form",
    "--url",
];

#[derive(Default)]
struct Parts {
    method: Option<String>,
    url: Option<String>,
    headers: Vec<(String, String)>,
    data: Vec<Vec<u8>>,
    form: Vec<String>,
    json: bool,
    get: bool,
    head: bool,
    compressed: bool,
}

impl Request {
    /// Reads a command line, with or without the word `curl` before it.
    ///
    /// # Errors
    /// When it names no address, or an option that is not understood.
    pub fn parse(words: &[String]) -> Result<Self> {
        let (mut parts, mut words) = (Parts::default(), words.iter().map(String::as_str).peekable());
        words.next_if_eq(&"curl");
        while let Some(word) = words.next() {
            let (option, mut value) = split(word);
            if !option.starts_with('-') || option == "-" {
                parts.address(word)?;
            } else if KNOWN.contains(&option.as_str()) || WITH_VALUE.contains(&option.as_str()) {
                if value.is_none() {
                    value = Some(words.next().with_context(|| format!("{option} needs a value"))?.to_owned());
                }
                parts.option(&option, &value.unwrap_or_default())?;
            } else if option.starts_with("--") {
                parts.flag(&option);
            } else {
                parts.flags(&option, &mut words)?;
            }
        }
        parts.finish()
    }
}

/// `--name=value` and `-Xvalue` have their value with them.
fn split(word: &str) -> (String, Option<String>) {
    if let Some(long) = word.strip_prefix("--") {
        return match long.split_once('=') {
            Some((name, value)) => (format!("--{name}"), Some(value.to_owned())),
            None => (word.to_owned(), None),
        };
    }
    let is_short = word.starts_with('-') && word.len() > 2 && word.is_char_boundary(2);
    if is_short && (KNOWN.contains(&&word[..2]) || WITH_VALUE.contains(&&word[..2])) {
        return (word[..2].to_owned(), Some(word[2..].to_owned()));
    }
    (word.to_owned(), None)
}

impl Parts {
    fn address(&mut self, word: &str) -> Result<()> {
        if self.url.replace(word.to_owned()).is_some() {
            bail!("one address at a time; put quotes around values with spaces");
        }
        Ok(())
    }

    /// Flags in one word, such as `-sSk`; the last may take a value.
    fn flags<'w>(&mut self, word: &str, words: &mut impl Iterator<Item = &'w str>) -> Result<()> {
        for (at, letter) in word[1..].char_indices() {
            let option = format!("-{letter}");
            if KNOWN.contains(&option.as_str()) || WITH_VALUE.contains(&option.as_str()) {
                let rest = &word[1 + at + letter.len_utf8()..];
                let value = match rest {
                    "" => words.next().with_context(|| format!("{option} needs a value"))?,
                    rest => rest,
                };
                return self.option(&option, value);
            }
            self.flag(&option);
        }
        Ok(())
    }

    /// Flags that change nothing of what is sent are passed over.
    fn flag(&mut self, option: &str) {
        match option {
            "-G" | "--get" => self.get = true,
            "-I" | "--head" => self.head = true,
            "--compressed" => self.compressed = true,
            _ => {}
        }
    }

    fn option(&mut self, option: &str, value: &str) -> Result<()> {
        let mut header = |name: &str| self.headers.push((name.to_owned(), value.to_owned()));
        match option {
            "-X" | "--request" => self.method = Some(value.to_owned()),
            "-H" | "--header" => {
                let (name, value) =
                    value.split_once(':').with_context(|| format!("`{value}` is no field"))?;
                self.headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "-A" | "--user-agent" => header("User-Agent"),
            "-e" | "--referer" => header("Referer"),
            "-b" | "--cookie" => header("Cookie"),
            "-d" | "--data" | "--data-ascii" => self.data.push(from_file(value, true)?),
            "--data-binary" => self.data.push(from_file(value, false)?),
            "--data-raw" => self.data.push(value.as_bytes().to_vec()),
            "--data-urlencode" => self.data.push(url_encoded(value).into_bytes()),
            "--json" => {
                self.json = true;
                self.data.push(from_file(value, false)?);
            }
            "-F" | "--form" => self.form.push(value.to_owned()),
            "--url" => self.address(value)?,
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Request> {
        let url = self.url.clone().context("say an address, such as https://shop.example/?q=1")?;
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, mut target) = (rest[..end].to_owned(), rest[end..].to_owned());
        if authority.is_empty() {
            bail!("`{url}` names no host");
        }
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        let separator = if self.json { &b""[..] } else { b"&" };
        let mut body = self.data.join(separator);
        let mut kind = (!self.data.is_empty()).then_some("application/x-www-form-urlencoded");
        if self.json {
            kind = Some("application/json");
        }
        if self.get && !body.is_empty() {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&String::from_utf8_lossy(&body));
            (body, kind) = (Vec::new(), None);
        }
        if !self.form.is_empty() {
            body = form(&self.form)?;
            kind = Some(concat!("multipart/form-data; boundary=", "------------------------bastide"));
        }
        let method = self.method.clone().unwrap_or_else(|| {
            let default = if self.head {
                "HEAD"
            } else if kind.is_some() {
                "POST"
            } else {
                "GET"
            };
            default.to_owned()
        });
        let headers = self.fields(&authority, kind, body.len());
        let host = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map_or(authority.as_str(), |(_, value)| value);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let host = if host.starts_with('[') { host } else { host.split(':').next().unwrap_or_default() };
        Ok(Request { method, target, host: host.to_ascii_lowercase(), headers, body })
    }

    /// Fields as curl sends them: its own first, where nobody said otherwise.
    fn fields(&self, authority: &str, kind: Option<&str>, length: usize) -> Vec<(String, String)> {
        let said = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let length = length.to_string();
        let accept = if self.json { "application/json" } else { "*/*" };
        let own = [
            ("Host", Some(authority)),
            ("User-Agent", Some("curl/8.5.0")),
            ("Accept", Some(accept)),
            ("Accept-Encoding", self.compressed.then_some("deflate, gzip, br, zstd")),
            ("Content-Type", kind),
            ("Content-Length", kind.map(|_| length.as_str())),
        ];
        let own = own.into_iter().filter(|(name, _)| !said(name));
        let own = own.filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        // A field without a value takes away one of curl's own.
        own.chain(self.headers.iter().filter(|(_, value)| !value.is_empty()).cloned()).collect()
    }
}

/// `@file` is the content of a file, for `-d` without its line ends.
fn from_file(value: &str, one_line: bool) -> Result<Vec<u8>> {
    let Some(path) = value.strip_prefix('@') else { return Ok(value.as_bytes().to_vec()) };
    let mut bytes = fs::read(Path::new(path)).with_context(|| format!("cannot read {path}"))?;
    if one_line {
        bytes.retain(|b| !matches!(b, b'\r' | b'\n' | 0));
    }
    Ok(bytes)
}

fn url_encoded(value: &str) -> String {
    let encode = |text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    match value.split_once('=') {
        Some(("", value)) => encode(value),
        Some((name, value)) => format!("{name}={}", encode(value)),
        None => encode(value),
    }
}

fn form(fields: &[String]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    for field in fields {
        let (name, value) = field.split_once('=').with_context(|| format!("`{field}` is no form field"))?;
        body.extend_from_slice(b"--------------------------bastide\r\n");
        let mut head = format!("Content-Disposition: form-data; name=\"{name}\"");
        let content = match value.strip_prefix('@') {
            Some(file) => {
                let path = file.split(';').next().unwrap_or_default();
                let shown = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
                head.push_str(&format!("; filename=\"{shown}\"\r\nContent-Type: application/octet-stream"));
                fs::read(path).with_context(|| format!("cannot read {path}"))?
            }
            None => value.as_bytes().to_vec(),
        };
        body.extend_from_slice(format!("{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(&content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--------------------------bastide--\r\n");
    Ok(body)
}

/// Words of a line as a shell takes it apart: quotes and backslashes, no more.
///
/// # Errors
/// When a quote is not closed.
pub fn words(line: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars();
    while let Some(c) = letters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => match letters.next() {
                Some('\n') | None => {}
                Some(next) => {
                    let own = word.get_or_insert_default();
                    if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                        own.push('\\');
                    }
                    own.push(next);
                }
            },
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        bail!("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request> {
        Request::parse(&words(line)?)
    }

    #[test]
    fn a_line_for_curl_becomes_what_curl_would_send() {
        let get = parse("curl -sk 'https://Shop.example:8443/a?q=1 2' -H 'X-A: b' -A agent").unwrap();
        assert_eq!(
            (get.method.as_str(), get.target.as_str(), get.host.as_str()),
            ("GET", "/a?q=1 2", "shop.example")
        );
        let field =
            |name: &str| get.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        assert_eq!(
            (field("X-A"), field("User-Agent"), field("Host")),
            (Some("b"), Some("agent"), Some("Shop.example:8443"))
        );
        let post = parse("curl -XPUT http://h/ -d a=1 --data-urlencode 'b=x y' -o /dev/null").unwrap();
        assert_eq!((post.method.as_str(), post.body.as_slice()), ("PUT", &b"a=1&b=x%20y"[..]));
        let json = parse(r#"--json '{"a":"it'"'"'s"}' http://h/x"#).unwrap();
        assert_eq!((json.method.as_str(), json.body.as_slice()), ("POST", &br#"{"a":"it's"}"#[..]));
        assert!(json.headers.contains(&("Content-Type".into(), "application/json".into())));
        let moved = parse("-G -d q=1 -d r=2 h").unwrap();
        assert_eq!((moved.target.as_str(), moved.body.len()), ("/?q=1&r=2", 0));
        let form = parse("-F 'a=1' http://h/").unwrap();
        assert!(String::from_utf8_lossy(&form.body).contains("name=\"a\"\r\n\r\n1\r\n"));
        assert_eq!(parse("-I h").unwrap().method, "HEAD");
        assert_eq!(parse("-H 'Host: other:1' -H 'Accept:' h").unwrap().host, "other");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for wrong in
            ["", "curl", "-H nothing h", "a b", "'h", "-d", "https:///x", "-F a h", "-d @/nowhere/at/all h"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
