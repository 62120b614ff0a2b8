//! Values that a pattern matches, for tests of what is built from patterns.

use super::{program, spelling};
use crate::filter::class_bytes;
use regex_automata::util::syntax;
use regex_syntax::hir::{Hir, HirKind};

/// Repetitions beyond the least number.
const FURTHER_MAX: usize = 3;

/// A value that matches, where look-around and anchors do not forbid it; `choose` picks a number below its argument.
/// `None` when it is no pattern.
pub(crate) fn sample(pattern: &[u8], choose: &mut dyn FnMut(usize) -> usize) -> Option<Vec<u8>> {
    let spelled = spelling::rewrite(pattern);
    let hir = syntax::parse_with(&spelled.text, &super::syntax_config()).ok()?;
    let mut out = Vec::new();
    write(&program::wider(&hir), choose, &mut out);
    Some(out)
}

fn write(hir: &Hir, choose: &mut dyn FnMut(usize) -> usize, out: &mut Vec<u8>) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.extend_from_slice(&literal.0),
        HirKind::Class(class) => {
            let set = class_bytes(class).unwrap_or_default();
            let members: Vec<u8> = (0..=255).filter(|byte| set.contains(*byte)).collect();
            out.extend(members.get(choose(members.len())));
        }
        HirKind::Capture(capture) => write(&capture.sub, choose, out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, choose, out)),
        HirKind::Alternation(parts) => write(&parts[choose(parts.len())], choose, out),
        HirKind::Repetition(repetition) => {
            let most = repetition.max.map_or(FURTHER_MAX, |max| (max - repetition.min) as usize);
            let count = repetition.min as usize + choose(most.min(FURTHER_MAX) + 1);
            (0..count).for_each(|_| write(&repetition.sub, choose, out));
        }
    }
}
