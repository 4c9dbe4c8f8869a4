use bytes::Bytes;
use slim_wire::{DecodeError, Encoding, Header};

/// One published form of the data-plane messages: how to read the routing header in place, and
/// how to change what must not travel on. A type per dialect; a stream keeps its own from its
/// first message on (see [`detect`](crate::detect)).
pub trait Dialect {
    /// The encoding of messages in this dialect.
    const ENCODING: Encoding;

    /// The method that clients of this dialect call.
    const PATH: &'static str;

    /// Reads what routing needs of one message, without decoding the rest.
    ///
    /// # Errors
    /// [`DecodeError`]: see [`is_refusal_only`] for what it means for the stream.
    fn read(message: &[u8]) -> Result<Inbound<'_>, DecodeError>;

    /// The message without the header fields by which a client could steer a node's routing
    /// (`recv_from`, `forward_to`). The only case that copies; honest clients never cause it.
    ///
    /// # Errors
    /// Those of [`Dialect::read`].
    fn clear_steering(message: &[u8]) -> Result<Bytes, DecodeError>;
}

/// What a node reads of one message from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound<'a> {
    /// The routing header; its encoding is the dialect's.
    pub header: Header,
    /// The texts of the destination name, where the message carries them.
    pub texts: Option<[&'a str; 3]>,
    /// Whether the message tries to steer the node, and has to go through
    /// [`Dialect::clear_steering`] before it travels on.
    pub steers: bool,
}

/// Whether an invalid message is merely dropped, and its stream goes on: it could be read, and
/// only lacks something or exceeds a limit. Otherwise nothing after it can be trusted, and the
/// stream ends.
pub fn is_refusal_only(error: &DecodeError) -> bool {
    matches!(error, DecodeError::Missing { .. } | DecodeError::TooLarge { .. })
}
