//! The Build Service: a packed directory in, an image and a revision out. It packages, it compiles nothing.

pub mod archive;
pub mod images;
mod publish;
mod registry;
mod take;

pub(crate) use publish::publish;
pub(crate) use registry::Registries;
pub(crate) use take::Pulls;
