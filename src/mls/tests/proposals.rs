//! Members renew their keys, and try other things.

use openmls::prelude::tls_codec::Deserialize;
use openmls::prelude::{
    BasicCredential, CredentialWithKey, Extension, Extensions, ExternalSender, LeafNodeParameters,
    MlsGroup, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, NewSignerBundle,
};
use openmls::treesync::EncryptionKey;
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::OpenMlsProvider;

use super::*;
use crate::mls::commit::parts;
use crate::mls::state::{Provider, SUITE, bytes_of};

/// What a member can do with openmls alone.
fn by_hand<E: std::fmt::Debug>(
    member: &mut OpenMls,
    make: impl FnOnce(&Provider, &SignatureKeyPair, &mut MlsGroup) -> Result<MlsMessageOut, E>,
) -> Bytes {
    let (provider, signer, group) = parts(member.state_mut()).expect("a member");
    bytes_of(&make(provider, signer, group).expect("openmls does it")).expect("bytes")
}

#[test]
fn a_participant_renews_its_keys_by_the_moderators_commit() {
    let mut group = Group::of(&["alice", "bob"]);
    let [alice, bob] = &mut group.others[..] else { panic!("two") };
    let proposal = alice.propose(now()).expect("a member");
    assert_eq!(alice.encrypt(b""), Err(MlsError::ProposalPending));
    group.moderator.store(&proposal, now()).expect("a member's");
    assert_eq!(group.moderator.encrypt(b""), Err(MlsError::ProposalPending));
    bob.store(&proposal, now()).expect("a member's");
    bob.store(&proposal, now()).expect("again, as it is resent");
    alice.store(&proposal, now()).expect("an echo is known");
    assert_eq!(bob.encrypt(b""), Err(MlsError::ProposalPending));
    let before = leaf_key(alice);
    let commit = group.moderator.commit(now()).expect("the moderator");
    alice.apply(&commit, now()).expect("the moderator's");
    bob.apply(&commit, now()).expect("the moderator's");
    assert_ne!(before, leaf_key(alice), "committed by reference");
    passes(alice, bob, b"with new keys");
    passes(&mut group.moderator, alice, b"with new keys");
    assert!(bob.store(&proposal, now()).is_err(), "of an epoch that is over");
    group.agrees();
}

#[test]
fn the_moderator_renews_its_keys_with_and_without_a_proposal() {
    let mut group = Group::of(&["alice"]);
    let proposal = group.moderator.propose(now()).expect("a member");
    group.others[0].store(&proposal, now()).expect("a member's");
    for _ in 0..2 {
        let commit = group.moderator.commit(now()).expect("the moderator");
        group.others[0].apply(&commit, now()).expect("the moderator's");
        group.agrees();
    }
    let alice = &mut group.others[0];
    passes(&mut group.moderator, alice, b"with new keys");
    assert_eq!(group.moderator.epoch(), 3);
}

#[test]
fn proposals_end_with_the_epoch_also_without_being_committed() {
    let mut group = Group::of(&["alice", "bob"]);
    let proposal = group.others[0].propose(now()).expect("a member");
    group.moderator.store(&proposal, now()).expect("a member's");
    let removed = group.remove(1);
    assert!(!removed.is_member());
    group.agrees();
    passes(&mut group.others[0], &mut group.moderator, b"nothing waits");
}

#[test]
fn an_update_with_another_credential_is_left_out_by_the_moderator() {
    let mut group = Group::of(&["alice", "bob"]);
    let proposal = by_hand(&mut group.others[0], |provider, signer, group| {
        let credential = BasicCredential::new(b"bob the second".to_vec()).into();
        let credential = CredentialWithKey { credential, signature_key: signer.public().into() };
        let parameters = LeafNodeParameters::builder().with_credential_with_key(credential).build();
        group.propose_self_update(provider, signer, parameters).map(|(message, _)| message)
    });
    let [alice, bob] = &mut group.others[..] else { panic!("two") };
    bob.store(&proposal, now()).expect("the moderator will judge it");
    group.moderator.store(&proposal, now()).expect("it is judged with the commit");
    let careless = {
        let (provider, signer, group) = parts(group.moderator.state_mut()).expect("a member");
        let committed = group.commit_to_pending_proposals(provider, signer).expect("a commit");
        group.clear_pending_commit(provider.storage()).expect("memory");
        bytes_of(&committed.0).expect("bytes")
    };
    let error = wrong(bob.apply(&careless, now()));
    assert_eq!(error, "updated leaf: expected the member's credential as it was, got another");
    let commit = group.moderator.commit(now()).expect("without it");
    alice.apply(&commit, now()).expect("the moderator's");
    bob.apply(&commit, now()).expect("the moderator's");
    group.agrees();
    assert!(group.moderator.members().contains(&Bytes::from_static(b"alice")));
}

/// A proposal to have a signature key that is new.
fn with_new_key(member: &mut OpenMls) -> (Bytes, Vec<u8>) {
    let fresh = SignatureKeyPair::new(SUITE.signature_algorithm()).expect("a key");
    let proposal = by_hand(member, |provider, signer, group| {
        let credential = group.credential()?.clone();
        let credential_with_key =
            CredentialWithKey { credential, signature_key: fresh.public().into() };
        let new = NewSignerBundle { signer: &fresh, credential_with_key };
        let parameters = LeafNodeParameters::default();
        group
            .propose_self_update_with_new_signer(provider, signer, new, parameters)
            .map(|(message, _)| message)
    });
    (proposal, fresh.to_public_vec())
}

