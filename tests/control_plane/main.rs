//! The control plane as its users meet it: the controller, nodes and `slimctl` as programs of
//! their own, and applications of the published Python package.

#[path = "../support/mod.rs"]
mod support;

mod documents;
mod groups;
mod programs;
mod tutorial;
mod upstream;
