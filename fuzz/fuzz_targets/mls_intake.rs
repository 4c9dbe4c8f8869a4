//! Arbitrary bytes, and valid messages with some bytes changed, to every door of a group: none
//! panics, and the group works afterwards.

#![no_main]

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slim_quic::identity::{Identity, IdentityError, Principal, Standing, TokenCheck, TokenSource};
use slim_quic::mls::{Mls, MlsError, OpenMls};
use slim_quic::session::Now;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Door {
    Add,
    Join,
    Apply,
    Store,
    Decrypt,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Valid {
    Package,
    Welcome,
    Commit,
    Proposal,
    Data,
}

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Bytes(&'a [u8]),
    /// A valid message, cut after so many bytes, with bytes at places changed by masks.
    Changed {
        valid: Valid,
        cut: Option<u16>,
        changes: Vec<(u16, u8)>,
    },
}

#[derive(Arbitrary, Debug)]
struct Intake<'a> {
    door: Door,
    to_moderator: bool,
    input: Input<'a>,
}

/// A token is its app's name, and any is good.
struct Anybody(&'static str);

impl TokenSource for Anybody {
    fn token(&self, _: SystemTime) -> Result<Arc<str>, IdentityError> {
        Ok(self.0.into())
    }
}

impl TokenCheck for Anybody {
    fn check(&self, token: &str, _: SystemTime) -> Result<Principal, IdentityError> {
        Ok(Principal { subject: token.into(), issuer: None })
    }

    fn check_credential(
        &self,
        credential: &str,
        _: &[u8],
        _: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError> {
        self.check(credential, now)
    }
}

fn member(name: &'static str) -> OpenMls {
    OpenMls::new(Identity { source: Arc::new(Anybody(name)), check: Arc::new(Anybody(name)) })
}

fn now() -> Now {
    Now { instant: Instant::now(), wall: SystemTime::now() }
}

/// Two members, a third who is about to be one, and messages that are right for them.
struct Group {
    moderator: OpenMls,
    alice: OpenMls,
    bob: OpenMls,
    package: Bytes,
    welcome: Bytes,
    commit: Bytes,
    proposal: Bytes,
    data: Bytes,
}

impl Group {
    fn new() -> Result<Self, MlsError> {
        let (mut moderator, mut alice, mut bob) =
            (member("moderator"), member("alice"), member("bob"));
        moderator.create(now())?;
        let package = alice.key_package(now())?;
        alice.join(&moderator.add(&package, now())?.welcome, now())?;
        let data = moderator.encrypt(b"text")?;
        let package = bob.key_package(now())?;
        let added = moderator.add(&package, now())?;
        let (welcome, commit) = (added.welcome, added.commit);
        let proposal = moderator.propose(now())?;
        Ok(Self { moderator, alice, bob, package, welcome, commit, proposal, data })
    }

    fn changed(&self, valid: Valid, cut: Option<u16>, changes: &[(u16, u8)]) -> Vec<u8> {
        let valid = match valid {
            Valid::Package => &self.package,
            Valid::Welcome => &self.welcome,
            Valid::Commit => &self.commit,
            Valid::Proposal => &self.proposal,
            Valid::Data => &self.data,
        };
        let mut bytes = valid.to_vec();
        bytes.truncate(cut.map_or(usize::MAX, usize::from));
        for &(at, mask) in changes {
            let at = usize::from(at) % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        bytes
    }

    /// Whether it was taken.
    fn takes(&mut self, door: Door, to_moderator: bool, bytes: &[u8]) -> bool {
        let member = if to_moderator { &mut self.moderator } else { &mut self.alice };
        match door {
            Door::Add => self.moderator.add(bytes, now()).is_ok(),
            Door::Join => self.bob.join(bytes, now()).is_ok(),
            Door::Apply => member.apply(bytes, now()).is_ok(),
            Door::Store => member.store(bytes, now()).is_ok(),
            Door::Decrypt => member.decrypt(bytes).is_ok(),
        }
    }

    /// Takes the messages as they were made, and one more of each member.
    fn works(mut self) -> Result<(), MlsError> {
        self.alice.decrypt(&self.data)?;
        self.alice.apply(&self.commit, now())?;
        self.bob.join(&self.welcome, now())?;
        self.alice.store(&self.proposal, now())?;
        self.bob.store(&self.proposal, now())?;
        let commit = self.moderator.commit(now())?;
        self.alice.apply(&commit, now())?;
        self.bob.apply(&commit, now())?;
        let sent = self.alice.encrypt(b"text")?;
        assert_eq!(self.bob.decrypt(&sent)?.credential, "alice");
        assert_eq!(self.moderator.decrypt(&sent)?.plaintext, "text");
        let authenticator = self.moderator.epoch_authenticator();
        assert_eq!(authenticator, self.alice.epoch_authenticator());
        assert_eq!(authenticator, self.bob.epoch_authenticator());
        Ok(())
    }
}

fuzz_target!(|intakes: Vec<Intake<'_>>| {
    let mut group = Group::new().expect("a group is made");
    for Intake { door, to_moderator, input } in intakes.into_iter().take(8) {
        let bytes = match input {
            Input::Bytes(bytes) => bytes.to_vec(),
            Input::Changed { valid, cut, changes } => group.changed(valid, cut, &changes),
        };
        let valid = [&group.package, &group.welcome, &group.commit, &group.proposal, &group.data];
        // What is as it was made is for the end.
        if valid.into_iter().all(|valid| valid != &bytes) {
            assert!(!group.takes(door, to_moderator, &bytes), "taken by {door:?}: {bytes:02x?}");
        }
    }
    group.works().expect("it is not harmed");
});
