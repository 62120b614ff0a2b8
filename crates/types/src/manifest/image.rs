//! Where the image of an app of the kind `image` is: beside `bastide.toml`, or in a registry.

use crate::{Digest, egress::Host};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A file (OCI archive, `docker save` archive) or directory (OCI layout), relative to `bastide.toml`.
    Path(String),
    /// In a registry, pinned by digest.
    Registry(Reference),
}

/// An image in a registry: `host[:port]/repository@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry's host.
    pub host: Host,
    /// Its port, when it is not 443.
    pub port: Option<u16>,
    /// Repository, such as `library/nginx`.
    pub repository: String,
    /// Digest of a manifest, or of an index that holds one for this machine.
    pub digest: Digest,
}

/// Why a text names no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageSourceError {
    /// A reference by tag: what it means changes, and then the stages run different images.
    #[error(
        "a reference is pinned by digest, as in `registry.example.com/shop@sha256:…`; \
         `docker buildx imagetools inspect` or `skopeo inspect` print the digest of a tag"
    )]
    NotPinned,
    /// No host: which registry is meant depends on who reads it.
    #[error("a reference names its registry, as in `docker.io/library/nginx@sha256:…`")]
    NoHost,
    /// A digest that is not SHA-256.
    #[error("the digest is `sha256:` and 64 hexadecimal digits")]
    Digest,
    /// A repository outside the rules of the distribution specification.
    #[error("the repository is lower-case letters, digits and single `.`, `_`, `-`, `/` between them")]
    Repository,
    /// A path that leads out of the directory.
    #[error("the image is a file or directory beside bastide.toml, without `..`")]
    Path,
}

const REPOSITORY_BYTES_MAX: usize = 255;

impl FromStr for ImageSource {
    type Err = ImageSourceError;

    fn from_str(text: &str) -> Result<Self, ImageSourceError> {
        if let Some((name, digest)) = text.split_once('@') {
            return Reference::parse(name, digest).map(Self::Registry);
        }
        // `nginx:1.27` is what people try first; a file of that name can still be said as `./nginx:1.27`.
        if !text.starts_with("./") && text.contains(':') {
            return Err(ImageSourceError::NotPinned);
        }
        let path = text.trim_start_matches("./").trim_end_matches('/');
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\0', '\\']);
        if path.len() > 1024 || !path.split('/').all(plain) {
            return Err(ImageSourceError::Path);
        }
        Ok(Self::Path(path.to_owned()))
    }
}

impl Reference {
    fn parse(name: &str, digest: &str) -> Result<Self, ImageSourceError> {
        let digest = digest.parse().map_err(|_| ImageSourceError::Digest)?;
        let (registry, repository) = name.split_once('/').ok_or(ImageSourceError::NoHost)?;
        let (host, port) = match registry.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !port.contains(']') => {
                (host, Some(port.parse().ok().filter(|port| *port != 0).ok_or(ImageSourceError::NoHost)?))
            }
            _ => (registry, None),
        };
        // As other tools tell hosts from the first part of a repository.
        if !host.contains(['.', '[']) && port.is_none() && host != "localhost" {
            return Err(ImageSourceError::NoHost);
        }
        let host = host.parse().map_err(|_| ImageSourceError::NoHost)?;
        // A tag beside the digest says nothing that the digest does not.
        let (repository, tag) = repository.split_once(':').unwrap_or((repository, ""));
        let tagged = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !is_repository(repository) || tag.len() > 128 || !tag.bytes().all(tagged) {
            return Err(ImageSourceError::Repository);
        }
        Ok(Self { host, port, repository: repository.to_owned(), digest })
    }
}

/// Names of the OCI distribution specification 1.1: parts of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = part.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && part.bytes().all(|b| edge(Some(&b)) || matches!(b, b'.' | b'_' | b'-'))
            && ["..", "._", "_.", ".-", "-.", "_-", "-_", "___"].iter().all(|pair| !part.contains(pair))
    };
    name.len() <= REPOSITORY_BYTES_MAX && name.split('/').all(part)
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "./{path}"),
            Self::Registry(reference) => reference.fmt(f),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}@{}", self.repository, self.digest)
    }
}

impl Serialize for ImageSource {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageSource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("app.image: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn paths_and_references_read_back_as_written() {
        for (text, written) in [
            ("shop.tar".to_owned(), "./shop.tar".to_owned()),
            ("./oci/".into(), "./oci".into()),
            ("build/a:b".replace("build", "./build"), "./build/a:b".into()),
            (format!("docker.io/library/nginx@{HEX}"), format!("docker.io/library/nginx@{HEX}")),
            (format!("Registry.Example.com/a/b-c:1.2@{HEX}"), format!("registry.example.com/a/b-c@{HEX}")),
            (format!("localhost:5000/x@{HEX}"), format!("localhost:5000/x@{HEX}")),
            (format!("[2001:db8::1]:5000/x@{HEX}"), format!("[2001:db8::1]:5000/x@{HEX}")),
        ] {
            let source: ImageSource = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(source.to_string(), written);
            assert_eq!(written.parse::<ImageSource>().unwrap(), source);
        }
    }

    #[test]
    fn what_is_no_image_says_why() {
        use ImageSourceError as E;
        for (text, error) in [
            ("nginx:1.27".to_owned(), E::NotPinned),
            ("docker.io/library/nginx:latest".into(), E::NotPinned),
            (format!("nginx@{HEX}"), E::NoHost),
            (format!("library/nginx@{HEX}"), E::NoHost),
            (format!("127.1/x@{HEX}"), E::NoHost),
            (format!("a.example:0/x@{HEX}"), E::NoHost),
            ("a.example/x@sha256:12".into(), E::Digest),
            (format!("a.example/X@{HEX}"), E::Repository),
            (format!("a.example/a//b@{HEX}"), E::Repository),
            (format!("a.example/../b@{HEX}"), E::Repository),
            (format!("a.example/-a@{HEX}"), E::Repository),
            ("../x.tar".into(), E::Path),
            ("/x.tar".into(), E::Path),
            (String::new(), E::Path),
        ] {
            assert_eq!(text.parse::<ImageSource>(), Err(error), "{text}");
        }
    }
}
