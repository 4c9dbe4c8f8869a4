//! What is refused, and that it harms nothing.

use super::*;
use crate::mls::HANDSHAKE_BYTES;

/// With each of some bits flipped.
fn tampered(bytes: &[u8], step: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len()).step_by(step).map(|at| {
        let mut tampered = bytes.to_vec();
        tampered[at] ^= 1 << (at % 8);
        tampered
    })
}

#[test]
fn a_credential_is_in_the_group_once_and_so_is_a_signature_key() {
    let mut moderator = member("moderator");
    moderator.create(now()).expect("it has a credential");
    let name = Arc::new(Named(Mutex::new("alice".into())));
    let mut alice = OpenMls::new(Identity { source: name.clone(), ..identity("") });
    let package = alice.key_package(now()).expect("a package");
    assert_eq!(alice.key_package(now()).as_ref(), Ok(&package), "the same until it has joined");
    let added = moderator.add(&package, now()).expect("it is new");
    alice.join(&added.welcome, now()).expect("a welcome");
    assert_eq!(moderator.add(&package, now()), Err(MlsError::Duplicate));
    let other = member("alice").key_package(now()).expect("a package");
    assert_eq!(moderator.add(&other, now()), Err(MlsError::Duplicate));
    let own = member("moderator").key_package(now()).expect("a package");
    assert_eq!(moderator.add(&own, now()), Err(MlsError::Duplicate));

    *name.0.lock().expect("no panic") = "alice under another name".into();
    let renamed = alice.key_package(now()).expect("a package");
    assert_ne!(package, renamed);
    let error = wrong(moderator.add(&renamed, now()));
    assert_eq!(error, "key package: expected a signature key of its own, got that of a member");
    passes(&mut moderator, &mut alice, b"all is well");
}

#[test]
fn tampered_bytes_are_refused_and_the_right_ones_work_afterwards() {
    let mut group = Group::of(&["alice"]);
    let mut bob = member("bob");
    let package = bob.key_package(now()).expect("a package");
    for tampered in tampered(&package, 3) {
        assert!(group.moderator.add(&tampered, now()).is_err());
    }
    let added = group.moderator.add(&package, now()).expect("as it was made");
    let alice = &mut group.others[0];
    for tampered in tampered(&added.commit, 5) {
        assert!(alice.apply(&tampered, now()).is_err());
        assert_eq!(alice.epoch(), 1);
    }
    for tampered in tampered(&added.welcome, 13) {
        assert!(bob.join(&tampered, now()).is_err());
        assert!(!bob.is_member());
    }
    alice.apply(&added.commit, now()).expect("as it was made");
    bob.join(&added.welcome, now()).expect("as it was made");
    let sent = group.moderator.encrypt(b"text").expect("a member");
    for tampered in tampered(&sent, 1) {
        assert!(alice.decrypt(&tampered).is_err());
    }
    for length in 0..sent.len() {
        assert!(alice.decrypt(&sent[..length]).is_err());
    }
    assert_eq!(alice.decrypt(&sent).expect("as it was sent").plaintext, &b"text"[..]);
    group.others.push(bob);
    group.agrees();
}

#[test]
fn messages_work_once_and_only_where_they_belong() {
    let mut group = Group::of(&["alice", "bob"]);
    let sent = group.moderator.encrypt(b"once").expect("a member");
    assert!(wrong(group.moderator.decrypt(&sent)).contains("one of this member"));
    let package = member("carol").key_package(now()).expect("a package");
    let added = group.moderator.add(&package, now()).expect("it is new");
    let moderator = &mut group.moderator;
    let alice = &mut group.others[0];
    alice.decrypt(&sent).expect("the first time");
    wrong(alice.decrypt(&sent));

    for other in [&added.commit, &added.welcome, &package] {
        wrong(alice.decrypt(other));
        wrong(alice.store(other, now()));
    }
    for other in [&sent, &added.welcome, &package] {
        wrong(alice.apply(other, now()));
    }
    for other in [&sent, &added.welcome, &added.commit] {
        wrong(moderator.add(other, now()));
    }
    for other in [&sent, &added.commit, &package, &added.welcome] {
        wrong(alice.join(other, now()));
    }
    wrong(moderator.apply(&added.commit, now()));

    let next = moderator.commit(now()).expect("a member");
    let early = wrong(alice.apply(&next, now()));
    assert!(early.ends_with("got epoch 3 in epoch 2"), "{early}");
    alice.apply(&added.commit, now()).expect("in its turn");
    wrong(alice.apply(&added.commit, now()));
    alice.apply(&next, now()).expect("in its turn");

    let strangers = Group::of(&["dora"]);
    let foreign = { strangers }.moderator.commit(now()).expect("a member");
    assert!(wrong(alice.apply(&foreign, now())).contains("one for another"));
}

#[test]
fn only_the_moderator_changes_the_group() {
    let mut group = Group::of(&["alice", "bob"]);
    let package = member("carol").key_package(now()).expect("a package");
    let alice = &mut group.others[0];
    let refused = "member: expected the moderator, got a participant";
    assert_eq!(wrong(alice.add(&package, now())), refused);
    assert_eq!(wrong(alice.remove(b"bob", now())), refused);
    assert_eq!(wrong(alice.commit(now())), refused);
    wrong(alice.create(now()));
    wrong(group.moderator.remove(b"moderator", now()));
    assert_eq!(group.moderator.remove(b"nobody", now()), Err(MlsError::NotMember));
    let mut nobody = member("nobody");
    assert_eq!(nobody.commit(now()), Err(MlsError::NotJoined));
    assert_eq!(nobody.propose(now()), Err(MlsError::NotJoined));
    assert_eq!(nobody.apply(b"", now()), Err(MlsError::NotJoined));
    assert_eq!(nobody.encrypt(b""), Err(MlsError::NotJoined));
}

