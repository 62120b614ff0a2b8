//! A program with the states of requests that have ended, for those that begin: what they have allocated
//! is used again.

use crate::{compile::Program, evaluate::State};
use std::sync::{Mutex, PoisonError};

/// States that are kept. More than run at once on a machine are of no use.
const KEPT_MAX: usize = 32;

/// A program and its states at rest.
pub(crate) struct Pool {
    pub(crate) program: Program,
    #[allow(clippy::vec_box, reason = "states are large and go to and fro whole")]
    idle: Mutex<Vec<Box<State>>>,
}

impl Pool {
    pub(crate) fn new(program: Program) -> Self {
        Self { program, idle: Mutex::default() }
    }

    /// A state that knows of no request.
    pub(crate) fn borrow(&self) -> Box<State> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut state = idle.unwrap_or_default();
        state.clear(&self.program);
        state
    }

    pub(crate) fn give_back(&self, state: Box<State>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT_MAX {
            idle.push(state);
        }
    }
}
