//! The controller as a program, between operators and nodes that do as a test says.

#[path = "../support/mod.rs"]
mod support;

mod command_line;
mod fake_node;
mod groups;
mod memberships;
mod program;
mod registration;
mod routes;
mod security;
