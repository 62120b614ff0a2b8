//! HTTP cache engine: keys, freshness, validation, a bounded store. Fetches nothing.
