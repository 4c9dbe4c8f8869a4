//! The SLIM node.
