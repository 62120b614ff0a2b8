//! Against a real broker: a nats-server child over TLS on a free port, in a directory of its own.
#![allow(clippy::unwrap_used)] // all of this is test

mod asks;
mod blobs;
mod check;
mod cluster;
mod every_subject;
mod hostile;
mod house;
mod isolation;
mod life;
mod sessions;
mod snapshots;
mod stages;
