//! Who may do what: permissions, the roles that hold them, and the one guard of the API.
//!
//! Each operation needs one permission ([`operation::TABLE`]); roles are sets of permissions. Sets are added up and
//! nothing is ever subtracted. What is not named is refused. A role may be given for one stage only; then it counts where
//! an operation is about that stage, and nowhere else.

pub(crate) mod guard;
pub mod held;
pub mod operation;
pub(crate) mod refusals;

pub use held::Held;

use bastide_store::RoleRow;
use bastide_types::CustomerName;
use std::collections::BTreeSet;

/// Declares the permissions: variant, name, what it allows.
macro_rules! permissions {
    ($($variant:ident = $name:literal, $what:literal;)*) => {
        /// The right to a kind of operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Permission { $(#[doc = $what] $variant,)* }

        impl Permission {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name, as roles have it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it allows.
            pub fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }
        }
    };
}

permissions! {
    Account = "account", "See who one is, see and end one's own sessions. Part of every role.";
    AppsRead = "apps.read", "See apps, their replicas, services and operations.";
    AppsPublish = "apps.publish", "Publish apps to the first stage.";
    AppsDeploy = "apps.deploy", "Promote apps to later stages, roll them back, take them out.";
    AppsScale = "apps.scale", "Decide how many replicas an app has.";
    ServicesRotate = "services.rotate", "Change passwords of the apps' databases.";
    SettingsRead = "settings.read", "See the settings of apps, and who set which secret when.";
    SettingsWrite = "settings.write", "Change the settings of apps.";
    SecretsWrite = "secrets.write", "Change the secrets of apps. Nobody sees them.";
    CacheRead = "cache.read", "See what edges store, and why.";
    CachePurge = "cache.purge", "Make edges forget what they store.";
    NetworkRead = "network.read", "See where apps may call to.";
    NetworkWrite = "network.write", "Decide where apps may call to.";
    SiteRead = "site.read", "See pages, maintenance, redirects and security fields.";
    SiteWrite = "site.write", "Change pages, maintenance and redirects.";
    SiteSecurity = "site.security", "Change security fields, and reset all settings of a site.";
    WafRead = "waf.read", "See the policies of the firewall.";
    WafWrite = "waf.write", "Tighten the policies of the firewall.";
    BansRead = "bans.read", "See banned sources.";
    BansWrite = "bans.write", "Ban sources, and lift bans.";
    DomainsRead = "domains.read", "See domains.";
    DomainsWrite = "domains.write", "Add, prove, serve and give up domains.";
    AppRolesRead = "app-roles.read", "See who has which role of an app.";
    AppRolesWrite = "app-roles.write", "Give and take roles of apps.";
    MembersRead = "members.read", "See members.";
    MembersWrite = "members.write", "Invite and suspend members, and give them roles that hold no more than one's own.";
    UsersRead = "users.read", "See the end users of stages and their groups.";
    UsersWrite = "users.write", "Invite, suspend and remove end users.";
    GroupsWrite = "groups.write", "Make and remove groups of end users, and say who is in them.";
    IdpsRead = "idps.read", "See providers of identity.";
    IdpsWrite = "idps.write", "Set up, change and remove providers of identity; those of members need all that an administrator may do.";
    SessionsRead = "sessions.read", "See the sessions of others.";
    SessionsEnd = "sessions.end", "End the sessions of others.";
    SessionsLimit = "sessions.limit", "Decide how long sessions last.";
    SignInRead = "sign-in.read", "See what is demanded of sign-ins.";
    SignInWrite = "sign-in.write", "Decide what is demanded of sign-ins.";
    OrganizationRead = "organization.read", "See the organization's title and logo.";
    OrganizationWrite = "organization.write", "Change the organization's title and logo.";
    RolesRead = "roles.read", "See roles and permissions.";
    RolesWrite = "roles.write", "Make, change and remove roles that hold no more than one's own.";
    ClientsRead = "clients.read", "See API clients.";
    ClientsWrite = "clients.write", "Register, suspend and remove API clients, and make secrets for them.";
    KeysRead = "keys.read", "See the public keys of the organization's issuers.";
    KeysRotate = "keys.rotate", "Exchange these keys, at once if need be.";
    CustomersRead = "customers.read", "See customers and their quotas. In the operator organization only.";
    CustomersWrite = "customers.write", "Create customers and set their quotas. In the operator organization only.";
    LocksRead = "locks.read", "See names that were given up. In the operator organization only.";
    LocksWrite = "locks.write", "Lift the lock of such a name. In the operator organization only.";
    AuditRead = "audit.read", "See who did what, and check and export the audit trail.";
    OfficePolicies = "office.policies", "Set the firewall's policies above those of customers, and ban sources everywhere. In the operator organization only.";
}

