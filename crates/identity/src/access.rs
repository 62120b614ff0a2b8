//! Whether somebody may pass a rule.

use crate::claims::Claims;
use bastide_types::AccessRule;

/// What the identity check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Pass,
    /// Sign in first.
    SignIn,
    /// Signed in, but without the role.
    Forbid,
}

/// Decides for who asks (nobody when `None`) under `rule`.
pub fn decide(rule: &AccessRule, who: Option<&Claims>) -> Decision {
    match (rule, who) {
        (AccessRule::Public, _) | (AccessRule::Authenticated, Some(_)) => Decision::Pass,
        (AccessRule::Roles(wanted), Some(claims)) => {
            if wanted.iter().any(|role| claims.roles.contains(role)) {
                Decision::Pass
            } else {
                Decision::Forbid
            }
        }
        (AccessRule::Authenticated | AccessRule::Roles(_), None) => Decision::SignIn,
    }
}
