//! The controller: what operators want of a network of nodes, kept in a store, and driven into
//! the nodes.

pub mod store;
