use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, GroupId, KeyPackage,
    LeafNodeIndex, Lifetime, MIXED_PLAINTEXT_WIRE_FORMAT_POLICY, MlsGroup, MlsGroupCreateConfig,
    MlsGroupJoinConfig, MlsMessageOut, SenderRatchetConfiguration, StagedWelcome, Welcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::MlsError;
use super::leaves::{Judge, are_unique, extensions};
use super::storage::{Records, Storage};
use crate::identity::{Standing, TokenSource};

/// The one cipher suite of published apps.
pub(super) const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// Data that was sent just before so many commits is still read after them.
const PAST_EPOCHS: usize = 3;

/// A sender may skip so many messages, as published apps may: they never decrypt acknowledgements
/// and beacons, but each takes a key. So many keys are kept for messages that come late.
const SKIPPED: u32 = 1024;

/// Lengths of messages are rounded up to multiples of this.
const PADDING: usize = 64;

/// Key packages are valid from an hour ago, because clocks differ, for twelve weeks.
const BACKDATED: Duration = Duration::from_secs(3600);
const VALID: Duration = Duration::from_secs(12 * 7 * 24 * 3600);

/// What openmls works with: its cryptography, and what it keeps.
#[derive(Default)]
pub(super) struct Provider {
    crypto: RustCrypto,
    storage: Storage,
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = Storage;

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto
    }
}

impl Provider {
    pub(super) fn with(storage: Storage) -> Self {
        Self { crypto: RustCrypto::default(), storage }
    }
}

/// All there is to know of one member.
#[derive(Default)]
pub(super) struct State {
    pub(super) provider: Provider,
    /// Made when it is first needed, and kept.
    pub(super) signer: Option<Arc<SignatureKeyPair>>,
    /// The key package for the next welcome.
    pub(super) package: Option<Bytes>,
    pub(super) membership: Option<Membership>,
}

/// A group, and who commits in it.
pub(super) struct Membership {
    pub(super) group: MlsGroup,
    /// The leaf of the moderator.
    pub(super) moderator: LeafNodeIndex,
}

impl Membership {
    pub(super) fn moderates(&self) -> bool {
        self.group.own_leaf_index() == self.moderator
    }
}

/// What is stored beside the storage of openmls.
#[derive(Serialize, Deserialize)]
struct Member<S> {
    signer: Option<S>,
    package: Option<Vec<u8>>,
    /// Group id, and the moderator's leaf.
    group: Option<(Vec<u8>, u32)>,
}

const MEMBER: &[u8] = b"member";

impl State {
    /// All of it as records.
    pub(super) fn record_all(&mut self) -> Result<Records, MlsError> {
        let storage = &self.provider.storage;
        if let Some(Membership { group, .. }) = &mut self.membership {
            storage.record_ratchets(true);
            // The policy stays; what matters is that this writes the ratchets.
            let policy = group.past_epoch_deletion_policy().clone();
            let written = group.set_past_epoch_deletion_policy(&self.provider, policy);
            storage.record_ratchets(false);
            written.map_err(internal)?;
        }
        let group = self
            .membership
            .as_ref()
            .map(|membership| (membership.group.group_id().to_vec(), membership.moderator.u32()));
        let signer = self.signer.as_deref();
        let package = self.package.as_ref().map(|package| package.to_vec());
        let member = serde_json::to_vec(&Member { signer, package, group }).map_err(internal)?;
        let mut records = storage.records();
        records.insert(MEMBER.to_vec(), Zeroizing::new(member));
        Ok(records)
    }

    pub(super) fn from_records(mut records: Records) -> Result<Self, MlsError> {
        let wrong = |what: &str| MlsError::Internal(format!("stored MLS state: {what}"));
        let member = records.remove(MEMBER).ok_or_else(|| wrong("without a member"))?;
        let member: Member<SignatureKeyPair> =
            serde_json::from_slice(&member).map_err(|_| wrong("a member that is none"))?;
        let provider = Provider::with(Storage::with(records));
        let membership = match member.group {
            None => None,
            Some((id, moderator)) => {
                let id = GroupId::from_slice(&id);
                let group = MlsGroup::load(provider.storage(), &id).map_err(internal)?;
                let group = group.ok_or_else(|| wrong("without the group of the member"))?;
                Some(Membership { group, moderator: LeafNodeIndex::new(moderator) })
            }
        };
        let package = member.package.map(Bytes::from);
        Ok(Self { provider, signer: member.signer.map(Arc::new), package, membership })
    }

