//! NATS: accounts, subjects, request and reply, blobs by digest, snapshot distribution.
