//! Sockets to envelopes and back. A link decides nothing about who gets what.

pub mod grpc;
mod incident;

pub use incident::{Incident, Incidents, RateLimit};
