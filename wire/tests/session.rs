//! Session parts that are written and read, in place and on hostile bytes.

mod support;

use proptest::prelude::*;
use slim_wire::limits::{
    HEADER_BYTES, METADATA_ENTRIES, NAME_COMPONENT_BYTES, ROSTER_MEMBERS, SESSION_PART_BYTES,
};
use slim_wire::session::{Content, FullName, RosterMember, Session, SessionKind, access, publish};
use slim_wire::{
    Class, DecodeError, Encoding, Flags, FrameHeader, Header, Id, Kind, Name, Prefix, SessionIds,
    TextName,
};

const NAME: Name = Name { prefix: Prefix([1, 2, 3]), id: Id::ANY };

const HEADER: Header = Header {
    kind: Kind::Publish,
    class: Class::Reliable,
    encoding: Encoding::Native,
    flags: Flags::empty(),
    ttl: 8,
    fanout: 1,
    lane: 0,
    source: NAME,
    destination: NAME,
};

fn entries(count: usize) -> Vec<(String, String)> {
    (0..count).map(|number| (number.to_string(), "value".to_owned())).collect()
}

/// Why this session part is refused: the same when it is written and when it is read.
fn refusal(session: &Session) -> DecodeError {
    let written = session.encode().expect_err("it exceeds a limit");
    // Straight from rkyv, as a peer without our checks would write it.
    let part = rkyv::to_bytes::<rkyv::rancor::Error>(session).expect("an archive");
    assert_eq!(access(&part).expect_err("it exceeds a limit"), written);
    written
}

#[test]
fn a_part_over_64_kib_is_refused() {
    let session = Session { content_type: "x".repeat(SESSION_PART_BYTES), ..Session::default() };
    let error = session.encode().expect_err("too long");
    assert!(matches!(error, DecodeError::TooLarge { field: "session part", .. }), "{error}");
    let error = access(&vec![0; SESSION_PART_BYTES + 1]).expect_err("too long");
    assert!(matches!(error, DecodeError::TooLarge { field: "session part", .. }), "{error}");
}

#[test]
fn metadata_has_a_highest_number_of_entries_and_each_key_once() {
    let with = |metadata| Session { metadata, ..Session::default() };
    assert!(with(entries(METADATA_ENTRIES)).encode().is_ok());
    let error = refusal(&with(entries(METADATA_ENTRIES + 1)));
    assert_eq!(error.to_string(), "metadata entries: expected at most 256, got 257");
    let error = refusal(&with([entries(3), entries(1)].concat()));
    assert_eq!(error.to_string(), "metadata key: expected each key once, got 2");
}

#[test]
fn components_of_names_have_a_limit_wherever_they_stand() {
    let long = "x".repeat(NAME_COMPONENT_BYTES + 1);
    let texts = ["org", "ns", &long].map(Box::from);
    let originator = Box::new(FullName { name: NAME, texts: Some(texts) });
    let session = Session { content: Content::Proposal { originator }, ..Session::default() };
    assert_eq!(refusal(&session).to_string(), "name component: expected at most 1024, got 1025");
    let longest = TextName::new(["", "", &long[1..]], Id::ANY).expect("at the limit");
    assert!(Session { source: Some(longest), ..Session::default() }.encode().is_ok());
}

fn roster(members: Vec<RosterMember>) -> Session {
    Session { content: Content::Roster { members }, ..Session::default() }
}

#[test]
fn a_roster_has_a_highest_number_of_members_and_their_names_a_longest_component() {
    let member = RosterMember { name: NAME.into(), native: true, identity: "".into() };
    let error = roster(vec![member.clone(); ROSTER_MEMBERS + 1]).encode().expect_err("too many");
    assert_eq!(error.to_string(), "members of a roster: expected at most 1024, got 1025");
    let texts = ["org", "ns", "a-member-of-the-group"].map(Box::from);
    let name = FullName { name: NAME, texts: Some(texts) };
    let named = RosterMember { name, native: false, ..member.clone() };
    assert!(roster(vec![named.clone(); 600]).encode().is_ok());

    let long = "x".repeat(NAME_COMPONENT_BYTES + 1);
    let texts = ["org", &long, "app"].map(Box::from);
    let long = RosterMember { name: FullName { name: NAME, texts: Some(texts) }, ..member };
    let error = refusal(&roster(vec![named, long]));
    assert_eq!(error.to_string(), "name component: expected at most 1024, got 1025");
}

#[test]
fn what_has_two_forms_is_refused() {
    let error = refusal(&Session { kind: SessionKind::Other(2), ..Session::default() });
    assert_eq!(error.to_string(), "other session kind: expected a number above 2, got 2");
    let encrypted = Session { content: Content::Commit, encrypted: true, ..Session::default() };
    assert_eq!(refusal(&encrypted).to_string(), "encrypted: expected 0 for control content, got 1");
}

proptest! {
    #[test]
    fn a_session_part_reads_as_what_was_written(session in support::any_session()) {
        let part = session.encode().expect("within the limits");
        let archived = access(&part).expect("valid");
        prop_assert_eq!(archived.kind(), session.kind);
        prop_assert_eq!(archived.identity(), session.identity.as_deref());
        let metadata = archived.metadata().map(|(key, value)| (key.to_owned(), value.to_owned()));
        prop_assert_eq!(metadata.collect::<Vec<_>>(), session.metadata.clone());
        let source = archived.source.as_ref().map(|name| (name.components(), name.id()));
        let expected = session.source.as_ref().map(|name| (name.components(), name.id()));
        prop_assert_eq!(source, expected);
        prop_assert_eq!(archived.to_session(), Ok(session));
    }

    #[test]
    fn a_publish_holds_its_session_part_and_payload(
        session in support::any_session(), payload in support::bytes(0..300), numbers: [u32; 2],
    ) {
        let [session_id, message] = numbers;
        let ids = SessionIds { session: session_id, message };
        let frame = publish(&HEADER, ids, &session, &payload).expect("within the limits");
        let head = FrameHeader::prefix_of(&frame).expect("a header");
        prop_assert_eq!(head.length(), frame.len());
        prop_assert_eq!((head.header(0), head.ids()), (Ok(HEADER), ids));
        let (part, rest) = head.parts(&frame);
        prop_assert_eq!(rest, payload);
        prop_assert_eq!(part, session.encode().expect("within the limits"));
        prop_assert_eq!(frame.len(), HEADER_BYTES + part.len() + rest.len());
    }

    #[test]
    fn a_damaged_session_part_is_refused_or_read_but_never_panics(
        session in support::any_session(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let mut part = session.encode().expect("within the limits");
        let _ = access(&part[..cut.index(part.len())]);
        let _ = access(&part[cut.index(part.len())..]);
        for (index, byte) in damage {
            let at = index.index(part.len());
            part[at] = byte;
        }
        if let Ok(archived) = access(&part) {
            let session = archived.to_session().expect("a session");
            prop_assert!(session.encode().is_ok());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in support::bytes(0..400)) {
        let _ = access(&bytes);
    }
}
