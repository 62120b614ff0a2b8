//! What crosses crates: the shape of the workspace, and the product as a user meets it.

mod alone;
mod alone_streams;
mod backup;
mod chaos;
mod database;
mod domains;
mod floods;
mod house;
mod isolated;
mod neighbours;
mod revocation;
mod road;
mod site;
mod stage;
mod takeover;
mod verified;
mod writes;
