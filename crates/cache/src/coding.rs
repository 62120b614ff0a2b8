//! Content codings and which of them a client prefers (RFC 9110 §12.5.3).

use crate::vary::thousandths;
use http::{HeaderMap, HeaderValue, header};

/// A coding that an answer may be brought into. Their order is ours where a client has no preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coding {
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878), within a window of 8 MiB (RFC 9659).
    Zstd,
    /// Gzip (RFC 1952).
    Gzip,
}

/// Most members of the field; who sends more gets no coding.
const MEMBERS_MAX: usize = 32;

impl Coding {
    /// All of them, the preferred first.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    fn is_named(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name().as_bytes())
            || (self == Self::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// The coding that a client prefers to the bytes as they are, if any. Without the field it takes none: that it
/// would take all is only in the letter of the RFC.
pub fn chosen(asked: &HeaderMap) -> Option<Coding> {
    let (mut named, mut any, mut identity) = ([None; Coding::ALL.len()], None, None);
    let lines = asked.get_all(header::ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes);
    for (at, member) in lines.flat_map(|line| line.split(|b| *b == b',')).enumerate() {
        if at == MEMBERS_MAX {
            return None;
        }
        let Some((name, quality)) = read(member) else { continue };
        if name == b"*" {
            any = Some(quality);
        } else if name.eq_ignore_ascii_case(b"identity") {
            identity = Some(quality);
        } else if let Some(at) = Coding::ALL.iter().position(|own| own.is_named(name)) {
            named[at] = Some(quality);
        }
    }
    let qualities = Coding::ALL.iter().zip(named).map(|(coding, own)| (*coding, own.or(any).unwrap_or(0)));
    let best = qualities.min_by_key(|(coding, quality)| (std::cmp::Reverse(*quality), *coding));
    let (coding, quality) = best?;
    (quality > 0 && quality >= identity.unwrap_or(0)).then_some(coding)
}

/// A member: the coding and its weight in thousandths. One whose weight cannot be read does not count.
fn read(member: &[u8]) -> Option<(&[u8], u32)> {
    let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let mut quality = 1000;
    for part in parts {
        let weight = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="));
        if let Some(weight) = weight {
            quality = thousandths(weight)?.into();
        }
    }
    Some((name, quality))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(lines: &[&str], expected: Option<Coding>) {
        let mut asked = HeaderMap::new();
        for line in lines {
            asked.append(header::ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        assert_eq!(chosen(&asked), expected, "{lines:?}");
    }

    #[test]
    fn the_clients_weights_count_and_then_our_order() {
        use Coding::{Brotli, Gzip, Zstd};
        check(&[], None);
        check(&[""], None);
        check(&["gzip, deflate, br, zstd"], Some(Brotli));
        check(&["gzip, deflate, zstd"], Some(Zstd));
        check(&["GZIP"], Some(Gzip));
        check(&["x-gzip"], Some(Gzip));
        check(&["gzip", "br;q=0.5"], Some(Gzip));
        check(&["br;q=0.5, gzip;Q=0.8 , zstd ; q=0.1"], Some(Gzip));
        check(&["*"], Some(Brotli));
        check(&["*, br;q=0"], Some(Zstd));
        check(&["*;q=0"], None);
        check(&["br;q=0, zstd;q=0.000, gzip;q=0"], None);
        check(&["identity, gzip;q=0.5"], None);
        check(&["identity;q=0.5, gzip"], Some(Gzip));
        check(&["deflate, compress, dcb"], None);
        check(&["gzip;q=2"], None);
        check(&["gzip;q=junk, br;q=0.1"], Some(Brotli));
        check(&[";q=1, ,, gzip"], Some(Gzip));
        check(&[&format!("gzip{}", ",".repeat(31))], Some(Gzip));
        check(&[&format!("gzip{}", ",".repeat(32))], None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_what_is_refused_is_not_chosen(line in "[a-z*;=q0-9., -]{0,60}") {
            let mut asked = HeaderMap::new();
            asked.append(header::ACCEPT_ENCODING, HeaderValue::from_str(&line).unwrap());
            let _ = chosen(&asked);
            asked.append(header::ACCEPT_ENCODING, HeaderValue::from_static("br;q=0"));
            prop_assert_ne!(chosen(&asked), Some(Coding::Brotli));
        }
    }
}
