use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh64::Xxh64;

use crate::error::NameError;
use crate::limits::NAME_COMPONENT_BYTES;

/// Hash of one name component: XXH64 with seed 0 over the UTF-8 bytes and one byte `0xFF`.
///
/// Unchanged in every published release (dataplane protocol, "Names: hash").
pub fn hash_component(text: &str) -> u64 {
    let mut hasher = Xxh64::new(0);
    hasher.update(text.as_bytes());
    hasher.update(&[0xFF]);
    hasher.digest()
}

/// The hashes of organization, namespace and application (or channel): what routing goes by.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Prefix(pub [u64; 3]);

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [org, namespace, app] = self.0;
        write!(f, "{org:x}/{namespace:x}/{app:x}")
    }
}

/// Which instance of an application: a number of up to 128 bits, or [`Id::ANY`].
///
/// Clients of release 0.6 have 64-bit ids whose all-ones value means "any"; it is
/// [`Id::ANY`] here, and their other ids are the same number.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Id(u128);

impl Id {
    /// Any instance; the documents' "null" id.
    pub const ANY: Self = Self(u128::MAX);

    /// The id with this number; all ones is [`Id::ANY`].
    pub const fn new(id: u128) -> Self {
        Self(id)
    }

    /// The id that a 64-bit dialect writes as `id`.
    pub const fn from_u64(id: u64) -> Self {
        if id == u64::MAX { Self::ANY } else { Self(id as u128) }
    }

    /// The number a 64-bit dialect writes for this id; `None` if it does not fit.
    pub const fn to_u64(self) -> Option<u64> {
        match self.0 {
            u128::MAX => Some(u64::MAX),
            id if id < u64::MAX as u128 => Some(id as u64),
            _ => None,
        }
    }

    /// The number; all ones for [`Id::ANY`].
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// Whether this is [`Id::ANY`].
    pub const fn is_any(self) -> bool {
        self.0 == u128::MAX
    }
}

/// Lower-case hexadecimal without padding, as the documents print ids; [`Id::ANY`] as 16 `f`.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_u64() {
            Some(id) => write!(f, "{id:x}"),
            None => write!(f, "{:x}", self.0),
        }
    }
}

/// A name as messages carry it: three hashes and an id. Equality never looks at texts.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct Name {
    /// Hashes of the three components.
    pub prefix: Prefix,
    /// The instance, or [`Id::ANY`].
    pub id: Id,
}

impl Name {
    /// What a control frame names where there is nobody to name.
    pub const NOBODY: Self = Self { prefix: Prefix([0; 3]), id: Id::ANY };
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.id)
    }
}

/// A name whose texts are known.
///
/// Parses `org/namespace/app` and `org/namespace/app/id` with a decimal id, the form in which
/// applications print their own. Displays as the documents do: hashes, then the texts in
/// parentheses, with control characters escaped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct TextName {
    components: [Box<str>; 3],
    id: Id,
}

const COMPONENTS: [&str; 3] = ["organization", "namespace", "application"];

impl TextName {
    /// A name from its parts, which may be any text (even empty, or with a `/`), as the published
    /// libraries allow.
    ///
    /// # Errors
    /// [`NameError::TooLong`] if a component is longer than 1,024 bytes.
    pub fn new(components: [&str; 3], id: Id) -> Result<Self, NameError> {
        for (text, component) in components.iter().zip(COMPONENTS) {
            if text.len() > NAME_COMPONENT_BYTES {
                return Err(NameError::TooLong {
                    component,
                    limit: NAME_COMPONENT_BYTES,
                    got: text.len(),
                });
            }
        }
        Ok(Self { components: components.map(Box::from), id })
    }

    /// The texts of organization, namespace and application.
    pub fn components(&self) -> [&str; 3] {
        self.components.each_ref().map(|text| &**text)
    }

    /// The instance, or [`Id::ANY`].
    pub fn id(&self) -> Id {
        self.id
    }

    /// The same name as hashes.
    pub fn to_name(&self) -> Name {
        Name { prefix: Prefix(self.components().map(hash_component)), id: self.id }
    }
}

impl ArchivedId {
    /// The id.
    pub fn to_id(&self) -> Id {
        Id(self.0.to_native())
    }
}

impl ArchivedName {
    /// The name.
    pub fn to_name(&self) -> Name {
        Name { prefix: Prefix(self.prefix.0.map(|hash| hash.to_native())), id: self.id.to_id() }
    }
}

impl ArchivedTextName {
    /// The texts of organization, namespace and application.
    pub fn components(&self) -> [&str; 3] {
        self.components.each_ref().map(|text| &**text)
    }

    /// The instance, or [`Id::ANY`].
    pub fn id(&self) -> Id {
        self.id.to_id()
    }
}

