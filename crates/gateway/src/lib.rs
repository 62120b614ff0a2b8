//! The gateway: identity check, access rule, Platform and Runtime load balancers.
