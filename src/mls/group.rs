use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use openmls::prelude::{
    ContentType, CreateMessageError, LeafNodeParameters, MlsGroup, MlsGroupStateError,
    ProcessedMessageContent, ProtocolVersion, Sender,
};
use openmls_traits::OpenMlsProvider;

use super::commit::{add, merge, parts, remove, renew};
use super::disk::Disk;
use super::leaves::{Judge, is_update};
use super::process::{has_room, is_current, is_of, no_such, package_error, process_error};
use super::state::{Membership, State, bytes_of, internal};
use super::{Added, Mls, MlsError, Opened, PLAINTEXT_BYTES, parse};
use crate::identity::{Identity, Principal, Standing};
use crate::session::Now;

/// So many messages are encrypted between two writes of a stored state. After a restart as many
/// keys are skipped, for they may have been used.
pub const RESERVED: u32 = 256;

/// Where a member's state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In memory only.
    Memory,
    /// In this folder, which is the member's own: it is made if there is none, and locked while
    /// the member is open. It holds secret keys, and only the user may read it. A copy of it must
    /// never be used beside it, nor later than it: both would use the same keys.
    File(PathBuf),
}

/// [`Mls`] by openmls, with the settings of published apps: cipher suite 1, a token as basic
/// credential, commits and proposals signed but not encrypted, the tree in the welcome, data of
/// the last three epochs, and at most 1,024 skipped messages per sender.
///
/// The moderator is who signed the welcome: of a group that an app has made, its leaf 0. Commits
/// of others are refused, and so are external ones, pre-shared keys, and whatever published apps
/// never propose.
///
/// Keys and nonces come from the system's randomness. openmls judges how long key packages are
/// valid by the system's clock, beside which they are judged by the one that is passed in.
///
/// # Stored state
/// With [`Store::File`], whatever changes the group is on disk before its call returns, and each
/// key is used once, also if the process is killed. Messages that were decrypted since the last
/// write can be decrypted once more after a restart.
pub struct OpenMls {
    identity: Identity,
    state: State,
    disk: Option<Disk>,
    /// How many more messages the stored state allows for.
    left: u32,
}

impl OpenMls {
    /// A member of no group yet, in memory.
    pub fn new(identity: Identity) -> Self {
        Self { identity, state: State::default(), disk: None, left: 0 }
    }

    /// The member that is stored, or a new one if there is none.
    ///
    /// # Errors
    /// [`MlsError::Internal`] if the folder cannot be used, or is in use, or what it holds is not
    /// of this version, cut or damaged.
    pub fn open(identity: Identity, store: Store) -> Result<Self, MlsError> {
        let mut member = Self::new(identity);
        if let Store::File(folder) = store {
            let disk = Disk::open(&folder)?;
            if let Some(stored) = disk.read()? {
                member.state = State::from_records(stored.records)?;
                member.skip(stored.reserved)?;
            }
            member.disk = Some(disk);
        }
        Ok(member)
    }

    /// Writes the state as it is, so that nothing is skipped after a restart. Does nothing in
    /// memory.
    ///
    /// # Errors
    /// [`MlsError::Internal`] if it cannot be written.
    pub fn save(&mut self) -> Result<(), MlsError> {
        self.write(0)
    }

    /// By which members see that they share the epoch's keys; no secret. None before a group is
    /// created or joined.
    pub fn epoch_authenticator(&self) -> Option<Bytes> {
        let authenticator = self.group()?.epoch_authenticator();
        Some(Bytes::copy_from_slice(authenticator.as_slice()))
    }

