//! Ids. Each has a type of its own, so that a customer can never be passed where an app is meant.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub Uuid);

        impl $type {
            /// A new id; ids made later sort later (UUID version 7, RFC 9562).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::str::FromStr for $type {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// A customer (organization), for ever; its name may change.
    CustomerId
);
id!(
    /// A member or end user.
    UserId
);
id!(
    /// An app of one customer, the same in all stages.
    AppId
);
id!(
    /// A ban of a source.
    BanId
);
id!(
    /// One replica of one revision of an app in one stage; never used again.
    ReplicaId
);
id!(
    /// One request, from the edge to the replica; shown to the client and in every log.
    RequestId
);
