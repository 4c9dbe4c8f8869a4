//! What openmls makes of commits, proposals and data of others.

use openmls::group::ProcessMessageError;
use openmls::prelude::{
    KeyPackageVerifyError, LeafNodeIndex, MlsGroup, ProcessedMessageContent, ProtocolMessage,
    PublicMessageIn, QueuedProposal, Sender, ValidationError,
};

use super::MlsError;
use super::commit::parts;
use super::leaves::lifetime;
use super::state::State;
use super::storage::StorageError;

/// So many proposals may wait for a commit.
const PROPOSALS: usize = 256;

impl State {
    /// What a commit or proposal says. Nothing changes by it.
    pub(super) fn process(
        &mut self,
        field: &'static str,
        message: PublicMessageIn,
    ) -> Result<ProcessedMessageContent, MlsError> {
        let (provider, _, group) = parts(self)?;
        let message = ProtocolMessage::from(message);
        let processed = group.process_message(provider, message);
        Ok(processed.map_err(|error| process_error(field, error))?.into_content())
    }
}

/// Refuses what is for another group or epoch, with words for it.
pub(super) fn is_current(
    field: &'static str,
    message: &PublicMessageIn,
    group: &MlsGroup,
) -> Result<(), MlsError> {
    if message.group_id() != group.group_id() {
        let (expected, got) = ("one for this group", "one for another".into());
        return Err(MlsError::Wrong { field, expected, got });
    }
    if message.epoch() != group.epoch() {
        let got = format!("epoch {} in epoch {}", message.epoch().as_u64(), group.epoch().as_u64());
        return Err(MlsError::Wrong { field, expected: "one for the group's epoch", got });
    }
    Ok(())
}

/// Refuses more proposals than can wait.
pub(super) fn has_room(group: &MlsGroup) -> Result<(), MlsError> {
    if group.pending_proposals().count() >= PROPOSALS {
        let (expected, got) = ("at most 256 that wait", "one more".into());
        return Err(MlsError::Wrong { field: "proposal", expected, got });
    }
    Ok(())
}

pub(super) fn is_of(proposal: &QueuedProposal, member: LeafNodeIndex) -> bool {
    matches!(proposal.sender(), Sender::Member(index) if *index == member)
}

/// Of content that does not fit its type.
pub(super) fn no_such(field: &'static str) -> MlsError {
    let (expected, got) = ("a message of its type", "another".into());
    MlsError::Wrong { field, expected, got }
}

pub(super) fn process_error(
    field: &'static str,
    error: ProcessMessageError<StorageError>,
) -> MlsError {
    match error {
        ProcessMessageError::GroupStateError(_) => MlsError::NotJoined,
        ProcessMessageError::ValidationError(ValidationError::KeyPackageVerifyError(error)) => {
            package_error(error)
        }
        ProcessMessageError::StorageError(error) => MlsError::Internal(error.to_string()),
        error => {
            let expected = "one that is right for the group";
            MlsError::Wrong { field, expected, got: error.to_string() }
        }
    }
}

pub(super) fn package_error(error: KeyPackageVerifyError) -> MlsError {
    const FIELD: &str = "key package";
    if let KeyPackageVerifyError::LifetimeError(error) = error {
        return match lifetime(FIELD, Err(error)) {
            Err(error) => error,
            Ok(()) => no_such(FIELD),
        };
    }
    MlsError::Wrong {
        field: FIELD,
        expected: "one that is signed and valid",
        got: error.to_string(),
    }
}