    /// The group's id. None before a group is created or joined.
    pub fn group_id(&self) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(self.group()?.group_id().as_slice()))
    }

    #[cfg(test)]
    pub(super) fn with_state(identity: Identity, state: State) -> Self {
        Self { identity, state, disk: None, left: 0 }
    }

    #[cfg(test)]
    pub(super) fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    fn group(&self) -> Option<&MlsGroup> {
        Some(&self.state.membership.as_ref()?.group)
    }

    fn judge(&self, now: Now) -> Judge<'_> {
        Judge { check: &*self.identity.check, wall: now.wall }
    }

    fn membership(&self) -> Result<&Membership, MlsError> {
        let membership = self.state.membership.as_ref();
        membership.filter(|membership| membership.group.is_active()).ok_or(MlsError::NotJoined)
    }

    fn moderated(&self) -> Result<&Membership, MlsError> {
        let membership = self.membership()?;
        if !membership.moderates() {
            let (field, expected) = ("member", "the moderator");
            return Err(MlsError::Wrong { field, expected, got: "a participant".into() });
        }
        Ok(membership)
    }

    /// Moves the sender's ratchet on by messages that are never sent.
    fn skip(&mut self, messages: u32) -> Result<(), MlsError> {
        if self.membership().is_err() {
            return Ok(());
        }
        let State { provider, signer, membership, .. } = &mut self.state;
        let (Some(signer), Some(membership)) = (signer.as_deref(), membership) else {
            return Ok(());
        };
        for _ in 0..messages {
            membership.group.create_message(provider, signer, b"").map_err(internal)?;
        }
        Ok(())
    }

    fn write(&mut self, reserved: u32) -> Result<(), MlsError> {
        if let Some(disk) = &self.disk {
            disk.replace(&self.state.record_all()?, reserved)?;
            self.left = reserved;
        }
        Ok(())
    }

    /// Writes the state with the messages to come. There are none while a proposal waits, nor can
    /// any be skipped then.
    fn record(&mut self) -> Result<(), MlsError> {
        let waits = self.group().is_some_and(MlsGroup::has_pending_proposals);
        self.write(if waits { 0 } else { RESERVED })
    }

    /// Takes a step that changes the state, and has it on disk before anybody hears of it. If
    /// that fails, all is as before.
    fn change<T>(
        &mut self,
        step: impl FnOnce(&mut State) -> Result<T, MlsError>,
    ) -> Result<T, MlsError> {
        if self.disk.is_none() {
            return step(&mut self.state);
        }
        let before = self.state.record_all()?;
        let done = step(&mut self.state).and_then(|done| self.record().map(|()| done));
        if done.is_err() {
            self.state = State::from_records(before)?;
        }
        done
    }
}

impl Mls for OpenMls {
    fn create(&mut self, now: Now) -> Result<(), MlsError> {
        if self.is_member() {
            let (field, expected) = ("group", "none yet");
            return Err(MlsError::Wrong { field, expected, got: "a member of one".into() });
        }
        let source = self.identity.source.clone();
        self.change(|state| state.create(&*source, now.wall))
    }

    fn key_package(&mut self, now: Now) -> Result<Bytes, MlsError> {
        if let Some(package) = &self.state.package {
            return Ok(package.clone());
        }
        let source = self.identity.source.clone();
        self.change(|state| state.make_package(&*source, now.wall))
    }

    fn add(&mut self, key_package: &[u8], now: Now) -> Result<Added, MlsError> {
        let group = &self.moderated()?.group;
        let package = parse::key_package(key_package)?
            .validate(self.state.provider.crypto(), ProtocolVersion::Mls10)
            .map_err(package_error)?;
        self.judge(now).package(&package, group)?;
        let credential = package.leaf_node().credential().serialized_content();
        let credential = Bytes::copy_from_slice(credential);
        self.change(|state| add(state, package, credential))
    }

    fn remove(&mut self, credential: &[u8], now: Now) -> Result<Bytes, MlsError> {
        let _ = now;
        let membership = self.moderated()?;
        let mut members = membership.group.members();
        let member = members.find(|member| member.credential.serialized_content() == credential);
        let index = member.ok_or(MlsError::NotMember)?.index;
        if index == membership.moderator {
            let (field, expected) = ("member to remove", "another than the moderator");
            return Err(MlsError::Wrong { field, expected, got: "the moderator".into() });
        }
        drop(members);
        self.change(|state| remove(state, index))
    }

    fn commit(&mut self, now: Now) -> Result<Bytes, MlsError> {
        let group = &self.moderated()?.group;
        let judge = self.judge(now);
        let acceptable = group.pending_proposals().filter(|proposal| {
            is_of(proposal, group.own_leaf_index()) || judge.proposal(group, proposal).is_ok()
        });
        let acceptable: Vec<_> =
            acceptable.map(|proposal| proposal.proposal_reference_ref().clone()).collect();
        self.change(|state| {
            renew(state, |proposal| acceptable.contains(proposal.proposal_reference_ref()))
        })
    }

    fn join(&mut self, welcome: &[u8], now: Now) -> Result<(), MlsError> {
        let joined = self.state.joined(parse::welcome(welcome)?, self.judge(now))?;
        self.change(|state| {
            *state = joined;
            Ok(())
        })
    }

    fn apply(&mut self, commit: &[u8], now: Now) -> Result<(), MlsError> {
        const FIELD: &str = "commit";
        let membership = self.membership()?;
        if membership.moderates() {
            let expected = "this member to be a participant";
            return Err(MlsError::Wrong { field: FIELD, expected, got: "the moderator".into() });
        }
        let moderator = membership.moderator;
        let message = parse::handshake(FIELD, ContentType::Commit, commit)?;
        is_current(FIELD, &message, &membership.group)?;
        if *message.sender() != Sender::Member(moderator) {
            let got = format!("{:?}", message.sender());
            return Err(MlsError::Wrong { field: FIELD, expected: "the moderator's", got });
        }
        let staged = match self.state.process(FIELD, message)? {
            ProcessedMessageContent::StagedCommitMessage(staged) => *staged,
            _ => return Err(no_such(FIELD)),
        };
        self.judge(now).commit(&self.membership()?.group, moderator, &staged)?;
        self.change(|state| merge(state, staged))
    }

