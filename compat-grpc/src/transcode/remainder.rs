//! What a D6 message says beyond what has a native form: unknown fields at every level, and
//! two differences that protobuf can tell and a native frame cannot.
//!
//! It travels as protobuf in the session part: one bytes field per [`Place`] that has something.

use slim_wire::DecodeError;
use slim_wire::limits::SESSION_PART_BYTES;

use crate::scan::{Fields, Value, set_once};

/// A message of the published schema inside a publish, whose known fields are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Message,
    Publish,
    Header,
    Source,
    Destination,
    Session,
    SessionSource,
    SessionDestination,
    Content,
}

const PLACES: [Place; 9] = [
    Place::Message,
    Place::Publish,
    Place::Header,
    Place::Source,
    Place::Destination,
    Place::Session,
    Place::SessionSource,
    Place::SessionDestination,
    Place::Content,
];

// Field numbers of the remainder; the places come first.
const ERROR_IS_FALSE: u32 = 10;
const CONTENT_IS_ABSENT: u32 = 11;

impl Place {
    /// Field number in the remainder.
    fn number(self) -> u32 {
        self as u32 + 1
    }

    fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Publish => "publish",
            Self::Header => "header",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Session => "session",
            Self::SessionSource => "session source",
            Self::SessionDestination => "session destination",
            Self::Content => "content",
        }
    }

    /// The highest field number that the published schema knows here.
    fn highest_known(self) -> u32 {
        match self {
            Self::Content => 2,
            Self::Publish => 3,
            Self::Session => 6,
            Self::Header => 7,
            _ => 4,
        }
    }
}

/// Collects the remainder of one message.
#[derive(Debug, Default)]
pub(super) struct Collector {
    unknown: [Vec<u8>; PLACES.len()],
    /// The field `error` is present, and false.
    pub(super) error_is_false: bool,
    /// There is no content.
    pub(super) content_is_absent: bool,
}

impl Collector {
    fn keep(&mut self, place: Place, field: &[u8]) -> Result<(), DecodeError> {
        let kept = &mut self.unknown[place as usize];
        // Only so that memory is bounded early: the whole session part has this limit.
        let got = kept.len() + field.len();
        if got > SESSION_PART_BYTES {
            let (field, limit) = ("unknown fields", SESSION_PART_BYTES as u64);
            return Err(DecodeError::TooLarge { field, limit, got: got as u64 });
        }
        kept.extend_from_slice(field);
        Ok(())
    }

    /// The remainder as it travels.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut remainder = Vec::new();
        for place in PLACES {
            let unknown = &self.unknown[place as usize];
            if !unknown.is_empty() {
                prost::encoding::bytes::encode(place.number(), unknown, &mut remainder);
            }
        }
        let marks =
            [(ERROR_IS_FALSE, self.error_is_false), (CONTENT_IS_ABSENT, self.content_is_absent)];
        for (number, _) in marks.into_iter().filter(|(_, is_set)| *is_set) {
            prost::encoding::bool::encode(number, &true, &mut remainder);
        }
        remainder
    }
}

/// The known fields of the message at a place; the others go to a [`Collector`].
pub(super) struct KnownFields<'a> {
    place: Place,
    bytes: &'a [u8],
    fields: Fields<'a>,
}

impl<'a> KnownFields<'a> {
    pub(super) fn new(place: Place, bytes: &'a [u8]) -> Self {
        Self { place, bytes, fields: Fields::new(place.name(), bytes) }
    }

    pub(super) fn next(
        &mut self,
        collector: &mut Collector,
    ) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        loop {
            let start = self.bytes.len() - self.fields.remaining();
            let Some((number, value)) = self.fields.next()? else { return Ok(None) };
            if number <= self.place.highest_known() {
                return Ok(Some((number, value)));
            }
            let end = self.bytes.len() - self.fields.remaining();
            collector.keep(self.place, &self.bytes[start..end])?;
        }
    }
}

/// A remainder read from a session part.
#[derive(Debug, Default)]
pub(super) struct Remainder<'a> {
    unknown: [&'a [u8]; PLACES.len()],
    pub(super) error_is_false: bool,
    pub(super) content_is_absent: bool,
}

impl<'a> Remainder<'a> {
    /// Reads a remainder, which may come from anyone: that nothing in it is known to receivers
    /// keeps steering fields, and second values, out of the message.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        const FIELD: &str = "remainder";
        let mut slots = [None; PLACES.len()];
        let (mut error_is_false, mut content_is_absent) = (None, None);
        let mut fields = Fields::new(FIELD, bytes);
        while let Some((number, value)) = fields.next()? {
            let place = PLACES.into_iter().find(|place| place.number() == number);
            match (number, place) {
                (_, Some(place)) => {
                    let unknown = value.bytes(FIELD)?;
                    check_unknown(place, unknown)?;
                    set_once(&mut slots[place as usize], unknown, FIELD)?;
                }
                (ERROR_IS_FALSE, _) => set_once(&mut error_is_false, value.varint(FIELD)?, FIELD)?,
                (CONTENT_IS_ABSENT, _) => {
                    set_once(&mut content_is_absent, value.varint(FIELD)?, FIELD)?;
                }
                (other, None) => return Err(unexpected("a field from 1 to 11", other)),
            }
        }
        Ok(Self {
            unknown: slots.map(Option::unwrap_or_default),
            error_is_false: error_is_false.is_some(),
            content_is_absent: content_is_absent.is_some(),
        })
    }

    /// The unknown fields of the message at `place`.
    pub(super) fn at(&self, place: Place) -> &'a [u8] {
        self.unknown[place as usize]
    }
}

fn check_unknown(place: Place, unknown: &[u8]) -> Result<(), DecodeError> {
    let mut fields = Fields::new(place.name(), unknown);
    while let Some((number, _)) = fields.next()? {
        if number <= place.highest_known() {
            return Err(unexpected("a field that release 0.6 does not know", number));
        }
    }
    Ok(())
}

fn unexpected(expected: &'static str, got: u32) -> DecodeError {
    DecodeError::Unexpected { field: "remainder", expected, got: got.into() }
}
