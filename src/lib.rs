//! The SLIM node: names to links, links to sockets.
//!
//! The rooms of the house, from the bottom up: [`datapath`] routes messages and knows neither
//! sockets nor clocks; [`link`] turns bytes of sockets into messages and back; [`node`] puts
//! cores, listeners and the admin endpoint together and drives them. [`client`] is the other end of a
//! link, for apps; with the node it shares the wire and how QUIC is spoken. [`demo`] shows the two at work;
//! [`ctl`] is what `slimctl` does.

pub mod client;
pub mod ctl;
pub mod datapath;
pub mod demo;
pub mod identity;
pub mod link;
pub mod mls;
pub mod node;
pub mod session;
pub mod version;
