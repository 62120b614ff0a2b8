//! Runs programs over a value in time linear in its length: all ways to match are followed at once, place by
//! place, and no step is taken twice at one place.

use super::{
    GROUPS_MAX, Groups,
    program::{Case, Program, Programs, Step},
};
use regex_syntax::hir::Look;
use std::collections::HashMap;

/// Words that one step remembers at one place. More are remembered only where somebody builds a value for it.
const WORDS_MAX: usize = 8;
/// No place, or no word.
const NONE: u32 = u32::MAX;

/// What came of a search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    No,
    Found(Groups),
    /// More words would have to be remembered than are. Whoever sends what cannot be decided does not get
    /// past the rule: it counts as a match.
    Undecided,
}

/// A search; `steps` tells what it cost.
pub(super) struct Search<'a> {
    programs: &'a Programs,
    value: &'a [u8],
    tables: Vec<Bits>,
    /// For each place the word that begins there.
    words: Vec<u32>,
    pub(super) steps: u64,
    undecided: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(programs: &'a Programs, value: &'a [u8]) -> Self {
        let words = programs.words.map_or_else(Vec::new, |case| words(value, case));
        Self { programs, value, tables: Vec::new(), words, steps: 0, undecided: false }
    }

    /// The first match; `whole` also where it ends and its groups, otherwise only that there is one.
    pub(super) fn run(&mut self, whole: bool) -> Outcome {
        for look in &self.programs.looks {
            let table = self.table(look);
            self.tables.push(table);
        }
        let mut found = None;
        let mut lists = Lists::new(&self.programs.main);
        for at in 0..=self.value.len() {
            if found.is_none() {
                let begin = Thread::begin(&self.programs.main).saved(0, at);
                self.follow(&mut lists, begin, at);
            } else if lists.now.threads.is_empty() {
                break;
            }
            if let Some(thread) = self.advance(&mut lists, at, true) {
                found = Some(thread.saved(1, at));
                if !whole {
                    break;
                }
            }
            lists.turn();
        }
        match found {
            Some(thread) => Outcome::Found(thread.groups(self.programs.groups)),
            None if self.undecided => Outcome::Undecided,
            None => Outcome::No,
        }
    }

    /// The places where a look-around holds.
    fn table(&mut self, program: &Program) -> Bits {
        let mut table = Bits::new(self.value.len() + 1);
        let mut lists = Lists::new(program);
        for n in 0..=self.value.len() {
            let at = if program.backward { self.value.len() - n } else { n };
            self.follow(&mut lists, Thread::begin(program), at);
            if self.advance(&mut lists, at, false).is_some() {
                table.insert(at);
            }
            lists.turn();
        }
        table
    }

    /// Lets each thread of this place take its byte; the one that has matched. With `first`, threads after it
    /// do not count any more.
    fn advance(&mut self, lists: &mut Lists<'_>, at: usize, first: bool) -> Option<Thread> {
        let backward = lists.program.backward;
        let byte = if backward { at.checked_sub(1) } else { Some(at) };
        let byte = byte.and_then(|at| self.value.get(at)).copied();
        let then = if backward { at.wrapping_sub(1) } else { at + 1 };
        let threads = std::mem::take(&mut lists.now.threads);
        let mut matched = None;
        for thread in &threads {
            self.steps += 1;
            match (&lists.program.steps[thread.step as usize], byte) {
                (Step::Match, _) => {
                    matched = Some(*thread);
                    if first {
                        break;
                    }
                }
                (Step::Byte(set, next), Some(byte)) if set.contains(byte) => {
                    let thread = Thread { step: *next, ..*thread };
                    std::mem::swap(&mut lists.now, &mut lists.then);
                    self.follow(lists, thread, then);
                    std::mem::swap(&mut lists.now, &mut lists.then);
                }
                _ => {}
            }
        }
        lists.now.threads = threads;
        matched
    }

    /// Adds a thread, and those that follow from it without taking a byte, in order of preference.
    fn follow(&mut self, lists: &mut Lists<'_>, thread: Thread, at: usize) {
        let mut stack = std::mem::take(&mut lists.stack);
        stack.push(thread);
        while let Some(thread) = stack.pop() {
            self.steps += 1;
            match lists.now.visit(&thread) {
                Visit::First => {}
                Visit::Again => continue,
                Visit::TooMany => {
                    self.undecided = true;
                    continue;
                }
            }
            let on = |next: u32| Thread { step: next, word: thread.word, slots: thread.slots };
            match &lists.program.steps[thread.step as usize] {
                Step::Byte(..) | Step::Match => lists.now.threads.push(thread),
                Step::Split(first, second) => stack.extend([on(*second), on(*first)]),
                Step::Save(slot, next) => stack.push(on(*next).saved(*slot, at)),
                Step::At(look, next) if self.holds(*look, at) => stack.push(on(*next)),
                Step::Table { table, negated, next } if self.tables[*table].contains(at) != *negated => {
                    stack.push(on(*next));
                }
                Step::Bind(next) => stack.push(Thread { word: self.word_ending(at), ..on(*next) }),
                Step::SameWord { negated, next } => {
                    let same = thread.word != NONE && self.words.get(at) == Some(&thread.word);
                    if same != *negated {
                        stack.push(on(*next));
                    }
                }
                Step::At(..) | Step::Table { .. } => {}
            }
        }
        lists.stack = stack;
    }

    fn holds(&self, look: Look, at: usize) -> bool {
        let is_word = |at: Option<usize>| at.and_then(|at| self.value.get(at)).is_some_and(|b| is_word(*b));
        let boundary = || is_word(at.checked_sub(1)) != is_word(Some(at));
        match look {
            Look::Start => at == 0,
            Look::End => at == self.value.len(),
            Look::StartLF => at == 0 || self.value[at - 1] == b'\n',
            Look::EndLF => self.value.get(at).is_none_or(|b| *b == b'\n'),
            Look::WordAscii => boundary(),
            // Others are refused when a pattern is compiled.
            _ => !boundary(),
        }
    }

    /// The word that ends before a place. Only whole words are remembered, so that each is gone through once.
    fn word_ending(&mut self, at: usize) -> u32 {
        if self.value.get(at).is_some_and(|b| is_word(*b)) {
            return NONE;
        }
        let begin = self.value[..at].iter().rposition(|b| !is_word(*b)).map_or(0, |before| before + 1);
        self.steps += (at - begin) as u64;
        self.words.get(begin).copied().unwrap_or(NONE)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// For each place the number of the word that begins there; equal words have one number.
fn words(value: &[u8], case: Case) -> Vec<u32> {
    let mut numbers = vec![NONE; value.len()];
    let mut known: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut at = 0;
    while at < value.len() {
        let length = value[at..].iter().take_while(|b| is_word(**b)).count();
        if length > 0 {
            let mut word = value[at..at + length].to_vec();
            if case == Case::Folded {
                word.make_ascii_lowercase();
            }
            let next = known.len() as u32;
            numbers[at] = *known.entry(word).or_insert(next);
        }
        at += length + 1;
    }
    numbers
}

/// One way to match, as far as it has come.
#[derive(Debug, Clone, Copy)]
struct Thread {
    step: u32,
    /// The word that is remembered.
    word: u32,
    slots: [u32; 2 * GROUPS_MAX],
}

impl Thread {
    fn begin(program: &Program) -> Self {
        Self { step: program.begin, word: NONE, slots: [NONE; 2 * GROUPS_MAX] }
    }

    fn saved(mut self, slot: usize, at: usize) -> Self {
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = at as u32;
        }
        self
    }

    fn groups(&self, count: usize) -> Groups {
        let pairs = self.slots.chunks_exact(2).take(count);
        pairs.map(|pair| if pair[1] == NONE { 0..0 } else { pair[0] as usize..pair[1] as usize }).collect()
    }
}

