//! Patterns that look around, as programs for the simulation.
//!
//! A look-around becomes a table that says for each place of a value whether it holds there; its own program
//! fills the table before the pattern is run, against the direction in which it looks, so that one pass is
//! enough. Atomic groups and possessive quantifiers become negated look-aheads. A back-reference is understood
//! where group and reference are whole words (`\b(\w+)\b … \b\1\b`): then it compares numbers of words.

use super::spelling::Special;
use crate::{filter::class_bytes, value::ByteSet};
use regex_syntax::hir::{Capture, Class, Hir, HirKind, Look, Repetition};

/// Steps of all programs of a pattern. Nested repetitions multiply.
const STEPS_MAX: usize = 50_000;

/// A step; numbers are those of the steps that follow.
#[derive(Debug)]
pub(super) enum Step {
    /// Takes one byte of these.
    Byte(ByteSet, u32),
    /// Goes on at both, the first preferred.
    Split(u32, u32),
    /// Remembers the place.
    Save(usize, u32),
    At(Look, u32),
    /// Goes on where a look-around holds.
    Table {
        table: usize,
        negated: bool,
        next: u32,
    },
    /// Remembers the word that ends here.
    Bind(u32),
    /// Goes on where the remembered word begins.
    SameWord {
        negated: bool,
        next: u32,
    },
    Match,
}

/// A pattern, or what is inside of a look-around.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    pub(super) begin: u32,
    /// Runs from the end of a value to its begin.
    pub(super) backward: bool,
}

/// A pattern with the programs of its look-arounds, each after those that it needs.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) main: Program,
    pub(super) looks: Vec<Program>,
    /// Whether words are compared, and if so whether letter case counts.
    pub(super) words: Option<Case>,
    /// Groups of the pattern, the whole match included.
    pub(super) groups: usize,
}

/// Whether letter case counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Kept,
    Folded,
}

impl Programs {
    pub(super) fn of(hir: &Hir) -> Result<Self, String> {
        let hir = without_atomic(hir)?;
        let mut compiler = Compiler::default();
        compiler.number_groups(&hir)?;
        let main = compiler.program(&hir, false)?;
        let groups = 1 + compiler.groups.iter().flatten().count();
        let words = compiler.again.map(|(_, case)| case);
        Ok(Self { main, looks: compiler.looks, words, groups })
    }
}

/// What a group is: one of the rules' own, or one that stands for something else.
fn special(capture: &Capture) -> Option<Special> {
    capture.name.as_deref().and_then(Special::of)
}

#[derive(Default)]
struct Compiler {
    steps: Vec<Step>,
    looks: Vec<Program>,
    total: usize,
    /// Numbers of groups as the rules count them, by those of the parser.
    groups: Vec<Option<usize>>,
    /// The group that is referred to.
    again: Option<(usize, Case)>,
    in_look: bool,
    backward: bool,
}

impl Compiler {
    fn number_groups(&mut self, hir: &Hir) -> Result<(), String> {
        let mut found = Vec::new();
        collect(hir, &mut found);
        found.sort_by_key(|capture| capture.index);
        found.dedup_by_key(|capture| capture.index);
        let mut next = 1;
        for capture in found {
            let kind = special(capture);
            self.groups.resize(capture.index as usize + 1, None);
            if let Some(Special::Again(group)) = kind {
                let folded = matches!(capture.sub.kind(), HirKind::Class(_));
                let again = (group, if folded { Case::Folded } else { Case::Kept });
                if self.again.is_some_and(|other| other != again) {
                    return Err("back-references to several groups".into());
                }
                self.again = Some(again);
            } else if kind.is_none() {
                self.groups[capture.index as usize] = Some(next);
                next += 1;
            }
        }
        Ok(())
    }

