//! The stage agent and its drivers: starts, probes and stops replicas.
