//! The Build Service: a packed directory in, an image and a revision out. It packages, it compiles nothing.

pub mod archive;
pub mod images;
mod publish;

pub(crate) use publish::publish;
