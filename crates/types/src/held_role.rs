//! Organization roles as somebody has them: everywhere, or in one stage only.

use crate::StageName;

/// A role that somebody has. Its text is `ROLE`, or `ROLE@STAGE` for one that counts in that stage only; neither name has
/// an `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldRole<'a> {
    /// Name of the role.
    pub role: &'a str,
    /// The stage, as it is written.
    pub stage: Option<&'a str>,
}

impl<'a> HeldRole<'a> {
    /// Reads the text. Whether there is such a role, and such a stage, is another question.
    pub fn read(text: &'a str) -> Self {
        match text.split_once('@') {
            Some((role, stage)) => Self { role, stage: Some(stage) },
            None => Self { role: text, stage: None },
        }
    }

    /// The stage in which it counts; the inner `None` is every stage, the outer one that no stage can have this name.
    pub fn place(self) -> Option<Option<StageName>> {
        match self.stage {
            None => Some(None),
            Some(stage) => StageName::new(stage).ok().map(Some),
        }
    }

    /// What two have in common: the same role, in the stages of both.
    pub fn both(self, other: Self) -> Option<Self> {
        match (self.stage, other.stage) {
            _ if self.role != other.role => None,
            (Some(one), Some(two)) if one != two => None,
            (Some(_), _) => Some(self),
            (None, _) => Some(other),
        }
    }
}

impl std::fmt::Display for HeldRole<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.stage {
            Some(stage) => write!(f, "{}@{stage}", self.role),
            None => f.write_str(self.role),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_says_role_and_stage() {
        let check = |text: &str, role: &str, place: Option<Option<&str>>| {
            let read = HeldRole::read(text);
            let found = read.place();
            let found = found.as_ref().map(|stage| stage.as_ref().map(StageName::as_str));
            assert_eq!((read.role, found), (role, place), "{text}");
        };
        check("developer", "developer", Some(None));
        check("developer@development", "developer", Some(Some("development")));
        // Nowhere.
        check("developer@", "developer", None);
        check("developer@Development", "developer", None);
        check("developer@development@production", "developer", None);
        check("@development", "", Some(Some("development")));
    }

    #[test]
    fn what_two_have_in_common_is_never_more_than_either() {
        let check = |one: &str, two: &str, both: Option<&str>| {
            for (one, two) in [(one, two), (two, one)] {
                let found = HeldRole::read(one).both(HeldRole::read(two)).map(|held| held.to_string());
                assert_eq!(found.as_deref(), both, "{one} {two}");
            }
        };
        check("developer", "developer", Some("developer"));
        check("developer", "developer@test", Some("developer@test"));
        check("developer@test", "developer@test", Some("developer@test"));
        check("developer@test", "developer@development", None);
        check("developer", "administrator", None);
    }

    proptest! {
        #[test]
        fn a_text_is_written_as_it_was_read(text in ".{0,40}") {
            prop_assert_eq!(HeldRole::read(&text).to_string(), text);
        }
    }
}