    fn program(&mut self, hir: &Hir, backward: bool) -> Result<Program, String> {
        let outer = std::mem::replace(&mut self.steps, vec![Step::Match]);
        let was_backward = std::mem::replace(&mut self.backward, backward);
        let begin = self.part(hir, 0);
        let steps = std::mem::replace(&mut self.steps, outer);
        self.backward = was_backward;
        Ok(Program { steps, begin: begin?, backward })
    }

    fn push(&mut self, step: Step) -> Result<u32, String> {
        self.total += 1;
        if self.total > STEPS_MAX {
            return Err("the pattern is too large".into());
        }
        self.steps.push(step);
        Ok((self.steps.len() - 1) as u32)
    }

    /// Adds what stands before the step `next`; the number of its first step.
    fn part(&mut self, hir: &Hir, next: u32) -> Result<u32, String> {
        match hir.kind() {
            HirKind::Empty => Ok(next),
            HirKind::Look(look) => {
                if !is_known(*look) {
                    return Err(format!("{look:?} beside look-around"));
                }
                self.push(Step::At(*look, next))
            }
            HirKind::Literal(literal) => {
                let mut next = next;
                let count = literal.0.len();
                for n in 0..count {
                    let byte = literal.0[if self.backward { n } else { count - 1 - n }];
                    next = self.push(Step::Byte(ByteSet::of(&[byte]), next))?;
                }
                Ok(next)
            }
            HirKind::Class(class) => {
                let bytes = class_bytes(class).ok_or("a class of characters that are no bytes")?;
                self.push(Step::Byte(bytes, next))
            }
            HirKind::Repetition(repetition) => self.repetition(repetition, next),
            HirKind::Capture(capture) => self.group(capture, next),
            HirKind::Concat(parts) => self.concat(parts, next),
            HirKind::Alternation(parts) => {
                let mut parts = parts.iter().rev();
                let Some(last) = parts.next() else { return Ok(next) };
                let mut begin = self.part(last, next)?;
                for part in parts {
                    let first = self.part(part, next)?;
                    begin = self.push(Step::Split(first, begin))?;
                }
                Ok(begin)
            }
        }
    }

    fn repetition(&mut self, repetition: &Repetition, next: u32) -> Result<u32, String> {
        let split =
            |body, next| if repetition.greedy { Step::Split(body, next) } else { Step::Split(next, body) };
        let mut begin = next;
        match repetition.max {
            None => {
                begin = self.push(split(next, next))?;
                let body = self.part(&repetition.sub, begin)?;
                self.steps[begin as usize] = split(body, next);
            }
            Some(max) => {
                for _ in repetition.min..max {
                    let body = self.part(&repetition.sub, begin)?;
                    begin = self.push(split(body, next))?;
                }
            }
        }
        for _ in 0..repetition.min {
            begin = self.part(&repetition.sub, begin)?;
        }
        Ok(begin)
    }

    fn concat(&mut self, parts: &[Hir], next: u32) -> Result<u32, String> {
        let mut next = next;
        for n in 0..parts.len() {
            let at = if self.backward { n } else { parts.len() - 1 - n };
            let part = &parts[at];
            let is_word = at > 0 && is_boundary(&parts[at - 1]) && parts.get(at + 1).is_some_and(is_boundary);
            next = match part.kind() {
                HirKind::Capture(capture) if is_word && !self.in_look && self.is_referred_to(capture) => {
                    self.bound_group(capture, next)?
                }
                HirKind::Capture(capture) if is_word && !self.in_look && is_again(capture) => {
                    let word = self.part(&word_run(), next)?;
                    self.push(Step::SameWord { negated: false, next: word })?
                }
                _ => self.part(part, next)?,
            };
        }
        Ok(next)
    }

    fn is_referred_to(&self, capture: &Capture) -> bool {
        let number = self.groups[capture.index as usize];
        number.is_some() && number == self.again.map(|(group, _)| group)
    }

