//! Sockets to envelopes and back. A link decides nothing about who gets what.

pub(crate) mod api;
mod certificate;
mod flow;
mod gate;
pub mod grpc;
mod host;
mod incident;
pub mod quic;
pub mod routes;

pub use certificate::principal_of;
pub use gate::{Gate, Unauthenticated, Visitor};
pub use host::{Host, LinkLimits, Places};
pub use incident::{Incident, Incidents, RateLimit};
