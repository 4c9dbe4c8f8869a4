//! What every other crate of slim-quic agrees on: names and their hashes, the message
//! [`Envelope`] with its fixed [`Header`], the native frame and its [`session`] part, the limits,
//! and the errors of wrong input.
//!
//! Nothing here performs I/O, reads a clock or knows a serialisation of its own clients: the
//! published protobuf dialects live in `slim-compat-grpc`, the routing in `slim-quic`.
//!
//! ```
//! use slim_wire::TextName;
//!
//! let moderator: TextName = "agntcy/ns/moderator".parse()?;
//! assert_eq!(
//!     moderator.to_string(),
//!     "169ca82eb17d6bc2/eef9769a4c6990d1/fc9bbc406957794b/ffffffffffffffff \
//!      (agntcy/ns/moderator/ffffffffffffffff)",
//! );
//! # Ok::<(), slim_wire::NameError>(())
//! ```

mod envelope;
mod error;
mod frame;
mod hello;
pub mod limits;
mod name;
mod reader;
pub mod session;

pub use envelope::{Class, Encoding, Envelope, Flags, Header, Kind, Pieces, Space};
pub use error::{DecodeError, Fault, NameError};
pub use frame::{FrameHeader, FrameKind, SessionIds, frame, lane};
pub use hello::{ALPN, CloseCode, Hello, HelloFlags, Role};
pub use name::{Id, Name, Prefix, TextName, hash_component};
pub use reader::{FrameReader, Frames, Run};
