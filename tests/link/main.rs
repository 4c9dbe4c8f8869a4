//! The link API of the client against a node in the test, which keeps the protocol or breaks it
//! as told.

mod connecting;
mod ending;
mod fake_node;
mod flow;
mod messages;
mod requests;
#[path = "../support/mod.rs"]
mod support;
