//! SecLang engine: rules in, verdicts out. No I/O, no clock.
