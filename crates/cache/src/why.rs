//! Grounds of decisions, each with the section that gives it.

use crate::status::Forward;

/// Why a request is answered as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Because {
    /// What is stored is fresh.
    Fresh,
    /// The client takes a stale answer.
    ClientTakesStale,
    /// It is stale, and the origin allows it while it is fetched anew.
    WhileRevalidating,
    /// The origin failed, and it or the client allows a stale answer then.
    IfError,
    /// The origin cannot be reached, and the site allows a stale answer then.
    Disconnected,
    /// Nothing is stored under this address.
    NothingStored,
    /// What is stored is for other requests.
    NoVariant,
    /// What is stored is stale.
    Stale,
    /// What is stored must be validated each time.
    NoCache,
    /// What is stored was found to be outdated.
    Doubted,
    /// The client asks for an answer from the origin.
    ClientReloads,
    /// The client wants a younger answer.
    ClientWantsYounger,
    /// The client wants one that stays fresh for longer.
    ClientWantsFresher,
    /// The condition is for the origin alone.
    OriginsCondition,
    /// The request has credentials, and what is stored is not shared with such.
    Credentials,
    /// Not all bytes that are asked for are stored.
    PartMissing,
    /// The client wants only what is stored.
    OnlyIfCached,
    /// The method.
    Method,
    /// The request has a body, or wants another protocol.
    Unusual,
    /// This site or route is not cached.
    NotCached,
}

impl Because {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Fresh,
        Self::ClientTakesStale,
        Self::WhileRevalidating,
        Self::IfError,
        Self::Disconnected,
        Self::NothingStored,
        Self::NoVariant,
        Self::Stale,
        Self::NoCache,
        Self::Doubted,
        Self::ClientReloads,
        Self::ClientWantsYounger,
        Self::ClientWantsFresher,
        Self::OriginsCondition,
        Self::Credentials,
        Self::PartMissing,
        Self::OnlyIfCached,
        Self::Method,
        Self::Unusual,
        Self::NotCached,
    ];

    /// Why the request goes forward, as `Cache-Status` says it; for what does not, the nearest.
    pub const fn forward(self) -> Forward {
        match self {
            Self::NothingStored | Self::OnlyIfCached => Forward::UriMiss,
            Self::NoVariant => Forward::VaryMiss,
            Self::PartMissing => Forward::Partial,
            Self::Method => Forward::Method,
            Self::NotCached => Forward::Bypass,
            Self::ClientReloads
            | Self::ClientWantsYounger
            | Self::ClientWantsFresher
            | Self::OriginsCondition
            | Self::Credentials
            | Self::Unusual => Forward::Request,
            Self::Fresh
            | Self::ClientTakesStale
            | Self::WhileRevalidating
            | Self::IfError
            | Self::Disconnected
            | Self::Stale
            | Self::NoCache
            | Self::Doubted => Forward::Stale,
        }
    }

    /// The ground, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Fresh => "a stored response is fresh",
            Self::ClientTakesStale => "a stored response is stale, and the client takes it (max-stale)",
            Self::WhileRevalidating => {
                "it is stale, answered at once and fetched anew (stale-while-revalidate)"
            }
            Self::IfError => "the origin failed, and a stale response is allowed then (stale-if-error)",
            Self::Disconnected => "the origin cannot be reached, and the site allows a stale response then",
            Self::NothingStored => "nothing is stored under this address",
            Self::NoVariant => "what is stored was chosen for requests with other fields (Vary)",
            Self::Stale => "what is stored is stale",
            Self::NoCache => "what is stored must be validated before each use (no-cache)",
            Self::Doubted => "what is stored was found to be outdated",
            Self::ClientReloads => "the client asks for an answer from the origin (no-cache)",
            Self::ClientWantsYounger => "what is stored is older than the client wants (max-age)",
            Self::ClientWantsFresher => {
                "what is stored is fresh for less time than the client wants (min-fresh)"
            }
            Self::OriginsCondition => "the condition is for the origin alone (If-Match, If-Unmodified-Since)",
            Self::Credentials => "the request has credentials, and what is stored is not shared with such",
            Self::PartMissing => "not all bytes that are asked for are stored",
            Self::OnlyIfCached => {
                "the client wants only what is stored, and that is nothing (only-if-cached)"
            }
            Self::Method => "answers to this method are not stored",
            Self::Unusual => "the request has a body, or wants another protocol",
            Self::NotCached => "this site or route is not cached",
        }
    }

    /// The section that gives it.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Fresh | Self::Stale => "RFC 9111 §4.2",
            Self::ClientTakesStale => "RFC 9111 §5.2.1.2",
            Self::WhileRevalidating => "RFC 5861 §3",
            Self::IfError => "RFC 5861 §4",
            Self::Disconnected => "RFC 9111 §4.2.4",
            Self::NothingStored | Self::Method | Self::Unusual => "RFC 9111 §4",
            Self::NoVariant => "RFC 9111 §4.1",
            Self::NoCache => "RFC 9111 §5.2.2.4",
            Self::Doubted => "RFC 9111 §4.3.5",
            Self::ClientReloads => "RFC 9111 §5.2.1.4",
            Self::ClientWantsYounger => "RFC 9111 §5.2.1.1",
            Self::ClientWantsFresher => "RFC 9111 §5.2.1.3",
            Self::OriginsCondition => "RFC 9111 §4.3.2",
            Self::Credentials => "RFC 9111 §3.5",
            Self::PartMissing => "RFC 9111 §3.3",
            Self::OnlyIfCached => "RFC 9111 §5.2.1.7",
            Self::NotCached => "site policy",
        }
    }
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// The method.
    Method,
    /// An interim status, or a 304.
    Status,
    /// `must-understand` with a status that is not.
    NotUnderstood,
    /// `no-store` in the response.
    NoStore,
    /// `no-store` in the request.
    ClientNoStore,
    /// `private`.
    Private,
    /// The request has credentials, and the response is not shared explicitly.
    Credentials,
    /// The response sets a cookie, and is not shared explicitly.
    Cookie,
    /// `Vary: *`, or what cannot be read.
    VariesOnAll,
    /// Nothing says how long it is fresh, and its status is not one to guess for.
    NoLifetime,
    /// It is stale at once, and there is nothing to validate it with.
    UselessAtOnce,
    /// A part of several, or one that says nothing that can be used.
    PartUnclear,
    /// It is too large.
    TooLarge,
    /// It broke off.
    Incomplete,
    /// What is stored is newer.
    Older,
    /// It was invalidated or purged while it came.
    Overtaken,
    /// It is not asked for often enough for its place.
    NotAdmitted,
    /// It varies on what the edge says itself.
    VariesOnOurs,
    /// The gateway did not mark it as fit for everybody.
    NotFit,
}

