//! The edge (CDN): TLS, site, WAF, cache, gateway of a zone.