/// What somebody may do.
pub type Permissions = BTreeSet<Permission>;

/// Roles that every organization has; `operator` means something in the operator organization only.
pub const BUILT_IN: [&str; 3] = ["administrator", "developer", "operator"];

/// What developers may do besides their own account.
const DEVELOPER: &[Permission] = &[
    Permission::AppsRead,
    Permission::AppsPublish,
    Permission::AppsDeploy,
    Permission::AppsScale,
    Permission::ServicesRotate,
    Permission::SettingsRead,
    Permission::SettingsWrite,
    Permission::SecretsWrite,
    Permission::CacheRead,
    Permission::CachePurge,
    Permission::NetworkRead,
    Permission::SiteRead,
    Permission::SiteWrite,
    Permission::WafRead,
    Permission::BansRead,
    Permission::DomainsRead,
    Permission::DomainsWrite,
    Permission::AppRolesRead,
    Permission::MembersRead,
    Permission::UsersRead,
    Permission::RolesRead,
    Permission::SignInRead,
    Permission::OrganizationRead,
];

impl Permission {
    /// The permission of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.as_str() == name)
    }

    /// Whether it means something in the operator organization only.
    pub fn is_office(self) -> bool {
        matches!(
            self,
            Self::CustomersRead
                | Self::CustomersWrite
                | Self::LocksRead
                | Self::LocksWrite
                | Self::OfficePolicies
        )
    }
}

/// What a role holds at a customer; `None` when there is no such role.
pub fn of_role(name: &str, customer: &CustomerName, own: &[RoleRow]) -> Option<Permissions> {
    let all = || Permission::ALL.iter().copied();
    let mut held: Permissions = match name {
        "administrator" => all().filter(|one| !one.is_office()).collect(),
        "developer" => DEVELOPER.iter().copied().collect(),
        "operator" if customer.is_operator() => all().collect(),
        _ => {
            let row = own.iter().find(|row| row.name == name)?;
            let named = row.permissions.iter().filter_map(|name| Permission::named(name));
            named.filter(|one| customer.is_operator() || !one.is_office()).collect()
        }
    };
    held.insert(Permission::Account);
    Some(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(name: &str) -> CustomerName {
        if name == "operator" { CustomerName::operator() } else { CustomerName::new(name).unwrap() }
    }

    #[test]
    fn every_role_holds_what_it_says_its_own_account_and_nothing_else() {
        let row = |permissions: &[&str]| RoleRow {
            name: "own".into(),
            permissions: permissions.iter().map(|name| (*name).to_owned()).collect(),
        };
        let check = |at: &str, permissions: &[&str], expected: &[Permission]| {
            let held = of_role("own", &customer(at), &[row(permissions)]).unwrap();
            assert_eq!(held, expected.iter().copied().collect(), "{at} {permissions:?}");
        };
        check("acme", &[], &[Permission::Account]);
        check("acme", &["apps.read"], &[Permission::Account, Permission::AppsRead]);
        check("acme", &["apps.read.more", "customers.write"], &[Permission::Account]);
        check("operator", &["customers.write"], &[Permission::Account, Permission::CustomersWrite]);
    }

    #[test]
    fn roles_that_there_are_not_hold_nothing() {
        for name in ["operator", "own", "", "Administrator"] {
            assert_eq!(of_role(name, &customer("acme"), &[]), None, "{name}");
        }
        let none = Held::of(&["own".into(), "operator".into()], &customer("acme"), &[]);
        assert_eq!(none, Held::default());
    }

    #[test]
    fn a_role_of_ones_own_cannot_pass_for_a_built_in_one() {
        let row = RoleRow { name: "developer".into(), permissions: vec!["members.write".into()] };
        let held = of_role("developer", &customer("acme"), &[row]).unwrap();
        assert!(!held.contains(&Permission::MembersWrite));
    }

    #[test]
    fn names_of_permissions_are_different_and_found_again() {
        for one in Permission::ALL {
            assert_eq!(Permission::named(one.as_str()), Some(*one));
        }
    }
}
