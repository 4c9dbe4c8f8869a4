//! The SLIM node: names to links, links to sockets.
//!
//! The rooms of the house, from the bottom up: [`datapath`] routes messages and knows neither
//! sockets nor clocks; [`link`] turns bytes of sockets into messages and back; [`node`] puts
//! cores, listeners and the admin endpoint together and drives them. [`ctl`] is what `slimctl` does.

pub mod ctl;
pub mod datapath;
pub mod link;
pub mod node;
pub mod version;
