//! Which operation of the API needs which permission.

use super::Permission::{
    self, Account, AppRolesRead, AppRolesWrite, AppsDeploy, AppsPublish, AppsRead, AppsScale, AuditRead,
    BansRead, BansWrite, CachePurge, CacheRead, ClientsRead, ClientsWrite, CustomersRead, CustomersWrite,
    DomainsRead, DomainsWrite, GroupsWrite, IdpsRead, IdpsWrite, KeysRead, KeysRotate, LocksRead, LocksWrite,
    MembersRead, MembersWrite, NetworkRead, NetworkWrite, OrganizationRead, OrganizationWrite, RolesRead,
    RolesWrite, SecretsWrite, ServicesRotate, SessionsEnd, SessionsLimit, SessionsRead, SettingsRead,
    SettingsWrite, SignInRead, SignInWrite, SiteRead, SiteSecurity, SiteWrite, UsersRead, UsersWrite,
    WafRead, WafWrite,
};
use http::Method;

/// Operations: method, path below [`bastide_types::API`] as the router has it, permission. Whatever is not here is refused.
#[rustfmt::skip]
pub const TABLE: &[(Method, &str, Permission)] = &[
    (Method::GET, "/whoami", Account),
    (Method::GET, "/sessions", Account),
    (Method::DELETE, "/sessions", Account),
    (Method::DELETE, "/sessions/{session}", Account),
    (Method::GET, "/runtime", AppsRead),
    (Method::GET, "/apps", AppsRead),
    (Method::GET, "/apps/{app}", AppsRead),
    (Method::GET, "/apps/{app}/services", AppsRead),
    (Method::GET, "/operations/{id}", AppsRead),
    (Method::GET, "/operations", AppsRead),
    (Method::GET, "/apps/{app}/revisions", AppsRead),
    (Method::GET, "/apps/{app}/diff", AppsRead),
    (Method::GET, "/stages/{stage}/sessions", AppsRead),
    (Method::POST, "/apps/{app}/publish", AppsPublish),
    (Method::GET, "/apps/{app}/content", AppsPublish),
    (Method::POST, "/apps/{app}/deployments", AppsDeploy),
    (Method::POST, "/apps/{app}/rollbacks", AppsDeploy),
    (Method::POST, "/apps/{app}/undeployments", AppsDeploy),
    (Method::PUT, "/apps/{app}/scale", AppsScale),
    (Method::POST, "/apps/{app}/services/postgres/rotate", ServicesRotate),
    (Method::GET, "/apps/{app}/stages/{stage}/settings", SettingsRead),
    (Method::PUT, "/apps/{app}/stages/{stage}/settings", SettingsWrite),
    (Method::GET, "/apps/{app}/stages/{stage}/secrets", SettingsRead),
    (Method::PUT, "/apps/{app}/stages/{stage}/secrets", SecretsWrite),
    (Method::GET, "/cache/figures", CacheRead),
    (Method::POST, "/cache/why", CacheRead),
    (Method::POST, "/cache/purges", CachePurge),
    (Method::GET, "/apps/{app}/egress", NetworkRead),
    (Method::GET, "/stages/{stage}/network", NetworkRead),
    (Method::PUT, "/stages/{stage}/network", NetworkWrite),
    (Method::GET, "/stages/{stage}/site", SiteRead),
    (Method::GET, "/stages/{stage}/site/pages/{page}", SiteRead),
    (Method::PUT, "/stages/{stage}/site/pages/{page}", SiteWrite),
    (Method::DELETE, "/stages/{stage}/site/pages/{page}", SiteWrite),
    (Method::PUT, "/stages/{stage}/site/maintenance", SiteWrite),
    (Method::PUT, "/stages/{stage}/site/redirects", SiteWrite),
    (Method::DELETE, "/stages/{stage}/site", SiteSecurity),
    (Method::PUT, "/stages/{stage}/site/fields", SiteSecurity),
    (Method::GET, "/waf/policy", WafRead),
    (Method::PUT, "/waf/policy", WafWrite),
    (Method::GET, "/bans", BansRead),
    (Method::POST, "/bans", BansWrite),
    (Method::DELETE, "/bans/{ban}", BansWrite),
    (Method::GET, "/domains", DomainsRead),
    (Method::POST, "/domains", DomainsWrite),
    (Method::DELETE, "/domains/{domain}/claim", DomainsWrite),
    (Method::POST, "/domains/{domain}/verify", DomainsWrite),
    (Method::PUT, "/domains/{domain}/certificate", DomainsWrite),
    (Method::PUT, "/stages/{stage}/default-domain", DomainsWrite),
    (Method::GET, "/apps/{app}/roles", AppRolesRead),
    (Method::PUT, "/apps/{app}/roles", AppRolesWrite),
    (Method::DELETE, "/apps/{app}/roles/{stage}/{role}/{member}", AppRolesWrite),
    (Method::DELETE, "/apps/{app}/roles/{stage}/{role}/groups/{group}", AppRolesWrite),
    (Method::GET, "/idps", IdpsRead),
    (Method::POST, "/idps", IdpsWrite),
    (Method::GET, "/idps/{idp}", IdpsRead),
    (Method::PUT, "/idps/{idp}", IdpsWrite),
    (Method::DELETE, "/idps/{idp}", IdpsWrite),
    (Method::GET, "/stages/{stage}/users", UsersRead),
    (Method::POST, "/stages/{stage}/users", UsersWrite),
    (Method::GET, "/stages/{stage}/users/{user}", UsersRead),
    (Method::DELETE, "/stages/{stage}/users/{user}", UsersWrite),
    (Method::PUT, "/stages/{stage}/users/{user}/suspension", UsersWrite),
    (Method::DELETE, "/stages/{stage}/users/{user}/second-factor", UsersWrite),
    (Method::DELETE, "/stages/{stage}/users/{user}/passkeys", UsersWrite),
    (Method::POST, "/stages/{stage}/users/{user}/password-reset", UsersWrite),
    (Method::GET, "/stages/{stage}/registration", UsersRead),
    (Method::PUT, "/stages/{stage}/registration", UsersWrite),
    (Method::GET, "/stages/{stage}/users/{user}/sessions", SessionsRead),
    (Method::DELETE, "/stages/{stage}/users/{user}/sessions", SessionsEnd),
    (Method::GET, "/stages/{stage}/groups", UsersRead),
    (Method::POST, "/stages/{stage}/groups", GroupsWrite),
    (Method::DELETE, "/stages/{stage}/groups/{group}", GroupsWrite),
    (Method::GET, "/stages/{stage}/groups/{group}/users", UsersRead),
    (Method::PUT, "/stages/{stage}/groups/{group}/users/{user}", GroupsWrite),
    (Method::DELETE, "/stages/{stage}/groups/{group}/users/{user}", GroupsWrite),
    (Method::GET, "/members", MembersRead),
    (Method::POST, "/members", MembersWrite),
    (Method::PUT, "/members/{member}/roles", MembersWrite),
    (Method::PUT, "/members/{member}/suspension", MembersWrite),
    (Method::GET, "/members/{member}/sessions", SessionsRead),
    (Method::DELETE, "/members/{member}/sessions", SessionsEnd),
    (Method::PUT, "/stages/{stage}/sessions", SessionsLimit),
    (Method::POST, "/members/{member}/password-reset", MembersWrite),
    (Method::DELETE, "/members/{member}/second-factor", MembersWrite),
    (Method::DELETE, "/members/{member}/passkeys", MembersWrite),
    (Method::GET, "/organization", OrganizationRead),
    (Method::PUT, "/organization", OrganizationWrite),
    (Method::GET, "/organization/logo", OrganizationRead),
    (Method::PUT, "/organization/logo", OrganizationWrite),
    (Method::DELETE, "/organization/logo", OrganizationWrite),
    (Method::GET, "/sign-in/policy", SignInRead),
    (Method::PUT, "/sign-in/policy", SignInWrite),
    (Method::GET, "/permissions", RolesRead),
    (Method::GET, "/roles", RolesRead),
    (Method::POST, "/roles", RolesWrite),
    (Method::PUT, "/roles/{role}", RolesWrite),
    (Method::DELETE, "/roles/{role}", RolesWrite),
    (Method::GET, "/clients", ClientsRead),
    (Method::GET, "/clients/{client}", ClientsRead),
    (Method::POST, "/clients", ClientsWrite),
    (Method::DELETE, "/clients/{client}", ClientsWrite),
    (Method::PUT, "/clients/{client}/suspension", ClientsWrite),
    (Method::POST, "/clients/{client}/secrets", ClientsWrite),
    (Method::DELETE, "/clients/{client}/secrets/{secret}", ClientsWrite),
    (Method::GET, "/clients/{client}/keys", ClientsRead),
    (Method::POST, "/clients/{client}/keys", ClientsWrite),
    (Method::DELETE, "/clients/{client}/keys/{kid}", ClientsWrite),
    (Method::GET, "/audit", AuditRead),
    (Method::GET, "/audit/export", AuditRead),
    (Method::GET, "/audit/verification", AuditRead),
    (Method::GET, "/keys", KeysRead),
    (Method::POST, "/keys/rotation", KeysRotate),
    (Method::GET, "/customers", CustomersRead),
    (Method::GET, "/customers/{customer}/quota", CustomersRead),
    (Method::POST, "/customers", CustomersWrite),
    (Method::PUT, "/customers/{customer}/quota", CustomersWrite),
    (Method::GET, "/locks", LocksRead),
    (Method::DELETE, "/locks/{label}/lock", LocksWrite),
];