    fn group(&mut self, capture: &Capture, next: u32) -> Result<u32, String> {
        match special(capture) {
            Some(Special::Look { behind, negated }) => self.look(&capture.sub, behind, negated, next),
            Some(Special::Again(_)) => Err("a back-reference that is not one of a whole word".into()),
            Some(Special::Atomic) => Err("an atomic group".into()),
            None if self.is_referred_to(capture) => {
                Err("a back-reference to a group that is not a whole word".into())
            }
            None => self.saved(capture, next),
        }
    }

    /// A group that remembers its place; inside of look-around it does not.
    fn saved(&mut self, capture: &Capture, next: u32) -> Result<u32, String> {
        let number = self.groups[capture.index as usize].filter(|_| !self.in_look);
        let Some(number) = number else { return self.part(&capture.sub, next) };
        let end = self.push(Step::Save(2 * number + 1, next))?;
        let begin = self.part(&capture.sub, end)?;
        self.push(Step::Save(2 * number, begin))
    }

    fn bound_group(&mut self, capture: &Capture, next: u32) -> Result<u32, String> {
        if *without_group(&capture.sub) != word_run() {
            return Err("a back-reference to a group that is not a whole word".into());
        }
        let next = self.push(Step::Bind(next))?;
        self.saved(capture, next)
    }

    fn look(&mut self, inner: &Hir, behind: bool, negated: bool, next: u32) -> Result<u32, String> {
        if !behind && !self.in_look && is_word_again(inner) {
            return self.push(Step::SameWord { negated, next });
        }
        let was_in_look = std::mem::replace(&mut self.in_look, true);
        // Looking ahead from all places at once is reading backwards.
        let program = self.program(inner, !behind);
        self.in_look = was_in_look;
        self.looks.push(program?);
        self.push(Step::Table { table: self.looks.len() - 1, negated, next })
    }
}

fn collect<'h>(hir: &'h Hir, found: &mut Vec<&'h Capture>) {
    if let HirKind::Capture(capture) = hir.kind() {
        found.push(capture);
    }
    hir.kind().subs().iter().for_each(|sub| collect(sub, found));
}

fn is_known(look: Look) -> bool {
    matches!(
        look,
        Look::Start | Look::End | Look::StartLF | Look::EndLF | Look::WordAscii | Look::WordAsciiNegate
    )
}

fn is_boundary(hir: &Hir) -> bool {
    matches!(hir.kind(), HirKind::Look(Look::WordAscii))
}

fn is_again(capture: &Capture) -> bool {
    matches!(special(capture), Some(Special::Again(_)))
}

/// `\b\1\b`.
fn is_word_again(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Concat(parts) => match parts.as_slice() {
            [before, again, after] => {
                let is_again = matches!(again.kind(), HirKind::Capture(capture) if is_again(capture));
                is_boundary(before) && is_again && is_boundary(after)
            }
            _ => false,
        },
        _ => false,
    }
}

fn without_group(hir: &Hir) -> &Hir {
    match hir.kind() {
        HirKind::Capture(capture) if special(capture).is_none() => without_group(&capture.sub),
        _ => hir,
    }
}

/// `\w+`.
fn word_run() -> Hir {
    use regex_syntax::hir::{ClassBytes, ClassBytesRange};
    let ranges = [(b'0', b'9'), (b'A', b'Z'), (b'_', b'_'), (b'a', b'z')];
    let class = ClassBytes::new(ranges.map(|(from, to)| ClassBytesRange::new(from, to)));
    repeated(&Hir::class(Class::Bytes(class)), 1, None)
}

fn repeated(sub: &Hir, min: u32, max: Option<u32>) -> Hir {
    Hir::repetition(Repetition { min, max, greedy: true, sub: Box::new(sub.clone()) })
}

/// A pattern of the plain kind that matches wherever this one does.
pub(super) fn wider(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Capture(capture) => match special(capture) {
            Some(Special::Look { .. }) => Hir::empty(),
            Some(Special::Again(_)) => word_run(),
            Some(Special::Atomic) | None => wider(&capture.sub),
        },
        _ => rebuilt(hir, &|sub| Ok(wider(sub))).unwrap_or_else(|_: String| hir.clone()),
    }
}

