//! Clients that break rules: the offender is cut off, counted, and harms nobody else.

mod connections;
mod limits;
mod messages;
#[path = "../support/mod.rs"]
mod support;
