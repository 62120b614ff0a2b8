//! How well a sign-in is secured, and what may be demanded of it (OpenID Connect Core §2, RFC 9470).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Authentication context class: how somebody showed who they are. The later, the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acr {
    /// An API client by its secret: nobody is there who could do more.
    #[default]
    Client,
    /// A member by a password.
    Password,
    /// A member by a password and a code.
    Mfa,
    /// By a passkey whose authenticator has verified its user, with or without a password: no page of somebody else's can
    /// ask for it.
    Passkey,
}

impl Acr {
    /// All, the weakest first.
    pub const ALL: [Self; 4] = [Self::Client, Self::Password, Self::Mfa, Self::Passkey];

    /// Its name, as tokens have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Password => "password",
            Self::Mfa => "mfa",
            Self::Passkey => "passkey",
        }
    }
}

impl fmt::Display for Acr {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.as_str())
    }
}

/// A text names no [`Acr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("client, password, mfa or passkey")]
pub struct UnknownAcr;

impl FromStr for Acr {
    type Err = UnknownAcr;

    fn from_str(text: &str) -> Result<Self, UnknownAcr> {
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or(UnknownAcr)
    }
}

/// What is demanded of a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepUp {
    /// At least so well secured: `password`, `mfa` or `passkey`.
    pub acr: Acr,
    /// Most seconds since the sign-in, 60 to 86 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
}

/// Shortest and longest [`StepUp::max_age_s`]. A shorter one would be over before a browser is back.
pub const MAX_AGE_S: std::ops::RangeInclusive<u64> = 60..=86_400;

impl StepUp {
    /// Whether a sign-in of this kind, at that time, is enough now (seconds since 1970).
    pub fn is_met(&self, acr: Acr, auth_time: u64, now_s: u64) -> bool {
        acr >= self.acr && self.max_age_s.is_none_or(|max_s| now_s.saturating_sub(auth_time) <= max_s)
    }

    /// Whether it can be met at all, and soon enough.
    pub fn is_sound(&self) -> bool {
        self.acr > Acr::Client && self.max_age_s.is_none_or(|max_s| MAX_AGE_S.contains(&max_s))
    }

    /// What a program is told in `WWW-Authenticate` (RFC 9470 §3).
    pub fn challenge(&self) -> String {
        let max_age = self.max_age_s.map(|max_s| format!(", max_age=\"{max_s}\"")).unwrap_or_default();
        let acr = self.acr;
        format!("Bearer error=\"insufficient_user_authentication\", acr_values=\"{acr}\"{max_age}")
    }

    /// The same for people.
    pub fn says(&self) -> String {
        let how = match self.acr {
            Acr::Passkey => "with a passkey",
            Acr::Mfa => "with a second factor",
            Acr::Password | Acr::Client => "with your password",
        };
        match self.max_age_s {
            Some(max_s) => format!("It needs a sign-in {how} in the last {max_s} seconds."),
            None => format!("It needs a sign-in {how}."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_is_enough_when_it_is_strong_and_young() {
        let check = |acr: Acr, max_age_s: Option<u64>, had: Acr, age_s: u64, expected: bool| {
            let step_up = StepUp { acr, max_age_s };
            assert_eq!(step_up.is_met(had, 10_000 - age_s, 10_000), expected, "{step_up:?} {had} {age_s}");
        };
        check(Acr::Mfa, None, Acr::Mfa, 9_999, true);
        check(Acr::Mfa, None, Acr::Password, 0, false);
        check(Acr::Password, None, Acr::Mfa, 0, true);
        check(Acr::Password, None, Acr::Client, 0, false);
        check(Acr::Passkey, None, Acr::Mfa, 0, false);
        check(Acr::Passkey, Some(600), Acr::Passkey, 600, true);
        check(Acr::Passkey, Some(600), Acr::Passkey, 601, false);
        check(Acr::Mfa, None, Acr::Passkey, 0, true);
        check(Acr::Mfa, Some(600), Acr::Mfa, 600, true);
        check(Acr::Mfa, Some(600), Acr::Mfa, 601, false);
        check(Acr::Password, Some(600), Acr::Mfa, 601, false);
    }

    #[test]
    fn each_is_read_as_it_is_written() {
        for (at, acr) in Acr::ALL.into_iter().enumerate() {
            assert_eq!(acr.to_string().parse(), Ok(acr));
            assert_eq!(serde_json::to_value(acr).unwrap(), acr.as_str());
            assert!(Acr::ALL[at + 1..].iter().all(|later| *later > acr), "{acr}");
        }
        assert_eq!("Passkey".parse::<Acr>(), Err(UnknownAcr));
    }

    #[test]
    fn a_challenge_is_that_of_rfc_9470() {
        let check = |max_age_s, expected: &str| {
            assert_eq!(StepUp { acr: Acr::Mfa, max_age_s }.challenge(), expected);
        };
        check(None, "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\"");
        check(
            Some(600),
            "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\", max_age=\"600\"",
        );
    }

    #[test]
    fn what_nobody_could_meet_is_not_sound() {
        let check = |acr, max_age_s, expected: bool| {
            assert_eq!(StepUp { acr, max_age_s }.is_sound(), expected, "{acr} {max_age_s:?}");
        };
        check(Acr::Mfa, None, true);
        check(Acr::Password, Some(60), true);
        check(Acr::Mfa, Some(59), false);
        check(Acr::Mfa, Some(86_401), false);
        check(Acr::Client, None, false);
    }
}