enum Visit {
    First,
    Again,
    TooMany,
}

/// Threads at one place.
#[derive(Default)]
struct List {
    threads: Vec<Thread>,
    /// For each step the words with which it was taken.
    seen: Vec<Vec<u32>>,
    visited: Vec<u32>,
}

impl List {
    fn visit(&mut self, thread: &Thread) -> Visit {
        let words = &mut self.seen[thread.step as usize];
        if words.contains(&thread.word) {
            return Visit::Again;
        }
        if words.len() == WORDS_MAX {
            return Visit::TooMany;
        }
        if words.is_empty() {
            self.visited.push(thread.step);
        }
        words.push(thread.word);
        Visit::First
    }

    fn clear(&mut self) {
        self.threads.clear();
        for step in self.visited.drain(..) {
            self.seen[step as usize].clear();
        }
    }
}

/// Threads at this place and at the next one.
struct Lists<'p> {
    program: &'p Program,
    now: List,
    then: List,
    stack: Vec<Thread>,
}

impl<'p> Lists<'p> {
    fn new(program: &'p Program) -> Self {
        let list = || List { seen: vec![Vec::new(); program.steps.len()], ..List::default() };
        Self { program, now: list(), then: list(), stack: Vec::new() }
    }

    fn turn(&mut self) {
        self.now.clear();
        std::mem::swap(&mut self.now, &mut self.then);
    }
}

/// A set of places.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn contains(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }
}
