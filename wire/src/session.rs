//! The session part of a native publish: what endpoints tell each other beside the payload.
//!
//! It is an rkyv archive, read in place by [`access`]: little endian, at any alignment, with
//! 32-bit relative pointers, the root at its end. A node passes it on unread. Session id and
//! message id are in the frame's header. All that may be large is the frame's payload: what an
//! app sends, and the bytes of MLS.

use bytes::Bytes;
use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};

use crate::envelope::Header;
use crate::error::DecodeError;
use crate::frame::{FrameHeader, FrameKind, SessionIds};
use crate::limits::{
    HEADER_BYTES, METADATA_ENTRIES, NAME_COMPONENT_BYTES, ROSTER_MEMBERS, SESSION_PART_BYTES,
};
use crate::name::TextName;

mod archived;
mod content;

pub use content::{ArchivedContent, ArchivedDelivery, ArchivedFullName, ArchivedRosterMember};
pub use content::{Content, Delivery, FullName, RosterMember};

pub use crate::name::{ArchivedId, ArchivedName, ArchivedPrefix, ArchivedTextName};

/// The session part of a message, for building one; [`ArchivedSession`] is the same in place.
///
/// Texts have no limit of their own but that of the whole part,
/// [`SESSION_PART_BYTES`]; components of names have [`NAME_COMPONENT_BYTES`], and there are at
/// most [`METADATA_ENTRIES`] entries of metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub struct Session {
    /// Which kind of session the message belongs to.
    pub kind: SessionKind,
    /// What the message is.
    pub content: Content,
    /// Whether the payload is a private message of the session's MLS group. Only for data,
    /// acknowledgements, retransmissions and beacons.
    pub encrypted: bool,
    /// Who sent it, in full: the header has only hashes.
    pub source: Option<TextName>,
    /// Whom it is for, in full, if the sender knows.
    pub destination: Option<TextName>,
    /// The sender's token.
    pub identity: Option<String>,
    /// What the app says the payload is.
    pub content_type: String,
    /// Keys and values that the app chose, each key once: of the message, or with a join request
    /// of the session.
    pub metadata: Vec<(String, String)>,
    /// What a gateway keeps of a foreign message for its way back. Endpoints leave it empty and
    /// ignore it.
    pub remainder: Vec<u8>,
}

/// The kind of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug))]
pub enum SessionKind {
    /// Not said; published moderators say it so when they remove a member.
    #[default]
    Unspecified,
    /// Two members.
    PointToPoint,
    /// A channel with a moderator.
    Group,
    /// A number above 2, which no published release uses.
    Other(u32),
}

const _: () = assert!(align_of::<ArchivedSession>() == 1);
const _: () = assert!(size_of::<ArchivedSession>() == ROOT_BYTES);

/// Length of the archive without texts, names and metadata.
const ROOT_BYTES: usize = 132;

/// Reads a session part in place.
///
/// # Errors
/// [`DecodeError`] if it is not a whole archive, or exceeds a limit.
pub fn access(part: &[u8]) -> Result<&ArchivedSession, DecodeError> {
    within_part(part.len())?;
    let session = rkyv::access::<ArchivedSession, Failure>(part)
        .map_err(|Failure| not_an_archive(part.len()))?;
    session.check()?;
    Ok(session)
}

/// A whole publish with this session part, in one piece of memory. `header` is without effect
/// on the frame's kind and encoding, which are those of a native publish.
///
/// # Errors
/// [`DecodeError`] as [`access`] and [`FrameHeader::new`].
pub fn publish(
    header: &Header,
    ids: SessionIds,
    session: &Session,
    payload: &[u8],
) -> Result<Bytes, DecodeError> {
    let header = Header { encoding: crate::Encoding::Native, ..*header };
    let mut frame = Vec::with_capacity(HEADER_BYTES + session.estimate() + payload.len());
    frame.resize(HEADER_BYTES, 0);
    session.encode_into(&mut frame)?;
    let length = frame.len() - HEADER_BYTES;
    let head = FrameHeader::new(FrameKind::Publish, &header, ids, length, payload.len())?;
    frame[..HEADER_BYTES].copy_from_slice(head.as_bytes());
    frame.extend_from_slice(payload);
    Ok(frame.into())
}

