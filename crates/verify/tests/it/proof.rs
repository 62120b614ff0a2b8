//! The proof of a town that is as planned.

use crate::town::Town;
use bastide_verify::{Outcome, verify};
use std::path::Path;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_town_as_planned_is_proven() {
    let Some(town) = Town::new("proof").await else { return };
    let outside = town.outside_path();
    let prober = Path::new(env!("CARGO_BIN_EXE_verify-prober"));
    let report = verify(prober, &[], town.subject(&outside), Town::limits()).await.unwrap();
    let table = report.table();
    println!("{table}");
    assert_eq!(report.outcome, Outcome::Proven, "{table}");
}
