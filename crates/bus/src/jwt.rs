//! JWTs as the broker reads them.
