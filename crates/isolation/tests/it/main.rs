//! Plans, walked through packet by packet.

mod checks;
mod customers;
mod mutation;
mod snapshot;
mod town;
