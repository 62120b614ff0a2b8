//! Settings and secrets of apps: one value per name in each stage, told to replicas as environment variables.

use crate::{AppId, Secret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest name.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest value.
pub const VALUE_BYTES_MAX: usize = 32 * 1024;
/// Most settings and secrets of an app in a stage.
pub const COUNT_MAX: usize = 200;
/// Most bytes of names and values of an app in a stage.
pub const APP_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of names and values of all apps of a stage: its agent gets them in one message.
pub const STAGE_BYTES_MAX: usize = 256 * 1024;

/// Values by name.
pub type Values = BTreeMap<String, Secret>;

/// The settings of an app in one version, as an agent gets them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSettings {
    /// The app.
    pub app: AppId,
    /// Which version.
    pub version: u32,
    /// What they are.
    pub values: Values,
}

/// What is wrong with a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// The name.
    #[error("a name is 1 to 128 letters, digits and `_`, and starts with no digit")]
    Name,
    /// The name is ours.
    #[error("`PORT`, `HOST` and `BASTIDE_*` are set by Bastide")]
    Ours,
    /// The value.
    #[error("a value holds at most 32 KiB and no NUL")]
    Value,
}

/// Checks a name.
///
/// # Errors
/// [`SettingError`].
pub fn check_name(name: &str) -> Result<(), SettingError> {
    if name.len() > NAME_BYTES_MAX || !crate::manifest::is_variable(name) {
        return Err(SettingError::Name);
    }
    if crate::manifest::is_ours(name) || name == "HOST" {
        return Err(SettingError::Ours);
    }
    Ok(())
}

/// Checks a value.
///
/// # Errors
/// [`SettingError::Value`].
pub fn check_value(value: &str) -> Result<(), SettingError> {
    if value.len() > VALUE_BYTES_MAX || value.contains('\0') { Err(SettingError::Value) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_variables_that_are_not_ours() {
        let check = |name: &str, expected: Result<(), SettingError>| {
            assert_eq!(check_name(name), expected, "{name}");
        };
        for good in ["A", "_x", "STRIPE_KEY", "log_level", "HOSTS", "PORT2", "BASTIDE"] {
            check(good, Ok(()));
        }
        for bad in ["", "1A", "A-B", "A=B", "A B", "Ä", "A\0", &"A".repeat(NAME_BYTES_MAX + 1)] {
            check(bad, Err(SettingError::Name));
        }
        for ours in ["PORT", "HOST", "BASTIDE_STAGE", "BASTIDE_"] {
            check(ours, Err(SettingError::Ours));
        }
    }

    #[test]
    fn values_have_a_limit_and_no_nul() {
        let check = |value: &str, good: bool| assert_eq!(check_value(value).is_ok(), good);
        check("", true);
        check("two\nlines ü", true);
        check(&"x".repeat(VALUE_BYTES_MAX), true);
        check(&"x".repeat(VALUE_BYTES_MAX + 1), false);
        check("a\0b", false);
    }
}