impl Session {
    /// The session part as it travels.
    ///
    /// # Errors
    /// [`DecodeError`] where [`access`] would refuse it.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut part = Vec::with_capacity(self.estimate());
        self.encode_into(&mut part)?;
        Ok(part)
    }

    /// Appends the archive, whose pointers are relative, so that it may start anywhere.
    fn encode_into(&self, bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.check()?;
        // Before anything is written: the texts alone may be too long.
        within_part(self.text_bytes())?;
        let start = bytes.len();
        let archive = rkyv::api::high::to_bytes_in::<_, Failure>(self, std::mem::take(bytes));
        *bytes = archive.map_err(|Failure| DecodeError::TooLarge {
            field: "session part",
            limit: SESSION_PART_BYTES as u64,
            got: self.text_bytes() as u64,
        })?;
        within_part(bytes.len() - start)
    }

    /// An upper estimate of the archive's length, exact up to names inside the content.
    fn estimate(&self) -> usize {
        const NAMES_BYTES: usize = 256;
        let members = size_of_val(self.content.members());
        ROOT_BYTES + self.text_bytes() + self.metadata.len() * 16 + NAMES_BYTES + members
    }

    fn text_bytes(&self) -> usize {
        let metadata = self.metadata.iter().map(|(key, value)| key.len() + value.len());
        let names = self.names().flatten().map(str::len);
        self.identity.as_ref().map_or(0, String::len)
            + self.content_type.len()
            + self.remainder.len()
            + metadata.sum::<usize>()
            + names.sum::<usize>()
            + self.content.members().iter().map(|member| member.identity.len()).sum::<usize>()
    }

    /// The texts of all names.
    fn names(&self) -> impl Iterator<Item = [&str; 3]> {
        let named = self.content.names().filter_map(FullName::texts);
        let ends = [&self.source, &self.destination].into_iter().flatten();
        ends.map(TextName::components).chain(named)
    }

    fn check(&self) -> Result<(), DecodeError> {
        check_kind(self.kind)?;
        check_encrypted(self.encrypted && !self.content.may_be_encrypted())?;
        let identities = self.content.members().iter().map(|member| member.identity.len());
        check_members(identities)?;
        self.names().try_for_each(check_name)?;
        let keys = self.metadata.iter().map(|(key, _)| key.as_str());
        check_keys(keys, self.metadata.len())
    }
}

/// `got` is its length in bytes.
fn not_an_archive(got: usize) -> DecodeError {
    let (field, expected) = ("session part", "a whole archive of the native protocol");
    DecodeError::Unexpected { field, expected, got: got as u64 }
}

fn within_part(length: usize) -> Result<(), DecodeError> {
    within("session part", length, SESSION_PART_BYTES)
}

fn within(field: &'static str, got: usize, limit: usize) -> Result<(), DecodeError> {
    if got > limit {
        return Err(DecodeError::TooLarge { field, limit: limit as u64, got: got as u64 });
    }
    Ok(())
}

fn check_kind(kind: SessionKind) -> Result<(), DecodeError> {
    match kind {
        SessionKind::Other(got @ 0..=2) => Err(DecodeError::Unexpected {
            field: "other session kind",
            expected: "a number above 2",
            got: got.into(),
        }),
        _ => Ok(()),
    }
}

fn check_encrypted(misplaced: bool) -> Result<(), DecodeError> {
    if misplaced {
        let (field, expected) = ("encrypted", "0 for control content");
        return Err(DecodeError::Unexpected { field, expected, got: 1 });
    }
    Ok(())
}

/// By the lengths of their identities.
fn check_members(mut identities: impl ExactSizeIterator<Item = usize>) -> Result<(), DecodeError> {
    within("members of a roster", identities.len(), ROSTER_MEMBERS)?;
    identities.try_for_each(|length| within("member identity", length, NAME_COMPONENT_BYTES))
}

fn check_name(components: [&str; 3]) -> Result<(), DecodeError> {
    components
        .into_iter()
        .try_for_each(|text| within("name component", text.len(), NAME_COMPONENT_BYTES))
}

/// Receivers of other encodings keep metadata in a map, and must not see another value of a key
/// than native ones.
fn check_keys<'a>(
    keys: impl Iterator<Item = &'a str> + Clone,
    count: usize,
) -> Result<(), DecodeError> {
    within("metadata entries", count, METADATA_ENTRIES)?;
    let mut rest = keys;
    while let Some(key) = rest.next() {
        if rest.clone().any(|other| other == key) {
            let (field, expected) = ("metadata key", "each key once");
            return Err(DecodeError::Unexpected { field, expected, got: 2 });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
