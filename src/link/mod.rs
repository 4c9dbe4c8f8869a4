//! Sockets to envelopes and back. A link decides nothing about who gets what.

mod flow;
pub mod grpc;
mod host;
mod incident;
pub mod quic;

pub use host::{Host, LinkLimits, Places};
pub use incident::{Incident, Incidents, RateLimit};