#[test]
fn a_new_signature_key_needs_a_token_that_is_still_good() {
    for expired in [false, true] {
        let (moderator, check) = checked("moderator");
        let mut group = Group { moderator, others: Vec::new() };
        group.moderator.create(now()).expect("it has a credential");
        group.invite(member("alice"));
        group.invite(member("bob"));
        check.expire(if expired { &["alice"] } else { &[] });
        let (proposal, key) = with_new_key(&mut group.others[0]);
        let bob = &mut group.others[1];
        group.moderator.store(&proposal, now()).expect("a member's");
        bob.store(&proposal, now()).expect("a member's");
        let commit = group.moderator.commit(now()).expect("the moderator");
        bob.apply(&commit, now()).expect("the moderator's");
        let (_, _, seen) = parts(bob.state_mut()).expect("a member");
        assert_eq!(seen.members().any(|member| member.signature_key == key), !expired);
    }
}

#[test]
fn keys_are_renewed_beside_a_token_that_has_become_old() {
    let (moderator, check) = checked("moderator");
    let mut group = Group { moderator, others: Vec::new() };
    group.moderator.create(now()).expect("it has a credential");
    group.invite(member("alice"));
    check.expire(&["alice", "moderator"]);
    let before = leaf_key(&mut group.others[0]);
    let proposal = group.others[0].propose(now()).expect("a member");
    group.moderator.store(&proposal, now()).expect("a member's");
    let commit = group.moderator.commit(now()).expect("the moderator");
    group.others[0].apply(&commit, now()).expect("the moderator's");
    assert_ne!(before, leaf_key(&mut group.others[0]));
    group.agrees();
}

#[test]
fn commits_of_those_who_let_themselves_in_are_refused() {
    let mut group = Group::of(&["alice"]);
    let (provider, signer, moderated) = parts(group.moderator.state_mut()).expect("a member");
    let info = moderated.export_group_info(provider.crypto(), signer, true).expect("an info");
    let info = MlsMessageIn::tls_deserialize_exact(bytes_of(&info).expect("bytes"));
    let MlsMessageBodyIn::GroupInfo(info) = info.expect("a message").extract() else {
        panic!("a group info")
    };
    let stranger = SignatureKeyPair::new(SUITE.signature_algorithm()).expect("a key");
    let credential = BasicCredential::new(b"stranger".to_vec()).into();
    let credential = CredentialWithKey { credential, signature_key: stranger.public().into() };
    let provider = Provider::default();
    let (_, bundle) = MlsGroup::external_commit_builder()
        .build_group(&provider, info, credential)
        .expect("a group")
        .load_psks(provider.storage())
        .expect("none")
        .build(provider.rand(), provider.crypto(), &stranger, |_| true)
        .expect("a commit")
        .finalize(&provider)
        .expect("a commit");
    let commit = bytes_of(bundle.commit()).expect("bytes");
    let error = wrong(group.others[0].apply(&commit, now()));
    assert!(error.ends_with("expected the moderator's, got NewMemberCommit"), "{error}");
}

#[test]
fn what_published_apps_never_propose_is_refused() {
    let mut group = Group::of(&["alice", "bob"]);
    let package = member("carol").key_package(now()).expect("a package");
    let package = crate::mls::parse::key_package(&package).expect("a package");
    let remove = by_hand(&mut group.others[0], |provider, signer, group| {
        let bob = group.members().find(|member| member.index.u32() == 2).expect("bob").index;
        group.propose_remove_member(provider, signer, bob).map(|(message, _)| message)
    });
    let add = by_hand(&mut group.others[0], |provider, signer, group| {
        let version = openmls::prelude::ProtocolVersion::Mls10;
        let package = package.validate(provider.crypto(), version).expect("it is good");
        group.propose_add_member(provider, signer, &package).map(|(message, _)| message)
    });
    let leave = by_hand(&mut group.others[0], |provider, signer, group| {
        group.leave_group(provider, signer)
    });
    for proposal in [remove, add, leave] {
        for member in [&mut group.moderator, &mut group.others[1]] {
            let error = wrong(member.store(&proposal, now()));
            assert!(error.starts_with("proposal: expected a member's update"), "{error}");
        }
    }
}

#[test]
fn commits_of_others_than_the_moderator_are_refused() {
    let mut group = Group::of(&["alice", "bob"]);
    let commit = by_hand(&mut group.others[0], |provider, signer, group| {
        let made = group.self_update(provider, signer, LeafNodeParameters::default());
        made.map(|bundle| bundle.into_commit())
    });
    let error = wrong(group.others[1].apply(&commit, now()));
    assert!(error.starts_with("commit: expected the moderator's, got Member("), "{error}");
    assert_eq!(group.others[1].epoch(), 2);
}

#[test]
fn groups_with_extensions_are_refused() {
    let mut group = Group::of(&["alice"]);
    let commit = by_hand(&mut group.moderator, |provider, signer, group| {
        let credential = BasicCredential::new(b"stranger".to_vec()).into();
        let stranger = ExternalSender::new(signer.public().into(), credential);
        let extension = Extension::ExternalSenders(vec![stranger]);
        let extensions = Extensions::single(extension).expect("an extension");
        group
            .update_group_context_extensions(provider, extensions, signer)
            .map(|(commit, _, _)| commit)
    });
    wrong(group.others[0].apply(&commit, now()));
    assert_eq!(group.others[0].epoch(), 1);
}

fn leaf_key(member: &mut OpenMls) -> EncryptionKey {
    let (_, _, group) = parts(member.state_mut()).expect("a member");
    group.own_leaf_node().expect("a leaf").encryption_key().clone()
}
