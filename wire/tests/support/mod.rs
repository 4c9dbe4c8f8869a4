//! Arbitrary session parts.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use slim_wire::session::{Content, Delivery, FullName, RosterMember, Session, SessionKind};
use slim_wire::{Id, Name, Prefix, TextName};

/// Any session part within the limits.
#[allow(dead_code, reason = "not every test that includes this file uses all of it")]
pub(crate) fn any_session() -> impl Strategy<Value = Session> {
    let foreign = any::<u32>().prop_map(|message_type| Content::Foreign { message_type });
    (session(128), option::weighted(0.1, foreign)).prop_map(|(session, foreign)| match foreign {
        Some(content) => Session { content, encrypted: false, ..session },
        None => session,
    })
}

/// A session part as native apps make them, with ids of up to `id_bits` bits.
pub(crate) fn session(id_bits: u32) -> impl Strategy<Value = Session> {
    let ends = (option::of(text_name(id_bits)), option::of(text_name(id_bits)));
    let texts = (option::of(text()), text(), btree_map(text(), text(), 0..4));
    (kind(), content(id_bits), any::<bool>(), ends, texts).prop_map(
        |(kind, content, encrypted, (source, destination), (identity, content_type, metadata))| {
            Session {
                kind,
                encrypted: encrypted && is_of_data(&content),
                content,
                source,
                destination,
                identity,
                content_type,
                metadata: metadata.into_iter().collect(),
                remainder: Vec::new(),
            }
        },
    )
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![4 => ".{0,12}", 1 => ".{0,80}"].boxed()
}

fn kind() -> impl Strategy<Value = SessionKind> {
    prop_oneof![
        Just(SessionKind::Unspecified),
        Just(SessionKind::PointToPoint),
        Just(SessionKind::Group),
        (3u32..).prop_map(SessionKind::Other),
    ]
}

fn is_of_data(content: &Content) -> bool {
    use Content::*;
    matches!(content, Data(_) | Ack | RetransmissionRequest | RetransmissionReply | Beacon)
}

fn id(bits: u32) -> impl Strategy<Value = Id> {
    let ids = any::<u128>().prop_map(move |id| match bits {
        64 => Id::from_u64(id as u64),
        _ => Id::new(id),
    });
    prop_oneof![Just(Id::ANY), ids]
}

// Nested strategies have values of many KiB, more than a test's stack holds: hence the boxes.

fn text_name(id_bits: u32) -> BoxedStrategy<TextName> {
    let parts = (text(), text(), text(), id(id_bits));
    let name = parts.prop_map(|(org, namespace, app, id)| {
        TextName::new([&org, &namespace, &app], id).expect("short texts")
    });
    name.boxed()
}

/// A name in content.
pub(crate) fn full_name(id_bits: u32) -> BoxedStrategy<FullName> {
    let numbers = (any::<[u64; 3]>(), 0..64u32, id(id_bits), option::of([text(), text(), text()]));
    let name = numbers.prop_map(|(hashes, shift, id, texts)| FullName {
        name: Name { prefix: Prefix(hashes.map(|hash| hash >> shift)), id },
        texts: texts.map(|texts| texts.map(String::into_boxed_str)),
    });
    name.boxed()
}

fn member(id_bits: u32) -> impl Strategy<Value = RosterMember> {
    (full_name(id_bits), any::<bool>(), ".{0,20}").prop_map(|(name, native, identity)| {
        RosterMember { name, native, identity: identity.into() }
    })
}

fn content(id_bits: u32) -> BoxedStrategy<Content> {
    use Content::*;
    let name = move || full_name(id_bits).prop_map(Box::new);
    let delivery =
        prop_oneof![Just(Delivery::Unreliable), Just(Delivery::Reliable), Just(Delivery::Group)];
    let plain = vec![
        Ack,
        RetransmissionRequest,
        RetransmissionReply,
        Beacon,
        DiscoveryReply,
        JoinReply,
        LeaveReply,
        Commit,
    ];
    let content = prop_oneof![
        3 => delivery.prop_map(Data),
        3 => proptest::sample::select(plain),
        1 => (option::of(name()), option::of(name())).prop_map(|(requester, participant)| {
            DiscoveryRequest { requester, participant }
        }),
        1 => (name(), name(), any::<[bool; 2]>()).prop_map(|(channel, moderator, marks)| {
            let [mls, as_moderator] = marks;
            JoinRequest { channel, moderator, mls, as_moderator }
        }),
        1 => (option::of(name()), any::<bool>()).prop_map(|(participant, delete_group)| {
            LeaveRequest { participant, delete_group }
        }),
        1 => any::<u32>().prop_map(|commit| Welcome { commit }),
        1 => name().prop_map(|originator| Proposal { originator }),
        1 => any::<bool>().prop_map(|busy| ControlAck { busy }),
        1 => vec(member(id_bits), 0..6).prop_map(|members| Roster { members }),
    ];
    content.boxed()
}

/// Some bytes.
pub(crate) fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), length)
}
