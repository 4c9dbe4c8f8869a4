//! The SLIM node: names to links, links to sockets.
//!
//! The rooms of the house, from the bottom up: [`datapath`] routes messages and knows neither
//! sockets nor clocks.

pub mod datapath;
