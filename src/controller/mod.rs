//! The controller: what operators want of a network of nodes, kept in a store, and driven into
//! the nodes.
//!
//! [`model`] decides, without clocks, sockets or disks; the two APIs around it turn calls and
//! messages into its terms. A change that an operator wants is kept in the [`store`] before it is
//! acknowledged.

mod hub;
pub mod lifecycle;
pub mod logging;
pub mod model;
pub mod name;
mod northbound;
pub mod program;
pub mod settings;
mod southbound;
pub mod store;
