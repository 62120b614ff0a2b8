//! The Build Service: a packed directory in, an image and a revision out. It packages, it compiles nothing.

pub mod archive;
pub mod content;
pub mod images;
mod publish;
mod registry;
mod take;

pub(crate) use publish::{About, UPLOAD_BYTES_MAX, newest, publish};
pub(crate) use registry::Registries;
pub(crate) use take::Pulls;