/// Operations that are about stages which their paths do not name: those of the request's query or body, of what it
/// changes, or all. They are open to whoever holds the permission in any stage, and their handlers ask
/// `Caller::demand_in` about the stage, or show only what is of stages that the caller sees. The others need the
/// permission everywhere, but for those with `{stage}` in their path, which need it there.
#[rustfmt::skip]
pub const ABOUT_STAGES: &[(Method, &str)] = &[
    (Method::GET, "/runtime"),
    (Method::GET, "/apps"),
    (Method::GET, "/apps/{app}"),
    (Method::GET, "/apps/{app}/services"),
    (Method::GET, "/operations/{id}"),
    (Method::GET, "/operations"),
    (Method::GET, "/apps/{app}/revisions"),
    (Method::GET, "/apps/{app}/diff"),
    (Method::POST, "/apps/{app}/publish"),
    (Method::GET, "/apps/{app}/content"),
    (Method::POST, "/apps/{app}/deployments"),
    (Method::POST, "/apps/{app}/rollbacks"),
    (Method::POST, "/apps/{app}/undeployments"),
    (Method::PUT, "/apps/{app}/scale"),
    (Method::POST, "/apps/{app}/services/postgres/rotate"),
    (Method::GET, "/cache/figures"),
    (Method::POST, "/cache/why"),
    (Method::POST, "/cache/purges"),
    (Method::GET, "/apps/{app}/egress"),
    (Method::GET, "/waf/policy"),
    (Method::PUT, "/waf/policy"),
    (Method::GET, "/domains"),
    (Method::POST, "/domains"),
    (Method::DELETE, "/domains/{domain}/claim"),
    (Method::POST, "/domains/{domain}/verify"),
    (Method::PUT, "/domains/{domain}/certificate"),
    (Method::GET, "/apps/{app}/roles"),
    (Method::PUT, "/apps/{app}/roles"),
    (Method::GET, "/idps"),
    (Method::POST, "/idps"),
    (Method::GET, "/idps/{idp}"),
    (Method::PUT, "/idps/{idp}"),
    (Method::DELETE, "/idps/{idp}"),
];