    /// The signature key, made if there is none, with the credential to stand beside it.
    fn credential(
        &mut self,
        source: &dyn TokenSource,
        wall: SystemTime,
    ) -> Result<CredentialWithKey, MlsError> {
        if self.signer.is_none() {
            let made = SignatureKeyPair::new(SUITE.signature_algorithm()).map_err(internal)?;
            self.signer = Some(Arc::new(made));
        }
        let key = self.signer()?.public();
        let token = source.credential(key, wall).map_err(MlsError::NoCredential)?;
        let credential = BasicCredential::new(token.as_bytes().to_vec()).into();
        Ok(CredentialWithKey { credential, signature_key: key.into() })
    }

    pub(super) fn signer(&self) -> Result<&SignatureKeyPair, MlsError> {
        self.signer.as_deref().ok_or(MlsError::NotJoined)
    }

    /// A new group; this member moderates it.
    pub(super) fn create(
        &mut self,
        source: &dyn TokenSource,
        wall: SystemTime,
    ) -> Result<(), MlsError> {
        let credential = self.credential(source, wall)?;
        let provider = Provider::default();
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(PAST_EPOCHS)
            .sender_ratchet_configuration(ratchets())
            .padding_size(PADDING)
            .capabilities(capabilities())
            .lifetime(valid_at(wall))
            .build();
        let group =
            MlsGroup::new(&provider, self.signer()?, &config, credential).map_err(internal)?;
        let moderator = group.own_leaf_index();
        self.provider = provider;
        self.package = None;
        self.membership = Some(Membership { group, moderator });
        Ok(())
    }

    pub(super) fn make_package(
        &mut self,
        source: &dyn TokenSource,
        wall: SystemTime,
    ) -> Result<Bytes, MlsError> {
        let credential = self.credential(source, wall)?;
        let bundle = KeyPackage::builder()
            .key_package_lifetime(valid_at(wall))
            .leaf_node_capabilities(capabilities())
            .build(SUITE, &self.provider, self.signer()?, credential)
            .map_err(internal)?;
        let package = bytes_of(&MlsMessageOut::from(bundle.key_package().clone()))?;
        self.package = Some(package.clone());
        Ok(package)
    }

    /// What this member is once it has joined with a welcome. This state stays as it is: openmls
    /// takes the key package out of the storage even if the welcome is refused.
    pub(super) fn joined(&self, welcome: Welcome, judge: Judge<'_>) -> Result<Self, MlsError> {
        let wrong = |got: String| MlsError::Wrong {
            field: "welcome",
            expected: "one for this member's key package",
            got,
        };
        let provider = Provider::with(self.provider.storage.key_packages_only());
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(MIXED_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .max_past_epochs(PAST_EPOCHS)
            .sender_ratchet_configuration(ratchets())
            .padding_size(PADDING)
            .build();
        let join = StagedWelcome::build_from_welcome(&provider, &config, welcome)
            .map_err(|error| wrong(error.to_string()))?;
        if !join.processed_welcome().psks().is_empty() {
            return Err(wrong("one with pre-shared keys".into()));
        }
        // The clock of a member may be ahead of this one, and that of the moderator has judged.
        let staged =
            join.skip_lifetime_validation().build().map_err(|error| wrong(error.to_string()))?;
        if staged.group_context().extensions().iter().next().is_some() {
            return Err(extensions());
        }
        let members: Vec<_> = staged.members().collect();
        for member in &members {
            judge.credential(&member.credential, &member.signature_key, Standing::Admitted)?;
        }
        are_unique(members.iter().map(|member| &member.credential))?;
        let moderator = staged.welcome_sender_index();
        let group = staged.into_group(&provider).map_err(internal)?;
        let signer = self.signer.clone();
        let membership = Some(Membership { group, moderator });
        Ok(Self { provider, signer, package: None, membership })
    }
}

/// Of a defect, or of what is stored.
pub(super) fn internal(error: impl std::error::Error) -> MlsError {
    MlsError::Internal(format!("MLS: {error}"))
}

pub(super) fn bytes_of(message: &MlsMessageOut) -> Result<Bytes, MlsError> {
    message.to_bytes().map(Bytes::from).map_err(internal)
}

fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(SKIPPED, SKIPPED)
}

/// The cipher suite and credentials that the group uses, and nothing else.
fn capabilities() -> Capabilities {
    Capabilities::builder().ciphersuites(vec![SUITE]).build()
}

fn valid_at(wall: SystemTime) -> Lifetime {
    let seconds = |time: Option<SystemTime>| {
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.unwrap_or_default().as_secs()
    };
    Lifetime::init(seconds(wall.checked_sub(BACKDATED)), seconds(wall.checked_add(VALID)))
}
