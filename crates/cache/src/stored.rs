//! A stored response: what it says, what it holds, and how old it is.

use crate::{
    Moment,
    condition::Validators,
    control::CacheControl,
    freshness::{Lifetime, forbids_stale},
    head::Head,
    site::Site,
    vary::Variant,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

/// A response as it is stored. Never changed: an update makes another one with the same content.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Status.
    pub status: StatusCode,
    /// Fields, without those that are not stored.
    pub head: Head,
    /// Body, or parts of it.
    pub content: Content,
    /// Tells these bytes from all others that this process ever stored.
    pub content_id: u64,
    /// Which requests it answers.
    pub variant: Variant,
    /// Directives that govern it.
    pub control: CacheControl,
    /// How long it is fresh.
    pub lifetime: Lifetime,
    /// What tells it from other versions.
    pub validators: Validators,
    /// Cache groups that it belongs to (RFC 9875).
    pub groups: Vec<String>,
    /// It may answer requests with credentials: it was shared explicitly (§3.5).
    pub shared: bool,
    /// Something said that it is outdated: it is validated before every use.
    pub doubted: bool,
    pub(crate) forbids_stale: bool,
    pub(crate) initial_age_ms: u64,
    pub(crate) received: Moment,
}

/// What is there of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// Pieces of it, in order, apart from each other; the first number is where a piece begins.
    Pieces(u64, Vec<(u64, Bytes)>),
}

impl Content {
    /// Length of the whole.
    pub fn length(&self) -> u64 {
        match self {
            Self::Whole(body) => body.len() as u64,
            Self::Pieces(total, _) => *total,
        }
    }

    /// Bytes that are there.
    pub fn held(&self) -> usize {
        match self {
            Self::Whole(body) => body.len(),
            Self::Pieces(_, pieces) => pieces.iter().map(|(_, bytes)| bytes.len()).sum(),
        }
    }

    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// The bytes from `first` to `last`, both included, if all of them are there.
    pub fn slice(&self, first: u64, last: u64) -> Option<Bytes> {
        let cut = |begin: u64, bytes: &Bytes| {
            let end = begin + bytes.len() as u64;
            (begin <= first && last < end && first <= last)
                .then(|| bytes.slice((first - begin) as usize..=(last - begin) as usize))
        };
        match self {
            Self::Whole(body) => cut(0, body),
            Self::Pieces(_, pieces) => pieces.iter().find_map(|(begin, bytes)| cut(*begin, bytes)),
        }
    }

    /// From the first to the last byte that is missing.
    pub fn gap(&self) -> Option<(u64, u64)> {
        let Self::Pieces(total, pieces) = self else { return None };
        let last = total.checked_sub(1)?;
        let (Some((begin, first)), Some((end, tail))) = (pieces.first(), pieces.last()) else {
            return Some((0, last));
        };
        let from = if *begin == 0 { first.len() as u64 } else { 0 };
        let until = if end + tail.len() as u64 == *total { end.checked_sub(1)? } else { last };
        (from <= until).then_some((from, until))
    }

    /// This content with a further piece, whose bytes count where both have some. What becomes whole is whole.
    #[must_use]
    pub fn with(&self, first: u64, bytes: &Bytes) -> Self {
        let Self::Pieces(total, pieces) = self else { return self.clone() };
        if bytes.is_empty() {
            return self.clone();
        }
        let (mut begin, mut joined) = (first, bytes.clone());
        let mut kept = Vec::new();
        for (at, piece) in pieces {
            let (end, joined_end) = (at + piece.len() as u64, begin + joined.len() as u64);
            if end < begin || *at > joined_end {
                kept.push((*at, piece.clone()));
                continue;
            }
            let before = if *at < begin { piece.slice(..(begin - at) as usize) } else { Bytes::new() };
            let after =
                if end > joined_end { piece.slice((joined_end - at) as usize..) } else { Bytes::new() };
            let mut whole = BytesMut::with_capacity(before.len() + joined.len() + after.len());
            whole.extend_from_slice(&before);
            whole.extend_from_slice(&joined);
            whole.extend_from_slice(&after);
            (begin, joined) = (begin.min(*at), whole.freeze());
        }
        if begin == 0 && joined.len() as u64 == *total {
            return Self::Whole(joined);
        }
        kept.push((begin, joined));
        kept.sort_by_key(|(at, _)| *at);
        Self::Pieces(*total, kept)
    }
}

impl Stored {
    /// Milliseconds since its generation (§4.2.3).
    pub fn age_ms(&self, now: Moment) -> u64 {
        self.initial_age_ms.saturating_add(now.since(self.received))
    }

    /// Seconds since its generation, as `Age` says them.
    pub fn age_s(&self, now: Moment) -> u64 {
        self.age_ms(now) / 1000
    }

    /// Milliseconds for which it is fresh; negative since when it is stale. It is fresh while this is positive.
    pub fn left_ms(&self, now: Moment) -> i64 {
        let lifetime = i64::try_from(self.lifetime.seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        lifetime.saturating_sub(i64::try_from(self.age_ms(now)).unwrap_or(i64::MAX))
    }

    /// Seconds for which it is fresh, as `ttl` says them.
    pub fn ttl_s(&self, now: Moment) -> i64 {
        self.left_ms(now).div_euclid(1000)
    }

    /// Whether it is fresh: its lifetime is greater than its age, so that `max-age=0` never is.
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.left_ms(now) > 0 && !self.doubted
    }