/// Whether an operation is open to whoever holds its permission in some stage.
pub fn is_about_stages(method: &Method, path: &str) -> bool {
    // The same without the body (RFC 9110 §9.3.2).
    let method = if method == Method::HEAD { &Method::GET } else { method };
    path.split('/').any(|segment| segment == "{stage}")
        || ABOUT_STAGES.iter().any(|(known, at)| known == method && *at == path)
}

/// What an operation needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// This permission.
    Permission(Permission),
    /// Another method: these are known.
    Method(Vec<Method>),
    /// A line in the table: there is none.
    Line,
}

/// What is needed for a method at a path of the router.
pub(super) fn need(method: &Method, path: &str) -> Need {
    // The same without the body (RFC 9110 §9.3.2).
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let here = || TABLE.iter().filter(|(_, known, _)| *known == path);
    if let Some((_, _, permission)) = here().find(|(known, _, _)| known == method) {
        return Need::Permission(*permission);
    }
    let methods: Vec<_> = here().map(|(method, _, _)| method.clone()).collect();
    if methods.is_empty() { Need::Line } else { Need::Method(methods) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_table_is_not_allowed() {
        let check = |method: Method, path: &str, expected: Need| {
            assert_eq!(need(&method, path), expected, "{method} {path}");
        };
        check(Method::GET, "/apps", Need::Permission(AppsRead));
        check(Method::HEAD, "/apps", Need::Permission(AppsRead));
        check(Method::POST, "/apps", Need::Method(vec![Method::GET]));
        check(Method::PATCH, "/waf/policy", Need::Method(vec![Method::GET, Method::PUT]));
        for path in ["", "/", "/api/v1/apps", "/apps/", "/apps/shop", "/Apps", "/apps/{name}"] {
            check(Method::GET, path, Need::Line);
        }
    }

    #[test]
    fn what_is_about_stages_is_in_the_table_and_names_none_in_its_path() {
        for (method, path) in ABOUT_STAGES {
            assert!(TABLE.iter().any(|(known, at, _)| (known, at) == (method, path)), "{method} {path}");
            assert!(!path.contains("{stage}"), "{method} {path}");
        }
        assert!(
            is_about_stages(&Method::HEAD, "/apps")
                && is_about_stages(&Method::PUT, "/stages/{stage}/network")
        );
        assert!(!is_about_stages(&Method::POST, "/apps") && !is_about_stages(&Method::GET, "/members"));
    }

    #[test]
    fn no_operation_is_in_the_table_twice() {
        for (at, (method, path, _)) in TABLE.iter().enumerate() {
            let again = TABLE[at + 1..].iter().any(|(m, p, _)| (m, p) == (method, path));
            assert!(!again, "{method} {path}");
        }
    }
}
