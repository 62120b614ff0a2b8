//! The command line over the HTTPS API.
