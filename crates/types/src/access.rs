//! Who may use which part of an app.

use crate::{Acr, StepUp};
use serde::{Deserialize, Serialize};

/// Who may use a route.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessRule {
    /// Anybody, also without signing in.
    Public,
    /// Whoever signed in for this stage. The default: what an app does not open stays shut.
    #[default]
    Authenticated,
    /// Whoever signed in and has at least one of these app roles.
    Roles(Vec<String>),
}

/// A part of an app, by path, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Path below the app, starting with `/`. It covers itself and everything below it.
    pub path: String,
    /// Who may use it.
    #[serde(default)]
    pub access: AccessRule,
    /// How well the sign-in must be secured: `password` or `mfa`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<Acr>,
    /// Most seconds since the sign-in, 60 to 86 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
}

impl Route {
    /// What is demanded of the sign-in, besides that there is one.
    pub fn step_up(&self) -> Option<StepUp> {
        let Self { acr, max_age_s, .. } = self;
        (acr.is_some() || max_age_s.is_some())
            .then(|| StepUp { acr: acr.unwrap_or(Acr::Password), max_age_s: *max_age_s })
    }
}

/// What no route covers.
static SHUT: Route =
    Route { path: String::new(), access: AccessRule::Authenticated, acr: None, max_age_s: None };

/// The route for a canonical path below the app: the longest one which covers it, or one with
/// [`AccessRule::Authenticated`] when none does.
pub fn route_for<'a>(routes: &'a [Route], path: &str) -> &'a Route {
    let covering = routes.iter().filter(|route| covers(&route.path, path));
    covering.max_by_key(|route| route.path.trim_end_matches('/').len()).unwrap_or(&SHUT)
}

/// The rule of [`route_for`].
pub fn rule_for<'a>(routes: &'a [Route], path: &str) -> &'a AccessRule {
    &route_for(routes, path).access
}

/// Whether `route` is `path` itself or one of its parents, by whole segments.
fn covers(route: &str, path: &str) -> bool {
    let route = route.trim_end_matches('/');
    path.strip_prefix(route).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str, access: AccessRule) -> Route {
        Route { path: path.into(), access, acr: None, max_age_s: None }
    }

    #[test]
    fn the_longest_route_that_covers_a_path_decides() {
        let routes = [
            route("/", AccessRule::Public),
            route("/admin/", AccessRule::Roles(vec!["admin".into()])),
            route("/me", AccessRule::Authenticated),
        ];
        assert_eq!(rule_for(&routes, "/"), &AccessRule::Public);
        assert_eq!(rule_for(&routes, "/me"), &AccessRule::Authenticated);
        assert_eq!(rule_for(&routes, "/me/x"), &AccessRule::Authenticated);
        assert_eq!(rule_for(&routes, "/mention"), &AccessRule::Public);
        assert_eq!(rule_for(&routes, "/admin"), &AccessRule::Roles(vec!["admin".into()]));
    }

    #[test]
    fn what_no_route_covers_is_shut() {
        assert_eq!(rule_for(&[], "/"), &AccessRule::Authenticated);
        let routes = [route("/open", AccessRule::Public)];
        assert_eq!(rule_for(&routes, "/other"), &AccessRule::Authenticated);
    }
}
