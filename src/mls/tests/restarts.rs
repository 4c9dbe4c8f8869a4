//! Members whose process ends, at any point.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::mls::{Factory, RESERVED, Store};

/// A member that is stored in a folder.
struct Stored {
    name: &'static str,
    folder: PathBuf,
    member: Option<OpenMls>,
}

impl Stored {
    fn new(folder: &Path, name: &'static str) -> Self {
        let mut stored = Self { name, folder: folder.join(name), member: None };
        stored.start();
        stored
    }

    fn start(&mut self) {
        let store = Store::File(self.folder.clone());
        self.member = Some(OpenMls::open(identity(self.name), store).expect("what is stored"));
    }

    /// Ends it without a word, and starts it again.
    fn crash(&mut self) -> &mut OpenMls {
        self.member = None;
        self.start();
        self.now()
    }

    fn now(&mut self) -> &mut OpenMls {
        self.member.as_mut().expect("started")
    }
}

#[test]
fn members_that_crash_after_every_step_stay_members() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut moderator = Stored::new(folder.path(), "moderator");
    let mut alice = Stored::new(folder.path(), "alice");
    moderator.now().create(now()).expect("it has a credential");
    let package = alice.now().key_package(now()).expect("a package");
    assert_eq!(alice.crash().key_package(now()), Ok(package.clone()), "the same one");
    let added = moderator.crash().add(&package, now()).expect("it is new");
    moderator.crash();
    alice.crash().join(&added.welcome, now()).expect("a welcome");
    passes(moderator.crash(), alice.crash(), b"to alice");
    passes(alice.crash(), moderator.crash(), b"to the moderator");

    let mut bob = member("bob");
    let package = bob.key_package(now()).expect("a package");
    let added = moderator.crash().add(&package, now()).expect("it is new");
    bob.join(&added.welcome, now()).expect("a welcome");
    alice.crash().apply(&added.commit, now()).expect("the moderator's");
    let proposal = alice.crash().propose(now()).expect("a member");
    assert_eq!(alice.crash().encrypt(b""), Err(MlsError::ProposalPending));
    bob.store(&proposal, now()).expect("a member's");
    moderator.crash().store(&proposal, now()).expect("a member's");
    let commit = moderator.crash().commit(now()).expect("the moderator");
    bob.apply(&commit, now()).expect("the moderator's");
    alice.crash().apply(&commit, now()).expect("the keys it proposed were stored");
    passes(alice.crash(), &mut bob, b"with new keys");
    passes(&mut bob, moderator.crash(), b"with new keys");
    assert_eq!(alice.now().epoch_authenticator(), bob.epoch_authenticator());

    let removal = moderator.crash().remove(b"alice", now()).expect("a member");
    alice.crash().apply(&removal, now()).expect("the moderator's");
    assert!(!alice.crash().is_member());
    bob.apply(&removal, now()).expect("the moderator's");
    let package = alice.crash().key_package(now()).expect("a fresh package");
    let added = moderator.crash().add(&package, now()).expect("it has left");
    alice.crash().join(&added.welcome, now()).expect("a welcome");
    bob.apply(&added.commit, now()).expect("the moderator's");
    passes(alice.crash(), &mut bob, b"again");
    passes(moderator.crash(), alice.crash(), b"again");
}

/// Whoever decrypts all that was sent before would refuse a key that is used again.
#[test]
fn no_key_is_used_twice_wherever_a_sender_crashes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut alice = Stored::new(folder.path(), "alice");
    let mut group = Group::of(&["bob"]);
    let package = alice.now().key_package(now()).expect("a package");
    let added = group.moderator.add(&package, now()).expect("it is new");
    group.others[0].apply(&added.commit, now()).expect("the moderator's");
    alice.now().join(&added.welcome, now()).expect("a welcome");
    let bob = &mut group.others[0];
    let (mut sent, mut late) = (0, Vec::new());
    let runs = [0, 1, 2, RESERVED - 1, RESERVED, RESERVED + 1, 3, 2 * RESERVED];
    for run in runs {
        for count in 0..run {
            let message = alice.now().encrypt(&[7; 3]).expect("a member");
            if count % 5 == 0 {
                late.push(message);
            } else {
                bob.decrypt(&message).expect("a key that is new");
            }
            sent += 1;
        }
        for message in late.drain(..) {
            bob.decrypt(&message).expect("late, but new");
        }
        passes(bob, alice.crash(), b"the other direction");
    }
    assert_eq!(sent, runs.iter().sum::<u32>());
    // What was encrypted last before a crash, and never sent, is skipped as well.
    drop(alice.now().encrypt(b"lost"));
    let message = alice.crash().encrypt(b"after it").expect("a member");
    bob.decrypt(&message).expect("a key that is new");
}

