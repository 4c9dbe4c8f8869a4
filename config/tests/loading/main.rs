//! Files as operators write them, through the public interface of the crate.

mod accepted;
mod blocks;
mod controller;
mod errors;
mod examples;
mod files;
mod hostile;
mod policy;
mod support;
