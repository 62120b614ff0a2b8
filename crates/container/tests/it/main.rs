//! Containers as the kernel makes them. Needs root; says so when it skips.

mod fences;
mod limits;
mod lives;
mod scene;
