//! Native clients that break rules: the offender is cut off, counted, and harms nobody else.

mod datagrams;
mod drain;
mod frames;
mod handshakes;
mod hellos;
mod lanes;
mod rebinding;
mod silence;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;
mod windows;
