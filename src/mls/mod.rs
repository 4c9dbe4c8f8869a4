//! The encrypted group of one session, as one member sees it.
//!
//! Session machines know it as [`Mls`] and hand it the bytes that arrive; how they are made is
//! RFC 9420 with the settings that published apps share.

mod commit;
mod disk;
mod factory;
mod group;
mod leaves;
mod parse;
mod process;
mod state;
mod storage;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use thiserror::Error;

pub use self::factory::Factory;
pub use self::group::{OpenMls, RESERVED, Store};
pub use self::parse::{HANDSHAKE_BYTES, PLAINTEXT_BYTES};
use crate::identity::Principal;
use crate::session::Now;

/// One member's part in a group. The moderator creates it, adds, removes and commits; others join
/// it with a welcome and apply commits in the moderator's order.
///
/// A call that fails has changed nothing, unless it says so.
pub trait Mls: Send {
    /// As moderator: a new group with this member alone.
    ///
    /// # Errors
    /// [`MlsError::NoCredential`].
    fn create(&mut self, now: Now) -> Result<(), MlsError>;

    /// As invited: the package with which a moderator adds this member; the same one until
    /// [`Mls::join`] succeeds.
    ///
    /// # Errors
    /// [`MlsError::NoCredential`].
    fn key_package(&mut self, now: Now) -> Result<Bytes, MlsError>;

    /// As moderator: adds a member. Applied at once.
    ///
    /// # Errors
    /// [`MlsError`]; [`MlsError::NotYetValid`] may succeed later, all others never.
    fn add(&mut self, key_package: &[u8], now: Now) -> Result<Added, MlsError>;

    /// As moderator: removes the member with this credential, and returns the commit. Applied at
    /// once.
    ///
    /// # Errors
    /// [`MlsError::NotMember`].
    fn remove(&mut self, credential: &[u8], now: Now) -> Result<Bytes, MlsError>;

    /// As moderator: renews this member's keys, and those of the member whose proposal was stored
    /// if it may, and returns the commit. Applied at once.
    ///
    /// # Errors
    /// [`MlsError::NotJoined`].
    fn commit(&mut self, now: Now) -> Result<Bytes, MlsError>;

    /// As invited: becomes a member. A welcome that fails once fails always, unless it is
    /// [`MlsError::NotYetValid`].
    ///
    /// # Errors
    /// [`MlsError`], among them [`MlsError::Credential`] of a member that is not acceptable.
    fn join(&mut self, welcome: &[u8], now: Now) -> Result<(), MlsError>;

    /// Applies the moderator's commit. After one that removes this member, [`Mls::is_member`] is
    /// false.
    ///
    /// # Errors
    /// [`MlsError`]; the same bytes may succeed later.
    fn apply(&mut self, commit: &[u8], now: Now) -> Result<(), MlsError>;

    /// Proposes new keys for this member, for the moderator to commit. Until the next commit
    /// [`Mls::encrypt`] fails with [`MlsError::ProposalPending`].
    ///
    /// # Errors
    /// [`MlsError::NotJoined`].
    fn propose(&mut self, now: Now) -> Result<Bytes, MlsError>;

    /// Takes back what [`Mls::propose`] proposed, and what was stored, if the moderator will not
    /// commit it.
    fn withdraw(&mut self);

    /// Keeps another member's proposal until the next commit. Until then [`Mls::encrypt`] fails
    /// with [`MlsError::ProposalPending`]. One that is kept already, be it an echo of this member's
    /// own, changes nothing.
    ///
    /// # Errors
    /// [`MlsError`].
    fn store(&mut self, proposal: &[u8], now: Now) -> Result<(), MlsError>;

    /// Encrypts for the group.
    ///
    /// # Errors
    /// [`MlsError::NotJoined`], [`MlsError::ProposalPending`].
    fn encrypt(&mut self, plaintext: &[u8]) -> Result<Bytes, MlsError>;

    /// Decrypts what a member sent, and tells whose credential it has.
    ///
    /// # Errors
    /// [`MlsError`]; nothing else is harmed.
    fn decrypt(&mut self, ciphertext: &[u8]) -> Result<Opened, MlsError>;

    /// Whether this is a member now.
    fn is_member(&self) -> bool;

    /// The group's epoch, from 0.
    fn epoch(&self) -> u64;

    /// The members' credentials, in the order of their leaves.
    fn members(&self) -> Vec<Bytes>;

    /// The same, with those whom they belong to.
    fn principals(&self, now: Now) -> Vec<(Bytes, Principal)>;
}

/// What comes of adding a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// For the new member.
    pub welcome: Bytes,
    /// For those who were members before.
    pub commit: Bytes,
    /// The new member's credential, by which it is removed.
    pub credential: Bytes,
}

/// A decrypted message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What was encrypted.
    pub plaintext: Bytes,
    /// Credential of the sender.
    pub credential: Bytes,
}

/// Makes the [`Mls`] of each new session of an app.
pub trait MlsFactory: Send {
    /// For a new session with this id.
    ///
    /// # Errors
    /// [`MlsError::Internal`] if it cannot be stored where it should.
    fn session(&mut self, id: u32) -> Result<Box<dyn Mls>, MlsError>;

    /// For the session with this id that was stored.
    ///
    /// # Errors
    /// [`MlsError::Internal`] if nothing was, or what is stored cannot be used.
    fn reopen(&mut self, id: u32) -> Result<Box<dyn Mls>, MlsError> {
        Err(MlsError::Internal(format!("nothing is stored of session {id}")))
    }

    /// Nothing of the session with this id is needed any more.
    fn forget(&mut self, id: u32) {
        let _ = id;
    }
}

/// What an MLS operation failed on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MlsError {
    /// Bytes that are not what they should be.
    #[error("{field}: expected {expected}, got {got}")]
    Wrong {
        /// Which message, or which part.
        field: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// What is the case.
        got: String,
    },
    /// A clock of another machine is ahead: it will be valid later.
    #[error("{field} is not valid yet: the clocks differ")]
    NotYetValid {
        /// Which message.
        field: &'static str,
    },
    /// A member's credential is not acceptable.
    #[error("credential: {0}")]
    Credential(#[from] crate::identity::IdentityError),
    /// A member with the same credential is in the group.
    #[error("a member with the same credential is in the group")]
    Duplicate,
    /// Nobody with this credential is in the group.
    #[error("no member with this credential is in the group")]
    NotMember,
    /// This app is not, or no longer, a member.
    #[error("not a member of the group")]
    NotJoined,
    /// A proposal waits for the moderator's commit.
    #[error("a proposal waits for its commit")]
    ProposalPending,
    /// This app has no credential.
    #[error("no credential: {0}")]
    NoCredential(crate::identity::IdentityError),
    /// What is stored cannot be read or written, or a defect.
    #[error("{0}")]
    Internal(String),
}