    fn propose(&mut self, now: Now) -> Result<Bytes, MlsError> {
        let _ = now;
        has_room(&self.membership()?.group)?;
        self.change(|state| {
            let (provider, signer, group) = parts(state)?;
            let parameters = LeafNodeParameters::default();
            let proposed = group.propose_self_update(provider, signer, parameters);
            bytes_of(&proposed.map_err(internal)?.0)
        })
    }

    fn withdraw(&mut self) {
        // What cannot be stored now is stored with the next change.
        let _ = self.change(|state| {
            let (provider, _, group) = parts(state)?;
            group.clear_pending_proposals(provider.storage()).map_err(internal)?;
            provider.storage().forget_proposed_keys();
            Ok(())
        });
    }

    fn store(&mut self, proposal: &[u8], now: Now) -> Result<(), MlsError> {
        const FIELD: &str = "proposal";
        let _ = now;
        let membership = self.membership()?;
        let message = parse::handshake(FIELD, ContentType::Proposal, proposal)?;
        is_current(FIELD, &message, &membership.group)?;
        let content = self.state.process(FIELD, message)?;
        let ProcessedMessageContent::ProposalMessage(proposal) = content else {
            return Err(no_such(FIELD));
        };
        let group = &self.membership()?.group;
        let reference = proposal.proposal_reference_ref();
        if group.pending_proposals().any(|other| other.proposal_reference_ref() == reference) {
            return Ok(());
        }
        is_update(&proposal)?;
        if is_of(&proposal, group.own_leaf_index()) {
            let (expected, got) = ("another member's", "an old one of this member".into());
            return Err(MlsError::Wrong { field: FIELD, expected, got });
        }
        has_room(group)?;
        self.change(|state| {
            let (provider, _, group) = parts(state)?;
            group.store_pending_proposal(provider.storage(), *proposal).map_err(internal)
        })
    }

    fn encrypt(&mut self, plaintext: &[u8]) -> Result<Bytes, MlsError> {
        let group = &self.membership()?.group;
        parse::within("plaintext", plaintext.len(), PLAINTEXT_BYTES, "at most 16 MiB less 4 KiB")?;
        if group.has_pending_proposals() {
            return Err(MlsError::ProposalPending);
        }
        if self.disk.is_some() && self.left == 0 {
            self.record()?;
        }
        self.left = self.left.saturating_sub(1);
        let (provider, signer, group) = parts(&mut self.state)?;
        let message =
            group.create_message(provider, signer, plaintext).map_err(|error| match error {
                CreateMessageError::GroupStateError(MlsGroupStateError::PendingProposal) => {
                    MlsError::ProposalPending
                }
                error => internal(error),
            })?;
        bytes_of(&message)
    }

    fn decrypt(&mut self, ciphertext: &[u8]) -> Result<Opened, MlsError> {
        const FIELD: &str = "ciphertext";
        self.membership()?;
        let message = parse::application(ciphertext)?;
        let (provider, _, group) = parts(&mut self.state)?;
        let opened =
            group.process_message(provider, message).map_err(|e| process_error(FIELD, e))?;
        let credential = Bytes::copy_from_slice(opened.credential().serialized_content());
        match opened.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => {
                Ok(Opened { plaintext: message.into_bytes().into(), credential })
            }
            ProcessedMessageContent::OwnPrivateMessage => {
                let (expected, got) = ("another member's", "one of this member".into());
                Err(MlsError::Wrong { field: FIELD, expected, got })
            }
            _ => Err(no_such(FIELD)),
        }
    }

    fn is_member(&self) -> bool {
        self.membership().is_ok()
    }

    fn epoch(&self) -> u64 {
        self.group().map_or(0, |group| group.epoch().as_u64())
    }

    fn members(&self) -> Vec<Bytes> {
        let members = self.group().into_iter().flat_map(MlsGroup::members);
        members
            .map(|member| Bytes::copy_from_slice(member.credential.serialized_content()))
            .collect()
    }

    fn principals(&self, now: Now) -> Vec<(Bytes, Principal)> {
        let judge = self.judge(now);
        let members = self.group().into_iter().flat_map(MlsGroup::members);
        members
            .filter_map(|member| {
                let (credential, key) = (&member.credential, &member.signature_key);
                let who = judge.credential(credential, key, Standing::Admitted).ok()?;
                Some((Bytes::copy_from_slice(credential.serialized_content()), who))
            })
            .collect()
    }
}

impl fmt::Debug for OpenMls {
    /// Without keys and credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenMls")
            .field("member", &self.is_member())
            .field("epoch", &self.epoch())
            .field("stored", &self.disk.is_some())
            .finish_non_exhaustive()
    }
}
