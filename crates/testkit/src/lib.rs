//! What tests share: fresh ports, raw sockets, a started Bastide.
