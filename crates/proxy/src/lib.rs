//! One HTTP hop: listener, strict HTTP/1 and HTTP/2, deadlines, drain, upstream pool, header hygiene.
