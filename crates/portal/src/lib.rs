//! The Portal: server-rendered pages over the public API.
