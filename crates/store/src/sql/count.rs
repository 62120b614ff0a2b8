//! How many questions are asked meanwhile, so that tests can tell when each row of a list costs one more.

use std::cell::Cell;

tokio::task_local! {
    static ASKED: Cell<usize>;
}

/// Runs this; its result, and how many questions it asked the database. Whatever it spawns is not counted.
pub async fn counting<F: Future>(work: F) -> (F::Output, usize) {
    let counted = async {
        let output = work.await;
        (output, ASKED.with(Cell::get))
    };
    ASKED.scope(Cell::new(0), counted).await
}

/// One more was asked.
pub(super) fn note() {
    // Nobody counts: nothing to do.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}
