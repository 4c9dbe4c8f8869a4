//! Whether a leaf may be in the group, or take the place of another.

use std::collections::BTreeSet;
use std::time::SystemTime;

use openmls::prelude::{
    BasicCredential, Credential, KeyPackage, LeafNode, LeafNodeIndex, MlsGroup, Proposal,
    QueuedProposal, Sender, StagedCommit,
};
use openmls::treesync::errors::LifetimeError;

use super::MlsError;
use super::state::SUITE;
use crate::identity::{Principal, Standing, TokenCheck};

/// Judges leaves at a time.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) check: &'a dyn TokenCheck,
    pub(super) wall: SystemTime,
}

impl Judge<'_> {
    /// Judges a credential beside a signature key.
    pub(super) fn credential(
        self,
        credential: &Credential,
        key: &[u8],
        standing: Standing,
    ) -> Result<Principal, MlsError> {
        let wrong = |got: String| MlsError::Wrong {
            field: "credential",
            expected: "a basic credential with the text of a token",
            got,
        };
        BasicCredential::try_from(credential.clone())
            .map_err(|_| wrong(format!("{:?}", credential.credential_type())))?;
        let token = std::str::from_utf8(credential.serialized_content())
            .map_err(|_| wrong("bytes that are no UTF-8".into()))?;
        Ok(self.check.check_credential(token, key, standing, self.wall)?)
    }

    /// Judges a key package beside the members of a group.
    pub(super) fn package(self, package: &KeyPackage, group: &MlsGroup) -> Result<(), MlsError> {
        let leaf = package.leaf_node();
        if package.ciphersuite() != SUITE {
            return Err(MlsError::Wrong {
                field: "key package",
                expected: "cipher suite 1",
                got: format!("{}", u16::from(package.ciphersuite())),
            });
        }
        lifetime("key package", package.life_time().validate_with_time(self.wall))?;
        for member in group.members() {
            if &member.credential == leaf.credential() {
                return Err(MlsError::Duplicate);
            }
            if member.signature_key == leaf.signature_key().as_slice() {
                return Err(MlsError::Wrong {
                    field: "key package",
                    expected: "a signature key of its own",
                    got: "that of a member".into(),
                });
            }
        }
        self.credential(leaf.credential(), leaf.signature_key().as_slice(), Standing::New)?;
        Ok(())
    }

    /// Judges a leaf that takes the place of the one at `index`. The credential must be the same
    /// to the byte. If the signature key is too, then nothing new is claimed, and the token's age
    /// is not judged: else nobody could renew their keys once their token has become old.
    pub(super) fn successor(
        self,
        group: &MlsGroup,
        index: LeafNodeIndex,
        leaf: &LeafNode,
    ) -> Result<(), MlsError> {
        let Some(member) = group.member_at(index) else {
            return Err(MlsError::NotMember);
        };
        if &member.credential != leaf.credential() {
            return Err(MlsError::Wrong {
                field: "updated leaf",
                expected: "the member's credential as it was",
                got: "another".into(),
            });
        }
        let key = leaf.signature_key().as_slice();
        let same = member.signature_key == key;
        let standing = if same { Standing::Admitted } else { Standing::New };
        self.credential(leaf.credential(), key, standing)?;
        Ok(())
    }

    /// Judges a member's proposal to renew its keys.
    pub(super) fn proposal(
        self,
        group: &MlsGroup,
        proposal: &QueuedProposal,
    ) -> Result<(), MlsError> {
        match (proposal.proposal(), proposal.sender()) {
            (Proposal::Update(update), Sender::Member(index)) => {
                self.successor(group, *index, update.leaf_node())
            }
            _ => Err(unexpected(proposal)),
        }
    }

    /// Judges what the moderator commits.
    pub(super) fn commit(
        self,
        group: &MlsGroup,
        moderator: LeafNodeIndex,
        commit: &StagedCommit,
    ) -> Result<(), MlsError> {
        if commit.group_context().extensions().iter().next().is_some() {
            return Err(extensions());
        }
        let mut added = BTreeSet::new();
        for queued in commit.queued_proposals() {
            match queued.proposal() {
                Proposal::Add(add) if from(queued, moderator) => {
                    self.package(add.key_package(), group)?;
                    if !added
                        .insert(add.key_package().leaf_node().credential().serialized_content())
                    {
                        return Err(MlsError::Duplicate);
                    }
                }
                Proposal::Remove(_) if from(queued, moderator) => {}
                _ => self.proposal(group, queued)?,
            }
        }
        match commit.update_path_leaf_node() {
            Some(leaf) => self.successor(group, moderator, leaf),
            None => Ok(()),
        }
    }
}

/// Every credential is of one member only: by it members are told apart.
pub(super) fn are_unique<'a>(
    credentials: impl Iterator<Item = &'a Credential>,
) -> Result<(), MlsError> {
    let mut seen = BTreeSet::new();
    for credential in credentials {
        if !seen.insert(credential.serialized_content().to_vec()) {
            return Err(MlsError::Duplicate);
        }
    }
    Ok(())
}

pub(super) fn lifetime(
    field: &'static str,
    valid: Result<(), LifetimeError>,
) -> Result<(), MlsError> {
    match valid {
        Ok(()) => Ok(()),
        Err(LifetimeError::NotValidYet { .. }) => Err(MlsError::NotYetValid { field }),
        Err(error) => Err(MlsError::Wrong {
            field,
            expected: "one that is valid now",
            got: error.to_string(),
        }),
    }
}

/// Apps have none in their groups.
pub(super) fn extensions() -> MlsError {
    MlsError::Wrong { field: "group context", expected: "no extensions", got: "some".into() }
}

/// Apps propose to update their own leaf, and nothing else; adds and removals are part of the
/// moderator's commits.
pub(super) fn is_update(proposal: &QueuedProposal) -> Result<(), MlsError> {
    match (proposal.proposal(), proposal.sender()) {
        (Proposal::Update(_), Sender::Member(_)) => Ok(()),
        _ => Err(unexpected(proposal)),
    }
}

fn unexpected(proposal: &QueuedProposal) -> MlsError {
    MlsError::Wrong {
        field: "proposal",
        expected: "a member's update of its leaf",
        got: format!("{:?}", proposal.proposal().proposal_type()),
    }
}

fn from(proposal: &QueuedProposal, member: LeafNodeIndex) -> bool {
    matches!(proposal.sender(), Sender::Member(index) if *index == member)
}
