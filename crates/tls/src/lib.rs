//! Certificates: by SNI for the world, by role between our own processes.
