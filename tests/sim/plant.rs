//! Defects put in from outside, to see that they are found.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use slim_quic::identity::Identity;
use slim_quic::identity::Principal;
use slim_quic::mls::{self, Added, Mls, MlsError, MlsFactory, Opened};
use slim_quic::session::{Now, Packet};
use slim_wire::session::{Content, Delivery};
use slim_wire::{Class, Name};

use super::model_mls::ModelFactory;
use super::profile::Profile;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A message is acknowledged and then dropped.
    LoseAcknowledged,
    /// A commit is acknowledged and not applied.
    SkipCommit,
    /// From some time on, one app's deadlines are not kept.
    ForgetTime,
}

pub(crate) struct Plant {
    bug: Option<Bug>,
    /// How often the chance for it still passes.
    left: Arc<AtomicU32>,
    from: Duration,
    /// Encrypted sessions use the real library.
    real: bool,
}

impl Plant {
    pub(crate) fn new(bug: Option<Bug>, rng: &mut StdRng, profile: &mut Profile) -> Self {
        let left = Arc::new(AtomicU32::new(rng.random_range(0..6)));
        let from = Duration::from_millis(rng.random_range(0..5000));
        if bug == Some(Bug::SkipCommit) {
            profile.encrypted = true;
        }
        let real = std::env::var("SIM_MLS").is_ok_and(|mls| mls == "openmls");
        Self { bug, left, from, real }
    }

    pub(crate) fn factory(&self, name: &str, identity: &Identity) -> Box<dyn MlsFactory> {
        let factory: Box<dyn MlsFactory> = match self.real {
            true => Box::new(mls::Factory::new(identity.clone())),
            false => Box::new(ModelFactory(name.to_owned())),
        };
        match self.bug {
            Some(Bug::SkipCommit) => Box::new(SkippingFactory(factory, Arc::clone(&self.left))),
            _ => factory,
        }
    }

    pub(crate) fn forgets_time(&self, slot: usize, now: Duration) -> bool {
        self.bug == Some(Bug::ForgetTime) && slot == 0 && now >= self.from
    }

    /// The acknowledgement of a message that is not handed to the app.
    pub(crate) fn swallow(&self, packet: &Packet, own: Name) -> Option<Packet> {
        if self.bug != Some(Bug::LoseAcknowledged)
            || packet.session.content != Content::Data(Delivery::Reliable)
            || !now_is_the_time(&self.left)
        {
            return None;
        }
        let mut ack = packet.clone();
        (ack.source, ack.destination, ack.class) = (own, packet.source, Class::Control);
        (ack.session.content, ack.payload) = (Content::Ack, Bytes::new());
        ack.session.identity = Some("secret:forged".to_owned());
        Some(ack)
    }
}

/// Once, when enough chances have passed.
fn now_is_the_time(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        (left != u32::MAX).then(|| left.wrapping_sub(1))
    }) == Ok(0)
}

struct SkippingFactory(Box<dyn MlsFactory>, Arc<AtomicU32>);

impl MlsFactory for SkippingFactory {
    fn session(&mut self, id: u32) -> Result<Box<dyn Mls>, MlsError> {
        Ok(Box::new(Skipping(self.0.session(id)?, Arc::clone(&self.1))))
    }
}

/// Follows all commits but one.
struct Skipping(Box<dyn Mls>, Arc<AtomicU32>);

impl Mls for Skipping {
    fn apply(&mut self, commit: &[u8], now: Now) -> Result<(), MlsError> {
        if now_is_the_time(&self.1) { Ok(()) } else { self.0.apply(commit, now) }
    }

    fn create(&mut self, now: Now) -> Result<(), MlsError> {
        self.0.create(now)
    }

    fn key_package(&mut self, now: Now) -> Result<Bytes, MlsError> {
        self.0.key_package(now)
    }

    fn add(&mut self, key_package: &[u8], now: Now) -> Result<Added, MlsError> {
        self.0.add(key_package, now)
    }

    fn remove(&mut self, credential: &[u8], now: Now) -> Result<Bytes, MlsError> {
        self.0.remove(credential, now)
    }

    fn commit(&mut self, now: Now) -> Result<Bytes, MlsError> {
        self.0.commit(now)
    }

    fn join(&mut self, welcome: &[u8], now: Now) -> Result<(), MlsError> {
        self.0.join(welcome, now)
    }

    fn propose(&mut self, now: Now) -> Result<Bytes, MlsError> {
        self.0.propose(now)
    }

    fn withdraw(&mut self) {
        self.0.withdraw();
    }

    fn store(&mut self, proposal: &[u8], now: Now) -> Result<(), MlsError> {
        self.0.store(proposal, now)
    }

    fn encrypt(&mut self, plaintext: &[u8]) -> Result<Bytes, MlsError> {
        self.0.encrypt(plaintext)
    }

    fn decrypt(&mut self, ciphertext: &[u8]) -> Result<Opened, MlsError> {
        self.0.decrypt(ciphertext)
    }

    fn is_member(&self) -> bool {
        self.0.is_member()
    }

    fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    fn principals(&self, now: Now) -> Vec<(Bytes, Principal)> {
        self.0.principals(now)
    }

    fn members(&self) -> Vec<Bytes> {
        self.0.members()
    }
}
