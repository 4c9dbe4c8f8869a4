mod failures;
mod properties;
mod proposals;
mod restarts;
mod vectors;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::{Mls, MlsError, OpenMls};
use crate::identity::{Identity, IdentityError, Principal, Standing, TokenCheck, TokenSource};
use crate::session::Now;

/// Tokens are names; that of an app can be changed.
struct Named(Mutex<String>);

impl TokenSource for Named {
    fn token(&self, _: SystemTime) -> Result<Arc<str>, IdentityError> {
        Ok(self.0.lock().expect("no panic").as_str().into())
    }
}

/// Names are good but for those that are refused, and those that are expired only for members.
#[derive(Default)]
struct Refusing {
    refused: Mutex<Vec<String>>,
    expired: Mutex<Vec<String>>,
}

impl Refusing {
    fn only(&self, names: &[&str]) {
        *self.refused.lock().expect("no panic") = names.iter().map(|&name| name.into()).collect();
    }

    fn expire(&self, names: &[&str]) {
        *self.expired.lock().expect("no panic") = names.iter().map(|&name| name.into()).collect();
    }
}

fn refuse(names: &Mutex<Vec<String>>, token: &str) -> Result<(), IdentityError> {
    if names.lock().expect("no panic").iter().any(|name| name == token) {
        return Err(IdentityError::Invalid { reason: "refused".into() });
    }
    Ok(())
}

impl TokenCheck for Refusing {
    fn check(&self, token: &str, _: SystemTime) -> Result<Principal, IdentityError> {
        refuse(&self.refused, token)?;
        Ok(Principal { subject: token.into(), issuer: None })
    }

    fn check_credential(
        &self,
        credential: &str,
        key: &[u8],
        standing: Standing,
        now: SystemTime,
    ) -> Result<Principal, IdentityError> {
        assert_eq!(key.len(), 32);
        if standing == Standing::New {
            refuse(&self.expired, credential)?;
        }
        self.check(credential, now)
    }
}

fn identity(name: &str) -> Identity {
    let source = Arc::new(Named(Mutex::new(name.into())));
    Identity { source, check: Arc::new(Refusing::default()) }
}

/// A member whose check can be changed.
fn checked(name: &str) -> (OpenMls, Arc<Refusing>) {
    let check = Arc::new(Refusing::default());
    (OpenMls::new(Identity { check: check.clone(), ..identity(name) }), check)
}

fn member(name: &str) -> OpenMls {
    OpenMls::new(identity(name))
}

fn now() -> Now {
    Now { instant: Instant::now(), wall: SystemTime::now() }
}

const HOUR: Duration = Duration::from_secs(3600);

/// A moderator and others, all in one epoch.
struct Group {
    moderator: OpenMls,
    others: Vec<OpenMls>,
}

impl Group {
    fn of(names: &[&str]) -> Self {
        let mut group = Self { moderator: member("moderator"), others: Vec::new() };
        group.moderator.create(now()).expect("it has a credential");
        for name in names {
            group.invite(member(name));
        }
        group
    }

    fn invite(&mut self, mut newcomer: OpenMls) {
        let package = newcomer.key_package(now()).expect("it has a credential");
        let added = self.moderator.add(&package, now()).expect("it may be added");
        for other in &mut self.others {
            other.apply(&added.commit, now()).expect("the moderator's");
        }
        newcomer.join(&added.welcome, now()).expect("it is for the newcomer");
        self.others.push(newcomer);
        self.agrees();
    }

    fn remove(&mut self, index: usize) -> OpenMls {
        let credential = self.others[index].members()[index + 1].clone();
        let commit = self.moderator.remove(&credential, now()).expect("a member");
        for other in &mut self.others {
            other.apply(&commit, now()).expect("the moderator's");
        }
        self.others.remove(index)
    }

    fn agrees(&self) {
        for other in &self.others {
            assert!(other.is_member());
            assert_eq!(other.epoch(), self.moderator.epoch());
            assert_eq!(other.members(), self.moderator.members());
            assert_eq!(other.epoch_authenticator(), self.moderator.epoch_authenticator());
        }
    }
}

/// Sends one message, and has it arrive.
#[track_caller]
fn passes(from: &mut OpenMls, to: &mut OpenMls, text: &[u8]) {
    let sent = from.encrypt(text).expect("a member");
    let opened = to.decrypt(&sent).expect("another member");
    assert_eq!(opened.plaintext, text);
}

#[track_caller]
fn wrong<T: std::fmt::Debug>(outcome: Result<T, MlsError>) -> String {
    match outcome {
        Err(error @ MlsError::Wrong { .. }) => error.to_string(),
        other => panic!("expected it to be wrong, got {other:?}"),
    }
}

#[test]
fn members_come_and_go_and_read_each_other() {
    let mut group = Group::of(&["alice", "bob", "carol"]);
    for index in 0..3 {
        passes(&mut group.moderator, &mut group.others[index], b"to all");
        passes(&mut group.others[index], &mut group.moderator, b"");
    }
    let sent = group.others[0].encrypt(b"from alice").expect("a member");
    let opened = group.others[2].decrypt(&sent).expect("another member");
    assert_eq!(opened.credential, Bytes::from_static(b"alice"));

    let mut bob = group.remove(1);
    group.agrees();
    assert!(!bob.is_member());
    let sent = group.moderator.encrypt(b"without bob").expect("a member");
    assert_eq!(bob.decrypt(&sent), Err(MlsError::NotJoined));
    assert_eq!(bob.encrypt(b"?"), Err(MlsError::NotJoined));

    group.invite(bob);
    let [alice, carol, bob] = &mut group.others[..] else { panic!("three") };
    passes(alice, bob, b"again");
    passes(bob, carol, b"again");
    let names =
        ["moderator", "alice", "bob", "carol"].map(|name| Bytes::from_static(name.as_bytes()));
    assert_eq!(group.moderator.members(), names, "a leaf that was left is used again");
}

#[test]
fn neither_keys_nor_tokens_are_printed() {
    let group = Group::of(&["secret:alice"]);
    let printed = format!("{:?}", group.others[0]);
    assert_eq!(printed, "OpenMls { member: true, epoch: 1, stored: false, .. }");
}
