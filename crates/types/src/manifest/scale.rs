//! The `[scale]` table: how many replicas an app has in a stage.

use super::ManifestError;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Most replicas of an app in one stage.
pub const REPLICAS_MAX: u32 = 16;
/// Replicas of an app that says nothing: one in each of two zones.
pub const REPLICAS_DEFAULT: u32 = 2;
/// Processor use at which an app with `max` and no target gets more replicas.
const CPU_PERCENT_DEFAULT: u32 = 70;

/// The `[scale]` table: a fixed number, or a range and what moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Scale {
    /// A fixed number of replicas per stage, spread over the zones. Default 2, at most [`REPLICAS_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Fewest replicas. Default 2, or `max` when that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// Most replicas. Default `min`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Processor use, in percent of `resources.cpu_millis`, that the replicas should have on average.
    /// Default 70 when `max` is above `min` and there is no `memory_percent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Memory use, in percent of `resources.memory_mb`, that the replicas should have on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<u32>,
}

impl Scale {
    /// Fewest and most replicas.
    pub fn range(&self) -> RangeInclusive<u32> {
        if let Some(fixed) = self.replicas {
            return fixed..=fixed;
        }
        let min = self.min.unwrap_or_else(|| REPLICAS_DEFAULT.min(self.max.unwrap_or(REPLICAS_DEFAULT)));
        min..=self.max.unwrap_or(min)
    }

    /// Processor use to aim at, in percent.
    pub fn cpu_target(&self) -> Option<u32> {
        let range = self.range();
        let moves = range.start() < range.end();
        self.cpu_percent.or((moves && self.memory_percent.is_none()).then_some(CPU_PERCENT_DEFAULT))
    }

    /// Checks what the types alone cannot.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        let fail = |key: &str, problem: &str| {
            Err(ManifestError { key: format!("scale.{key}"), problem: problem.into() })
        };
        for (key, number) in [("replicas", self.replicas), ("min", self.min), ("max", self.max)] {
            if number.is_some_and(|number| !(1..=REPLICAS_MAX).contains(&number)) {
                return fail(key, "1 to 16 replicas");
            }
        }
        for (key, percent) in [("cpu_percent", self.cpu_percent), ("memory_percent", self.memory_percent)] {
            if percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
                return fail(key, "1 to 100 percent of the limit in [resources]");
            }
        }
        let moving = [self.min, self.max, self.cpu_percent, self.memory_percent];
        if self.replicas.is_some() && moving.iter().any(Option::is_some) {
            return fail("replicas", "a fixed number, or min and max with their targets, not both");
        }
        if self.range().is_empty() {
            return fail("max", "not less than min");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(json: &str) -> Result<Scale, String> {
        let scale: Scale = serde_json::from_str(json).map_err(|error| error.to_string())?;
        scale.check().map_err(|error| error.to_string())?;
        Ok(scale)
    }

    #[test]
    fn a_number_is_fixed_and_a_range_moves() {
        let check = |json: &str, range: RangeInclusive<u32>, cpu: Option<u32>| {
            let scale = scale(json).unwrap();
            assert_eq!((scale.range(), scale.cpu_target()), (range, cpu), "{json}");
        };
        check("{}", 2..=2, None);
        check(r#"{"replicas":5}"#, 5..=5, None);
        check(r#"{"min":3}"#, 3..=3, None);
        check(r#"{"max":8}"#, 2..=8, Some(70));
        check(r#"{"max":1}"#, 1..=1, None);
        check(r#"{"min":1,"max":4,"cpu_percent":50}"#, 1..=4, Some(50));
        check(r#"{"min":1,"max":4,"memory_percent":80}"#, 1..=4, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key() {
        for (json, key) in [
            (r#"{"replicas":0}"#, "scale.replicas"),
            (r#"{"max":17}"#, "scale.max"),
            (r#"{"min":3,"max":2}"#, "scale.max"),
            (r#"{"replicas":2,"max":4}"#, "scale.replicas"),
            (r#"{"cpu_percent":0}"#, "scale.cpu_percent"),
            (r#"{"memory_percent":101}"#, "scale.memory_percent"),
        ] {
            assert!(scale(json).unwrap_err().contains(key), "{json}");
        }
    }
}
