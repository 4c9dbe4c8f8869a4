use slim_wire::{DecodeError, Encoding};

use crate::layout::{BODY_HEADER, LINK, MESSAGE_METADATA, P, PUBLISH, SUBSCRIBE};
use crate::read;
use crate::scan::{Fields, Value};

/// What the first message of a stream proves about its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// Releases 0.4 and 0.5.
    P,
    /// Release 0.6.
    D6,
    /// Releases 0.7 to 1.2.
    D7,
    /// Releases 1.3 and 1.4: D7 with link messages and acknowledgements.
    D7L,
    /// Releases from 2.0.
    D20,
}

impl Detected {
    /// The encoding of its messages.
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::P => Encoding::P,
            Self::D6 => Encoding::D6,
            Self::D7 | Self::D7L => Encoding::D7,
            Self::D20 => Encoding::D20,
        }
    }

    /// The releases that speak it, for people.
    pub fn releases(self) -> &'static str {
        match self {
            Self::P => "0.4 to 0.5",
            Self::D6 => "0.6",
            Self::D7 => "0.7 to 1.2",
            Self::D7L => "1.3 to 1.4",
            Self::D20 => "2.0 and later",
        }
    }
}

/// Tells from the first message of a stream on the `dataplane.proto.v1` path which dialect the
/// client speaks. Reads some twenty bytes, allocates nothing.
///
/// # Errors
/// [`DecodeError`] if the message fits none of them.
pub fn detect(first: &[u8]) -> Result<Detected, DecodeError> {
    let mut fields = Fields::new("first message", first);
    while let Some((number, value)) = fields.next()? {
        match number {
            MESSAGE_METADATA => {}
            LINK => return detect_link(value.bytes("link")?),
            SUBSCRIBE..=PUBLISH => return detect_by_name(value.bytes("message type")?),
            got => {
                return Err(DecodeError::Unexpected {
                    field: "first message",
                    expected: "a subscribe, unsubscribe, publish or link message",
                    got: got.into(),
                });
            }
        }
    }
    Err(DecodeError::Missing { field: "message type" })
}

/// Tells whether the first message of a stream on the `pubsub.proto.v1` path is one of releases
/// 0.4 and 0.5. Release 0.3 has the same path. Its names may lack their id, which a client's always
/// has in later ones, and their hashes are others than those that later releases make of the texts.
///
/// # Errors
/// [`DecodeError`] if it is not; [`DecodeError::Missing`] for what release 0.3 sends.
pub fn detect_pubsub(first: &[u8]) -> Result<Detected, DecodeError> {
    const COMPONENT_3: u32 = 4;
    let mut hashed = None;
    let read = read::message_with::<P>(first, |header| {
        hashed = Some(header.destination.name.prefix);
    })?;
    let hashed_as_later = read.routed().map(|read| read.header.destination.prefix) == hashed;
    let mut fields = Fields::new("first message", first);
    while let Some((number, value)) = fields.next()? {
        if !(SUBSCRIBE..=PUBLISH).contains(&number) {
            continue;
        }
        let header = first_bytes(value.bytes("message type")?, "header")?;
        let mut name = Fields::new("source", first_bytes(header, "source")?);
        while let Some((number, _)) = name.next()? {
            if number == COMPONENT_3 && hashed_as_later {
                return Ok(Detected::P);
            }
            if number == COMPONENT_3 {
                return Err(DecodeError::Missing { field: "hashes of the texts of the name" });
            }
        }
    }
    Err(DecodeError::Missing { field: "id of the source name" })
}

/// The source name starts with a number in D6, with a nested message from D7 on.
fn detect_by_name(body: &[u8]) -> Result<Detected, DecodeError> {
    let header = first_bytes(body, "header")?;
    let name = first_bytes(header, "source")?;
    match Fields::new("source", name).next()? {
        Some((1..=4, Value::Varint(_))) | None => Ok(Detected::D6),
        Some((1 | 2, Value::Bytes(_))) => Ok(Detected::D7),
        Some((got, _)) => Err(DecodeError::Unexpected {
            field: "source",
            expected: "a name of a published release",
            got: got.into(),
        }),
    }
}

/// The bytes of field 1.
fn first_bytes<'a>(message: &'a [u8], field: &'static str) -> Result<&'a [u8], DecodeError> {
    let mut fields = Fields::new(field, message);
    while let Some((number, value)) = fields.next()? {
        if number == BODY_HEADER {
            return value.bytes(field);
        }
    }
    Err(DecodeError::Missing { field })
}

/// Only D20 has a key, a connection type or a node id in its negotiation, or a version from 2.
fn detect_link(link: &[u8]) -> Result<Detected, DecodeError> {
    const SLIM_VERSION: u32 = 2;
    const FIRST_OF_D20: u32 = 4;
    const LAST_OF_D20: u32 = 6;
    let mut fields = Fields::new("link negotiation", first_bytes(link, "link negotiation")?);
    let mut major = None;
    while let Some((number, value)) = fields.next()? {
        match number {
            SLIM_VERSION => {
                let version = value.text("slim_version")?;
                major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
            }
            FIRST_OF_D20..=LAST_OF_D20 => return Ok(Detected::D20),
            _ => {}
        }
    }
    match major {
        Some(0 | 1) => Ok(Detected::D7L),
        Some(_) => Ok(Detected::D20),
        None => Err(DecodeError::Missing { field: "slim_version" }),
    }
}
