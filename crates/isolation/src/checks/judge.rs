//! What an observation means.

use super::{Check, Expected, How};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What whoever tries sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// The canary's words, and the source that it says it sees.
    Answer(IpAddr),
    /// Words of something that is no canary, shortened.
    Bytes(String),
    /// A connection, and no word. Some uplinks accept TCP for everybody: it proves nothing.
    Connected,
    /// A refusal or a reset.
    Reset,
    /// Nothing within the limit.
    Silence,
    /// The kernel, or a router, knows no way: which error.
    NoWay(String),
    /// A proxy or a name service said no: its words.
    Refused(String),
    /// A name service's answer.
    Names(Vec<IpAddr>),
    /// Of many at a time: got through, were reset, heard nothing.
    Many {
        /// Got the canary's words.
        through: u32,
        /// Were reset.
        reset: u32,
        /// Heard nothing.
        silent: u32,
    },
    /// It could not be tried here.
    Failed(String),
}

/// What a canary heard of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    /// The source that it saw.
    pub source: IpAddr,
}

/// Whether a path is as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// Whether it is.
    pub ok: bool,
    /// What was seen, for people.
    pub seen: String,
}

/// Judges a check by what its caller saw and by what canaries heard of it.
pub fn judge(check: &Check, seen: &Seen, arrived: &[Arrival]) -> Judgement {
    let came_through = !arrived.is_empty();
    let ok = match (&check.expected, seen) {
        // What was never tried is not known to be closed.
        (_, Seen::Failed(_)) => false,
        (Expected::Nothing, Seen::Answer(_) | Seen::Bytes(_)) => false,
        (Expected::Nothing, Seen::Names(names)) => names.is_empty() && !came_through,
        (Expected::Nothing, _) => !came_through,
        (Expected::Silence, seen) => *seen == Seen::Silence && !came_through,
        (Expected::Told, seen) => matches!(seen, Seen::NoWay(_)) && !came_through,
        (Expected::Answer(source), Seen::Answer(seen)) => source.is_none_or(|source| source == *seen),
        (Expected::Arrival(source), _) => {
            came_through && arrived.iter().all(|one| source.is_none_or(|source| source == one.source))
        }
        (Expected::Reset, seen) => *seen == Seen::Reset && !came_through,
        (Expected::Bytes, seen) => matches!(seen, Seen::Bytes(_)),
        (Expected::Listens, seen) => matches!(seen, Seen::Bytes(_) | Seen::Connected),
        (Expected::Names(names), Seen::Names(seen)) => same(names, seen),
        (Expected::AtMost(most), Seen::Many { through, silent, .. }) => {
            let is_udp = matches!(check.how, How::Flood { udp: true, .. });
            (1..=*most).contains(through) && (is_udp || *silent == 0)
        }
        (Expected::Answer(_) | Expected::Names(_) | Expected::AtMost(_), _) => false,
    };
    Judgement { ok, seen: words(seen, arrived) }
}

fn same(expected: &[IpAddr], seen: &[IpAddr]) -> bool {
    expected.len() == seen.len() && expected.iter().all(|one| seen.contains(one))
}

fn words(seen: &Seen, arrived: &[Arrival]) -> String {
    let own = match seen {
        Seen::Answer(source) => format!("answered {source}"),
        Seen::Bytes(bytes) => format!("answered {bytes:?}"),
        Seen::Connected => "connected, no answer".into(),
        Seen::Reset => "reset".into(),
        Seen::Silence => "silence".into(),
        Seen::NoWay(error) => format!("no way ({error})"),
        Seen::Refused(words) => format!("refused: {words}"),
        Seen::Names(names) if names.is_empty() => "no address".into(),
        Seen::Names(names) => format!("addresses {}", list(names)),
        Seen::Many { through, reset, silent } => {
            format!("{through} through, {reset} reset, {silent} silent")
        }
        Seen::Failed(why) => format!("not tried: {why}"),
    };
    match (seen, arrived.first()) {
        (Seen::Answer(_), _) | (_, None) => own,
        (_, Some(arrival)) => format!("{own}; arrived from {}", arrival.source),
    }
}

fn list(names: &[IpAddr]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Place, Target};
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(11, 0, 0, 2));

    fn check(expected: Expected, seen: Seen, arrived: &[IpAddr]) -> bool {
        let how = How::Tcp(None);
        let check = Check { path: "p", from: Place::Host, to: Target::Listener(0), how, expected };
        let arrived: Vec<_> = arrived.iter().map(|source| Arrival { source: *source }).collect();
        judge(&check, &seen, &arrived).ok
    }

    #[test]
    fn a_closed_path_gives_no_words_and_takes_none() {
        for seen in
            [Seen::Silence, Seen::Reset, Seen::NoWay("x".into()), Seen::Connected, Seen::Names(vec![])]
        {
            assert!(check(Expected::Nothing, seen.clone(), &[]), "{seen:?}");
            assert!(!check(Expected::Nothing, seen.clone(), &[HERE]), "{seen:?} and it arrived");
        }
        for seen in
            [Seen::Answer(HERE), Seen::Bytes("x".into()), Seen::Names(vec![HERE]), Seen::Failed("x".into())]
        {
            assert!(!check(Expected::Nothing, seen.clone(), &[]), "{seen:?}");
        }
    }

    #[test]
    fn an_open_path_shows_the_right_source() {
        assert!(check(Expected::Answer(Some(HERE)), Seen::Answer(HERE), &[HERE]));
        assert!(check(Expected::Answer(None), Seen::Answer(THERE), &[THERE]));
        assert!(!check(Expected::Answer(Some(HERE)), Seen::Answer(THERE), &[THERE]));
        for seen in [Seen::Connected, Seen::Silence, Seen::Bytes("x".into()), Seen::Reset] {
            assert!(!check(Expected::Answer(None), seen, &[HERE]));
        }
        assert!(check(Expected::Arrival(Some(HERE)), Seen::Silence, &[HERE]));
        assert!(!check(Expected::Arrival(Some(HERE)), Seen::Silence, &[THERE]));
        assert!(!check(Expected::Arrival(None), Seen::Silence, &[]));
    }

    #[test]
    fn a_reset_is_neither_silence_nor_an_arrival() {
        assert!(check(Expected::Reset, Seen::Reset, &[]));
        assert!(!check(Expected::Reset, Seen::Silence, &[]));
        assert!(!check(Expected::Reset, Seen::Reset, &[HERE]));
        assert!(check(Expected::Silence, Seen::Silence, &[]));
        assert!(!check(Expected::Silence, Seen::Reset, &[]));
        assert!(check(Expected::Told, Seen::NoWay("ttl".into()), &[]));
        assert!(!check(Expected::Told, Seen::Silence, &[]));
    }

    #[test]
    fn a_cap_lets_some_through_and_resets_the_rest() {
        let many = |through, reset, silent| Seen::Many { through, reset, silent };
        assert!(check(Expected::AtMost(5), many(5, 3, 0), &[]));
        assert!(!check(Expected::AtMost(5), many(6, 2, 0), &[]));
        assert!(!check(Expected::AtMost(5), many(0, 8, 0), &[]));
        assert!(!check(Expected::AtMost(5), many(5, 2, 1), &[]));
    }
}
