//! Example app.
fn main() {}
