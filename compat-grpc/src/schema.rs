//! Checks a whole message against its published schema, in place.
//!
//! A receiver that fails to decode one message drops its stream with all subscriptions. So a
//! message that its generated decoder would refuse must not be forwarded: otherwise one client
//! could cut off others.

use slim_wire::DecodeError;

use crate::scan::{Fields, Value};

/// What a field holds.
pub(crate) enum Type {
    Varint,
    Text,
    Bytes,
    Message(&'static Schema),
}

/// The known fields of a message: number, name, type. Others are skipped, as decoders do.
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [(u32, &'static str, Type)],
}

impl Schema {
    /// Whether a generated decoder accepts `bytes`. Depth is bounded by the schema, which has no
    /// cycles; payload bytes are not looked at.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut fields = Fields::new(self.name, bytes);
        while let Some((number, value)) = fields.next()? {
            self.check_field(number, value)?;
        }
        Ok(())
    }

    /// Whether a generated decoder accepts this field.
    pub(crate) fn check_field(&self, number: u32, value: Value<'_>) -> Result<(), DecodeError> {
        let known = self.fields.iter().find(|(known, ..)| *known == number);
        match known {
            Some((_, field, Type::Varint)) => value.varint(field).map(drop),
            Some((_, field, Type::Text)) => value.text(field).map(drop),
            Some((_, field, Type::Bytes)) => value.bytes(field).map(drop),
            Some((_, field, Type::Message(schema))) => schema.check(value.bytes(field)?),
            None => Ok(()),
        }
    }
}

/// An entry of `map<string, string>`.
pub(crate) static METADATA: Schema = Schema {
    name: "metadata",
    fields: &[(1, "metadata key", Type::Text), (2, "metadata value", Type::Text)],
};
