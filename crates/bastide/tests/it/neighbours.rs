//! Whatever an app does, apps of other customers go on answering rightly. How fast is measured by `bench/neighbours`.

use anyhow::{Context, Result};
use bastide_testkit::neighbours::{Disturber, Neighbours};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disturber_of_every_kind_leaves_every_answer_of_its_neighbour_right() -> Result<()> {
    if !crate::isolated::isolates("a_disturber_of_every_kind_leaves_every_answer…") {
        return Ok(());
    }
    let mut neighbours = Neighbours::start(env!("CARGO_BIN_EXE_bastide").into()).await?;
    let asked = async {
        for how in Disturber::ALL {
            let mut tasks = neighbours.disturb(how, Duration::from_secs(3)).await?;
            let answers = neighbours.ask_steadily(Duration::from_millis(25), Duration::from_secs(2)).await;
            tasks.shutdown().await;
            neighbours.free().await;
            answers.with_context(|| how.word())?;
        }
        anyhow::Ok(())
    };
    neighbours.product.explained(asked.await)?;
    neighbours.product.down()
}
