//! Control-plane SQL: migrations and typed handles, each bound to one customer.