impl FromStr for TextName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts: Vec<&str> = text.trim().split('/').map(str::trim).collect();
        let (components, id) = match *parts {
            [org, namespace, app] => ([org, namespace, app], Id::ANY),
            [org, namespace, app, id] => ([org, namespace, app], parse_id(id)?),
            _ => {
                return Err(NameError::Parts { got: text.to_owned() });
            }
        };
        if components.iter().any(|component| component.is_empty()) {
            return Err(NameError::Parts { got: text.to_owned() });
        }
        Self::new(components, id)
    }
}

fn parse_id(text: &str) -> Result<Id, NameError> {
    match text.parse::<u64>() {
        Ok(id) if id != u64::MAX => Ok(Id::from_u64(id)),
        _ => Err(NameError::Id { got: text.to_owned() }),
    }
}

impl fmt::Display for TextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [org, namespace, app] = self.components().map(OneLine);
        write!(f, "{} ({org}/{namespace}/{app}/{})", self.to_name(), self.id)
    }
}

/// A text from a peer with its control characters escaped, so that it can neither start a line
/// in a log nor command a terminal.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(char::is_control) {
            match part.chars().next_back() {
                Some(last) if last.is_control() => {
                    let plain = &part[..part.len() - last.len_utf8()];
                    write!(f, "{plain}{}", last.escape_default())?;
                }
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn component_hashes_are_those_the_documents_print() {
        for (text, hash) in [
            ("agntcy", 0x169c_a82e_b17d_6bc2),
            ("ns", 0xeef9_769a_4c69_90d1),
            ("moderator", 0xfc9b_bc40_6957_794b),
            ("client-1", 0x58ec_40d7_c837_e0b9),
            ("client-2", 0xb521_a378_8f12_67a8),
            ("chat", 0x4abb_3672_36ca_bc2a),
            ("xyIGhc2igNGmkeBDlZ", 0xe8ab_33f6_d611_1780),
            ("default", 0x2193_03c7_c93f_9668),
            ("", 0x9563_4172_a60b_7544),
            ("recv", 0x54d5_c528_a338_4c2c),
            ("send", 0xebef_0096_f0ef_1811),
        ] {
            assert_eq!(hash_component(text), hash, "{text}");
        }
    }

    #[test]
    fn names_render_as_the_tutorials_print_them() {
        let name: TextName = "agntcy/ns/client-1/7652942184816399473".parse().expect("a name");
        assert_eq!(
            name.to_string(),
            "169ca82eb17d6bc2/eef9769a4c6990d1/58ec40d7c837e0b9/6a34b65ebc955471 \
             (agntcy/ns/client-1/6a34b65ebc955471)"
        );
        let any: TextName = "agntcy/ns/chat".parse().expect("a name");
        assert_eq!(
            any.to_string(),
            "169ca82eb17d6bc2/eef9769a4c6990d1/4abb367236cabc2a/ffffffffffffffff \
             (agntcy/ns/chat/ffffffffffffffff)"
        );
    }

    #[test]
    fn a_name_renders_on_one_line_whatever_it_holds() {
        let name = TextName::new(["a\nb", "\u{1b}[31m", "\u{9b}ü\r"], Id::ANY).expect("a name");
        assert!(
            name.to_string().ends_with(r" (a\nb/\u{1b}[31m/\u{9b}ü\r/ffffffffffffffff)"),
            "{name}"
        );
    }

    #[test]
    fn a_text_with_other_than_three_or_four_parts_is_refused_with_the_form_expected() {
        for text in ["", "a/b", "a//c", "a/b/c/1/d", "/b/c"] {
            let error = text.parse::<TextName>().expect_err(text);
            assert!(error.to_string().starts_with("expected \"org/namespace/app\""), "{error}");
        }
        let error = "a/b/c/x".parse::<TextName>().expect_err("not a number");
        assert!(error.to_string().contains("got \"x\""), "{error}");
    }

    #[test]
    fn the_null_id_of_64_bits_is_any_and_wider_ids_do_not_fit() {
        assert_eq!(Id::from_u64(u64::MAX), Id::ANY);
        assert_eq!(Id::ANY.to_u64(), Some(u64::MAX));
        assert_eq!(Id::new(u128::from(u64::MAX)).to_u64(), None);
        assert_eq!(Id::new(1 << 64).to_u64(), None);
    }

    proptest! {
        #[test]
        fn every_64_bit_id_survives_the_way_there_and_back(id: u64) {
            prop_assert_eq!(Id::from_u64(id).to_u64(), Some(id));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,64}") {
            let _ = text.parse::<TextName>();
        }

        #[test]
        fn what_was_parsed_hashes_like_its_parts(
            parts in proptest::array::uniform3("[^/\\s]{1,12}"), id in 0..u64::MAX
        ) {
            let [org, namespace, app] = &parts;
            let name: TextName = format!("{org}/{namespace}/{app}/{id}").parse().expect("a name");
            prop_assert_eq!(name.components(), [org.as_str(), namespace, app]);
            prop_assert_eq!(name.to_name().prefix.0, parts.each_ref().map(|p| hash_component(p)));
            prop_assert_eq!(name.id().to_u64(), Some(id));
        }
    }
}
