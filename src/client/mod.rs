//! The Rust API for apps.
//!
//! [`link`] is its lowest floor: one connection to a node, and messages as they travel. What apps
//! share end to end, sessions, stands on top of it.

pub mod identity;
pub mod link;