#[test]
fn a_crash_of_the_disk_at_any_byte_leaves_the_state_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut alice = Stored::new(folder.path(), "alice");
    let package = alice.now().key_package(now()).expect("a package");
    let state = fs::read(alice.folder.join("state")).expect("it is there");
    for written in [0, 1, state.len() / 2, state.len()] {
        fs::write(alice.folder.join("state.new"), &state[..written]).expect("a folder");
        assert_eq!(alice.crash().key_package(now()), Ok(package.clone()));
    }
}

#[test]
fn a_state_that_was_saved_skips_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut alice = Stored::new(folder.path(), "alice");
    let mut group = Group::of(&[]);
    let package = alice.now().key_package(now()).expect("a package");
    let added = group.moderator.add(&package, now()).expect("it is new");
    alice.now().join(&added.welcome, now()).expect("a welcome");
    // Thirty times that what a receiver lets a sender skip.
    for _ in 0..30 * 1024 / RESERVED {
        drop(alice.now().encrypt(b"x"));
        passes(alice.now(), &mut group.moderator, b"before");
        alice.now().save().expect("it can be written");
        alice.crash();
    }
    let file = fs::read(alice.folder.join("state")).expect("it is there");
    assert_eq!(file[12..16], [0; 4], "reserved");
    passes(alice.now(), &mut group.moderator, b"after");
}

#[test]
fn what_cannot_be_written_has_not_happened() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut moderator = Stored::new(folder.path(), "moderator");
    moderator.now().create(now()).expect("it has a credential");
    let mut alice = member("alice");
    let package = alice.key_package(now()).expect("a package");
    let before = moderator.now().epoch_authenticator();
    let away = folder.path().join("away");
    fs::rename(&moderator.folder, &away).expect("a folder");
    assert!(matches!(moderator.now().add(&package, now()), Err(MlsError::Internal(_))));
    assert!(matches!(moderator.now().commit(now()), Err(MlsError::Internal(_))));
    assert_eq!(moderator.now().epoch_authenticator(), before);
    fs::rename(&away, &moderator.folder).expect("a folder");
    let added = moderator.now().add(&package, now()).expect("as if nothing had been");
    alice.join(&added.welcome, now()).expect("a welcome");
    for _ in 0..RESERVED {
        passes(moderator.now(), &mut alice, b"text");
    }
    fs::rename(&moderator.folder, &away).expect("a folder");
    assert!(matches!(moderator.now().encrypt(b"one more"), Err(MlsError::Internal(_))));
    fs::rename(&away, &moderator.folder).expect("a folder");
    passes(moderator.now(), &mut alice, b"one more");
}

#[test]
fn a_file_that_is_cut_or_damaged_or_of_another_version_is_refused_with_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut alice = Stored::new(folder.path(), "alice");
    alice.now().key_package(now()).expect("a package");
    alice.member = None;
    let path = alice.folder.join("state");
    let state = fs::read(&path).expect("it is there");
    let refused = |bytes: &[u8]| -> String {
        fs::write(&path, bytes).expect("a folder");
        let opened = OpenMls::open(identity("alice"), Store::File(alice.folder.clone()));
        match opened {
            Err(MlsError::Internal(text)) => text.rsplit_once("state: ").expect("a path").1.into(),
            other => panic!("expected an error, got {other:?}"),
        }
    };
    let length = state.len();
    let expected = |got: usize| format!("expected {length} bytes, got {got}");
    assert_eq!(refused(b""), "expected a state of this library, got another file");
    assert_eq!(refused(&state[..20]), "cut in its head");
    assert_eq!(refused(&state[..length - 1]), expected(length - 1));
    assert_eq!(refused(&[&state[..], &[0]].concat()), expected(length + 1));
    let mut other = state.clone();
    other[8] = 2;
    assert_eq!(refused(&other), "expected version 1, got 2");
    let mut damaged = state.clone();
    damaged[length / 2] ^= 1;
    assert_eq!(refused(&damaged), "damaged: its checksum differs");
    fs::write(&path, &state).expect("a folder");
    alice.start();
}

#[test]
fn a_folder_has_one_member_and_only_the_user_reads_it() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    let factory = Factory::in_folder(identity("alice"), folder.path());
    let mut alice = factory.open(7).expect("a new member");
    alice.create(now()).expect("it has a credential");
    let again = factory.open(7).map(|_| ()).expect_err("it is open");
    assert!(again.to_string().contains("in use by another"), "{again}");
    for (name, mode) in [("7", 0o700), ("7/state", 0o600), ("7/lock", 0o600)] {
        let metadata = fs::metadata(folder.path().join(name)).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
    drop(alice);
    assert!(factory.open(7).expect("it is free").is_member());
    assert!(!factory.open(8).expect("another").is_member());
}
