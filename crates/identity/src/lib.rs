//! Tokens, sessions and access rules: plain values in, a decision out.
