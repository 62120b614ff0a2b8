//! What crosses crates: the shape of the workspace, and the product as a user meets it.

mod alone;
mod alone_streams;
mod domains;
mod floods;
mod house;
mod isolated;
mod neighbours;
mod road;
mod site;
mod stage;
mod takeover;
mod verified;
