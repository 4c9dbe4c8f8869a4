use super::*;
use crate::Id;

fn data() -> Session {
    Session {
        kind: SessionKind::Group,
        content: Content::Data(Delivery::Group),
        encrypted: true,
        source: Some(TextName::new(["org", "ns", "alice"], Id::new(7)).expect("short texts")),
        destination: None,
        identity: Some("a token of alice".to_owned()),
        content_type: "msg".to_owned(),
        metadata: vec![("key".to_owned(), "a longer value".to_owned())],
        remainder: Vec::new(),
    }
}

/// A change of these bytes is a change of the protocol: it needs another version.
#[test]
fn a_session_part_has_these_bytes() {
    let part = data().encode().expect("it is within the limits");
    let texts = b"orgnsalicea token of alicea longer value";
    let entry = [b"key\xFF\xFF\xFF\xFF\xFF", &long_text(14, -22)[..]].concat();
    let root = [
        &[2, 0, 0, 0, 0],
        &[&[0, 2][..], &[0; 9]].concat()[..],
        &[1],
        &[&[1][..], &list(-74, 3), &list(-79, 2), &list(-85, 5), &7u128.to_le_bytes()].concat(),
        &[0; 41],
        &[&[1][..], &long_text(16, -146)].concat(),
        b"msg\xFF\xFF\xFF\xFF\xFF",
        &list(-132, 1),
        &list(-124, 0),
    ];
    assert_eq!(part, [&texts[..], &entry, &root.concat()].concat());
    assert_eq!(access(&part).expect("valid").to_session(), Ok(data()));
}

/// The same, for the content that came last: none before it has moved.
#[test]
fn a_roster_has_these_bytes() {
    let name = crate::Name { prefix: crate::Prefix([1, 2, 3]), id: Id::new(4) };
    let members = vec![RosterMember { name: name.into(), native: true, identity: "bob".into() }];
    let part = Session { content: Content::Roster { members }, ..Session::default() };
    let part = part.encode().expect("it is within the limits");
    let numbers = [1u64, 2, 3].map(u64::to_le_bytes).concat();
    let identity = list(-69, 3);
    let member = [b"bob", &numbers[..], &4u128.to_le_bytes(), &[0; 25], &[1], &identity].concat();
    assert_eq!(part[..member.len()], member);
    let content = [&[16][..], &list(-80, 1)].concat();
    assert_eq!(part[member.len() + 5..][..content.len()], content);
    assert_eq!(part.len(), member.len() + ROOT_BYTES);
}

/// A pointer from where it stands, in bytes, and a count.
fn list(pointer: i32, count: u32) -> [u8; 8] {
    let [a, b, c, d] = pointer.to_le_bytes();
    let [e, f, g, h] = count.to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

/// A text of more than 8 bytes; its length is below 64.
fn long_text(length: u32, pointer: i32) -> [u8; 8] {
    let [a, b, c, d] = (length | 0x80).to_le_bytes();
    let [e, f, g, h] = pointer.to_le_bytes();
    [a, b, c, d, e, f, g, h]
}
