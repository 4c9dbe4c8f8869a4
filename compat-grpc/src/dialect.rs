use bytes::Bytes;
use slim_wire::{DecodeError, Encoding, Header};

use crate::layout::{D6, D7, D20, Layout, P};
use crate::{read, rewrite};

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

macro_rules! dialects {
    ($($dialect:ty),*) => {$(
        impl Dialect for $dialect {
            const ENCODING: Encoding = <Self as Layout>::ENCODING;
            const PATH: &'static str = <Self as Layout>::PATH;

            #[inline]
            fn read(message: &[u8]) -> Result<Inbound<'_>, DecodeError> {
                read::message::<Self>(message)
            }

            fn clear_steering(message: &[u8]) -> Result<Bytes, DecodeError> {
                rewrite::clear_steering::<Self>(message)
            }
        }
    )*};
}

dialects!(P, D6, D7, D20);

/// What a node reads of one message from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// For the datapath.
    Routed(Routed<'a>),
    /// The negotiation of a link (D7, D20), still encoded; see
    /// [`Negotiation`](crate::Negotiation).
    Link(&'a [u8]),
    /// The answer to a subscription of ours (D7, D20).
    SubscriptionAck(SubscriptionAck<'a>),
}

/// A message that a node routes or makes a route of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed<'a> {
    /// The routing header; its encoding is the dialect's.
    pub header: Header,
    /// The texts of the destination name of a subscription, where the message carries them.
    pub texts: Option<[&'a str; 3]>,
    /// The number under which a subscription is to be acknowledged; 0 if it is not.
    pub subscription: u64,
    /// Whether the message tries to steer the node, and has to go through
    /// [`Dialect::clear_steering`] before it travels on.
    pub steers: bool,
}

/// What became of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionAck<'a> {
    /// Its number.
    pub subscription: u64,
    /// Whether it was made, or taken back.
    pub success: bool,
    /// Why not.
    pub error: &'a str,
}

impl<'a> Inbound<'a> {
    /// The message, if it is one for the datapath.
    pub fn routed(self) -> Option<Routed<'a>> {
        match self {
            Self::Routed(routed) => Some(routed),
            Self::Link(_) | Self::SubscriptionAck(_) => None,
        }
    }
}

/// Whether an invalid message is merely dropped, and its stream goes on: it could be read, and
/// only lacks something or exceeds a limit. Otherwise nothing after it can be trusted, and the
/// stream ends.
pub fn is_refusal_only(error: &DecodeError) -> bool {
    matches!(error, DecodeError::Missing { .. } | DecodeError::TooLarge { .. })
}
