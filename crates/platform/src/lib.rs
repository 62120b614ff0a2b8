//! Platform services: orgs, build, deploy, identity, security; makes Snapshots.
