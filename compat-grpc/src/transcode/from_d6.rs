//! A publish of release 0.6 as a native frame.

use bytes::Bytes;
use slim_wire::limits::METADATA_ENTRIES;
use slim_wire::session::{self, Session, SessionKind};
use slim_wire::{DecodeError, Header, Id, Kind, SessionIds, TextName};

use super::TranscodeError;
use super::control::{self, IDENTITY, TYPED_KEYS};
use super::remainder::{Collector, KnownFields, Place};
use crate::dialect::{Dialect, Inbound};
use crate::layout::{
    BODY_HEADER, D6, HEADER_DESTINATION, HEADER_ERROR, HEADER_SOURCE, MESSAGE_METADATA, PUBLISH,
    PUBLISH_CONTENT, PUBLISH_SESSION, SESSION_ID, SESSION_MESSAGE_TYPE,
};
use crate::scan::{Fields, Value};

/// One publish of release 0.6 as one whole native frame that may still pass `ttl` nodes.
///
/// # Errors
/// [`TranscodeError`]: the message is not one that [`D6`] reads, or not a publish; or what it says
/// beside the payload exceeds the limits of a session part.
pub fn d6_to_native(message: &[u8], ttl: u8) -> Result<Bytes, TranscodeError> {
    let header = match D6::read(message)? {
        Inbound::Routed(routed) if routed.header.kind == Kind::Publish => routed.header,
        Inbound::Routed(routed) => {
            let got = if routed.header.kind == Kind::Subscribe { 1 } else { 2 };
            return Err(TranscodeError::NotTaken { field: "message type", expected: "3", got });
        }
        Inbound::Link(_) | Inbound::SubscriptionAck(_) => {
            return Err(DecodeError::Missing { field: "message type" }.into());
        }
    };
    let mut read = Reading::default();
    read.message(message)?;
    let ids = SessionIds { session: read.session_id, message: read.message_id };
    let control = control::read(read.message_type, read.content_type, read.blob, read.metadata);
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let session = Session {
        kind: match read.session_type {
            0 => SessionKind::Unspecified,
            1 => SessionKind::PointToPoint,
            2 => SessionKind::Group,
            other => SessionKind::Other(other),
        },
        content: control.content,
        encrypted: control.encrypted,
        source: read.source.map(SessionName::own).transpose()?,
        destination: read.destination.map(SessionName::own).transpose()?,
        identity: read.identity.map(str::to_owned),
        content_type: control.content_type.to_owned(),
        metadata: control.metadata.into_iter().map(owned).collect(),
        remainder: read.collector.encode(),
    };
    Ok(session::publish(&Header { ttl, ..header }, ids, &session, control.payload)?)
}

/// What was found in a message that [`D6::read`] accepts; of a field that occurs again, the last
/// value, as decoders take it.
#[derive(Default)]
struct Reading<'a> {
    session_type: u32,
    message_type: u32,
    session_id: u32,
    message_id: u32,
    source: Option<SessionName<'a>>,
    destination: Option<SessionName<'a>>,
    content_type: &'a str,
    blob: &'a [u8],
    identity: Option<&'a str>,
    metadata: Vec<(&'a str, &'a str)>,
    metadata_seen: usize,
    collector: Collector,
}

/// A name in the session header.
#[derive(Default)]
struct SessionName<'a> {
    components: [&'a str; 3],
    id: u64,
}

impl SessionName<'_> {
    fn own(self) -> Result<TextName, DecodeError> {
        let too_long = |got: usize| DecodeError::TooLarge {
            field: "session name component",
            limit: slim_wire::limits::NAME_COMPONENT_BYTES as u64,
            got: got as u64,
        };
        let longest = self.components.iter().map(|text| text.len()).max().unwrap_or(0);
        TextName::new(self.components, Id::from_u64(self.id)).map_err(|_| too_long(longest))
    }
}

