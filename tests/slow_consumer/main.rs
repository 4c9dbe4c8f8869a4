//! Receivers that do not keep up: they wait alone, within their queue, and go when they must.

mod eviction;
mod memory;
mod native;
mod pause;
#[path = "../support/mod.rs"]
mod support;
