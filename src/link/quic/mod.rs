//! The native side of a core: QUIC connections, each a link.
//!
//! The core drives the QUIC state machines itself: receive a batch, feed the connections, read
//! frames, forward, write, transmit. From packet in to packet out there is no lock, no task and
//! no wake-up. [`transport`] is that loop's part without I/O, [`door`] what it means to the datapath,
//! [`socket`] the sockets.

mod cid;
mod control;
pub mod door;
mod driver;
mod exchange;
mod greeting;
mod ingress;
mod lane;
mod peer;
pub mod settings;
mod slab;
pub mod socket;
pub mod tls;
pub mod transport;

pub use driver::{Crossing, Dial, Dials, Driver, Listening};
pub use peer::LinkEnd;
