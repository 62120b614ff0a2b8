//! Who may use which part of an app.

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
}

/// The rule for a canonical path below the app: that of the longest route which covers it, or
/// [`AccessRule::Authenticated`] when none does.
pub fn rule_for<'a>(routes: &'a [Route], path: &str) -> &'a AccessRule {
    static SHUT: AccessRule = AccessRule::Authenticated;
    routes
        .iter()
        .filter(|route| covers(&route.path, path))
        .max_by_key(|route| route.path.trim_end_matches('/').len())
        .map_or(&SHUT, |route| &route.access)
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
        Route { path: path.into(), access }
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
