//! What a transaction came to, for the log.

use crate::Mode;
use serde::Serialize;

/// Longest text that is kept of a value.
pub(crate) const LOGDATA_BYTES_MAX: usize = 512;
/// What stands in the log for a value that the client sent.
pub(crate) const MASK: &[u8] = b"***";

/// A rule that matched and is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Rule id.
    pub id: u32,
    /// Message, macros expanded.
    pub msg: String,
    /// Severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// What matched, macros expanded, bounded; always valid text.
    pub logdata: String,
    /// The value that matched, such as `ARGS:q`; of a chain, that of its first rule.
    pub target: String,
    /// Tags.
    pub tags: Vec<String>,
    /// File of the rule.
    pub file: String,
    /// Line of the rule.
    pub line: usize,
    /// Phase, 1 to 5.
    pub phase: usize,
}

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Engine mode.
    pub mode: Mode,
    /// Whether the request or its answer was refused.
    pub blocked: bool,
    /// Whether it would have been, in mode `block`.
    pub would_block: bool,
    /// Rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Method and target, bounded; always valid text.
    pub request: String,
    /// Score of the request's phases.
    pub inbound_score: i64,
    /// Score of the response's phases.
    pub outbound_score: i64,
    /// Rules that matched.
    pub matches: Vec<Match>,
    /// Whether it belongs into the log at all.
    #[serde(skip)]
    pub wanted: bool,
}

/// Bytes as bounded, valid text of one line: control characters and bytes that are no UTF-8 as `\xHH`.
pub(crate) fn shown(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let cut = &bytes[..bytes.len().min(LOGDATA_BYTES_MAX)];
    let mut out = String::with_capacity(cut.len());
    let hex = |out: &mut String, byte: u8| {
        let _never_fails = write!(out, "\\x{byte:02x}");
    };
    for chunk in cut.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\0'..='\x1f' | '\x7f' => hex(&mut out, c as u8),
                _ => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(&mut out, *byte));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_one_line_of_text_from_which_the_bytes_can_be_told() {
        assert_eq!(shown("a\r\nä".as_bytes()), "a\\x0d\\x0aä");
        assert_eq!(shown(b"\xff\0"), "\\xff\\x00");
    }
}