impl NotStored {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Method,
        Self::Status,
        Self::NotUnderstood,
        Self::NoStore,
        Self::ClientNoStore,
        Self::Private,
        Self::Credentials,
        Self::Cookie,
        Self::VariesOnAll,
        Self::NoLifetime,
        Self::UselessAtOnce,
        Self::PartUnclear,
        Self::TooLarge,
        Self::Incomplete,
        Self::Older,
        Self::Overtaken,
        Self::NotAdmitted,
        Self::VariesOnOurs,
        Self::NotFit,
    ];

    /// The ground, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Method => "answers to this method are not stored",
            Self::Status => "this status is not stored",
            Self::NotUnderstood => "its status is not understood (must-understand)",
            Self::NoStore => "the response says no-store",
            Self::ClientNoStore => "the request says no-store",
            Self::Private => "the response is for one user (private)",
            Self::Credentials => {
                "the request has credentials, and nothing says that the response is for everybody"
            }
            Self::Cookie => "the response sets a cookie, and nothing says that it is for everybody",
            Self::VariesOnAll => "the response varies on everything (Vary: *)",
            Self::NoLifetime => "nothing says how long it is fresh, and its status is not one to guess for",
            Self::UselessAtOnce => "it is stale at once, and has no validator",
            Self::PartUnclear => "the part does not say clearly which bytes it holds",
            Self::TooLarge => "it is too large",
            Self::Incomplete => "it broke off",
            Self::Older => "what is stored is newer",
            Self::Overtaken => "it was invalidated or purged while it came",
            Self::NotAdmitted => "it is not asked for often enough",
            Self::VariesOnOurs => "it varies on what the edge says itself",
            Self::NotFit => "the gateway did not mark it as fit for everybody",
        }
    }

    /// The section that gives it.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Method | Self::Status | Self::NoLifetime | Self::UselessAtOnce => "RFC 9111 §3",
            Self::NotUnderstood => "RFC 9111 §5.2.2.3",
            Self::NoStore => "RFC 9111 §5.2.2.5",
            Self::ClientNoStore => "RFC 9111 §5.2.1.5",
            Self::Private => "RFC 9111 §5.2.2.7",
            Self::Credentials => "RFC 9111 §3.5",
            Self::Cookie => "RFC 9111 §7.3, site policy",
            Self::VariesOnAll => "RFC 9111 §4.1",
            Self::PartUnclear | Self::Incomplete => "RFC 9111 §3.3",
            Self::Older => "RFC 9111 §4",
            Self::Overtaken => "RFC 9111 §4.4",
            Self::TooLarge | Self::NotAdmitted => "limits of the store",
            Self::VariesOnOurs | Self::NotFit => "site policy",
        }
    }
}
