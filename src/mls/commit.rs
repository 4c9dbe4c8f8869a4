//! Steps that lead a group to its next epoch, or towards it.

use bytes::Bytes;
use openmls::prelude::{
    CommitMessageBundle, CreateCommitError, KeyPackage, LeafNodeIndex, MlsGroup, QueuedProposal,
    StagedCommit,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::OpenMlsProvider;

use super::state::{Provider, State, bytes_of, internal};
use super::{Added, MlsError, parse};

/// What of a state takes part.
pub(super) fn parts(
    state: &mut State,
) -> Result<(&Provider, &SignatureKeyPair, &mut MlsGroup), MlsError> {
    let State { provider, signer, membership, .. } = state;
    match (signer.as_deref(), membership) {
        (Some(signer), Some(membership)) => Ok((provider, signer, &mut membership.group)),
        _ => Err(MlsError::NotJoined),
    }
}

/// Adds a member, without new keys for the moderator, as published ones do.
pub(super) fn add(
    state: &mut State,
    package: KeyPackage,
    credential: Bytes,
) -> Result<Added, MlsError> {
    let (provider, signer, group) = parts(state)?;
    let staged = group
        .commit_builder()
        .consume_proposal_store(false)
        .propose_adds([package])
        .load_psks(provider.storage())
        .map_err(refused)?
        .create_group_info(false)
        .build(provider.rand(), provider.crypto(), signer, |_| true)
        .map_err(refused)?
        .stage_commit(provider)
        .map_err(internal);
    let made = finish(state, staged, |bundle| {
        let welcome = bundle.to_welcome_msg().ok_or_else(|| internal_text("no welcome"))?;
        let welcome = bytes_of(&welcome)?;
        parse::within_handshake("welcome", welcome.len())?;
        Ok(welcome)
    })?;
    let (commit, welcome) = made;
    Ok(Added { welcome, commit, credential })
}

pub(super) fn remove(state: &mut State, index: LeafNodeIndex) -> Result<Bytes, MlsError> {
    let (provider, signer, group) = parts(state)?;
    let staged = group
        .commit_builder()
        .consume_proposal_store(false)
        .propose_removals([index])
        .load_psks(provider.storage())
        .map_err(refused)?
        .create_group_info(false)
        .build(provider.rand(), provider.crypto(), signer, |_| true)
        .map_err(refused)?
        .stage_commit(provider)
        .map_err(internal);
    Ok(finish(state, staged, |_| Ok(()))?.0)
}

/// Renews the moderator's keys, and those of members whose proposals are acceptable. The others
/// are dropped with the end of the epoch.
pub(super) fn renew(
    state: &mut State,
    acceptable: impl Fn(&QueuedProposal) -> bool,
) -> Result<Bytes, MlsError> {
    let (provider, signer, group) = parts(state)?;
    let staged = group
        .commit_builder()
        .force_self_update(true)
        .load_psks(provider.storage())
        .map_err(refused)?
        .create_group_info(false)
        .build(provider.rand(), provider.crypto(), signer, acceptable)
        .map_err(refused)?
        .stage_commit(provider)
        .map_err(internal);
    Ok(finish(state, staged, |_| Ok(()))?.0)
}

/// Applies a commit that was made here, if it can be sent; else the group stays as it was.
fn finish<T>(
    state: &mut State,
    staged: Result<CommitMessageBundle, MlsError>,
    more: impl FnOnce(&CommitMessageBundle) -> Result<T, MlsError>,
) -> Result<(Bytes, T), MlsError> {
    let made = staged.and_then(|bundle| {
        let commit = bytes_of(bundle.commit())?;
        parse::within_handshake("commit", commit.len())?;
        Ok((commit, more(&bundle)?))
    });
    let (provider, _, group) = parts(state)?;
    if made.is_err() {
        group.clear_pending_commit(provider.storage()).map_err(internal)?;
    } else {
        group.merge_pending_commit(provider).map_err(internal)?;
        provider.storage().forget_proposed_keys();
    }
    made
}

/// Applies the moderator's commit.
pub(super) fn merge(state: &mut State, staged: StagedCommit) -> Result<(), MlsError> {
    let (provider, _, group) = parts(state)?;
    group.merge_staged_commit(provider, staged).map_err(internal)?;
    provider.storage().forget_proposed_keys();
    Ok(())
}

/// Of a commit that cannot be made.
fn refused(error: CreateCommitError) -> MlsError {
    let (field, expected) = ("change of the group", "one that MLS allows");
    MlsError::Wrong { field, expected, got: error.to_string() }
}

fn internal_text(what: &str) -> MlsError {
    MlsError::Internal(format!("MLS: {what}"))
}
