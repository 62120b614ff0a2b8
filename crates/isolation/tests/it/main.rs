//! Plans, walked through packet by packet.

mod customers;
mod mutation;
mod snapshot;
mod town;