impl<'a> Reading<'a> {
    fn message(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        let mut fields = KnownFields::new(Place::Message, message);
        while let Some((number, value)) = fields.next(&mut self.collector)? {
            match number {
                PUBLISH => self.publish(value.bytes("publish")?)?,
                MESSAGE_METADATA => self.metadata(value.bytes("metadata")?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn publish(&mut self, publish: &'a [u8]) -> Result<(), DecodeError> {
        self.collector.content_is_absent = true;
        let mut fields = KnownFields::new(Place::Publish, publish);
        while let Some((number, value)) = fields.next(&mut self.collector)? {
            match number {
                BODY_HEADER => self.header(value.bytes("header")?)?,
                PUBLISH_SESSION => self.session(value.bytes("session")?)?,
                PUBLISH_CONTENT => self.content(value.bytes("content")?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn header(&mut self, header: &'a [u8]) -> Result<(), DecodeError> {
        let mut fields = KnownFields::new(Place::Header, header);
        while let Some((number, value)) = fields.next(&mut self.collector)? {
            match number {
                HEADER_SOURCE => self.routing_name(Place::Source, value)?,
                HEADER_DESTINATION => self.routing_name(Place::Destination, value)?,
                HEADER_ERROR => self.collector.error_is_false = value.varint("error")? == 0,
                _ => {}
            }
        }
        Ok(())
    }

    /// Only for its unknown fields: the name itself is in the routing header already.
    fn routing_name(&mut self, place: Place, name: Value<'a>) -> Result<(), DecodeError> {
        let mut fields = KnownFields::new(place, name.bytes("name")?);
        while fields.next(&mut self.collector)?.is_some() {}
        Ok(())
    }

    fn session(&mut self, session: &'a [u8]) -> Result<(), DecodeError> {
        let mut fields = KnownFields::new(Place::Session, session);
        while let Some((number, value)) = fields.next(&mut self.collector)? {
            // Protobuf readers take the low bits of a number that is too wide for its field.
            match number {
                1 => self.session_type = value.varint("session type")? as u32,
                SESSION_MESSAGE_TYPE => self.message_type = value.varint("message type")? as u32,
                SESSION_ID => self.session_id = value.varint("session id")? as u32,
                4 => self.message_id = value.varint("message id")? as u32,
                5 => {
                    let name = self.source.get_or_insert_default();
                    name.merge(Place::SessionSource, value, &mut self.collector)?;
                }
                _ => {
                    let name = self.destination.get_or_insert_default();
                    name.merge(Place::SessionDestination, value, &mut self.collector)?;
                }
            }
        }
        Ok(())
    }

    fn content(&mut self, content: &'a [u8]) -> Result<(), DecodeError> {
        self.collector.content_is_absent = false;
        let mut fields = KnownFields::new(Place::Content, content);
        while let Some((number, value)) = fields.next(&mut self.collector)? {
            match number {
                1 => self.content_type = value.text("content type")?,
                _ => self.blob = value.bytes("blob")?,
            }
        }
        Ok(())
    }

    fn metadata(&mut self, entry: &'a [u8]) -> Result<(), DecodeError> {
        let (mut key, mut value) = ("", "");
        let mut fields = Fields::new("metadata", entry);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => key = field.text("metadata key")?,
                2 => value = field.text("metadata value")?,
                _ => {}
            }
        }
        // Repeated keys count too: each is looked for among all that came before.
        self.metadata_seen += 1;
        if self.metadata_seen > METADATA_ENTRIES + TYPED_KEYS + 1 {
            let (limit, got) = (METADATA_ENTRIES as u64, self.metadata_seen as u64);
            return Err(DecodeError::TooLarge { field: "metadata entries", limit, got });
        }
        if key == IDENTITY {
            self.identity = Some(value);
        } else if let Some(entry) = self.metadata.iter_mut().find(|(known, _)| *known == key) {
            entry.1 = value;
        } else {
            self.metadata.push((key, value));
        }
        Ok(())
    }
}

impl<'a> SessionName<'a> {
    fn merge(
        &mut self,
        place: Place,
        name: Value<'a>,
        collector: &mut Collector,
    ) -> Result<(), DecodeError> {
        let mut fields = KnownFields::new(place, name.bytes("session name")?);
        while let Some((number, value)) = fields.next(collector)? {
            match number {
                1..=3 => {
                    self.components[number as usize - 1] = value.text("session name component")?;
                }
                _ => self.id = value.varint("session name id")?,
            }
        }
        Ok(())
    }
}
