//! Account JWTs pushed to the broker and read back.
