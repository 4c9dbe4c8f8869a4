use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use openmls_traits::storage::{CURRENT_VERSION as V, StorageProvider, traits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// What openmls keeps of one member, by slot and key, as JSON; it forgets with zeroes.
///
/// openmls writes all ratchets of the group, of past epochs too, with every message that is
/// encrypted or decrypted. They are in its memory anyway, so here they are written only while
/// [`Storage::record_ratchets`] says so.
#[derive(Default)]
pub(super) struct Storage {
    records: RefCell<Records>,
    ratchets: Cell<bool>,
}

/// Values by slot and key.
pub(super) type Records = BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>;

/// A value that is not of the type it should be.
#[derive(Debug, thiserror::Error)]
#[error("stored {slot}: {reason}")]
pub(super) struct StorageError {
    slot: &'static str,
    reason: String,
}

type Outcome<T> = Result<T, StorageError>;

const PROPOSALS: &str = "proposals";
const OWN_LEAVES: &str = "own leaves";
const RATCHETS: &str = "message secrets";
const KEY_PACKAGES: &str = "key package";
const KEY_PAIRS: &str = "encryption key pair";
const EPOCH_KEY_PAIRS: &str = "epoch key pairs";
const SIGNATURE_KEYS: &str = "signature key pair";
const PSKS: &str = "pre-shared key";

impl Storage {
    pub(super) fn with(records: Records) -> Self {
        Self { records: RefCell::new(records), ratchets: Cell::new(false) }
    }

    pub(super) fn records(&self) -> Records {
        self.records.borrow().clone()
    }

    /// Whether ratchets are written from now on.
    pub(super) fn record_ratchets(&self, record: bool) {
        self.ratchets.set(record);
    }

    /// A storage that holds nothing but the key packages of this one.
    pub(super) fn key_packages_only(&self) -> Self {
        let mut records = self.records();
        records.retain(|place, _| is_in(KEY_PACKAGES, place));
        Self::with(records)
    }

    /// Forgets the keys of proposals: after a commit they are of no use.
    pub(super) fn forget_proposed_keys(&self) {
        self.records.borrow_mut().retain(|place, _| !is_in(KEY_PAIRS, place));
    }

    fn write(
        &self,
        slot: &'static str,
        key: &impl Serialize,
        value: &impl Serialize,
    ) -> Outcome<()> {
        let value = Zeroizing::new(json(slot, value)?);
        self.records.borrow_mut().insert(place(slot, key)?, value);
        Ok(())
    }

    fn read<T: DeserializeOwned>(
        &self,
        slot: &'static str,
        key: &impl Serialize,
    ) -> Outcome<Option<T>> {
        let place = place(slot, key)?;
        let records = self.records.borrow();
        records.get(&place).map(|value| parsed(slot, value)).transpose()
    }

    fn delete(&self, slot: &'static str, key: &impl Serialize) -> Outcome<()> {
        self.records.borrow_mut().remove(&place(slot, key)?);
        Ok(())
    }

    /// A list, whose members are JSON in JSON.
    fn list<T: DeserializeOwned>(
        &self,
        slot: &'static str,
        key: &impl Serialize,
    ) -> Outcome<Vec<T>> {
        Ok(self.read(slot, key)?.unwrap_or_default())
    }
}

/// Where a value is: slot, 0, key.
fn place(slot: &'static str, key: &impl Serialize) -> Outcome<Vec<u8>> {
    let mut place = slot.as_bytes().to_vec();
    place.push(0);
    place.extend(json(slot, key)?);
    Ok(place)
}

fn is_in(slot: &str, place: &[u8]) -> bool {
    place.strip_prefix(slot.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

fn json(slot: &'static str, value: &impl Serialize) -> Outcome<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| StorageError { slot, reason: error.to_string() })
}

fn parsed<T: DeserializeOwned>(slot: &'static str, value: &[u8]) -> Outcome<T> {
    // The category only: the text of an error could repeat what is stored.
    serde_json::from_slice(value).map_err(|error| {
        let reason = format!("not what was written ({:?})", error.classify());
        StorageError { slot, reason }
    })
}

/// What there is once per group.
macro_rules! of_the_group {
    ($($kind:ident in $slot:literal: $write:ident, $read:ident, $delete:ident;)*) => {$(
        fn $write<G: traits::GroupId<V>, T: traits::$kind<V>>(
            &self,
            group: &G,
            value: &T,
        ) -> Outcome<()> {
            self.write($slot, group, value)
        }

        fn $read<G: traits::GroupId<V>, T: traits::$kind<V>>(
            &self,
            group: &G,
        ) -> Outcome<Option<T>> {
            self.read($slot, group)
        }

        fn $delete<G: traits::GroupId<V>>(&self, group: &G) -> Outcome<()> {
            self.delete($slot, group)
        }
    )*};
}

/// What there is per key.
macro_rules! by_key {
    ($($key:ident, $kind:ident in $slot:ident: $write:ident, $delete:ident;)*) => {$(
        fn $write<K: traits::$key<V>, T: traits::$kind<V>>(
            &self,
            key: &K,
            value: &T,
        ) -> Outcome<()> {
            self.write($slot, key, value)
        }

        fn $delete<K: traits::$key<V>>(&self, key: &K) -> Outcome<()> {
            self.delete($slot, key)
        }
    )*};
}

impl StorageProvider<V> for Storage {
    type Error = StorageError;

    of_the_group! {
        MlsGroupJoinConfig in "join config":
            write_mls_join_config, mls_group_join_config, delete_group_config;
        TreeSync in "tree": write_tree, tree, delete_tree;
        InterimTranscriptHash in "interim transcript hash":
            write_interim_transcript_hash, interim_transcript_hash, delete_interim_transcript_hash;
        GroupContext in "group context": write_context, group_context, delete_context;
        ConfirmationTag in "confirmation tag":
            write_confirmation_tag, confirmation_tag, delete_confirmation_tag;
        ResumptionPskStore in "resumption keys":
            write_resumption_psk_store, resumption_psk_store, delete_all_resumption_psk_secrets;
        LeafNodeIndex in "own leaf index":
            write_own_leaf_index, own_leaf_index, delete_own_leaf_index;
        GroupEpochSecrets in "epoch secrets":
            write_group_epoch_secrets, group_epoch_secrets, delete_group_epoch_secrets;
    }

    by_key! {
        SignaturePublicKey, SignatureKeyPair in SIGNATURE_KEYS:
            write_signature_key_pair, delete_signature_key_pair;
        EncryptionKey, HpkeKeyPair in KEY_PAIRS:
            write_encryption_key_pair, delete_encryption_key_pair;
        HashReference, KeyPackage in KEY_PACKAGES: write_key_package, delete_key_package;
        PskId, PskBundle in PSKS: write_psk, delete_psk;
    }

    fn signature_key_pair<K: traits::SignaturePublicKey<V>, T: traits::SignatureKeyPair<V>>(
        &self,
        key: &K,
    ) -> Outcome<Option<T>> {
        self.read(SIGNATURE_KEYS, key)
    }

    fn encryption_key_pair<T: traits::HpkeKeyPair<V>, K: traits::EncryptionKey<V>>(
        &self,
        key: &K,
    ) -> Outcome<Option<T>> {
        self.read(KEY_PAIRS, key)
    }

    fn key_package<K: traits::HashReference<V>, T: traits::KeyPackage<V>>(
        &self,
        key: &K,
    ) -> Outcome<Option<T>> {
        self.read(KEY_PACKAGES, key)
    }

    fn psk<T: traits::PskBundle<V>, K: traits::PskId<V>>(&self, key: &K) -> Outcome<Option<T>> {
        self.read(PSKS, key)
    }

    fn write_group_state<T: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Outcome<()> {
        self.write("group state", group, value)
    }

    fn group_state<T: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
    ) -> Outcome<Option<T>> {
        self.read("group state", group)
    }

    fn delete_group_state<G: traits::GroupId<V>>(&self, group: &G) -> Outcome<()> {
        self.delete("group state", group)
    }

    fn write_message_secrets<G: traits::GroupId<V>, T: traits::MessageSecrets<V>>(
        &self,
        group: &G,
        value: &T,
    ) -> Outcome<()> {
        if self.ratchets.get() { self.write(RATCHETS, group, value) } else { Ok(()) }
    }

    fn message_secrets<G: traits::GroupId<V>, T: traits::MessageSecrets<V>>(
        &self,
        group: &G,
    ) -> Outcome<Option<T>> {
        self.read(RATCHETS, group)
    }

    fn delete_message_secrets<G: traits::GroupId<V>>(&self, group: &G) -> Outcome<()> {
        self.delete(RATCHETS, group)
    }

    fn append_own_leaf_node<G: traits::GroupId<V>, T: traits::LeafNode<V>>(
        &self,
        group: &G,
        leaf: &T,
    ) -> Outcome<()> {
        let mut leaves: Vec<Vec<u8>> = self.list(OWN_LEAVES, group)?;
        leaves.push(json(OWN_LEAVES, leaf)?);
        self.write(OWN_LEAVES, group, &leaves)
    }

    fn own_leaf_nodes<G: traits::GroupId<V>, T: traits::LeafNode<V>>(
        &self,
        group: &G,
    ) -> Outcome<Vec<T>> {
        let leaves: Vec<Vec<u8>> = self.list(OWN_LEAVES, group)?;
        leaves.iter().map(|leaf| parsed(OWN_LEAVES, leaf)).collect()
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<V>>(&self, group: &G) -> Outcome<()> {
        self.delete(OWN_LEAVES, group)
    }

    fn queue_proposal<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        T: traits::QueuedProposal<V>,
    >(
        &self,
        group: &G,
        reference: &R,
        proposal: &T,
    ) -> Outcome<()> {
        let mut proposals: Vec<(Vec<u8>, Vec<u8>)> = self.list(PROPOSALS, group)?;
        let reference = json(PROPOSALS, reference)?;
        proposals.retain(|(other, _)| *other != reference);
        proposals.push((reference, json(PROPOSALS, proposal)?));
        self.write(PROPOSALS, group, &proposals)
    }

    fn queued_proposal_refs<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Outcome<Vec<R>> {
        let proposals: Vec<(Vec<u8>, Vec<u8>)> = self.list(PROPOSALS, group)?;
        proposals.iter().map(|(reference, _)| parsed(PROPOSALS, reference)).collect()
    }

    fn queued_proposals<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        T: traits::QueuedProposal<V>,
    >(
        &self,
        group: &G,
    ) -> Outcome<Vec<(R, T)>> {
        let proposals: Vec<(Vec<u8>, Vec<u8>)> = self.list(PROPOSALS, group)?;
        let both = |(reference, proposal): &(Vec<u8>, Vec<u8>)| {
            Ok((parsed(PROPOSALS, reference)?, parsed(PROPOSALS, proposal)?))
        };
        proposals.iter().map(both).collect()
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
        reference: &R,
    ) -> Outcome<()> {
        let mut proposals: Vec<(Vec<u8>, Vec<u8>)> = self.list(PROPOSALS, group)?;
        let reference = json(PROPOSALS, reference)?;
        proposals.retain(|(other, _)| *other != reference);
        self.write(PROPOSALS, group, &proposals)
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Outcome<()> {
        self.delete(PROPOSALS, group)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
        pairs: &[T],
    ) -> Outcome<()> {
        self.write(EPOCH_KEY_PAIRS, &(group, epoch, leaf), &pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Outcome<Vec<T>> {
        self.list(EPOCH_KEY_PAIRS, &(group, epoch, leaf))
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Outcome<()> {
        self.delete(EPOCH_KEY_PAIRS, &(group, epoch, leaf))
    }
}