    /// Whether it is past its lifetime by no more than so many seconds.
    pub fn is_stale_within(&self, seconds: u64, now: Moment) -> bool {
        let late_ms = self.left_ms(now).unsigned_abs();
        self.left_ms(now) > 0 || late_ms <= seconds.saturating_mul(1000)
    }

    /// Whether it came later than another one; by Date, then by receipt.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.came() > other.came()
    }

    /// When it came: by Date, then by receipt.
    pub(crate) fn came(&self) -> (i64, u64) {
        (self.validators.date, self.received.steady_ms)
    }

    /// When it was received.
    pub fn received(&self) -> Moment {
        self.received
    }

    /// Whether it may be served stale at all, if something allows it.
    pub fn forbids_stale(&self) -> bool {
        self.forbids_stale
    }

    /// The same, as one that must be validated before every use.
    #[must_use]
    pub fn in_doubt(&self) -> Self {
        Self { doubted: true, ..self.clone() }
    }

    /// What was made of its content, to be kept beside it: the fields of that are made at each use.
    #[must_use]
    pub fn remade(&self, content: Bytes) -> Self {
        let (head, content) = (Head::new(&HeaderMap::new()), Content::Whole(content));
        Self { head, content, groups: Vec::new(), ..self.clone() }
    }

    /// Bytes that it takes in the store.
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + self.head.weight()
            + self.content.held()
            + self.variant.weight()
            + self.groups.iter().map(|group| group.len() + 24).sum::<usize>()
    }

    pub(crate) fn forbids(control: &CacheControl, site: &Site) -> bool {
        forbids_stale(control, site.extensions_beat_s_maxage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(total: u64, pieces: &[(u64, &'static str)]) -> Content {
        Content::Pieces(
            total,
            pieces.iter().map(|(at, text)| (*at, Bytes::from_static(text.as_bytes()))).collect(),
        )
    }

    #[test]
    fn pieces_are_joined_and_become_whole() {
        let check = |own: &[(u64, &'static str)], at, new: &'static str, expected: &[(u64, &'static str)]| {
            assert_eq!(pieces(10, own).with(at, &Bytes::from_static(new.as_bytes())), pieces(10, expected));
        };
        check(&[(0, "01")], 5, "56", &[(0, "01"), (5, "56")]);
        check(&[(0, "01")], 2, "23", &[(0, "0123")]);
        check(&[(5, "56")], 3, "34", &[(3, "3456")]);
        check(&[(0, "01"), (5, "56")], 1, "12345", &[(0, "0123456")]);
        check(&[(0, "0123456")], 2, "xx", &[(0, "01xx456")]);
        check(&[(2, "23"), (5, "5"), (8, "89")], 0, "0", &[(0, "0"), (2, "23"), (5, "5"), (8, "89")]);
        let whole = pieces(10, &[(0, "01"), (8, "89")]).with(2, &Bytes::from_static(b"234567"));
        assert_eq!(whole, Content::Whole(Bytes::from_static(b"0123456789")));
    }

    #[test]
    fn the_gap_reaches_from_the_first_to_the_last_missing_byte() {
        assert_eq!(pieces(10, &[(0, "01")]).gap(), Some((2, 9)));
        assert_eq!(pieces(10, &[(5, "56789")]).gap(), Some((0, 4)));
        assert_eq!(pieces(10, &[(0, "0"), (4, "4"), (9, "9")]).gap(), Some((1, 8)));
        assert_eq!(pieces(10, &[(3, "3")]).gap(), Some((0, 9)));
        assert_eq!(Content::Whole(Bytes::new()).gap(), None);
    }

    #[test]
    fn only_what_is_wholly_there_is_cut_out() {
        let content = pieces(10, &[(2, "234"), (6, "67")]);
        assert_eq!(content.slice(3, 4).unwrap(), "34");
        for (first, last) in [(1, 2), (4, 5), (3, 6), (8, 8), (4, 3)] {
            assert_eq!(content.slice(first, last), None, "{first}-{last}");
        }
        assert_eq!(Content::Whole(Bytes::from_static(b"01")).slice(1, 1).unwrap(), "1");
    }

    proptest! {
        #[test]
        fn any_order_of_pieces_makes_the_whole(cuts in proptest::collection::vec((0_u64..20, 1_usize..8), 1..12)) {
            let whole = Bytes::from_static(b"abcdefghijklmnopqrst");
            let mut content = Content::Pieces(20, Vec::new());
            let mut held = [false; 20];
            for (at, length) in cuts {
                let end = whole.len().min(at as usize + length);
                content = content.with(at, &whole.slice(at as usize..end));
                held[at as usize..end].fill(true);
            }
            for (at, is_held) in held.iter().enumerate() {
                let at = at as u64;
                prop_assert_eq!(content.slice(at, at), is_held.then(|| whole.slice(at as usize..=at as usize)));
            }
            prop_assert_eq!(content.held(), held.iter().filter(|held| **held).count());
            prop_assert_eq!(content.is_whole(), held.iter().all(|held| *held));
        }
    }
}
