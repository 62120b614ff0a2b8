//! Request and reply.