/// The same with other parts.
fn rebuilt(hir: &Hir, change: &dyn Fn(&Hir) -> Result<Hir, String>) -> Result<Hir, String> {
    let all = |parts: &[Hir]| parts.iter().map(change).collect::<Result<Vec<_>, _>>();
    Ok(match hir.kind() {
        HirKind::Concat(parts) => Hir::concat(all(parts)?),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)?),
        HirKind::Repetition(old) => {
            Hir::repetition(Repetition { sub: Box::new(change(&old.sub)?), ..old.clone() })
        }
        HirKind::Capture(old) => Hir::capture(Capture { sub: Box::new(change(&old.sub)?), ..old.clone() }),
        _ => hir.clone(),
    })
}

/// The pattern without atomic groups.
fn without_atomic(hir: &Hir) -> Result<Hir, String> {
    match hir.kind() {
        HirKind::Capture(capture) if special(capture) == Some(Special::Atomic) => {
            once(&without_atomic(&capture.sub)?)
        }
        _ => rebuilt(hir, &without_atomic),
    }
}

/// The pattern so that at each place it has one match at most, the preferred one.
fn once(hir: &Hir) -> Result<Hir, String> {
    if width(hir).is_some() {
        return Ok(hir.clone());
    }
    let refused = || Err("an atomic group whose end depends on what follows it".to_owned());
    match hir.kind() {
        HirKind::Capture(capture) if special(capture).is_none() => rebuilt(hir, &once),
        HirKind::Alternation(parts) => {
            let one_of = parts.iter().enumerate().map(|(n, part)| {
                let mut all: Vec<Hir> = parts[..n].iter().map(not_ahead).collect();
                all.push(once(part)?);
                Ok(Hir::concat(all))
            });
            Ok(Hir::alternation(one_of.collect::<Result<_, String>>()?))
        }
        HirKind::Concat(parts) => {
            let (Some(last), begin) = (parts.last(), &parts[..parts.len() - 1]) else { return refused() };
            if begin.iter().any(|part| width(part).is_none()) {
                return refused();
            }
            Ok(Hir::concat([begin, &[once(last)?]].concat()))
        }
        HirKind::Repetition(one) if one.greedy && width(&one.sub).is_some_and(|width| width > 0) => {
            let end = not_ahead(&one.sub);
            Ok(match one.max {
                None => Hir::concat(vec![hir.clone(), end]),
                Some(max) => Hir::alternation(vec![
                    repeated(&one.sub, max, Some(max)),
                    Hir::concat(vec![repeated(&one.sub, one.min, Some(max - 1)), end]),
                ]),
            })
        }
        _ => refused(),
    }
}

fn not_ahead(hir: &Hir) -> Hir {
    let name = Special::Look { behind: false, negated: true }.name();
    // It has no number of its own, for nothing is remembered of it: that of the whole match.
    Hir::capture(Capture { index: 0, name: Some(name.into()), sub: Box::new(hir.clone()) })
}

/// How many bytes each match has, where all have as many.
fn width(hir: &Hir) -> Option<usize> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(0),
        HirKind::Literal(literal) => Some(literal.0.len()),
        HirKind::Class(_) => Some(1),
        HirKind::Repetition(one) if one.max == Some(one.min) => {
            width(&one.sub)?.checked_mul(one.min as usize)
        }
        HirKind::Repetition(_) => None,
        HirKind::Capture(capture) => match special(capture) {
            Some(Special::Look { .. }) => Some(0),
            Some(Special::Again(_)) => None,
            Some(Special::Atomic) | None => width(&capture.sub),
        },
        HirKind::Concat(parts) => parts.iter().map(width).sum(),
        HirKind::Alternation(parts) => {
            let first = parts.first().and_then(width)?;
            parts.iter().all(|part| width(part) == Some(first)).then_some(first)
        }
    }
}
