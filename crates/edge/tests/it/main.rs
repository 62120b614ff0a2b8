//! The edge before a small origin, and its document.

mod alone;
mod stops;
