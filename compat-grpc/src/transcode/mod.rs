//! Publishes of release 0.6 as native frames, and back.
//!
//! Nothing of a D6 message is lost on the way there and back but what nodes drop anyway
//! (`recv_from`, `forward_to`, `incoming_conn`), the order of fields, and what decoders drop:
//! all but the last value of a field or metadata key, and unknown fields inside a metadata entry.
//! Unknown fields and what else has no native form travel in the session part's remainder.
//!
//! Control content is typed ([`Content`](slim_wire::session::Content)) exactly if it would be
//! written back as it came. Any other is `Content::Foreign`, its payload and metadata untouched.
//!
//! In each direction the payload is copied once.

use slim_wire::{DecodeError, Fault, Id};
use thiserror::Error;

pub(crate) mod bincode;
mod control;
mod from_d6;
mod remainder;
mod to_d6;

pub use from_d6::d6_to_native;
pub use to_d6::native_to_d6;

/// A message that cannot be had in the other encoding. Only this message is concerned; a caller
/// drops and counts it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TranscodeError {
    /// The message is wrong in its own encoding.
    #[error(transparent)]
    Invalid(#[from] DecodeError),
    /// It is not a publish in the encoding that the function takes.
    #[error("{field}: expected {expected}, got {got}")]
    NotTaken {
        /// What is different.
        field: &'static str,
        /// What the function takes.
        expected: &'static str,
        /// What the caller passed, as a number of the encoding.
        got: u64,
    },
    /// Release 0.6 has no such id.
    #[error("{field}: expected an id below 18446744073709551615, or any, got {got}")]
    WideId {
        /// Whose id it is.
        field: &'static str,
        /// The id.
        got: Id,
    },
    /// The app's metadata has a key by which release 0.6 would take the message for another.
    #[error("metadata key: expected none that the protocol of release 0.6 uses here, got {key}")]
    ReservedKey {
        /// The key.
        key: &'static str,
    },
    /// It would be larger than receivers of the other encoding take.
    #[error("{field}: expected at most {limit}, got {got}")]
    TooLarge {
        /// What is too large.
        field: &'static str,
        /// The largest length in bytes, or number of entries.
        limit: u64,
        /// What it would be.
        got: u64,
    },
}

impl TranscodeError {
    /// Who has to act on it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotTaken { .. } => Fault::Caller,
            _ => Fault::Peer,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Invalid(error) => error.hint(),
            Self::NotTaken { .. } => "transcode publishes only, and only from this encoding",
            Self::WideId { .. } => "give apps that talk to release 0.6 ids of 64 bits",
            Self::ReservedKey { .. } => "choose another key for the metadata",
            Self::TooLarge { .. } => "send less in one message",
        }
    }
}
