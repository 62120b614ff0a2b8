//! Texts with their macros expanded.

use super::State;
use crate::{
    audit::MASK,
    compile::Program,
    rule::Rule,
    text::{Piece, Property, Text},
    tx::{write_count, write_number},
    variable::{Collection, Selector, Variable},
};

impl State {
    /// Writes a text with its macros expanded.
    pub(super) fn write(&self, program: &Program, rule: &Rule, text: &Text, out: &mut Vec<u8>) {
        text.0.iter().for_each(|piece| self.write_piece(program, rule, piece, out));
    }

    /// The same without what the client sent: of variables only numbers, names and what the log holds anyway.
    pub(super) fn write_masked(&self, program: &Program, rule: &Rule, text: &Text, out: &mut Vec<u8>) {
        for piece in &text.0 {
            let begun = out.len();
            self.write_piece(program, rule, piece, out);
            let is_shown = match piece {
                Piece::Plain(_) | Piece::MatchedVarName | Piece::Rule(_) => true,
                Piece::Tx(_) => out[begun..].iter().all(u8::is_ascii_digit) && out.len() - begun < 8,
                Piece::MatchedVar => false,
                Piece::Variable(variable, _) => variable.holds_nothing_private(),
            };
            if !is_shown && out.len() > begun {
                out.truncate(begun);
                out.extend_from_slice(MASK);
            }
        }
    }

    fn write_piece(&self, program: &Program, rule: &Rule, piece: &Piece, out: &mut Vec<u8>) {
        match piece {
            Piece::Plain(plain) => out.extend_from_slice(plain),
            Piece::Tx(slot) => {
                self.tx.write(*slot, out);
            }
            Piece::MatchedVar => out.extend_from_slice(&self.matched.value),
            Piece::MatchedVarName => self.matched.write_name(out),
            Piece::Rule(Property::Id) => write_number(i64::from(rule.id), out),
            Piece::Rule(Property::Msg) => {
                out.extend_from_slice(rule.msg.as_ref().and_then(Text::plain).unwrap_or_default());
            }
            Piece::Rule(Property::Severity) => {
                out.extend_from_slice(rule.severity.as_deref().unwrap_or_default().as_bytes());
            }
            Piece::Variable(variable, selector) => self.write_first(program, *variable, selector, out),
        }
    }

    /// Writes the first value of a variable.
    pub(super) fn write_first(
        &self,
        program: &Program,
        variable: Variable,
        selector: &Selector,
        out: &mut Vec<u8>,
    ) {
        let of = |collections: &[Collection], names: bool| {
            let mut items = collections.iter().flat_map(|collection| self.data.of(*collection));
            let found = items.find(|item| selector.accepts(self.values.bytes(item.key)))?;
            Some(self.values.bytes(if names { found.key } else { found.value }))
        };
        const ARGS: &[Collection] = &[Collection::ArgsGet, Collection::ArgsPost];
        let found = match variable {
            Variable::Scalar(scalar) => self.data.scalar(scalar).map(|value| self.values.bytes(value)),
            Variable::Of(collection) => of(&[collection], false),
            Variable::Args => of(ARGS, false),
            Variable::ArgsNames => of(ARGS, true),
            Variable::ArgsGetNames => of(&[Collection::ArgsGet], true),
            Variable::ArgsPostNames => of(&[Collection::ArgsPost], true),
            Variable::CookiesNames => of(&[Collection::Cookies], true),
            Variable::RequestHeadersNames => of(&[Collection::RequestHeaders], true),
            Variable::ResponseHeadersNames => of(&[Collection::ResponseHeaders], true),
            Variable::FilesNames => of(&[Collection::Files], true),
            Variable::ArgsCombinedSize => {
                return write_count(self.data.arguments_size(&self.values) as u64, out);
            }
            Variable::Flag(flag) => return write_number(i64::from(self.data.flag(flag)), out),
            Variable::Time(time) => return time.write(self.now, out),
            Variable::MatchedVars => self.matched_vars.first().map(|matched| matched.value.as_slice()),
            Variable::MatchedVarsNames => {
                return self.matched_vars.first().map_or((), |matched| matched.write_name(out));
            }
            Variable::Tx | Variable::Persistent(_) => {
                // Without a selector: the first that is set.
                let mut slots = program.names.slots();
                return slots.find(|slot| self.tx.write(*slot, out)).map_or((), |_| ());
            }
            Variable::MatchedVar
            | Variable::MatchedVarName
            | Variable::FilesCombinedSize
            | Variable::Duration
            | Variable::Nothing => None,
        };
        out.extend_from_slice(found.unwrap_or_default());
    }
}
