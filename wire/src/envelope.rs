use bytes::Bytes;
use smallvec::SmallVec;

use crate::name::Name;

/// What a message asks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Deliver the message to who subscribed to the destination.
    Publish,
    /// From now on, what goes to the destination name also goes to this link.
    Subscribe,
    /// Take a subscription back.
    Unsubscribe,
}

/// How a message wants to be treated where a queue is short of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Keeps sessions alive: acknowledgements, joins, keys. Has a reserve in every queue.
    Control,
    /// Endpoints expect it to arrive; a receiver that cannot take it is cut off, not skipped.
    Reliable,
    /// May be dropped, with a count.
    BestEffort,
}

/// The form of a message's body: the native frame, or one of the published gRPC dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// The native frame of this project.
    Native,
    /// Releases 0.4 and 0.5 (`pubsub.proto.v1`).
    P,
    /// Release 0.6.
    D6,
    /// Releases 0.7 to 1.2; and 1.3 to 1.4, which add link messages and acknowledgements.
    D7,
    /// Releases from 2.0.
    D20,
}

impl Encoding {
    /// The routing space of clients that speak this encoding.
    pub const fn space(self) -> Space {
        match self {
            Self::Native | Self::D6 => Space::Native,
            Self::P => Space::P,
            Self::D7 => Space::D7,
            Self::D20 => Space::D20,
        }
    }
}

/// Clients that can hold sessions with each other. Part of the routing key, so that no client
/// ever receives bytes whose session layer it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Native clients and release 0.6.
    Native,
    /// Releases 0.4 and 0.5.
    P,
    /// Releases 0.7 to 1.4.
    D7,
    /// Releases from 2.0.
    D20,
}

impl Space {
    /// All spaces.
    pub const ALL: [Self; 4] = [Self::Native, Self::P, Self::D7, Self::D20];

    /// The releases whose clients meet there, for people.
    pub const fn releases(self) -> &'static str {
        match self {
            Self::Native => "0.6 and native ones",
            Self::P => "0.4 to 0.5",
            Self::D7 => "0.7 to 1.4",
            Self::D20 => "2.0 and later",
        }
    }
}

/// Marks of a message that travel with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Set by endpoints on the answer to a retransmission request: the message is lost for ever.
    pub const ERROR: Self = Self(1);

    /// Whether all marks of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// No marks.
    pub const fn empty() -> Self {
        Self(0)
    }
}

/// All that a node needs to know of a message to route it. Small and `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What is asked.
    pub kind: Kind,
    /// How to treat it where room is short.
    pub class: Class,
    /// The form of the body.
    pub encoding: Encoding,
    /// Marks set by endpoints.
    pub flags: Flags,
    /// Nodes that the message may still pass; dialects without the field start at
    /// [`Header::DEFAULT_TTL`].
    pub ttl: u8,
    /// 1: deliver to one; any other number: to all. It never truncates.
    pub fanout: u32,
    /// Which lane of a native link keeps it in order; see [`lane`](crate::lane).
    pub lane: u8,
    /// Who sent it. Never rewritten by a node.
    pub source: Name,
    /// Whom it is for. Never rewritten by a node.
    pub destination: Name,
}

impl Header {
    /// The hop limit that published clients use from release 2.0 on.
    pub const DEFAULT_TTL: u8 = 8;

    /// That of a frame on a control stream, which goes no further than the other end of the link.
    pub const fn control(flags: Flags, source: Name, destination: Name) -> Self {
        Self {
            kind: Kind::Publish,
            class: Class::Control,
            encoding: Encoding::Native,
            flags,
            ttl: 0,
            fanout: 0,
            lane: 0,
            source,
            destination,
        }
    }
}

/// Bytes as they arrived, in the pieces in which they did.
pub type Pieces = SmallVec<[Bytes; 4]>;

/// A message inside a node, or several in a row whose headers are the same for routing: the
/// header, and the bytes as they arrived, in the encoding that the header names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What routing needs.
    pub header: Header,
    /// How many messages the body holds. More than one only in native encoding, whose frames say
    /// where they end.
    pub messages: u32,
    /// The whole message, or messages; shared, never re-serialised on the way.
    pub body: Pieces,
}

impl Envelope {
    /// One message in one piece.
    pub fn single(header: Header, body: Bytes) -> Self {
        let mut pieces = Pieces::new();
        pieces.push(body);
        Self { header, messages: 1, body: pieces }
    }

    /// Length of the body in bytes.
    pub fn len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// Whether the body holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