#[test]
fn a_thousand_skipped_messages_are_no_hole_to_fall_into() {
    let mut group = Group::of(&["alice", "bob"]);
    let first = group.moderator.encrypt(b"first").expect("a member");
    let mut skip = |messages| {
        (0..messages).for_each(|_| drop(group.moderator.encrypt(b"").expect("a member")));
        group.moderator.encrypt(b"after them").expect("a member")
    };
    let [alice, bob] = &mut group.others[..] else { panic!("two") };
    let after = skip(1022);
    assert_eq!(alice.decrypt(&after).expect("1,022 are skipped").plaintext, &b"after them"[..]);
    assert_eq!(alice.decrypt(&first).expect("1,023 are newer").plaintext, &b"first"[..]);
    let far = skip(1);
    wrong(bob.decrypt(&far));
    alice.decrypt(&far).expect("near enough");
    bob.decrypt(&first).expect("the others are not harmed");
    bob.decrypt(&far).expect("and that is near now");
}

#[test]
fn data_of_three_epochs_ago_is_read_and_older_is_not() {
    let mut group = Group::of(&["alice"]);
    let mut next = || {
        let sent = group.moderator.encrypt(b"text").expect("a member");
        let commit = group.moderator.commit(now()).expect("the moderator");
        group.others[0].apply(&commit, now()).expect("the moderator's");
        sent
    };
    let sent: Vec<_> = (0..4).map(|_| next()).collect();
    wrong(group.others[0].decrypt(&sent[0]));
    for sent in &sent[1..] {
        group.others[0].decrypt(sent).expect("recent");
    }
}

#[test]
fn a_package_from_a_clock_ahead_is_taken_once_this_clock_is_there() {
    let mut group = Group::of(&["alice"]);
    let mut bob = member("bob");
    let package = bob.key_package(now()).expect("a package");
    let behind = Now { wall: now().wall - 2 * HOUR, ..now() };
    let early = Err(MlsError::NotYetValid { field: "key package" });
    assert_eq!(group.moderator.add(&package, behind), early);
    let added = group.moderator.add(&package, now()).expect("valid now");
    let alice = &mut group.others[0];
    assert_eq!(
        alice.apply(&added.commit, behind),
        Err(MlsError::NotYetValid { field: "key package" })
    );
    assert_eq!(alice.epoch(), 1);
    alice.apply(&added.commit, now()).expect("valid now");
    bob.join(&added.welcome, behind).expect("whoever is in the group was judged before");

    let ahead = Now { wall: now().wall + 3 * HOUR, ..now() };
    let package = member("carol").key_package(ahead).expect("a package");
    assert_eq!(group.moderator.add(&package, now()), early, "by the system's clock too");
    let long_ago = Now { wall: now().wall - 24 * 7 * 13 * HOUR, ..now() };
    let package = member("carol").key_package(long_ago).expect("a package");
    assert!(wrong(group.moderator.add(&package, now())).contains("valid now"));
}

#[test]
fn credentials_are_judged_where_they_come_in() {
    let (mut moderator, check) = checked("moderator");
    moderator.create(now()).expect("it has a credential");
    let (mut alice, at_alice) = checked("alice");
    let package = alice.key_package(now()).expect("a package");
    check.only(&["alice"]);
    assert!(matches!(moderator.add(&package, now()), Err(MlsError::Credential(_))));
    check.only(&[]);
    check.expire(&["alice"]);
    assert!(matches!(moderator.add(&package, now()), Err(MlsError::Credential(_))));
    check.expire(&[]);
    let added = moderator.add(&package, now()).expect("acceptable now");

    at_alice.only(&["moderator"]);
    assert!(matches!(alice.join(&added.welcome, now()), Err(MlsError::Credential(_))));
    at_alice.only(&[]);
    at_alice.expire(&["moderator"]);
    alice.join(&added.welcome, now()).expect("the key package was kept, and a token may get old");

    let package = member("carol").key_package(now()).expect("a package");
    let added = moderator.add(&package, now()).expect("acceptable");
    at_alice.only(&["carol"]);
    assert!(matches!(alice.apply(&added.commit, now()), Err(MlsError::Credential(_))));
    at_alice.only(&[]);
    alice.apply(&added.commit, now()).expect("acceptable now");
    let removal = moderator.remove(b"carol", now()).expect("a member");
    alice.apply(&removal, now()).expect("new keys of the moderator, beside its old token");
    passes(&mut moderator, &mut alice, b"text");
}

#[test]
fn what_is_too_long_is_not_read() {
    let mut group = Group::of(&["alice"]);
    let long = vec![0; HANDSHAKE_BYTES + 1];
    let refused = "expected at most 1 MiB, got 1048577 bytes";
    let alice = &mut group.others[0];
    assert!(wrong(alice.apply(&long, now())).ends_with(refused));
    assert!(wrong(alice.store(&long, now())).ends_with(refused));
    assert!(wrong(alice.join(&long, now())).ends_with(refused));
    assert!(wrong(group.moderator.add(&long, now())).ends_with(refused));
    let longer = vec![0; 16 * 1024 * 1024 + 1];
    assert!(wrong(alice.decrypt(&longer)).contains("expected at most 16 MiB"));
    wrong(alice.encrypt(&longer));
}
