//! What somebody's roles hold together: everywhere, and besides in single stages.

use super::{Permission, Permissions, of_role};
use bastide_store::RoleRow;
use bastide_types::{CustomerName, HeldRole, StageName};
use std::collections::BTreeMap;

/// What somebody may do. Sets are added up; what is not in one is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    everywhere: Permissions,
    stages: BTreeMap<StageName, Permissions>,
}

impl Held {
    /// What these roles hold at a customer. Roles, and stages, that there are not hold nothing.
    pub fn of(roles: &[String], customer: &CustomerName, own: &[RoleRow]) -> Self {
        let mut held = Self::default();
        for text in roles {
            let read = HeldRole::read(text);
            let Some(permissions) = of_role(read.role, customer, own) else { continue };
            match read.place() {
                Some(None) => held.everywhere.extend(permissions),
                Some(Some(stage)) => {
                    // Whoever has a role has an account, which is in no stage.
                    held.everywhere.insert(Permission::Account);
                    held.stages.entry(stage).or_default().extend(permissions);
                }
                None => {}
            }
        }
        held
    }

    /// Whether this may be done in every stage, and where no stage is meant.
    pub fn has(&self, permission: Permission) -> bool {
        self.everywhere.contains(&permission)
    }

    /// Whether this may be done in a stage.
    pub fn has_in(&self, permission: Permission, stage: &StageName) -> bool {
        self.has(permission) || self.stages.get(stage).is_some_and(|held| held.contains(&permission))
    }

    /// Whether this may be done in any stage.
    pub fn has_somewhere(&self, permission: Permission) -> bool {
        self.has(permission) || self.stages.values().any(|held| held.contains(&permission))
    }

    /// Whether nothing that `other` holds is missing.
    pub fn covers(&self, other: &Self) -> bool {
        let mut in_stages =
            other.stages.iter().flat_map(|(stage, held)| held.iter().map(move |one| (stage, *one)));
        other.everywhere.is_subset(&self.everywhere) && in_stages.all(|(stage, one)| self.has_in(one, stage))
    }

    /// What may be done everywhere.
    pub fn everywhere(&self) -> &Permissions {
        &self.everywhere
    }

    /// What may be done in single stages besides.
    pub fn stages(&self) -> &BTreeMap<StageName, Permissions> {
        &self.stages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(roles: &[&str]) -> Held {
        let roles: Vec<_> = roles.iter().map(|role| (*role).to_owned()).collect();
        let own = RoleRow { name: "purger".into(), permissions: vec!["cache.purge".into()] };
        Held::of(&roles, &CustomerName::new("acme").unwrap(), &[own])
    }

    #[test]
    fn a_role_of_one_stage_counts_there_and_nowhere_else() {
        let (development, test) = (StageName::development(), StageName::new("test").unwrap());
        let robot = held(&["developer@development", "purger@test"]);
        let check = |permission, here: bool, there: bool| {
            let found = (robot.has_in(permission, &development), robot.has_in(permission, &test));
            assert_eq!(found, (here, there), "{permission:?}");
        };
        check(Permission::AppsDeploy, true, false);
        check(Permission::CachePurge, true, true);
        check(Permission::MembersWrite, false, false);
        check(Permission::Account, true, true);
        assert!(!robot.has(Permission::AppsDeploy) && robot.has_somewhere(Permission::AppsDeploy));
        assert!(robot.has(Permission::Account) && !robot.has_somewhere(Permission::SiteSecurity));
        for nothing in ["developer@", "none@test", "operator@test", "@test", "developer@test@test"] {
            assert_eq!(held(&[nothing]), Held::default(), "{nothing}");
        }
    }

    #[test]
    fn what_covers_another_lacks_nothing_of_it_in_any_stage() {
        let check = |one: &[&str], other: &[&str], covers: bool| {
            assert_eq!(held(one).covers(&held(other)), covers, "{one:?} {other:?}");
        };
        check(&["developer"], &["developer@test"], true);
        check(&["developer@test"], &["developer"], false);
        check(&["developer@test"], &["developer@test"], true);
        check(&["developer@test"], &["developer@development"], false);
        check(&["developer@test"], &["purger@test"], true);
        check(&["purger", "developer@test"], &["purger@development", "developer@test"], true);
        check(&["developer@test"], &["administrator@test"], false);
        // All stages that there are today are not all.
        check(&["developer@development", "developer@test", "developer@production"], &["developer"], false);
        check(&[], &[], true);
    }
}
