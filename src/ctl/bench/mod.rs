//! The load generator: publishers and subscribers at a node, or at a pump that only moves bytes,
//! and what they see of loss, throughput and latency.
//!
//! Every message carries its number and the moment at which it was to be sent, in the clock that
//! all processes of a machine share. With a rate the loop is open: a message that could not leave
//! in time counts with the time that it waited. Without one the loop is closed, by a window of
//! messages under way.

mod chart;
mod clock;
mod command;
mod flow;
mod hgrm;
mod plan;
mod publisher;
mod pump;
mod report;
mod schedule;
mod session;
mod stamp;
mod tally;
mod transport;

pub use self::chart::latency_svg;
pub use self::command::Command;
pub use self::hgrm::latency_hgrm;
pub use self::plan::{Mode, Plan};
pub use self::pump::{Floor, Pump};
pub use self::report::Report;
pub use self::session::Session;
pub use self::stamp::STAMP_BYTES;
pub use self::transport::Server;
