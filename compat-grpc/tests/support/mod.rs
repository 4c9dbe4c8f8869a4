//! A message of release 0.6 as a tree of fields, in which two messages are equal exactly if no
//! reader can tell them apart, unknown fields included. Reads with nothing but prost's
//! primitives, so that it shares no code with what it checks.

use std::collections::BTreeMap;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// What a known field holds.
enum Type {
    /// A number of so many bits; 0 is the same as absent.
    Number(u32),
    /// A `bool` that can be absent.
    OptionalBool,
    /// Text or bytes; empty is the same as absent.
    Bytes,
    Message(&'static [(u32, Type)]),
    /// An entry of a map of texts.
    Entry,
    /// What nodes drop.
    Dropped,
}

static NAME: [(u32, Type); 4] =
    [(1, Type::Number(64)), (2, Type::Number(64)), (3, Type::Number(64)), (4, Type::Number(64))];
static HEADER: [(u32, Type); 7] = [
    (1, Type::Message(&NAME)),
    (2, Type::Message(&NAME)),
    (3, Type::Number(32)),
    (4, Type::Dropped),
    (5, Type::Dropped),
    (6, Type::Dropped),
    (7, Type::OptionalBool),
];
static ORIGINAL_NAME: [(u32, Type); 4] =
    [(1, Type::Bytes), (2, Type::Bytes), (3, Type::Bytes), (4, Type::Number(64))];
static SESSION: [(u32, Type); 6] = [
    (1, Type::Number(32)),
    (2, Type::Number(32)),
    (3, Type::Number(32)),
    (4, Type::Number(32)),
    (5, Type::Message(&ORIGINAL_NAME)),
    (6, Type::Message(&ORIGINAL_NAME)),
];
static CONTENT: [(u32, Type); 2] = [(1, Type::Bytes), (2, Type::Bytes)];
static PUBLISH: [(u32, Type); 3] =
    [(1, Type::Message(&HEADER)), (2, Type::Message(&SESSION)), (3, Type::Message(&CONTENT))];
static MESSAGE: [(u32, Type); 2] = [(3, Type::Message(&PUBLISH)), (4, Type::Entry)];
static ENTRY: [(u32, Type); 2] = [(1, Type::Bytes), (2, Type::Bytes)];

/// The fields of a message; of one that occurs again, what readers make of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    numbers: BTreeMap<u32, u64>,
    bytes: BTreeMap<u32, Vec<u8>>,
    messages: BTreeMap<u32, Tree>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The unknown fields as they are on the wire.
    unknown: Vec<u8>,
}

/// The tree of a publish that can be decoded.
pub(crate) fn canonical(message: &[u8]) -> Tree {
    let mut tree = Tree::default();
    tree.merge(message, &MESSAGE);
    tree
}

impl Tree {
    fn merge(&mut self, message: &[u8], schema: &'static [(u32, Type)]) {
        let mut rest = message;
        while !rest.is_empty() {
            let field = rest;
            let (number, wire_type) = decode_key(&mut rest).expect("a key");
            let value = rest;
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).expect("a field");
            let field = &field[..field.len() - rest.len()];
            let value = &value[..value.len() - rest.len()];
            match schema.iter().find(|(known, _)| *known == number) {
                Some((_, known)) => self.set(number, known, Field { wire_type, value }),
                None => self.unknown.extend_from_slice(field),
            }
        }
    }

    fn set(&mut self, number: u32, known: &Type, field: Field<'_>) {
        match known {
            Type::Number(bits) => {
                let value = field.varint() & (u64::MAX >> (64 - bits));
                self.numbers.insert(number, value);
                self.numbers.retain(|_, value| *value != 0);
            }
            Type::OptionalBool => {
                // Above all numbers of 0 and 1, so that a false one is not taken for absent.
                self.bytes.insert(number, vec![u8::from(field.varint() != 0)]);
            }
            Type::Bytes => {
                self.bytes.insert(number, field.bytes().to_vec());
                self.bytes.retain(|_, bytes| !bytes.is_empty());
            }
            Type::Message(schema) => {
                self.messages.entry(number).or_default().merge(field.bytes(), schema);
            }
            Type::Entry => {
                let mut entry = Self::default();
                entry.merge(field.bytes(), &ENTRY);
                let [key, value] = [1, 2].map(|part| entry.bytes.remove(&part).unwrap_or_default());
                self.entries.insert(key, value);
            }
            Type::Dropped => {}
        }
    }
}

struct Field<'a> {
    wire_type: WireType,
    value: &'a [u8],
}

impl<'a> Field<'a> {
    fn varint(&self) -> u64 {
        assert_eq!(self.wire_type, WireType::Varint);
        decode_varint(&mut &*self.value).expect("a varint")
    }

    fn bytes(&self) -> &'a [u8] {
        assert_eq!(self.wire_type, WireType::LengthDelimited);
        let mut value = self.value;
        decode_varint(&mut value).expect("a length");
        value
    }
}
